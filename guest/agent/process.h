/* process.h - a process of a container as the agent sees it: spawned, started, awaited.
 *
 *	SETUP --READY--> CREATED --GO--> STARTING --end of file--> RUNNING --SIGCHLD--> EXITED
 *
 * From any state SIGCHLD leads to EXITED. One call at a time may wait for a transition of the first
 * four (`step`); any number may wait for the end. */
#pragma once

#include "amalgam/base/loop.h"
#include "amalgam/wire/ttrpc.h"
#include "guest/agent/init.h"
#include "guest/agent/stdio.h"
#include "guest/agent/sync.h"
#include "guest/agent/wait.h"

struct ga_agent;
struct ga_container;

enum ga_process_state {
	GA_PROCESS_SETUP,
	GA_PROCESS_CREATED,
	GA_PROCESS_STARTING,
	GA_PROCESS_RUNNING,
	GA_PROCESS_EXITED,
};

struct ga_process;
/* Reached CREATED or RUNNING (e is NULL), or failed on the way. */
typedef void ga_process_step_fn(struct ga_process *p, const struct err *e);

struct ga_process {
	struct ga_process *next;
	struct ga_container *ctr;
	struct ga_agent *agent;
	char *exec_id; /* "" = the init process */
	enum ga_process_state state;
	pid_t pid;
	int exit_code;
	uint64_t exited_at_ns;
	bool was_awaited; /* somebody got the exit code */
	int sync;
	struct watch sync_watch;
	struct timer timeout;
	struct ga_wait wait; /* for direct connections; the step function's */
	ga_process_step_fn *step;
	struct ttrpc_call *call; /* Create, Start or Exec in progress; the step function's */
	struct ga_stdio io;
	struct ttrpc_call **waiters;
	size_t n_waiters;
};

INTERNAL MUST_USE struct ga_process *ga_process_new(struct ga_container *ctr, const char *exec_id);
/* Only when EXITED or never spawned. Waiters are told it is gone. */
INTERNAL void ga_process_free(struct ga_process *p);

/* Clone into the container's cgroup with new_ns made new, and run ga_init_main(). The caller has
 * entered the namespaces to share (ns.h) and prepared p->io. l->sync is filled here. */
INTERNAL MUST_USE int ga_process_spawn(struct ga_process *p, struct ga_launch *l,
				       ga_process_step_fn *step, struct err *e);
/* Let a CREATED process go. */
INTERNAL void ga_process_go(struct ga_process *p, ga_process_step_fn *step);

/* Reaped: wait status from waitpid(). */
INTERNAL void ga_process_exited(struct ga_process *p, int wait_status);

/* Answer WaitProcess now or when it ends. */
INTERNAL void ga_process_await(struct ga_process *p, struct ttrpc_call *call);
