/* sandbox.h - a machine with an agent in it: cloned from a template or booted, made unique, stopped.
 *
 * One owner, one thread, one loop. Starting is: spawn the machine process, restore or boot, fill
 * slots, reach the agent, CreateSandbox (which makes a clone unique before anything else happens). Any
 * failure leaves nothing behind once sandbox_stop() was called. */
#pragma once

#include "amalgam/hv/hv.h"
#include "amalgam/runtime/agent.h"
#include "amalgam/runtime/template.h"

#define SANDBOX_MAX_DISKS (LAYOUT_SLOTS - CTL_SLOT_FREE)

struct sandbox_disk {
	int fd; /* borrowed until sandbox_start() returns */
	bool read_only;
};

/* A host directory, or file, that the guest sees as GUEST_SHARE_DIR/name. */
struct sandbox_share {
	const char *name; /* letters, digits, '.', '_', '-'; shorter than CTL_SHARE_NAME */
	int fd;           /* from share_open(); borrowed until sandbox_start() returns */
	unsigned flags;   /* CTL_F_SHARE_* */
};

/* Where the agent has mounted the tag CTL_SHARE_TAG: a share's name below it is a bind mount's source
 * in a container's specification (PROTOCOL.agent, section 3). */
#define GUEST_SHARE_DIR "/run/spore/share"

struct sandbox_spec {
	const char *id;
	const char *hostname; /* NULL = the id */
	struct machine_shape shape;
	bool use_template;
	const struct template_files *from; /* this very template, borrowed; NULL = look for one */
	bool track; /* for hv_changed() */
	int kvm_fd;     /* borrowed */
	int console_fd; /* borrowed until sandbox_stop(); readable */
	int listen_fd;  /* hybrid vsock socket, borrowed; -1 = none */
	const struct sandbox_disk *disks;
	unsigned ndisks; /* at most SANDBOX_MAX_DISKS */
	const struct sandbox_share *shares; /* there before the agent is asked for anything */
	unsigned nshares;
	char *const *dns; /* lines of the guest's resolv.conf; borrowed */
	size_t ndns;
	/* Of the machine process, borrowed until sandbox_start() returns; NULL = none. serves_files is
	 * understood when there are shares, and must be set if there will be. */
	const struct vmm_options *process;
};

/* When things happened, monotonic ns; 0 = not yet. */
struct sandbox_times {
	uint64_t start, vmm_ready, state_loaded, agent_answering, container_started, first_output, exit;
};

struct sandbox;
struct sandbox_events {
	void (*gone)(void *arg, enum ctl_exit how, const char *why); /* the machine ended by itself */
	void (*stream)(void *arg, uint64_t cookie, enum hv_stream_event ev, int code); /* cookies >= 16 */
	void *arg;
};

/* The guest is ready for containers (e->code is 0), or will never be. */
typedef void sandbox_ready_fn(void *arg, const struct err *e);

/* What is known only until then. */
struct sandbox_starting {
	const struct sandbox_spec *spec; /* NULL: for a template */
	int fd;            /* our end of the stream to the agent, until it is spoken over; else -1 */
	bool is_dialing;   /* its guest boots, and may refuse it */
	uint64_t limit_ns; /* when to give up */
	struct timer retry;
	sandbox_ready_fn *ready; /* NULL: nobody waits, any more or yet */
	void *arg;
};

struct sandbox {
	struct loop *loop;
	struct hv_vm vm;
	struct agent agent;
	struct sandbox_events events;
	uint32_t slot[SANDBOX_MAX_DISKS]; /* where each disk of the spec went */
	uint32_t slots_used;              /* bit i: slot i has a disk, or may not get one any more */
	bool is_clone;
	int console_fd;      /* borrowed, readable: its end explains a guest's */
	bool gone;
	char why[256];       /* how the machine ended */
	enum ctl_exit how;
	bool is_connected;   /* the guest has accepted the agent's stream */
	struct sandbox_starting starting;
	struct sandbox_times t;
	char no_template[160]; /* why it was booted although a template was wanted */
};

/* Begin. When this returns 0 the machine runs, and ready() comes later, once, from the loop; spec and
 * what it points to must last until then. */
INTERNAL MUST_USE int sandbox_begin(struct sandbox *s, struct loop *l, const struct sandbox_spec *spec,
				    const struct sandbox_events *ev, sandbox_ready_fn *ready, void *arg,
				    struct err *e);
/* The same, running the loop until it is ready. */
INTERNAL MUST_USE int sandbox_start(struct sandbox *s, struct loop *l,
				    const struct sandbox_spec *spec,
				    const struct sandbox_events *ev, struct err *e);
INTERNAL void sandbox_stop(struct sandbox *s);

/* One more disk; *slot is where it went, for a container's storage. */
INTERNAL MUST_USE int sandbox_disk_add(struct sandbox *s, const struct sandbox_disk *d, uint32_t *slot,
				       struct err *e);
/* And one less, after its container: RemoveContainer has unmounted it when it answers, and unbound a slot
 * that was bound for it. A slot whose driver stays (a drive's, one that the guest could not let go of) is not
 * used again. */
INTERNAL MUST_USE int sandbox_disk_remove(struct sandbox *s, uint32_t slot, struct err *e);
/* A network card over a tap (hv_attach_net()); *slot is where it went, for UpdateInterface. */
INTERNAL MUST_USE int sandbox_net_add(struct sandbox *s, int tap_fd, int vhost_fd, const struct ctl_net *net,
				      uint32_t *slot, struct err *e);
/* One more share, or one less. Remove it after the containers that use it: RemoveContainer has unmounted
 * it when it answers. */
INTERNAL MUST_USE int sandbox_share_add(struct sandbox *s, const struct sandbox_share *share,
					struct err *e);
INTERNAL int sandbox_share_remove(struct sandbox *s, const char *name, struct err *e);

/* Boot a machine for a template and wait for its agent, then come to rest: no connection left, nothing
 * in flight. Used by template.c. */
INTERNAL MUST_USE int sandbox_boot_for_template(struct sandbox *s, struct loop *l,
						const struct ctl_create *create, int kvm_fd,
						int console_fd, int memory_fd, struct err *e);
