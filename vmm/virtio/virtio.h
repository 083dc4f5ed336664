/* virtio.h - what a device is to its transport, and the transport to a device.
 *
 * A device (blk.c, vsock.c, ...) knows queues and bytes. The transport (mmio.c) knows registers,
 * status bits and interrupts. A slot (slots.c) pairs the two; an empty slot has no device.
 *
 * Threads and locks. Each slot has one lock. The transport takes it before every call into the
 * device below, whichever thread the call comes from: vCPU threads (registers, config space) and the
 * VMM's event loop (queue notifications). A device that works in other threads takes the lock itself
 * with vdev_lock() around queue operations and never sleeps in a system call while holding it.
 * Callbacks on the device's own descriptors (epoll) run on the loop thread WITHOUT the lock.
 *
 * Life: new (ops->..._new by its attach function) -> activate (driver set DRIVER_OK) -> quiesce ->
 * save, or -> reset (driver wrote 0 to Status) -> activate ... -> destroy. */
#pragma once

#include <pthread.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/loop.h"
#include "vmm/virtio/queue.h"

#define VDEV_MAX_QUEUES 3

/* Device ids, virtio 1.2 section 5. */
enum vdev_id {
	VDEV_NONE = 0, /* Linux: a placeholder window, probing ends quietly */
	VDEV_NET = 1,
	VDEV_BLK = 2,
	VDEV_CONSOLE = 3,
	VDEV_RNG = 4,
	VDEV_BALLOON = 5,
	VDEV_VSOCK = 19,
	VDEV_MEM = 24,
	VDEV_FS = 26,
	VDEV_PMEM = 27,
};

/* Feature bits of section 6 that we use. */
#define VIRTIO_F_RING_EVENT_IDX (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1      (UINT64_C(1) << 32)

struct vdev;
struct slot;

struct vdev_ops {
	const char *name; /* for people: "blk", "vsock" */
	enum vdev_id id;
	unsigned nqueues; /* <= VDEV_MAX_QUEUES */

	/* Device feature bits offered, besides VERSION_1 and EVENT_IDX which the transport adds. Must not
	 * change while a driver is bound. */
	uint64_t (*features)(struct vdev *d);
	/* Config space (4.2.2.2). Offsets past the end read 0 and ignore writes. Either may be NULL. */
	void (*config_read)(struct vdev *d, uint32_t offset, void *dst, uint32_t len);
	void (*config_write)(struct vdev *d, uint32_t offset, const void *src, uint32_t len);

	/* DRIVER_OK: queues are checked and latched, d->features negotiated. 0 or -errno (the transport
	 * then sets NEEDS_RESET). Also called after restore. May be NULL. */
	int (*activate)(struct vdev *d);
	/* Loop thread, or a vCPU's while the slot is asleep (slots.h), lock held: queue q, or another one of
	 * this device, was kicked. Process what is there, perhaps nothing. -errno = the guest broke a rule
	 * (the transport sets NEEDS_RESET). */
	int (*kick)(struct vdev *d, unsigned q);
	/* Driver reset, or the slot is being emptied: forget all requests; queues are no longer ready
	 * when this returns. Called with the lock held. May be NULL. */
	void (*reset)(struct vdev *d);
	/* Loop thread, no lock, vCPUs paused: finish or park everything in flight so that afterwards all
	 * state is in the queues and in what save() writes; nothing starts until resume(). 0/-errno.
	 * NULL when nothing can be in flight between two kicks. */
	int (*quiesce)(struct vdev *d);
	void (*resume)(struct vdev *d);
	/* Private state after quiesce(), queues excluded (the transport saves those). restore() must
	 * treat the bytes as hostile: 0 or -EINVAL. Either NULL when there is none. */
	void (*save)(struct vdev *d, struct buf *out);
	int (*restore)(struct vdev *d, struct cur *in);
	/* Loop thread, no lock, after reset: stop threads and watches, close descriptors, free d. */
	void (*destroy)(struct vdev *d);
};

/* Embedded first in every device. */
struct vdev {
	const struct vdev_ops *ops;
	struct slot *slot;         /* where it sits; set by slot_attach() */
	const struct gmem *mem;
	struct loop *loop;         /* the VMM's event loop */
	uint64_t features;         /* negotiated, valid from activate() on */
	bool active;               /* between activate() and reset() */
	bool complained;           /* of this guest; once is enough, or it could fill the log */
	struct vq q[VDEV_MAX_QUEUES];
};

/* --- offered by the transport (mmio.c) ------------------------------------------------------- */

INTERNAL void vdev_lock(struct vdev *d);
INTERNAL void vdev_unlock(struct vdev *d);

/* Interrupt the driver if it wants to know about what was pushed to queue q (used buffer
 * notification). Any thread; lock held. */
INTERNAL void vdev_signal(struct vdev *d, unsigned q);
/* For a device whose queues somebody else serves. The eventfd that becomes readable with a kick of any queue;
 * do kicks come here, too (loop thread); interrupt the driver, whatever it wants (any thread). Lock held. */
INTERNAL MUST_USE int vdev_kick_fd(const struct vdev *d);
INTERNAL void vdev_hear_kicks(struct vdev *d, bool yes);
INTERNAL void vdev_interrupt(struct vdev *d);
/* Configuration change notification; bumps ConfigGeneration. Any thread; lock held. */
INTERNAL void vdev_config_changed(struct vdev *d);
/* The guest broke a rule: DEVICE_NEEDS_RESET (2.1.1). Queues are ignored until the driver resets.
 * Any thread; lock held. */
INTERNAL void vdev_broken(struct vdev *d, const char *why);
