/* queue.h - split virtqueues, the device side. virtio 1.2 section 2.7.
 *
 * The guest owns the memory, so: ring addresses and size are latched when the driver sets the queue
 * ready and only then; every index and descriptor is copied once and the copy checked; a walk takes
 * at most `num` hops; indices that the device owns (next_avail, next_used) are never read back.
 * What breaks a rule is an error for the caller to turn into NEEDS_RESET, never an assert.
 *
 * Not thread-safe: the owner (the slot lock of mmio.h, or a blk worker holding it) serialises. */
#pragma once

#include <sys/uio.h>

#include "vmm/gmem.h"

#define VQ_MAX     256 /* entries, what QueueNumMax says */
#define VQ_MAX_IOV 130 /* segments of one chain: blk seg_max 128 + header + status */

struct vq {
	const struct gmem *mem;
	gpa_t desc, avail, used; /* ring addresses, valid while ready */
	uint16_t num;            /* entries, power of two, <= VQ_MAX */
	bool ready;
	bool event_idx;      /* VIRTIO_F_EVENT_IDX was negotiated */
	uint16_t next_avail; /* next entry of the avail ring to look at */
	uint16_t next_used;  /* next entry of the used ring to fill */
	uint16_t signalled;  /* next_used when the driver was last told */
};

/* One request: the device-readable segments first, then the device-writable ones (2.7.4.2). */
struct vq_chain {
	uint16_t head;
	unsigned nout, nin;      /* segments to read from, to write to */
	uint32_t out_len, in_len; /* their bytes */
	struct iovec iov[VQ_MAX_IOV]; /* nout, then nin; guest memory: see gmem_span() */
};

/* Check size, alignment (2.7: 16, 2, 4) and that each ring lies in RAM. 0 or -EINVAL. */
INTERNAL MUST_USE int vq_check(const struct vq *q);

/* Take the next available chain. 1 = c filled, 0 = none, -errno = the guest broke a rule:
 * -EFAULT address outside RAM, -ELOOP chain longer than the queue, -EINVAL bad index, order or more
 * than `num` entries published, -E2BIG more than VQ_MAX_IOV segments or 4 GiB. */
INTERNAL MUST_USE int vq_pop(struct vq *q, struct vq_chain *c);

/* The chain popped last cannot be served here: the next vq_pop() shall find it again. */
INTERNAL void vq_unpop(struct vq *q);

/* Give a chain back with `written` bytes written into its device-writable part. 0 or -EFAULT. */
INTERNAL MUST_USE int vq_push(struct vq *q, uint16_t head, uint32_t written);
/* The same in two steps, for chains the driver must see come back together: fill the i-th one (i < num),
 * then publish all n. 0 or -EFAULT. */
INTERNAL MUST_USE int vq_fill(struct vq *q, uint16_t i, uint16_t head, uint32_t written);
INTERNAL MUST_USE int vq_publish(struct vq *q, uint16_t n);

/* After one or more pushes: must the driver be interrupted? (2.7.7; remembers that it was.) */
INTERNAL bool vq_should_signal(struct vq *q);

/* The queue looked empty: ask the driver to notify us for the next entry (2.7.10). True when one
 * slipped in meanwhile and the caller must look again. */
INTERNAL bool vq_rearm(struct vq *q);

/* Entries published and not yet popped; a hint, since more may come. Garbage when the guest
 * published garbage: vq_pop() is what notices. */
INTERNAL uint16_t vq_backlog(const struct vq *q);

/* Copy between a chain and plain memory, `skip` bytes into the readable (out) or writable (in)
 * part. Returns bytes copied: less than n when the chain is shorter. */
INTERNAL size_t vq_copy_out(const struct vq_chain *c, size_t skip, void *dst, size_t n);
INTERNAL size_t vq_copy_in(const struct vq_chain *c, size_t skip, const void *src, size_t n);
