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
 * Nobody sleeps: hooks_begin() returns, and the loop says when the last of the stage has ended. A hook
 * without a timeout may take for ever, as the specification has it. None outlives us (base/job.h). */
#pragma once

#include <sys/types.h>

#include "amalgam/base/err.h"
#include "amalgam/base/job.h"
#include "oci.pb-c.h"

enum hooks_stage {
	HOOKS_PRESTART, /* in Create, before the network is looked at; deprecated, but Docker's */
	HOOKS_CREATE_RUNTIME, /* right after those */
	HOOKS_POSTSTART,      /* after the program was started, before Start is answered */
	HOOKS_POSTSTOP,       /* after the container was deleted, before Delete is answered */
};

/* What the state says besides the status, which follows from the stage. What it points to is borrowed
 * until over(). */
struct hooks_state {
	const Grpc__Spec *spec; /* version, hooks, annotations */
	const char *id;
	const char *bundle; /* absolute */
	pid_t pid;          /* as clients see it; 0 = none, left out */
};

/* From the loop, once. e->code: 0, or why the stage has failed. */
typedef void hooks_over_fn(void *arg, const struct err *e);

/* One stage under way; zeroed: none. */
struct hooks {
	bool active;
	struct loop *loop;
	enum hooks_stage stage;
	struct hooks_state of;
	struct buf state; /* what each of them reads */
	size_t next;      /* to be run */
	bool stopped;
	struct timer begin;
	struct job job;
	hooks_over_fn *over;
	void *arg;
};

/* Run the hooks of the stage in their order; h is active until over(), in which it may be used for the
 * next stage. prestart and createRuntime: the first that cannot be run, does not exit with 0 or runs past
 * its timeout ends it, -errno (-ETIMEDOUT; -ECHILD for an exit status), and e says for example
 *     createRuntime hook /opt/net: exit status 3: no such interface
 * with the first line the hook wrote to stderr. poststart and poststop: every hook is run, failures
 * are logged as warnings, 0. */
INTERNAL void hooks_begin(struct hooks *h, struct loop *l, enum hooks_stage stage,
			  const struct hooks_state *of, hooks_over_fn *over, void *arg);
/* Kill the hook that runs and start no other; over() follows, with -ECANCELED. Nothing if it is not
 * active. */
INTERNAL void hooks_stop(struct hooks *h);
/* The same, but over() is not called any more. */
INTERNAL void hooks_fini(struct hooks *h);
