/* hv.h - a machine as the runtime sees it: spawn, create, plug, connect, pause, save, stop.
 *
 * The built-in machine is a forked, jailed process behind vmm/ctl.h. Requests are answered at once
 * and waited for; what happens later (the guest ends, a stream opens or closes) comes through the
 * callbacks, from the event loop. What the process says is checked: it may have been taken over.
 *
 * Owner's thread only. The descriptors given to a request stay the caller's unless stated. */
#pragma once

#include <sys/types.h>

#include "amalgam/base/err.h"
#include "amalgam/base/loop.h"
#include "vmm/ctl.h"

struct hv_vm;

enum hv_stream_event { HV_STREAM_OPEN, HV_STREAM_FIRST, HV_STREAM_CLOSED };

struct hv_callbacks {
	/* The guest is over, or the machine process died (then how is CTL_EXIT_INTERNAL). Once. */
	void (*exited)(void *arg, enum ctl_exit how, const char *why);
	/* A stream from hv_connect() opened, delivered its first byte, or had its last one delivered or
	 * given up (code as in ctl.h). */
	void (*stream)(void *arg, uint64_t cookie, enum hv_stream_event ev, int code);
	void *arg;
};

struct hv_vm {
	pid_t pid;          /* the machine process; 0 = none */
	uint64_t start_time; /* of the pid, /proc/<pid>/stat field 22 */
	int ctl_fd;
	struct watch ctl;
	bool watching;
	bool over;          /* exited() was called */
	char why[128];      /* ... and with these words */
	struct hv_callbacks cb;
};

/* /dev/kvm, opened, or -errno with what to do about it. */
INTERNAL MUST_USE int hv_open_kvm(struct err *e);

/* Fork the machine process; it jails itself and waits. The embedded kernel is inherited. opt NULL: no
 * options; its descriptors stay the caller's. What of them fails is told by the first request. */
INTERNAL MUST_USE int hv_spawn(struct hv_vm *vm, const struct vmm_options *opt, struct err *e);

/* From here on events are delivered on l. */
INTERNAL MUST_USE int hv_watch(struct hv_vm *vm, struct loop *l, const struct hv_callbacks *cb,
			       struct err *e);

/* What to build. */
struct hv_spec {
	const struct ctl_create *create;
	int kvm_fd;     /* open /dev/kvm */
	int console_fd; /* where the serial console goes */
	int memory_fd;  /* -1 = anonymous */
	bool shared;    /* memory_fd is written to (template) */
	int state_fd;   /* >= 0: restore */
	int warm_fd;    /* >= 0: pages a clone writes at once, from hv_changed() */
	bool run;
	bool track;     /* for hv_changed() */
};
INTERNAL MUST_USE int hv_create(struct hv_vm *vm, const struct hv_spec *s, struct err *e);
INTERNAL MUST_USE int hv_pause(struct hv_vm *vm, struct err *e);
/* memory_fd -1: the memory is in its shared file already; only holes are punched. */
INTERNAL MUST_USE int hv_save(struct hv_vm *vm, int state_fd, int memory_fd, struct err *e);
/* Of a paused clone that was created to track it: which pages it has written, for hv_spec.warm_fd of
 * the next one. */
INTERNAL MUST_USE int hv_changed(struct hv_vm *vm, int warm_fd, struct err *e);
INTERNAL MUST_USE int hv_attach_blk(struct hv_vm *vm, unsigned slot, int fd, bool read_only,
				    struct err *e);
/* Take it out again; the process has it closed when this returns. *is_empty: the guest had no driver bound to
 * the slot, which can get another disk. */
INTERNAL MUST_USE int hv_detach(struct hv_vm *vm, unsigned slot, bool *is_empty, struct err *e);
/* A network card in an empty slot over an open tap, which the machine must have for itself
 * (vmm/virtio/net.h says what it must be like); vhost_fd -1: without vhost-net. */
INTERNAL MUST_USE int hv_attach_net(struct hv_vm *vm, unsigned slot, int tap_fd, int vhost_fd,
				    const struct ctl_net *net, struct err *e);
/* Stream between host descriptors (-1 = none; may be equal) and a guest port. Returns the host port
 * in *host_port; cookie comes back in cb.stream, which hears of the first byte if tell_first. */
INTERNAL MUST_USE int hv_connect(struct hv_vm *vm, uint32_t guest_port, int in_fd, int out_fd,
				 bool tell_first, uint64_t cookie, uint32_t *host_port,
				 struct err *e);
/* Cut a stream off, whatever it still holds. Not waited for by HV_STREAM_CLOSED, which follows. One that
 * has ended by itself is no matter. */
INTERNAL void hv_hang_up(struct hv_vm *vm, uint32_t host_port);
INTERNAL MUST_USE int hv_listen(struct hv_vm *vm, int listen_fd, struct err *e);

/* Show root_fd, the root of a detached mount (resource/share.h), to the guest as `name` at the top of
 * the file system with tag CTL_SHARE_TAG; flags CTL_F_SHARE_*. The machine needs
 * vmm_options.serves_files. Ends by remove, or with the machine. */
INTERNAL MUST_USE int hv_share_add(struct hv_vm *vm, const char *name, int root_fd, unsigned flags,
				   struct err *e);
INTERNAL int hv_share_remove(struct hv_vm *vm, const char *name, struct err *e);

/* Kill the process, reap it, release everything. Safe on a zeroed or half-made hv_vm. */
INTERNAL void hv_stop(struct hv_vm *vm);
