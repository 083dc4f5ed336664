/* ctl.h - the only door into a VMM process: fixed-size messages over a SOCK_SEQPACKET pair.
 *
 * The supervisor (hv/) sends one request at a time and reads one reply; descriptors ride along by
 * SCM_RIGHTS. Unasked, the VMM sends events. The VMM opens nothing itself: whatever it reads, writes,
 * maps or listens on came through here. It ends when the socket closes.
 *
 * Both ends are the same binary, so messages are plain structs; the supervisor still checks sizes and
 * ranges of what comes back, because a VMM may have been taken over by its guest. */
#pragma once

#include <sys/types.h>

#include "amalgam/base/err.h"
#include "vmm/layout.h"

/* Slots with a fixed use. The two drives are empty until CTL_ATTACH_BLK puts a disk in, and the file
 * system until CTL_SHARE_ADD: a template is saved with their drivers bound. The rest are empty windows
 * for hot-plug. */
enum ctl_slot {
	CTL_SLOT_VSOCK,
	CTL_SLOT_RNG,
	CTL_SLOT_BALLOON,
	CTL_SLOT_DRIVE,    /* a writable disk */
	CTL_SLOT_DRIVE_RO, /* a read-only one */
	CTL_SLOT_SHARE,    /* virtio-fs, tag CTL_SHARE_TAG: each share is a name at its top */
	CTL_SLOT_FREE,     /* first of the others */
};

enum ctl_op {
	/* Make the machine; it does not run yet. fds: /dev/kvm, console log, then memory, state and
	 * warm file as the flags say. */
	CTL_CREATE = 1,
	CTL_RUN,        /* start or continue the vCPUs */
	CTL_PAUSE,      /* all vCPUs out of the guest, devices quiet */
	CTL_CHANGED,    /* paused, created with CTL_F_TRACK: write to fds[0] which pages were written */
	CTL_SAVE,       /* paused: write state (fds[0]) and, with CTL_F_MEMORY, memory (fds[1]) */
	CTL_ATTACH_BLK, /* a disk into an empty drive or slot; fds[0] = image or block device.
			   -ENOTSUP: this disk does not go into a drive, use another slot */
	CTL_DETACH,     /* take the disk out of a slot and close it. Without a driver bound to it the slot is
			   empty then; a driver keeps its device, without a disk in it, and the reply's value
			   is 1. -ENOENT: no disk there */
	CTL_CONNECT,    /* open a vsock stream to a guest port; fds: host ends */
	CTL_HANG_UP,    /* cut a CTL_CONNECT stream off, by its host port; -ENOENT: it has ended */
	CTL_LISTEN,     /* fds[0] = listening Unix socket for hybrid CONNECT */
	CTL_BALLOON,    /* ask the guest to give up `value` MiB */
	CTL_STOP,       /* end the process */
	CTL_SHARE_ADD,  /* show fds[0], the O_PATH root of a detached mount (a directory or a file), to
			   the guest as `name`. Needs vmm_options.serves_files: else -ENOTSUP.
			   -EEXIST: the name is taken */
	CTL_SHARE_REMOVE, /* and take it away; the guest gets errors for what it still holds of it.
			     -ENOENT: no such name */
	CTL_ATTACH_NET, /* a network card into an empty slot; fds[0] = a tap as virtio/net.h wants it,
			   fds[1], if there, = /dev/vhost-net */
	CTL_EVENT = 100, /* VMM -> supervisor */
};

/* CTL_CREATE flags. */
#define CTL_F_MEMORY  1u /* a memory file follows in fds */
#define CTL_F_SHARED  2u /* map it shared (a template is being made), else copy-on-write */
#define CTL_F_RESTORE 4u /* a state file follows in fds: restore instead of boot */
#define CTL_F_WARM    8u /* a list of pages follows that the guest is going to write: CTL_CHANGED's */
#define CTL_F_RUN     16u /* run at once */
#define CTL_F_TRACK   32u /* keep account of the pages that the guest writes, for CTL_CHANGED */
/* CTL_ATTACH_BLK flags. */
#define CTL_F_READONLY 1u
/* CTL_SHARE_ADD flags. */
#define CTL_F_SHARE_READONLY 1u
#define CTL_F_SHARE_PRIVATE  2u /* nobody else writes to it meanwhile: the guest may cache all it likes */
/* CTL_CONNECT flags: which descriptors follow. One that serves both ways is sent once with both. */
#define CTL_F_IN  1u /* the VMM reads it and sends to the guest */
#define CTL_F_OUT 2u /* the VMM writes to it what the guest sends */
#define CTL_F_BOTH 3u
#define CTL_F_FIRST 4u /* tell CTL_EV_FIRST */

#define CTL_FINGERPRINT 32
#define CTL_SHARE_TAG   "spore"
#define CTL_SHARE_NAME  64 /* bytes of a share's name with its NUL; one component of a path */

struct ctl_create {
	uint64_t mem_bytes;
	uint32_t vcpus;     /* exist now */
	uint32_t max_vcpus; /* listed for the guest */
	uint64_t seed;      /* for values two clones must not share (vsock ports) */
	uint8_t fingerprint[CTL_FINGERPRINT]; /* stored in a saved state, demanded of a restored one;
					  all zero: any will do, and CPUs are compared */
	char cmdline[LAYOUT_CMDLINE_MAX];
};

struct ctl_net {
	uint8_t mac[6];
	uint16_t mtu;      /* bytes; 0 = the guest's default */
	uint64_t rx_rate;  /* bits per second towards the guest; 0 = no limit */
	uint64_t tx_rate;  /* and from it */
};

struct ctl_request {
	uint32_t op;    /* enum ctl_op */
	uint32_t flags;
	uint32_t slot;  /* ATTACH, DETACH */
	uint32_t port;  /* CONNECT: guest port; HANG_UP: host port */
	uint64_t value; /* BALLOON: MiB; CONNECT: caller's cookie, returned in the event */
	char name[CTL_SHARE_NAME]; /* SHARE_ADD, SHARE_REMOVE */
	union {
		struct ctl_create create;
		struct ctl_net net; /* ATTACH_NET */
	};
};

struct ctl_reply {
	uint32_t op;
	int32_t code;   /* 0 or negative errno */
	uint64_t value; /* CONNECT: host port; DETACH: 1 = the device stays */
	char msg[256];  /* why, when code is not 0 */
};

enum ctl_event_kind {
	CTL_EV_EXIT = 1,  /* the guest is gone: msg says how, value = enum ctl_exit */
	CTL_EV_CONNECTED, /* the guest accepted a CTL_CONNECT; value = cookie */
	CTL_EV_FIRST,     /* the first byte from the guest was delivered, if asked for; value = cookie */
	CTL_EV_CLOSED,    /* last word about a stream: every byte delivered or given up. value = cookie,
			     code 0 in order, -ECONNREFUSED never opened, -ETIMEDOUT, -ECONNRESET */
};

enum ctl_exit {
	CTL_EXIT_SHUTDOWN = 1, /* the guest asked for it */
	CTL_EXIT_PANIC,        /* guest kernel panic */
	CTL_EXIT_FAULT,        /* triple fault */
	CTL_EXIT_INTERNAL,     /* KVM could not go on */
};

struct ctl_event {
	uint32_t op; /* CTL_EVENT */
	uint32_t kind;
	int32_t code;
	uint32_t pad;
	uint64_t value;
	char msg[256];
};

/* What either end may send back; read into this, look at op first. */
union ctl_answer {
	uint32_t op;
	struct ctl_reply reply;
	struct ctl_event event;
};

/* --- the VMM's side, for whoever forks it -------------------------------------------------------- */

/* The embedded kernel and initramfs; borrowed for the life of the process. */
struct ctl_image {
	const uint8_t *kernel; /* packed by guest/kernel/pack.c */
	size_t kernel_bytes;
	const uint8_t *initrd;
	size_t initrd_bytes;
};

/* What the process is besides a machine. All zero is allowed and is the fastest. */
struct vmm_options {
	/* Host directories may be shared with the guest (CTL_SHARE_ADD): the process gets threads that
	 * keep the capabilities of a file server (jail.h). */
	bool serves_files;
	/* Be in this network namespace (setns(2)), > 0, or in a new empty one; 0: in the caller's. A
	 * machine makes no sockets: it is there to be found, and for descriptors bound to it. */
	int netns_fd;
	bool new_netns;
	/* cgroup.procs files, open for writing (a version 1 host has one for each hierarchy): the process
	 * joins each before it does anything else, so all it ever allocates is accounted there. */
	const int *cgroup_procs;
	unsigned ncgroup_procs;
};

/* In the child that `parent` has just forked: jail the process (jail.h) with root_fd, an empty
 * directory, as its root, then serve ctl_fd until it closes. opt NULL: none. Never returns. */
INTERNAL NORETURN void vmm_start(pid_t parent, int root_fd, int ctl_fd, const struct ctl_image *image,
				 const struct vmm_options *opt);

/* Can this /dev/kvm run a guest with an operating system in it? Some offer the interface and cannot:
 * runs a guest of a few instructions whose system call must arrive in ring 0. About a millisecond.
 * kvm_fd stays the caller's. 0, or -ENODEV with a sentence. */
INTERNAL MUST_USE int vmm_selftest(int kvm_fd, struct err *e);

/* Append what of this host a snapshot depends on: CPU model and features as KVM offers them. */
struct buf;
INTERNAL MUST_USE int vmm_host_identity(int kvm_fd, struct buf *out, struct err *e);
