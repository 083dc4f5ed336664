/* hooks.h - the OCI hooks that run on the host. runtime-spec config.md "POSIX-platform Hooks",
 * runtime.md "State" and "Lifecycle".
 *
 * Four of the six stages are the host's; createContainer and startContainer happen inside the
 * container and are the agent's. A hook finds on its standard input the state of the container:
 *
 *     {"ociVersion":"1.0.2","id":"web","status":"creating","pid":71,"bundle":"/...","annotations":{}}
 *
 * What the specification leaves open: the working directory is the bundle ("/" when that is gone,
 * as it may be for poststop); stdout is thrown away; no arguments means the path alone; a timeout
 * below 1 means none. The environment is what the hook lists, nothing of ours, and no descriptor of
 * ours is open in it. The hook is in a process group of its own and in our cgroup.
 *
 * hooks_run() sleeps until the hooks are done; a hook without a timeout may take for ever, as the
 * specification has it. The caller must not collect children of its own meanwhile (base/proc.h). */
#pragma once

#include <sys/types.h>

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

enum hooks_stage {
	HOOKS_PRESTART, /* in Create, before the network is looked at; deprecated, but Docker's */
	HOOKS_CREATE_RUNTIME, /* right after those */
	HOOKS_POSTSTART,      /* after the program was started, before Start is answered */
	HOOKS_POSTSTOP,       /* after the container was deleted, before Delete is answered */
};

/* What the state says besides the status, which follows from the stage. All borrowed. */
struct hooks_state {
	const Grpc__Spec *spec; /* version, hooks, annotations */
	const char *id;
	const char *bundle; /* absolute */
	pid_t pid;          /* as clients see it; 0 = none, left out */
};

/* Run the hooks of the stage in their order. prestart and createRuntime: the first that cannot be
 * run, does not exit with 0 or runs past its timeout ends it, -errno (-ETIMEDOUT; -ECHILD for an
 * exit status), and e says for example
 *     createRuntime hook /opt/net: exit status 3: no such interface
 * with the first line the hook wrote to stderr. poststart and poststop: every hook is run, failures
 * are logged as warnings, 0. */
INTERNAL int hooks_run(enum hooks_stage stage, const struct hooks_state *s, struct err *e);
