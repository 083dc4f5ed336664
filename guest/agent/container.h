/* container.h - a container from CreateContainer to RemoveContainer.
 *
 *	CREATING --init is READY--> CREATED --StartContainer--> RUNNING --init ends--> STOPPED
 *	    \____________________________\___________________________\__________________\--> ENDING
 *
 * Creation is a table of steps with their undo; removal and every failure walk it backwards, once
 *all processes have ended. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/wire/ttrpc.h"
#include "guest/agent/cgroup.h"
#include "guest/agent/ns.h"
#include "guest/agent/process.h"
#include "guest/agent/seccomp.h"
#include "guest/agent/slot.h"
#include "guest/agent/storage.h"
#include "guest/agent/wait.h"

#define GA_MAX_CONTAINERS 512
#define GA_MAX_PROCESSES  1024 /* per container, running */
#define GA_MAX_FINISHED   32   /* per container, kept for a late WaitProcess */

enum ga_container_state {
	GA_CONTAINER_CREATING,
	GA_CONTAINER_CREATED,
	GA_CONTAINER_RUNNING,
	GA_CONTAINER_STOPPED,
	GA_CONTAINER_ENDING,
};

struct ga_container;
typedef void ga_container_ended_fn(struct ga_container *c, bool in_time);

struct ga_container {
	struct ga_container *next;
	struct ga_agent *agent;
	char *id;
	char *termination_log; /* where Kubernetes' file lies in the guest; NULL = nowhere */
	enum ga_container_state state;
	bool oom_killed;
	bool shares_pidns; /* its processes outlive its init unless killed */
	bool owns_pidns;   /* ... of the sandbox */
	struct ga_cgroup cgroup;
	uint64_t new_ns;       /* CLONE_NEW* made for it */
	uint64_t exec_ns;      /* CLONE_NEW* a further process has to join */
	struct ga_ns_set join; /* namespaces its init joins */
	struct ga_storage *storages;
	size_t n_storages;                    /* of the request, done */
	uint8_t slots[(GA_SLOT_MAX + 8) / 8]; /* bound for its devices */
	struct ga_seccomp seccomp;
	struct ga_process *processes; /* the first is init */
	size_t n_steps;               /* done */
	struct ga_wait wait;
	struct err failure;
	struct ttrpc_call *call;                 /* Create or Remove in progress */
	const Grpc__CreateContainerRequest *req; /* while CREATING */
	ga_container_ended_fn *ended;
};

/* -EINVAL unknown. */
INTERNAL struct ga_container *ga_container_find(struct ga_agent *a, const char *id, struct err *e);
/* "" or the container's id is its init; -ESRCH unknown. */
INTERNAL struct ga_process *ga_container_process(struct ga_container *c, const char *exec_id,
						 struct err *e);
/* Is it a name we make paths of? [A-Za-z0-9_.-], at most 128, not only dots. */
INTERNAL bool ga_container_id_is_valid(const char *id);

INTERNAL void ga_container_create(struct ga_agent *a, struct ttrpc_call *call,
				  const Grpc__CreateContainerRequest *req);
INTERNAL void ga_container_start(struct ga_agent *a, struct ttrpc_call *call, const char *id);
INTERNAL void ga_container_exec(struct ga_agent *a, struct ttrpc_call *call,
				const Grpc__ExecProcessRequest *req);
INTERNAL void ga_container_remove(struct ga_agent *a, struct ttrpc_call *call, const char *id,
				  uint32_t timeout_s);

/* Kill what runs, wait for it (timeout_ms 0 = for ever), undo all steps; ended() then forgets it.
 */
INTERNAL void ga_container_end(struct ga_container *c, uint64_t timeout_ms,
			       ga_container_ended_fn *ended);
/* Off the list, free. */
INTERNAL void ga_container_forget(struct ga_container *c);

/* From process.c. */
INTERNAL void ga_container_process_exited(struct ga_process *p);
