/* fuzz_balloon.c - a hostile balloon driver: vmm/virtio/balloon.c and gmem_discard() under it.
 *
 * Input: u8 flags (1 = RAM is a copy-on-write clone of a file, 2 = no EVENT_IDX), then steps: page
 * lists and reported blocks, mostly good, plus configuration writes, targets and saved states.
 * Whatever happens: pages below FBAL_KEEP are never named by a good request and keep their bytes,
 * the template its own, and every page given away can be written again. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/base/log.c"
#include "amalgam/base/loop.c"
#include "vmm/gmem.c"
#include "vmm/virtio/queue.c"
#include "vmm/virtio/mmio.c"
#include "vmm/virtio/slots.c"
#include "vmm/virtio/balloon.c"

#include <sys/mman.h>

#include "tests/unit/vmm/virtio/vq_rig.h"

#define FBAL_RAM  MIB(16)
#define FBAL_KEEP UINT64_C(4096)
#define FBAL_FREE MIB(4) /* given away from here on */

enum fbal_step { FBAL_INFLATE, FBAL_DEFLATE, FBAL_REPORT, FBAL_CONFIG, FBAL_TARGET, FBAL_RESTORE,
		 FBAL_RESET, FBAL_STEPS };

static struct vqr fbal_rig[2]; /* anonymous, clone */
static int fbal_file;

int LLVMFuzzerInitialize(int *argc, char ***argv);

static void fbal_init_one(struct vqr *r, int fd)
{
	vqr_init(r, VQR_RAM);
	gmem_fini(&r->mem);
	ASSERT(gmem_init(&r->mem, FBAL_RAM, fd, GMEM_PRIVATE, NULL) == 0);
	ASSERT(fd < 0 || gmem_map_file(&r->mem, 0, FBAL_RAM, NULL) == 0);
	vqr_attach(r, vbal_new(&r->loop, &r->mem));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);

	(void)argc, (void)argv;
	log_setup(-1, LOG_ERROR);
	ASSERT(fd >= 0 && ftruncate(fd, FBAL_RAM) == 0);
	fbal_file = dup(fd);
	fbal_init_one(&fbal_rig[0], -1);
	fbal_init_one(&fbal_rig[1], fd);
	return 0;
}

static uint8_t fbal_u8(struct cur *in)
{
	uint8_t v;
	cur_copy(in, &v, 1);
	return v;
}
static uint16_t fbal_u16(struct cur *in)
{
	uint16_t v;
	cur_copy(in, &v, 2);
	return v;
}

/* Runs of pages, upwards or downwards; a knob puts anything in. */
static void fbal_list(struct cur *in, struct vqr *r, unsigned q)
{
	struct vqr_seg seg = { VQR_DATA, 0, false };
	unsigned runs = 1 + fbal_u8(in) % 4;

	while (runs--) {
		uint32_t pfn = (uint32_t)(FBAL_FREE / GMEM_PAGE) + fbal_u16(in) % 3072;
		int step = fbal_u8(in) % 4 - 1;
		for (unsigned n = fbal_u8(in); n; n--, pfn += (uint32_t)step, seg.len += 4) {
			uint32_t v = pfn < FBAL_FREE / GMEM_PAGE ? FBAL_FREE / GMEM_PAGE : pfn;
			vqr_put(r, VQR_DATA + seg.len, &v, 4);
		}
	}
	if (fbal_u8(in) > 0xe0) {
		uint32_t v = (cur_le32(in) >> fbal_u8(in) % 32) | 1; /* not page 0 */
		vqr_put(r, VQR_DATA + (seg.len ? fbal_u16(in) % seg.len & ~3u : 0), &v, 4);
		seg.len += fbal_u8(in) % 4; /* a list that ends within a number */
	}
	vqr_add(r, q, &seg, 1);
	vqr_kick(r, q);
}

static void fbal_report(struct cur *in, struct vqr *r)
{
	struct vqr_seg seg[8];
	unsigned n = 1 + fbal_u8(in) % 8;

	for (unsigned i = 0; i < n; i++) {
		uint8_t at = fbal_u8(in), pages = fbal_u8(in);
		seg[i] = (struct vqr_seg){ FBAL_FREE + at * 8 * GMEM_PAGE,
					   (1 + (uint32_t)pages * 4) * GMEM_PAGE, true };
		if (at == 0xff)
			seg[i].gpa = FBAL_KEEP + (cur_le64(in) >> fbal_u8(in) % 64) % FBAL_RAM;
		if (pages == 0xff)
			seg[i].len = cur_le32(in) >> fbal_u8(in) % 32;
		if (at == 0xfe)
			seg[i].in = false;
	}
	vqr_add(r, 2, seg, n);
	vqr_kick(r, 2);
}

static void fbal_config(struct cur *in, struct vqr *r)
{
	uint8_t bytes[8];
	uint32_t at = fbal_u8(in) % 32, len = 1u << fbal_u8(in) % 4;

	cur_copy(in, bytes, sizeof bytes);
	slots_mmio(&r->slots, LAYOUT_SLOT_BASE + 0x100 + at, bytes, len, true);
	vqr_config(r, at, len);
}

static void fbal_do(struct cur *in, struct vqr *r, uint64_t features)
{
	uint8_t step = fbal_u8(in) % FBAL_STEPS;
	struct vbal_stats s;

	switch (step) {
	case FBAL_INFLATE:
	case FBAL_DEFLATE:
		fbal_list(in, r, step);
		break;
	case FBAL_REPORT:
		fbal_report(in, r);
		break;
	case FBAL_CONFIG:
		fbal_config(in, r);
		break;
	case FBAL_TARGET:
		vbal_set_target(r->dev, fbal_u8(in));
		break;
	case FBAL_RESTORE:
		(void)!r->dev->ops->restore(r->dev, in);
		break;
	case FBAL_RESET:
		ASSERT(vqr_drive(r, features) == 15);
		break;
	}
	vbal_get_stats(r->dev, &s);
	ASSERT(s.target_pages <= FBAL_RAM / GMEM_PAGE);
	if (vqr_is_broken(r))
		ASSERT(vqr_drive(r, features) == 15);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cur in = cur_of(data, len);
	uint8_t flags = fbal_u8(&in), c;
	struct vqr *r = &fbal_rig[flags & 1];
	uint64_t features = flags & 2 ? ~VIRTIO_F_RING_EVENT_IDX : ~UINT64_C(0);

	vqr_fill(r, 0, 0x5a, FBAL_KEEP);
	ASSERT(vqr_drive(r, features) == 15);
	for (unsigned n = 0; cur_left(&in) && n < 64; n++)
		fbal_do(&in, r, features);
	for (unsigned i = 0; i < FBAL_KEEP; i++)
		ASSERT(vqr_get8(r, i) == 0x5a);
	vqr_fill(r, FBAL_FREE, 0xa5, 16);
	vqr_fill(r, FBAL_RAM - 16, 0xa5, 16);
	for (off_t at = 0; at < (off_t)FBAL_RAM; at += MIB(1))
		ASSERT(pread(fbal_file, &c, 1, at) == 1 && c == 0);
	return 0;
}
