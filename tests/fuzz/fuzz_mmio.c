/* fuzz_mmio.c - a hostile driver at the registers of a virtio-mmio slot with a real device behind it.
 *
 * Input: u8 which device, then steps: mostly single register accesses, with good and bad values and at
 * whatever status the driver has reached; sometimes a whole good set-up, a kick, ring contents,
 * configuration accesses, hot-plug, or a snapshot with a changed byte. Whatever happens: queues stay as
 * they were latched until the driver resets (CVE-2026-5747) and lie in RAM, the status is one that a
 * driver can reach, and the guest's RAM outside of what was offered is nobody's business here (see
 * fuzz_vq, fuzz_blk, fuzz_balloon). Disks do not serve requests, they only take and return chains, so
 * that no thread is made. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/base/log.c"
#include "amalgam/base/loop.c"
#include "vmm/gmem.c"
#include "vmm/virtio/queue.c"
#include "vmm/virtio/mmio.c"
#include "vmm/virtio/slots.c"
#include "vmm/virtio/rng.c"
#include "vmm/virtio/balloon.c"
#include "vmm/virtio/blk_req.c"
#include "vmm/virtio/blk.c"

#include <sys/mman.h>

#include "tests/unit/vmm/virtio/vq_rig.h"

enum fmmio_step { FMMIO_REG, FMMIO_VALUE, FMMIO_STATUS, FMMIO_READ, FMMIO_ODD, FMMIO_DRIVE, FMMIO_KICK,
		  FMMIO_RING, FMMIO_CONFIG, FMMIO_PLUG, FMMIO_SNAPSHOT, FMMIO_CHANGED, FMMIO_STEPS };

enum { FMMIO_BLK, FMMIO_RNG, FMMIO_BALLOON, FMMIO_DEVICES };

static struct vqr fmmio_rig;
static struct vdev_ops fmmio_blk_ops;
static int fmmio_disk;
static struct vq fmmio_latched[VDEV_MAX_QUEUES]; /* as DRIVER_OK found them */

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	log_setup(-1, LOG_ERROR);
	fmmio_disk = memfd_create("disk", MFD_CLOEXEC);
	ASSERT(fmmio_disk >= 0 && ftruncate(fmmio_disk, 1 << 20) == 0);
	vqr_init(&fmmio_rig, VQR_RAM);
	return 0;
}

static uint8_t fmmio_u8(struct cur *in)
{
	uint8_t v;
	cur_copy(in, &v, 1);
	return v;
}

/* --- devices ------------------------------------------------------------------------------------ */

static int fmmio_blk_kick(struct vdev *d, unsigned q)
{
	struct vq_chain c;
	int r;

	while ((r = vq_pop(&d->q[q], &c)) > 0)
		if ((r = vq_push(&d->q[q], c.head, 0)) < 0)
			break;
	vdev_signal(d, q);
	return r;
}

static void fmmio_plug(unsigned which)
{
	struct vqr *r = &fmmio_rig;
	struct vblk_config c = { .serial = "fuzz" };
	struct vdev *d = NULL;

	if (r->slots.slot[0].dev)
		slots_detach(&r->slots, 0, NULL);
	switch (which) {
	case FMMIO_BLK:
		c.fd = dup(fmmio_disk);
		ASSERT(vblk_new(&c, &r->loop, &r->mem, &d, NULL) == 0);
		fmmio_blk_ops = *d->ops;
		fmmio_blk_ops.kick = fmmio_blk_kick;
		d->ops = &fmmio_blk_ops;
		break;
	case FMMIO_RNG:
		d = vrng_new(&r->loop, &r->mem);
		break;
	default:
		d = vbal_new(&r->loop, &r->mem);
	}
	vqr_attach(r, d);
}

/* --- steps --------------------------------------------------------------------------------------- */

static uint32_t fmmio_value(struct cur *in)
{
	static const uint32_t nice[] = { 0, 1, 2, 3, 8, 11, 15, 64, 128, 255, 256, 257, 512, 0x10000,
					 0x10100, (uint32_t)MIB(1), (uint32_t)MIB(1) + 0x4000,
					 (uint32_t)VQR_RAM - 4096, (uint32_t)VQR_RAM, 0xd0000000,
					 0x7fffffff, 0x80000000, ~0u };
	uint8_t how = fmmio_u8(in);

	return how < 0xc0 ? nice[how % ARRAY_LEN(nice)] : cur_le32(in);
}

/* The driver resets, also by way of a step that does more. */
static bool fmmio_resets(uint32_t reg, uint32_t v)
{
	return reg == 0x070 && v == 0;
}

static void fmmio_remember(void)
{
	struct slot *s = &fmmio_rig.slots.slot[0];

	if (s->dev && (s->status & VMMIO_S_DRIVER_OK))
		memcpy(fmmio_latched, s->dev->q, sizeof fmmio_latched);
}

static void fmmio_write(uint32_t reg, uint32_t v)
{
	uint32_t before = fmmio_rig.slots.slot[0].status;

	vqr_write32(&fmmio_rig, reg, v);
	if (fmmio_resets(reg, v) || !(before & VMMIO_S_DRIVER_OK))
		fmmio_remember();
}

/* Any width, anywhere in the window. */
static void fmmio_odd(struct cur *in)
{
	uint8_t data[8], flags = fmmio_u8(in);
	uint32_t at = cur_le32(in) % LAYOUT_SLOT_BYTES, len = 1 + flags % 8, v;

	cur_copy(in, data, sizeof data);
	memcpy(&v, data, sizeof v);
	if ((flags & 0x80) && len == 4)
		fmmio_write(at, v);
	else
		slots_mmio(&fmmio_rig.slots, LAYOUT_SLOT_BASE + at, data, len, flags & 0x80);
}

static void fmmio_ring(struct cur *in)
{
	struct vqr *r = &fmmio_rig;
	unsigned k = fmmio_u8(in) % VDEV_MAX_QUEUES;
	uint8_t what = fmmio_u8(in);

	if (what < 0x80) { /* a chain that may be good */
		struct vqr_seg seg[3];
		unsigned n = 1 + what % 3;
		for (unsigned i = 0; i < n; i++)
			seg[i] = (struct vqr_seg){ VQR_DATA + fmmio_u8(in) * 64u, fmmio_u8(in),
						   i + 1 == n };
		vqr_add(r, k, seg, n);
	} else {
		vqr_desc(r, k, fmmio_u8(in), cur_le32(in), cur_le32(in) >> what % 32, fmmio_u8(in),
			 fmmio_u8(in));
		vqr_publish(r, k, what % 4 ? fmmio_u8(in) : (uint16_t)cur_le32(in));
	}
}

static void fmmio_snapshot(struct cur *in, unsigned which)
{
	AUTO_BUF struct buf b = { 0 }, again = { 0 };
	struct slots *s = &fmmio_rig.slots;
	uint8_t flip = fmmio_u8(in);
	struct cur c;
	int r;

	slots_save_one(s, 0, &b);
	if (flip & 1)
		b.data[cur_le32(in) % b.len] ^= flip;
	if ((flip & 7) == 6)
		b.len = cur_le32(in) % b.len;
	fmmio_plug(which);
	c = cur_of(b.data, b.len);
	r = slots_restore_one(s, 0, &c, NULL);
	ASSERT(r == 0 || flip & 1 || (flip & 7) == 6);
	if (r < 0) {
		fmmio_plug(which);
	} else if (!(flip & 1) && !(s->slot[0].status & VMMIO_S_NEEDS_RESET)) {
		slots_save_one(s, 0, &again);
		ASSERT(again.len == b.len && !memcmp(again.data, b.data, b.len));
	}
	fmmio_remember();
}

static void fmmio_do(struct cur *in, unsigned which)
{
	struct vqr *r = &fmmio_rig;
	uint32_t v;

	switch (fmmio_u8(in) % FMMIO_STEPS) {
	case FMMIO_REG: /* a register of the table */
		v = vmmio_regs[fmmio_u8(in) % ARRAY_LEN(vmmio_regs)].offset;
		fmmio_write(v, fmmio_value(in));
		break;
	case FMMIO_VALUE:
		v = fmmio_u8(in) & ~3u;
		fmmio_write(v, cur_le32(in));
		break;
	case FMMIO_STATUS:
		fmmio_write(0x070, fmmio_u8(in));
		break;
	case FMMIO_READ:
		vqr_read32(r, fmmio_u8(in));
		break;
	case FMMIO_ODD:
		fmmio_odd(in);
		break;
	case FMMIO_DRIVE:
		v = vqr_drive(r, fmmio_u8(in) & 1 ? VIRTIO_F_RING_EVENT_IDX : 0);
		ASSERT(v == 15);
		fmmio_remember();
		break;
	case FMMIO_KICK:
		vqr_kick(r, fmmio_u8(in) % 4);
		break;
	case FMMIO_RING:
		fmmio_ring(in);
		break;
	case FMMIO_CONFIG:
		vqr_config(r, cur_le32(in) % 0xf00, 1 + fmmio_u8(in) % 8);
		break;
	case FMMIO_PLUG:
		fmmio_plug(which);
		break;
	case FMMIO_SNAPSHOT:
		fmmio_snapshot(in, which);
		break;
	case FMMIO_CHANGED:
		vdev_lock(r->dev);
		vdev_config_changed(r->dev);
		vdev_unlock(r->dev);
		break;
	}
}

static void fmmio_check(void)
{
	const struct slot *s = &fmmio_rig.slots.slot[0];
	const struct vdev *d = s->dev;

	ASSERT(slots_status_is_reachable(s->status));
	ASSERT(!(s->isr & ~(VMMIO_INT_VRING | VMMIO_INT_CONFIG)));
	ASSERT(d->active == ((s->status & VMMIO_S_DRIVER_OK) && d->active));
	for (unsigned q = 0; q < VDEV_MAX_QUEUES; q++) {
		const struct vq *now = &d->q[q], *then = &fmmio_latched[q];
		ASSERT(!now->ready || (d->active && vq_check(now) == 0));
		if (!(s->status & VMMIO_S_DRIVER_OK))
			continue;
		ASSERT(now->desc == then->desc && now->avail == then->avail && now->used == then->used);
		ASSERT(now->num == then->num && now->event_idx == then->event_idx);
		ASSERT(now->ready == then->ready || (s->status & VMMIO_S_NEEDS_RESET));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cur in = cur_of(data, len);
	unsigned which = fmmio_u8(&in) % FMMIO_DEVICES;

	for (unsigned k = 0; k < VDEV_MAX_QUEUES; k++)
		fmmio_rig.ring[k].num = VQ_MAX;
	fmmio_plug(which);
	for (unsigned n = 0; cur_left(&in) && !in.bad && n < 200; n++) {
		fmmio_do(&in, which);
		fmmio_check();
	}
	return 0;
}
