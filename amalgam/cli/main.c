/* main.c - which face the file shows: the name it was called by, then the first argument. */
#include <fcntl.h>

#include "amalgam/cli/cli.h"
#include "amalgam/base/log.h"
#include "version.h"

static const struct main_command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} main_commands[] = {
	{ "run", cli_run, "run a command in a container in a new micro-VM" },
	{ "factory", cli_factory, "make, show or remove the template that micro-VMs are cloned from" },
	{ "exec", cli_exec, "run another command in a running container" },
	{ "ps", cli_ps, "list sandboxes" },
	{ "kill", cli_kill, "send a signal to a container" },
	{ "logs", cli_logs, "print what a detached container wrote" },
	{ "pause", cli_pause, "freeze a container's processes" },
	{ "resume", cli_resume, "let them go on" },
	{ "rm", cli_rm, "forget a sandbox that has ended" },
	{ "check", cli_check, "say whether this host can run micro-VMs" },
};

int cli_fail(const struct err *e)
{
	fprintf(stderr, "spore: %s\n", e->msg);
	return CLI_FAILED;
}

int cli_start_failed(const struct err *e)
{
	static const struct {
		const char *words;
		int code;
	} rows[] = {
		{ "executable file not found", 127 }, { "no such file or directory", 127 },
		{ "permission denied", 126 },         { "exec format error", 126 },
	};
	cli_fail(e);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		if (strstr(e->msg, rows[i].words))
			return rows[i].code;
	return CLI_FAILED;
}

int cli_open_kvm(struct err *e)
{
	int fd;

	if (geteuid() != 0)
		return err_set(e, -EPERM, "must be root to make sandboxes; try: sudo spore ...");
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		return err_set(e, -ENOENT, "/dev/kvm: not there; load the kvm_intel or kvm_amd module, or "
			       "enable virtualization (in a VM: nested virtualization)");
	return err_set(e, -errno, "/dev/kvm: %m");
}

static int main_usage(FILE *to)
{
	fprintf(to, "usage: spore COMMAND [options]\n\n"
		    "Runs containers in micro-VMs that are cloned, not booted.\n\n");
	for (unsigned i = 0; i < ARRAY_LEN(main_commands); i++)
		fprintf(to, "  %-10s %s\n", main_commands[i].name, main_commands[i].help);
	fprintf(to, "  %-10s %s\n\nspore COMMAND --help tells more.\n", "version", "print the version");
	return to == stdout ? 0 : CLI_FAILED;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	for (unsigned i = 0; i < ARRAY_LEN(main_commands); i++)
		if (!strcmp(name, main_commands[i].name))
			return main_commands[i].run(argc - 1, argv + 1);
	if (!strcmp(name, "version") || !strcmp(name, "--version")) {
		puts("spore " SPORE_VERSION);
		return 0;
	}
	if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
		return main_usage(stdout);
	if (*name)
		fprintf(stderr, "spore: unknown command \"%s\"\n\n", name);
	return main_usage(stderr);
}
