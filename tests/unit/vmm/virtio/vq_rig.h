/* vq_rig.h - the other side of the ring: a driver small enough to trust, for tests and fuzzers.
 *
 * vqr_init() makes RAM, a loop and a row of slots. Then either vqr_queue() for the ring alone, or
 * vqr_attach() and vqr_drive() for a device behind its real registers. vqr_add() publishes a chain,
 * vqr_kick() notifies, vqr_wait() runs the loop until so many came back. Descriptors are handed out
 * one after the other and never reused: a test fills a queue at most once, unless it writes the
 * descriptors itself with vqr_desc().
 *
 * Guest RAM: rings of queue k at 1 MiB + k * 64 KiB, free for data from VQR_DATA on. */
#pragma once

#include "amalgam/base/clock.h"
#include "vmm/layout.h"
#include "vmm/virtio/mmio.h"

#define VQR_RAM  MIB(4)
#define VQR_DATA MIB(2)

#define VQR_NEXT     1
#define VQR_WRITE    2
#define VQR_INDIRECT 4

struct vqr_ring {
	gpa_t desc, avail, used;
	uint16_t num;
	uint16_t free;      /* next descriptor to hand out */
	uint16_t published; /* avail->idx */
};

struct vqr {
	struct gmem mem;
	struct loop loop;
	struct slots slots;
	struct vdev *dev;
	struct vqr_ring ring[VDEV_MAX_QUEUES];
	unsigned irqs; /* interrupts so far; atomic */
	uint8_t windows[LAYOUT_SLOT_PAGES * LAYOUT_SLOT_BYTES] __attribute__((aligned(4)));
};

/* A piece of a request: `len` bytes at gpa, which the device reads or (in) writes. */
struct vqr_seg {
	gpa_t gpa;
	uint32_t len;
	bool in;
};

/* --- guest memory ----------------------------------------------------------------------------- */

static inline void vqr_put(struct vqr *r, gpa_t at, const void *p, size_t n)
{
	int err = gmem_write(&r->mem, at, p, n);
	ASSERT(err == 0);
}
static inline void vqr_get(struct vqr *r, gpa_t at, void *p, size_t n)
{
	int err = gmem_read(&r->mem, at, p, n);
	ASSERT(err == 0);
}
static inline uint16_t vqr_get16(struct vqr *r, gpa_t at)
{
	uint16_t v;
	int err = gmem_load16(&r->mem, at, &v);
	ASSERT(err == 0);
	return v;
}
static inline void vqr_put16(struct vqr *r, gpa_t at, uint16_t v)
{
	int err = gmem_store16(&r->mem, at, v);
	ASSERT(err == 0);
}
static inline uint8_t vqr_get8(struct vqr *r, gpa_t at)
{
	uint8_t v;
	vqr_get(r, at, &v, 1);
	return v;
}
static inline void vqr_fill(struct vqr *r, gpa_t at, uint8_t byte, size_t n)
{
	void *p = gmem_span(&r->mem, at, n);
	ASSERT(p);
	memset(p, byte, n);
}

/* --- set-up ----------------------------------------------------------------------------------- */

static inline void vqr_irq(void *arg, unsigned pin)
{
	struct vqr *r = arg;
	ASSERT(pin == LAYOUT_SLOT_GSI);
	__atomic_add_fetch(&r->irqs, 1, __ATOMIC_SEQ_CST);
}
static inline int vqr_ioeventfd(void *arg, gpa_t notify, int fd, bool assign)
{
	(void)arg, (void)notify, (void)fd, (void)assign;
	return 0;
}

static inline void vqr_init(struct vqr *r, uint64_t ram)
{
	struct slots_host host = { .arg = r, .irq = vqr_irq, .ioeventfd = vqr_ioeventfd,
				   .windows = r->windows };
	int err;

	*r = (struct vqr){ .irqs = 0 };
	err = gmem_init(&r->mem, ram, -1, GMEM_PRIVATE, NULL);
	ASSERT(err == 0);
	err = loop_init(&r->loop);
	ASSERT(err == 0);
	slots_init(&r->slots, &r->mem, &r->loop, &host);
	for (unsigned k = 0; k < VDEV_MAX_QUEUES; k++) {
		gpa_t at = MIB(1) + k * KIB(64);
		r->ring[k] = (struct vqr_ring){ .desc = at, .avail = at + KIB(16),
						.used = at + KIB(32), .num = VQ_MAX };
	}
}

static inline void vqr_fini(struct vqr *r)
{
	slots_fini(&r->slots);
	loop_fini(&r->loop);
	gmem_fini(&r->mem);
}

/* Ring k as a device would see it, without a device. */
static inline struct vq vqr_queue(struct vqr *r, unsigned k, uint16_t num)
{
	struct vqr_ring *g = &r->ring[k];

	g->num = num;
	return (struct vq){ .mem = &r->mem, .desc = g->desc, .avail = g->avail, .used = g->used,
			    .num = num, .ready = true };
}

static inline void vqr_attach(struct vqr *r, struct vdev *d)
{
	int err = slots_attach(&r->slots, 0, d, NULL);
	ASSERT(err == 0);
	r->dev = d;
}

static inline void vqr_write32(struct vqr *r, uint32_t reg, uint32_t v)
{
	slots_mmio(&r->slots, LAYOUT_SLOT_BASE + reg, (uint8_t *)&v, sizeof v, true);
}
/* A register both ways: by an exit, and as a guest reads it by itself. Threads of the device may change it
 * meanwhile. */
static inline uint64_t vqr_read(struct vqr *r, uint32_t at, unsigned len)
{
	uint64_t v = 0, seen = 0, again = 0;

	slots_mmio(&r->slots, LAYOUT_SLOT_BASE + at, (uint8_t *)&v, len, false);
	memcpy(&seen, r->windows + at, len);
	slots_mmio(&r->slots, LAYOUT_SLOT_BASE + at, (uint8_t *)&again, len, false);
	ASSERT(v == seen || v != again || at % 4 || at + len > LAYOUT_SLOT_BYTES);
	return again;
}
static inline uint32_t vqr_read32(struct vqr *r, uint32_t reg)
{
	return (uint32_t)vqr_read(r, reg, 4);
}
static inline uint64_t vqr_config(struct vqr *r, uint32_t offset, unsigned len)
{
	return vqr_read(r, 0x100 + offset, len);
}

static inline uint64_t vqr_offered(struct vqr *r)
{
	uint64_t f;

	vqr_write32(r, 0x014, 1);
	f = (uint64_t)vqr_read32(r, 0x010) << 32;
	vqr_write32(r, 0x014, 0);
	return f | vqr_read32(r, 0x010);
}

static inline void vqr_setup_ring(struct vqr *r, unsigned k)
{
	struct vqr_ring *g = &r->ring[k];

	g->free = g->published = 0;
	vqr_fill(r, g->avail, 0, 6 + 2 * (size_t)g->num);
	vqr_fill(r, g->used, 0, 6 + 8 * (size_t)g->num);
	vqr_write32(r, 0x030, k);
	vqr_write32(r, 0x038, g->num);
	vqr_write32(r, 0x080, (uint32_t)g->desc);
	vqr_write32(r, 0x084, (uint32_t)(g->desc >> 32));
	vqr_write32(r, 0x090, (uint32_t)g->avail);
	vqr_write32(r, 0x094, (uint32_t)(g->avail >> 32));
	vqr_write32(r, 0x0a0, (uint32_t)g->used);
	vqr_write32(r, 0x0a4, (uint32_t)(g->used >> 32));
	vqr_write32(r, 0x044, 1);
}

/* Virtio 1.2 section 3.1.1 from reset to DRIVER_OK, taking the features in `want` that are offered
 * and VERSION_1. Returns Status. */
static inline uint32_t vqr_drive(struct vqr *r, uint64_t want)
{
	uint64_t f = (want | VIRTIO_F_VERSION_1) & vqr_offered(r);

	vqr_write32(r, 0x070, 0);
	vqr_write32(r, 0x070, 1);
	vqr_write32(r, 0x070, 1 | 2);
	vqr_write32(r, 0x024, 1);
	vqr_write32(r, 0x020, (uint32_t)(f >> 32));
	vqr_write32(r, 0x024, 0);
	vqr_write32(r, 0x020, (uint32_t)f);
	vqr_write32(r, 0x070, 1 | 2 | 8);
	for (unsigned k = 0; k < r->dev->ops->nqueues; k++)
		vqr_setup_ring(r, k);
	vqr_write32(r, 0x070, 1 | 2 | 8 | 4);
	return vqr_read32(r, 0x070);
}

/* --- requests --------------------------------------------------------------------------------- */

/* Write one descriptor. */
static inline void vqr_desc(struct vqr *r, unsigned k, uint16_t i, gpa_t gpa, uint32_t len,
			    uint16_t flags, uint16_t next)
{
	struct {
		uint64_t gpa;
		uint32_t len;
		uint16_t flags, next;
	} d = { gpa, len, flags, next };
	vqr_put(r, r->ring[k].desc + 16 * (gpa_t)i, &d, sizeof d);
}

/* Put a head into the available ring and publish it. */
static inline void vqr_publish(struct vqr *r, unsigned k, uint16_t head)
{
	struct vqr_ring *g = &r->ring[k];

	vqr_put16(r, g->avail + 4 + 2 * (gpa_t)(g->published % g->num), head);
	vqr_put16(r, g->avail + 2, ++g->published);
}

/* Chain the segments and publish them; returns the head. */
static inline uint16_t vqr_add(struct vqr *r, unsigned k, const struct vqr_seg *seg, unsigned n)
{
	struct vqr_ring *g = &r->ring[k];
	uint16_t head = g->free % g->num;

	for (unsigned i = 0; i < n; i++) {
		uint16_t at = g->free++ % g->num;
		uint16_t flags = i + 1 < n ? VQR_NEXT : 0;
		if (seg[i].in)
			flags |= VQR_WRITE;
		vqr_desc(r, k, at, seg[i].gpa, seg[i].len, flags, g->free % g->num);
	}
	vqr_publish(r, k, head);
	return head;
}

static inline void vqr_kick(struct vqr *r, unsigned k)
{
	vqr_write32(r, VMMIO_REG_NOTIFY, k);
	loop_step(&r->loop, 0);
}

static inline uint16_t vqr_used_idx(struct vqr *r, unsigned k)
{
	return vqr_get16(r, r->ring[k].used + 2);
}

struct vqr_used {
	uint32_t id, len;
};

/* The i-th element ever returned. */
static inline struct vqr_used vqr_used(struct vqr *r, unsigned k, uint16_t i)
{
	struct vqr_used u;
	vqr_get(r, r->ring[k].used + 4 + 8 * (gpa_t)(i % r->ring[k].num), &u, sizeof u);
	return u;
}

/* Run the loop until `n` elements have come back in all, 10 s at most. */
static inline bool vqr_wait(struct vqr *r, unsigned k, uint16_t n)
{
	uint64_t deadline = clock_mono_ns() + 10 * NS_PER_S;

	while (vqr_used_idx(r, k) != n) {
		if (clock_mono_ns() > deadline)
			return false;
		loop_step(&r->loop, 1);
	}
	return true;
}

static inline bool vqr_is_broken(struct vqr *r)
{
	return vqr_read32(r, 0x070) & VMMIO_S_NEEDS_RESET;
}
