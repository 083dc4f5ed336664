/* slots.h - the row of virtio-mmio windows, and what sits in each.
 *
 * The kernel command line declares LAYOUT_SLOTS windows. An empty one answers DeviceID 0, which Linux
 * takes as "placeholder, end probing quietly"; hot-plug fills the slot and lets the agent bind the
 * driver to the window again. One mechanism for every device, on cold boots and clones alike.
 *
 * Attach and detach run on the loop thread. Register access may come from any vCPU thread. */
#pragma once

#include "vmm/layout.h"
#include "vmm/virtio/virtio.h"

/* What a slot needs from the machine. */
struct slots_host {
	void *arg;
	/* Pulse an edge interrupt on an IOAPIC pin. Any thread. */
	void (*irq)(void *arg, unsigned pin);
	/* Route (or stop routing) 32-bit guest writes at `notify`, whatever their value, to an eventfd.
	 * 0/-errno. */
	int (*ioeventfd)(void *arg, gpa_t notify, int fd, bool assign);
	/* LAYOUT_SLOT_PAGES pages that the guest sees, read-only, where the first windows are: it reads
	 * registers there without leaving, InterruptStatus at each interrupt above all. They are what
	 * slots_mmio() would answer, all the time. NULL: all reads come through slots_mmio(). */
	void *windows;
};

struct slot {
	struct slots *all;
	unsigned index;
	pthread_mutex_t lock; /* everything below, and the device's queues */
	struct vdev *dev;     /* NULL = empty */
	uint32_t *window;     /* what the guest reads by itself; NULL: nothing */
	/* Registers, virtio 1.2 section 4.2.2; legal values and times are in mmio.c's table. */
	uint32_t status, isr, generation;
	uint32_t dev_features_sel, drv_features_sel, queue_sel;
	uint64_t drv_features;
	struct vq staged[VDEV_MAX_QUEUES]; /* what the driver is writing; latched into dev->q at ready */
	int kick_fd; /* eventfd for all queues: a wake-up looks at each. -1: the slot is empty or asleep */
	bool kick_is_devices; /* and somebody else reads it */
	struct watch kick;
};

struct slots {
	struct slot slot[LAYOUT_SLOTS];
	struct slots_host host;
	const struct gmem *mem;
	struct loop *loop;
	struct timer look; /* look at every queue: after a restore */
};

INTERNAL void slots_init(struct slots *s, const struct gmem *mem, struct loop *loop,
			 const struct slots_host *host);
/* Empty every slot. vCPUs have stopped. */
INTERNAL void slots_fini(struct slots *s);

/* Put a device into slot i; the slot owns it from here, also on failure (then it is destroyed).
 * -EBUSY: the slot is taken, -EINVAL: no such slot. */
INTERNAL MUST_USE int slots_attach(struct slots *s, unsigned i, struct vdev *d, struct err *e);
/* The same for a device that most machines never use: without an eventfd, which costs each clone three
 * system calls. Until slots_wake() the guest's kicks come on a vCPU's thread, out of KVM_RUN, so
 * kick() must not sleep. */
INTERNAL MUST_USE int slots_attach_asleep(struct slots *s, unsigned i, struct vdev *d, struct err *e);
/* From here on the guest's kicks go to an eventfd. fd -1: one of the slot's own, and kick() is called on the
 * loop thread, as for any other device. Else to that one, which is the device's and read by threads of the
 * device; kick() is then called only to have it look, after a restore for one. Nothing if it is awake. */
INTERNAL MUST_USE int slots_wake(struct slots *s, unsigned i, int fd, struct err *e);
/* Take the device out and destroy it. The agent must have unbound the driver before: a guest that
 * still has one sees a dead device, nothing worse. -ENOENT: empty. */
INTERNAL int slots_detach(struct slots *s, unsigned i, struct err *e);

/* A guest access to [LAYOUT_SLOT_BASE, + LAYOUT_SLOTS * LAYOUT_SLOT_BYTES). Reads fill data. */
INTERNAL void slots_mmio(struct slots *s, gpa_t gpa, uint8_t *data, uint32_t len, bool write);

/* All devices quiet / working again; see vdev_ops. */
INTERNAL MUST_USE int slots_quiesce(struct slots *s, struct err *e);
INTERNAL void slots_resume(struct slots *s);

/* One slot's transport registers, queues and device state, written after slots_quiesce(). */
INTERNAL void slots_save_one(struct slots *s, unsigned i, struct buf *out);
/* Load what slots_save_one() wrote into the device just attached to the same slot. The bytes are
 * hostile: everything the transport would have checked is checked again. Afterwards every queue
 * counts as kicked and, if it was, the interrupt as pending. -EINVAL / -EPROTO. */
INTERNAL MUST_USE int slots_restore_one(struct slots *s, unsigned i, struct cur *in, struct err *e);
