/* fuzz_blk.c - requests to the disk: vmm/virtio/blk_req.c and blk.c behind their real registers.
 *
 * Input: u8 flags (1 = read-only disk, 2 = no EVENT_IDX, 4 = no FLUSH, 8 = try the page cache
 * first), then requests. A request is a good one - type, sector, length, cuts - unless its knob
 * byte turns one thing around. All are served here, in this thread, as a worker would. Whatever
 * happens: a status is one of three, a page never offered for writing stays as it was, the file
 * keeps its size, a read-only one its bytes. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/base/log.c"
#include "amalgam/base/loop.c"
#include "vmm/gmem.c"
#include "vmm/virtio/queue.c"
#include "vmm/virtio/mmio.c"
#include "vmm/virtio/slots.c"
#include "vmm/virtio/blk_req.c"
#include "vmm/virtio/blk.c"

#include <sys/mman.h>

#include "tests/unit/vmm/virtio/vq_rig.h"

#define FBLK_SECTORS 64u
#define FBLK_GUARD   (VQR_DATA - 4096) /* never part of a good request */
#define FBLK_HEADER  VQR_DATA
#define FBLK_BUF     (VQR_DATA + 4096)
#define FBLK_STATUS  (VQR_DATA + MIB(1))

enum fblk_knob {
	FBLK_TYPE = 1, FBLK_SECTOR, FBLK_LENGTH, FBLK_ADDRESS, FBLK_DIRECTION, FBLK_FLAGS,
	FBLK_NO_STATUS, FBLK_SHORT_HEADER, FBLK_CONFIG, FBLK_RESET, FBLK_RANGE, FBLK_RESTORE,
};

static struct vqr fblk_rig[2]; /* read-write, read-only */
static int fblk_file[2];

int LLVMFuzzerInitialize(int *argc, char ***argv);

static void fblk_init_one(unsigned ro)
{
	struct vblk_config c = { .read_only = ro, .serial = "fuzz" };
	struct vdev *d = NULL;

	/* A real file where there is one: tmpfs cannot read without waiting (RWF_NOWAIT). */
	c.fd = ro ? open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;
	if (c.fd < 0)
		c.fd = memfd_create("disk", MFD_CLOEXEC);
	fblk_file[ro] = dup(c.fd);
	ASSERT(c.fd >= 0 && ftruncate(c.fd, FBLK_SECTORS * 512) == 0);
	vqr_init(&fblk_rig[ro], VQR_RAM);
	ASSERT(vblk_new(&c, &fblk_rig[ro].loop, &fblk_rig[ro].mem, &d, NULL) == 0);
	vqr_attach(&fblk_rig[ro], d);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	log_setup(-1, LOG_ERROR);
	fblk_init_one(0);
	fblk_init_one(1);
	return 0;
}

static uint8_t fblk_u8(struct cur *in)
{
	uint8_t v;
	cur_copy(in, &v, 1);
	return v;
}

/* Append `bytes` at gpa to the segments, in up to four pieces. */
static unsigned fblk_cut(struct cur *in, struct vqr_seg *seg, gpa_t gpa, uint32_t bytes, bool dir)
{
	unsigned cuts = fblk_u8(in), n = 0;

	for (cuts = cuts < 128 ? 0 : cuts % 4; cuts; cuts--) {
		uint32_t k = fblk_u8(in) * 3u;
		if (k >= bytes)
			break;
		seg[n++] = (struct vqr_seg){ gpa, k, dir };
		gpa += k;
		bytes -= k;
	}
	seg[n++] = (struct vqr_seg){ gpa, bytes, dir };
	return n;
}

/* A range list in the buffer; returns its length. */
static uint32_t fblk_ranges(struct cur *in, struct vqr *r, uint32_t type, unsigned knob)
{
	unsigned n = 1 + fblk_u8(in) % 4;

	for (unsigned i = 0; i < n; i++) {
		struct vblk_range range = { .sector = fblk_u8(in) % FBLK_SECTORS };
		range.num_sectors = fblk_u8(in) % (FBLK_SECTORS + 1 - (uint32_t)range.sector);
		range.flags = type == VBLK_T_WRITE_ZEROES && i % 2;
		if (knob == FBLK_RANGE)
			cur_copy(in, (uint8_t *)&range + fblk_u8(in) % 8, 8);
		vqr_put(r, FBLK_BUF + i * sizeof range, &range, sizeof range);
	}
	return n * (uint32_t)sizeof(struct vblk_range);
}

/* What is not the queue's business, once in a while. */
static void fblk_aside(struct cur *in, struct vqr *r, unsigned knob, uint64_t features)
{
	struct vblk *v = vblk_of(r->dev);
	uint64_t capacity = v->space.capacity;

	if (knob == FBLK_CONFIG)
		vqr_config(r, fblk_u8(in), 1u << fblk_u8(in) % 4);
	if (knob == FBLK_RESET)
		ASSERT(vqr_drive(r, features) == 15);
	if (knob == FBLK_RESTORE) {
		(void)!r->dev->ops->restore(r->dev, in);
		ASSERT(v->space.capacity && v->space.capacity <= capacity);
		v->space.capacity = capacity;
	}
}

/* Turn one thing of a finished request around. */
static void fblk_spoil(struct cur *in, struct vqr_seg *seg, unsigned *n, unsigned knob)
{
	struct vqr_seg *s = &seg[fblk_u8(in) % *n];

	switch (knob) {
	case FBLK_LENGTH:
		s->len = cur_le32(in) >> fblk_u8(in) % 32;
		break;
	case FBLK_ADDRESS:
		s->gpa = cur_le64(in) >> fblk_u8(in) % 64;
		if (s->gpa < FBLK_GUARD + 4096) /* not the guard, and not the rings: see fuzz_vq */
			s->gpa += FBLK_GUARD + 4096;
		break;
	case FBLK_DIRECTION:
		s->in = !s->in;
		break;
	case FBLK_NO_STATUS:
		--*n;
		break;
	case FBLK_SHORT_HEADER:
		seg[0].len = fblk_u8(in) % 16;
		break;
	}
}

static void fblk_request(struct cur *in, struct vqr *r, uint64_t features)
{
	static const uint32_t types[] = { VBLK_T_IN, VBLK_T_OUT, VBLK_T_FLUSH, VBLK_T_GET_ID,
					  VBLK_T_DISCARD, VBLK_T_WRITE_ZEROES };
	struct vblk_header h = { .type = types[fblk_u8(in) % ARRAY_LEN(types)] };
	uint32_t bytes = 0;
	unsigned knob = fblk_u8(in), n;
	struct vqr_seg seg[12];

	knob = knob > 0xc0 ? knob % 16 : 0;
	fblk_aside(in, r, knob, features);
	if (h.type == VBLK_T_IN || h.type == VBLK_T_OUT) {
		h.sector = fblk_u8(in) % FBLK_SECTORS;
		bytes = 512 * (fblk_u8(in) % (FBLK_SECTORS + 1 - (uint32_t)h.sector));
	} else if (h.type == VBLK_T_GET_ID) {
		bytes = 20;
	} else if (h.type != VBLK_T_FLUSH) {
		bytes = fblk_ranges(in, r, h.type, knob);
	}
	if (knob == FBLK_TYPE)
		h.type = cur_le32(in) >> fblk_u8(in) % 32;
	if (knob == FBLK_SECTOR)
		h.sector = cur_le64(in) >> fblk_u8(in) % 64;
	vqr_put(r, FBLK_HEADER, &h, sizeof h);
	n = fblk_cut(in, seg, FBLK_HEADER, sizeof h, false);
	n += fblk_cut(in, seg + n, FBLK_BUF, bytes, h.type == VBLK_T_IN || h.type == VBLK_T_GET_ID);
	seg[n++] = (struct vqr_seg){ FBLK_STATUS, 1, true };
	fblk_spoil(in, seg, &n, knob);
	if (n)
		vqr_add(r, 0, seg, n);
	if (knob == FBLK_FLAGS)
		vqr_desc(r, 0, fblk_u8(in), FBLK_BUF, 512, fblk_u8(in), fblk_u8(in));
}

/* All that is in the queue, as the loop thread and then a worker would. */
static void fblk_serve(struct vblk *v, bool cached)
{
	static struct vblk_req req;

	if (cached) {
		vdev_lock(&v->dev);
		if (vblk_serve_all_cached(v) < 0)
			vdev_broken(&v->dev, "fuzz");
		vdev_unlock(&v->dev);
	}
	while (vblk_serve_one(v, &req))
		ASSERT(*(uint8_t *)req.tail.iov_base <= VBLK_S_UNSUPP);
}

static void fblk_check(struct vqr *r, unsigned ro)
{
	static const uint8_t nothing[512];
	const uint8_t *guard = gmem_span(&r->mem, FBLK_GUARD, 4096);
	uint8_t sector[512];

	for (unsigned i = 0; i < 4096; i++)
		ASSERT(guard[i] == 0x5a);
	ASSERT(vblk_of(r->dev)->in_io == 0 && vblk_of(r->dev)->workers == 0);
	ASSERT(lseek(fblk_file[ro], 0, SEEK_END) == FBLK_SECTORS * 512);
	for (unsigned i = 0; ro && i < FBLK_SECTORS; i++) {
		ASSERT(pread(fblk_file[ro], sector, 512, i * 512) == 512);
		ASSERT(memcmp(sector, nothing, 512) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cur in = cur_of(data, len);
	uint8_t flags = fblk_u8(&in);
	unsigned ro = flags & 1;
	struct vqr *r = &fblk_rig[ro];
	uint64_t features = ~UINT64_C(0);

	if (flags & 2)
		features &= ~VIRTIO_F_RING_EVENT_IDX;
	if (flags & 4)
		features &= ~VBLK_F_FLUSH;
	vqr_fill(r, FBLK_GUARD, 0x5a, 4096);
	ASSERT(vqr_drive(r, features) == 15);
	for (unsigned n = 0; cur_left(&in) && n < 64; n++) {
		vqr_fill(r, FBLK_STATUS, 0, 1);
		fblk_request(&in, r, features);
		fblk_serve(vblk_of(r->dev), flags & 8);
		ASSERT(vqr_is_broken(r) || r->dev->q[0].next_avail == r->dev->q[0].next_used);
		if (vqr_is_broken(r))
			ASSERT(vqr_drive(r, features) == 15);
	}
	fblk_check(r, ro);
	return 0;
}
