/* cli.h - what the commands share. Exit status: the container's own, or 125 when spore itself failed,
 * 126 when the command cannot be executed, 127 when it is not found, as in Docker. */
#pragma once

#include "amalgam/base/err.h"
#include "amalgam/cli/opt.h"

#define CLI_FAILED 125

/* Print "spore: <message>" on stderr and return CLI_FAILED. */
INTERNAL int cli_fail(const struct err *e);
#define CLI_NEED_ROOT "must be root to deal with sandboxes; try: sudo spore ..."

/* One line on stderr, whatever is in msg: some of it may come from a guest. */
INTERNAL void cli_complain(const char *msg);

/* A signal for the command that the guest has not confirmed for this long: it does not answer, and the
 * next signal is for us. */
#define CLI_DEAF_NS (5 * NS_PER_S)
/* The same for a command that could not be started in its container: 126 or 127 where Docker has them. */
INTERNAL int cli_start_failed(const struct err *e);
/* /dev/kvm, opened, or -errno with what to do about it. */
INTERNAL MUST_USE int cli_open_kvm(struct err *e);

/* The environment of a command: PATH, with a terminal TERM, then what --env says, where the last of a
 * name counts. NULL-terminated; the strings are borrowed. First --env and --cwd are to be checked. */
#define CLI_ENV_MAX (OPT_LIST_MAX + 3)
INTERNAL MUST_USE int cli_check_env(const struct opt_list *own, const char *cwd, struct err *e);
INTERNAL void cli_env(const struct opt_list *own, bool terminal, char *out[CLI_ENV_MAX]);

/* What NAME is, for --help (runtime/target.h). */
#define CLI_NAME_HELP                                                                                 \
	"NAME is a sandbox's name or a container's id; SANDBOX/CONTAINER where that is not enough.\n\n"

INTERNAL int cli_run(int argc, char **argv);
INTERNAL int cli_factory(int argc, char **argv);
INTERNAL int cli_exec(int argc, char **argv);
INTERNAL int cli_ps(int argc, char **argv);
INTERNAL int cli_kill(int argc, char **argv);
INTERNAL int cli_pause(int argc, char **argv);
INTERNAL int cli_resume(int argc, char **argv);
INTERNAL int cli_logs(int argc, char **argv);
INTERNAL int cli_rm(int argc, char **argv);
INTERNAL int cli_check(int argc, char **argv);
