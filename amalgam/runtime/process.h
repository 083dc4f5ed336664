/* process.h - one process in a guest, a container's init or an exec: its streams and its end.
 *
 * For a supervisor of many, which never waits: everything comes by callback, from the loop. Streams are
 * direct (container.h). A process has two ends: its exit, and that of its output, which its children may
 * hold open for longer; they come in any order.
 *
 * A process that was connected is told of all that concerns it by process_on_stream() and
 * process_on_gone(), from the sandbox's events, until process_forget(). */
#pragma once

#include "amalgam/runtime/container.h"

#define PROCESS_STREAMS 3

struct process;
typedef void process_fn(struct process *p);

struct process {
	struct sandbox *sandbox; /* NULL until it was connected */
	const char *container, *exec_id; /* borrowed; the init process has exec_id "" */
	uint64_t cookie;                 /* of stream 0; the others follow */
	uint32_t ports[PROCESS_STREAMS]; /* on the host's side, 0 = no such stream */
	unsigned open;                   /* bit i: stream i has not ended */
	bool exited;
	bool lost; /* exited, but nobody could tell how */
	int code;  /* exit code, valid when exited */
	process_fn *on_exit;
	process_fn *on_output_end; /* the last of its output was delivered */
	struct process_watch *watch; /* while the guest is being asked for its exit */
};

/* Open its streams; p has the names and callbacks set. io is borrowed for the call: the machine process
 * has descriptors of its own afterwards. cookie: PROCESS_STREAMS numbers from here on are its own in this
 * sandbox, and >= 16. On failure what was opened is cut off again. */
INTERNAL MUST_USE int process_connect(struct process *p, struct sandbox *s, uint64_t cookie,
				      const struct container_stdio *io, struct err *e);
/* Have on_exit called once it has ended. It must have been created in the guest. */
INTERNAL void process_watch(struct process *p);
/* Is there output that was not delivered yet? */
INTERNAL bool process_has_output(const struct process *p);
/* Cut off streams that are still open; what they hold is lost. */
INTERNAL void process_hang_up(struct process *p);
/* The same, and no callback comes any more. */
INTERNAL void process_forget(struct process *p);

/* True: the event was this process's. */
INTERNAL bool process_on_stream(struct process *p, uint64_t cookie, enum hv_stream_event ev);
/* The machine is gone. */
INTERNAL void process_on_gone(struct process *p);
