/* shim.h - containerd's face: the daemon of one pod and what it knows.
 *
 * containerd runs `containerd-shim-spore-v2 start` for each container. The first of a pod forks the
 * daemon, the others get its address. The daemon has one thread and one loop. It serves the Task service
 * (task.c), owns one sandbox (pod.c), its containers and their processes (proc.c), and tells containerd
 * what happens (events.h). No request waits for another: each is a handler that answers at once, or a
 * chain of callbacks that answers later.
 *
 *     start.c    the three commands containerd runs: start, delete, -info
 *     daemon.c   socket, connections, life
 *     task.c     the Task service, but for
 *     create.c   Create, which does most of the work
 *     pod.c      the sandbox: made with the first container, gone with the last
 *     proc.c     containers and processes: records, waiting, exits in the right order
 *
 * The machine process is the pid of everything that runs in the pod, and lives in the pod's network
 * namespace and cgroup. It dies with the daemon (jail.h): containerd takes a task for lost when its shim
 * is gone, and has `delete` clean up. */
#pragma once

#include "amalgam/config/config.h"
#include "amalgam/resource/hooks.h"
#include "amalgam/resource/hostcg.h"
#include "amalgam/runtime/binds.h"
#include "amalgam/runtime/network.h"
#include "amalgam/runtime/process.h"
#include "amalgam/runtime/rundir.h"
#include "amalgam/shim/address.h"
#include "amalgam/shim/bootstrap.h"
#include "amalgam/shim/events.h"
#include "amalgam/shim/flags.h"
#include "amalgam/shim/log.h"
#include "amalgam/shim/stdio.h"
#include "task.pb-c.h"

struct shim;
struct shim_container;
struct shim_proc;
struct task_start;
struct shim_create;

/* --- processes and containers (proc.c) ------------------------------------------------------------- */

/* A Wait that was not answered yet. */
struct shim_wait {
	struct ttrpc_call *call;
	struct shim_wait *next;
};

/* The init of a container, or an exec. */
struct shim_proc {
	struct shim_container *ctr;
	struct shim_proc *next; /* of the container's execs */
	char *exec_id;          /* "" for the init */
	Ctd__Status status;     /* CREATED, RUNNING, STOPPED; that it is paused is the container's */
	char *in, *out, *err;   /* as containerd named them */
	bool terminal;
	struct shim_stdio io;
	struct process run;
	Grpc__Process *spec;    /* of an exec, until it was started */
	unsigned rows, cols;    /* asked for before there was a terminal; 0 = not */
	struct task_start *starting; /* Start is under way: an exit has to wait for it */
	struct ttrpc_call *deleting; /* a Delete that was not answered yet */
	bool draining;          /* which waits for its output */
	uint32_t code;          /* STOPPED: exit status */
	uint64_t exited_ns;     /* and when, wall clock */
	struct shim_wait *waits;
	struct timer drain;     /* Delete waits for output */
};

struct shim_container {
	struct shim *shim;
	struct shim_container *next;
	char *id, *bundle;
	Grpc__Spec *spec;
	struct shim_proc init;
	struct shim_proc *execs; /* oldest first */
	struct shim_create *creating; /* Create has not been answered */
	bool aborted;   /* and will fail: somebody wants it gone */
	bool paused;
	bool mounted;   /* bundle/rootfs is ours to unmount */
	struct container_rootfs rootfs;
	bool has_disk;  /* the machine has it in rootfs.slot */
	struct binds binds; /* names of its shares; the descriptors are closed when the machine has them */
	struct hooks hooks; /* those of Create, Start or Delete, whichever is under way */
	bool in_guest;  /* the agent knows it */
	bool removed;   /* the machine has nothing of it any more; only Delete is not over */
	struct timer last_exit; /* the init has exited, execs have not */
};

/* Never NULL; the container is known from here on, and op's until its Create was answered. */
INTERNAL MUST_USE struct shim_container *shim_container_new(struct shim *s, const char *id,
							    const char *bundle, struct shim_create *op);
/* Its mounts on the host go. */
INTERNAL void shim_container_unmount(struct shim_container *c);
/* Unmount, forget, free. Nothing of it runs any more, but for hooks, which are killed. */
INTERNAL void shim_container_free(struct shim_container *c);
/* NULL: there is none, and the call was answered NOT_FOUND (call may be NULL). */
INTERNAL struct shim_container *shim_container_find(struct shim *s, const char *id,
						    struct ttrpc_call *call);
INTERNAL struct shim_proc *shim_proc_find(struct shim *s, const char *id, const char *exec_id,
					  struct ttrpc_call *call);
INTERNAL MUST_USE struct shim_proc *shim_exec_new(struct shim_container *c, const char *exec_id);
/* Answer that p is not there, or not any more. */
INTERNAL void shim_proc_not_found(const struct shim_proc *p, struct ttrpc_call *call);
/* Out of the container's list, and freed. */
INTERNAL void shim_exec_free(struct shim_proc *p);

INTERNAL void shim_proc_set_stdio(struct shim_proc *p, const char *in, const char *out, const char *err);
/* Open what containerd named. 0: ready; 1: ready() follows from the loop. */
INTERNAL MUST_USE int shim_proc_open(struct shim_proc *p, shim_logger_ready_fn *ready, void *arg,
				     struct err *e);
/* Open its streams to the guest. What of p->io only we had open is closed. */
INTERNAL MUST_USE int shim_proc_connect(struct shim_proc *p, struct err *e);
/* The process runs: tell containerd, and of its exit if that came first. */
INTERNAL void shim_proc_started(struct shim_proc *p);
/* It was not started and will not be; nobody is told but who waits. */
INTERNAL void shim_proc_failed(struct shim_proc *p);
/* It will not run any more. */
INTERNAL void shim_proc_exited(struct shim_proc *p, uint32_t code);
/* Answer the call when it has exited. */
INTERNAL void shim_proc_wait(struct shim_proc *p, struct ttrpc_call *call);
/* Set its terminal to the size last asked for, once there is one. */
INTERNAL void shim_proc_resize(struct shim_proc *p);
INTERNAL Ctd__Status shim_proc_status(const struct shim_proc *p);
/* PIDs that containerd sees: the machine's; 0 when there is none. */
INTERNAL uint32_t shim_pid(const struct shim *s);

/* --- the sandbox (pod.c) --------------------------------------------------------------------------- */

enum pod_status { POD_NONE, POD_STARTING, POD_UP, POD_DOWN };

typedef void pod_ready_fn(void *arg, const struct err *e);

struct shim_pod {
	enum pod_status status;
	struct sandbox sandbox;
	struct sandbox_spec spec;
	struct vmm_options process;
	struct config config;
	bool has_config;
	char *name;      /* of its directory below /run/spore/sandboxes; heap */
	char *dir;       /* that directory; NULL until claimed */
	struct rundir_state state;
	int kvm_fd, console_fd, listen_fd;
	char *hostname;
	struct hostcg cgroup;
	int procs[HOSTCG_MAX_TREES];
	bool own_netns;         /* the machine's process is in a network namespace made for it */
	struct network network; /* open: what of that namespace is in the guest */
	pod_ready_fn *ready;
	void *arg;
	uint64_t cookies; /* last one given to a stream */
	unsigned serial;  /* containers so far; names their shares */
};

/* Make the sandbox for container c: clone or boot, in the network namespace and cgroup that its
 * specification names. ready() comes later, once, from the loop, unless the result is negative. */
INTERNAL MUST_USE int pod_start(struct shim *s, struct shim_container *c,
				const struct shim_options *opt, const struct sandbox_disk *disk,
				const struct binds *binds, pod_ready_fn *ready, void *arg,
				struct err *e);
/* End the machine and everything that belongs to the sandbox. Processes that still ran have exited. */
INTERNAL void pod_stop(struct shim *s);
/* A container came, went or is in another state: tell who reads the sandbox's state file. */
INTERNAL void pod_note(struct shim *s);
/* Give the guest the links that have come into its network namespace since. done() is called once, perhaps
 * before this returns. */
INTERNAL void pod_sync_network(struct shim *s, pod_ready_fn *done, void *arg);
/* After a shim that was killed: what it did to the network namespace that the specification in this bundle
 * names is taken back. */
INTERNAL void pod_repair_network(const char *bundle);
/* Hold the machine to the limits of a container on the host, as far as it can be. */
INTERNAL void pod_limit(struct shim *s, const Grpc__LinuxResources *r);
/* Where its cgroup is noted, for hostcg_load(); heap. */
INTERNAL MUST_USE char *pod_cgroup_file(const char *dir);
/* The name of a container's or pod's directory below /run/spore/sandboxes, heap. Dots in namespace and id
 * may give two of them one name: */
INTERNAL MUST_USE char *pod_dir_name(const char *ns, const char *id);
/* what its state says is run there tells whose it is; heap. */
INTERNAL MUST_USE char *pod_owner(const char *ns, const char *id);

/* --- the daemon (daemon.c) -------------------------------------------------------------------------- */

struct shim_conn;

struct shim {
	struct loop loop;
	char *ns, *id, *bundle; /* id: the pod's, which is its first container's */
	char socket[ADDRESS_MAX];
	dev_t socket_dev; /* which file that is, while it is ours */
	ino_t socket_ino;
	struct shim_log log;
	struct shim_events events;
	int listen_fd;
	struct watch listening;
	struct shim_conn *conns;
	struct watch signals;
	int signal_fd;
	struct timer guard; /* nobody has come yet, or any more */
	struct timer end;   /* the answer to Shutdown has left */
	struct shim_pod pod;
	struct shim_container *containers;
	bool shutdown;      /* asked for: end when the last container is gone */
};

/* Be the daemon: serve listen_fd until Shutdown. Does not return. */
INTERNAL NORETURN void shim_serve(const struct shim_flags *f, const struct shim_bootstrap *b,
				  const char *group, const char *socket, int listen_fd);
/* End after what is queued has been sent, if that was asked for and no container is left. */
INTERNAL void shim_maybe_end(struct shim *s);

/* task.c: the Task service under both its names. */
INTERNAL const struct ttrpc_method *task_methods(size_t *n);
/* p goes: a Start under way fails when the guest answers. */
INTERNAL void task_start_forget(struct shim_proc *p);
/* All output of p was delivered. */
INTERNAL void task_output_ended(struct shim_proc *p);

/* create.c */
INTERNAL void task_create(struct ttrpc_call *call, const ProtobufCMessage *m);
/* Nobody wants it any more: let Create fail, soon. */
INTERNAL void create_abort(struct shim_container *c);
/* Take back what Create gave to the machine. */
INTERNAL void create_undo(struct shim_container *c);

/* Nanoseconds of the wall clock as containerd has them. */
static inline Ctd__Timestamp shim_timestamp(uint64_t ns)
{
	Ctd__Timestamp t = CTD__TIMESTAMP__INIT;

	t.seconds = (int64_t)(ns / 1000000000);
	t.nanos = (int32_t)(ns % 1000000000);
	return t;
}

INTERNAL struct shim *shim_of(struct ttrpc_call *call);

/* --- commands (start.c) ------------------------------------------------------------------------------ */

/* argv[0] says that we are a containerd shim. */
INTERNAL bool shim_is_called(const char *argv0);
INTERNAL int shim_main(int argc, char **argv);
