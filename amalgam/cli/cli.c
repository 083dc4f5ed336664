#include "amalgam/cli/cli.h"

#include <fcntl.h>

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
