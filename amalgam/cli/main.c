/* main.c - the name the file was called by, or the first argument, is the command. */
#include "amalgam/base/proc.h"
#include "amalgam/cli/cli.h"
#include "amalgam/shim/shim.h"

#include <fcntl.h>

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

static int main_usage(FILE *to)
{
	fprintf(to, "usage: spore COMMAND [options]\n\n"
		    "Runs containers in micro-VMs that are cloned, not booted.\n\n");
	for (unsigned i = 0; i < ARRAY_LEN(main_commands); i++)
		fprintf(to, "  %-10s %s\n", main_commands[i].name, main_commands[i].help);
	fprintf(to, "  %-10s %s\n\nspore COMMAND --help tells more.\n", "version", "print the version");
	return to == stdout ? 0 : CLI_FAILED;
}

static const struct main_command *main_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(main_commands); i++)
		if (!strcmp(name, main_commands[i].name))
			return &main_commands[i];
	return NULL;
}

static int main_unknown(const char *name)
{
	fprintf(stderr, "spore: unknown command \"%s\"; see: spore help\n", name);
	return CLI_FAILED;
}

/* "help COMMAND" is "COMMAND --help". */
static int main_help(char *name)
{
	const struct main_command *c = main_find(name);
	char help[] = "--help";
	char *words[] = { name, help, NULL };

	if (!strcmp(name, "version") || !strcmp(name, "help"))
		return main_usage(stdout);
	return c ? c->run(2, words) : main_unknown(name);
}

/* A closed standard descriptor would be given to the first file we open, and that file then be taken
 * for a container's stream. */
static void main_fill_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	const struct main_command *c;

	main_fill_stdio();
	proc_title_init(argc, argv);
	if (argc > 0 && shim_is_called(argv[0]))
		return shim_main(argc, argv);
	if ((c = main_find(name)))
		return c->run(argc - 1, argv + 1);
	if (!strcmp(name, "version") || !strcmp(name, "--version")) {
		puts("spore " SPORE_VERSION);
		return 0;
	}
	if (!strcmp(name, "help") && argc > 2)
		return main_help(argv[2]);
	if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
		return main_usage(stdout);
	if (!*name)
		return main_usage(stderr);
	return main_unknown(name);
}
