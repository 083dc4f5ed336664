#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/virtio/balloon.h"

#include <sys/mman.h>

#define TBAL_RAM   MIB(64)
#define TBAL_PAGES (TBAL_RAM / GMEM_PAGE)
#define TBAL_LIST  VQR_DATA /* where a request's page numbers lie */
#define TBAL_FREE  MIB(8)   /* pages to give away from here on */

static void tbal_start(struct vqr *r)
{
	log_setup(-1, LOG_ERROR);
	vqr_init(r, TBAL_RAM);
	vqr_attach(r, vbal_new(&r->loop, &r->mem));
	CHECK_EQ(vqr_drive(r, ~UINT64_C(0)), 15);
}

/* RAM becomes a copy-on-write clone of (or, shared, the) memory file; returns a descriptor of
 * it. */
static int tbal_use_file(struct vqr *r, uint64_t ram, enum gmem_share share)
{
	int fd = memfd_create("memory", MFD_CLOEXEC), look = dup(fd);

	ASSERT(ftruncate(fd, (off_t)ram) == 0);
	log_setup(-1, LOG_ERROR);
	vqr_init(r, VQR_RAM);
	gmem_fini(&r->mem);
	CHECK_EQ(gmem_init(&r->mem, ram, fd, share, NULL), 0);
	if (share == GMEM_PRIVATE)
		CHECK_EQ(gmem_map_file(&r->mem, 0, ram, NULL), 0);
	vqr_attach(r, vbal_new(&r->loop, &r->mem));
	CHECK_EQ(vqr_drive(r, ~UINT64_C(0)), 15);
	return look;
}

static void tbal_send(struct vqr *r, unsigned q, const struct vqr_seg *seg, unsigned n)
{
	uint16_t before = vqr_used_idx(r, q);

	vqr_add(r, q, seg, n);
	vqr_kick(r, q);
	CHECK(vqr_wait(r, q, (uint16_t)(before + 1)));
	CHECK_EQ(vqr_used(r, q, before).len, 0);
}

static void tbal_list(struct vqr *r, unsigned q, const uint32_t *pfn, unsigned n)
{
	const struct vqr_seg seg = { TBAL_LIST, n * 4, false };

	vqr_put(r, TBAL_LIST, pfn, n * sizeof *pfn);
	tbal_send(r, q, &seg, 1);
}

static struct vbal_stats tbal_stats(struct vqr *r)
{
	struct vbal_stats s;
	vbal_get_stats(r->dev, &s);
	return s;
}

static bool tbal_is_resident(struct vqr *r, gpa_t at)
{
	unsigned char c;
	ASSERT(mincore(gmem_span(&r->mem, at, GMEM_PAGE), GMEM_PAGE, &c) == 0);
	return c & 1;
}

TEST(balloon_shows_its_target_and_interrupts)
{
	struct vqr r;

	tbal_start(&r);
	CHECK_EQ(vqr_offered(&r) & UINT32_MAX, 1 << 2 | 1 << 5 | 1 << 29);
	CHECK_EQ(vqr_config(&r, 0, 4), 0);
	vbal_set_target(r.dev, 16);
	CHECK_EQ(vqr_config(&r, 0, 4), 4096);
	CHECK_EQ(r.irqs, 1);
	CHECK_EQ(vqr_read32(&r, 0x060), VMMIO_INT_CONFIG);
	vbal_set_target(r.dev, 16); /* nothing new, nothing said */
	CHECK_EQ(r.irqs, 1);
	vbal_set_target(r.dev, UINT32_MAX);
	CHECK_EQ(vqr_config(&r, 0, 4), TBAL_PAGES);
	vqr_fini(&r);
}

TEST(balloon_target_set_before_the_driver_comes_is_kept)
{
	struct vqr r;
	struct vdev *d;

	vqr_init(&r, TBAL_RAM);
	d = vbal_new(&r.loop, &r.mem);
	vbal_set_target(d, 1);
	vqr_attach(&r, d);
	CHECK_EQ(vqr_drive(&r, ~UINT64_C(0)), 15);
	CHECK_EQ(vqr_config(&r, 0, 4), 256);
	CHECK_EQ(tbal_stats(&r).target_pages, 256);
	vqr_fini(&r);
}

TEST(balloon_believes_only_whole_writes_of_actual)
{
	static const struct {
		uint32_t offset, len;
		uint64_t actual;
	} row[] = { { 4, 4, 7 }, { 0, 4, 0 }, { 4, 1, 0 }, { 4, 2, 0 }, { 4, 8, 0 }, { 8, 4, 0 },
		    { 12, 4, 0 }, { 16, 4, 0 }, { 0xefc, 4, 0 } };

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct vqr r;
		uint8_t seven[8] = { 7 };
		test_note("row %u", i);
		tbal_start(&r);
		slots_mmio(&r.slots, LAYOUT_SLOT_BASE + 0x100 + row[i].offset, seven, row[i].len,
			   true);
		CHECK_EQ(vqr_config(&r, 0, 8) >> 32, row[i].actual);
		CHECK_EQ(vqr_config(&r, 0, 4), 0);
		CHECK_EQ(vqr_config(&r, 8, 8), 0);
		CHECK_EQ(tbal_stats(&r).actual_pages, row[i].actual);
		vqr_fini(&r);
	}
}

TEST(balloon_inflate_drops_the_pages_it_is_told_and_no_other)
{
	/* Upwards, downwards, alone, twice the same. */
	static const uint32_t order[][6] = { { 0, 1, 2, 3, 4, 5 }, { 5, 4, 3, 2, 1, 0 },
					     { 1, 3, 5, 4, 2, 0 }, { 2, 2, 3, 3, 2, 2 } };
	struct vqr r;

	tbal_start(&r);
	for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
		uint32_t pfn[6], base = TBAL_FREE / GMEM_PAGE;
		bool given[8] = { 0 };
		test_note("order %u", i);
		vqr_fill(&r, TBAL_FREE - GMEM_PAGE, 0xaa, 8 * GMEM_PAGE);
		for (unsigned k = 0; k < 6; k++) {
			pfn[k] = base + order[i][k];
			given[order[i][k] + 1] = true;
		}
		tbal_list(&r, 0, pfn, 6);
		for (unsigned k = 0; k < 8; k++) {
			gpa_t at = TBAL_FREE + k * GMEM_PAGE - GMEM_PAGE;
			CHECK_EQ(tbal_is_resident(&r, at), !given[k]);
			CHECK_EQ(vqr_get8(&r, at), given[k] ? 0 : 0xaa);
		}
	}
	CHECK_EQ(tbal_stats(&r).inflated_pages, 24);
	CHECK_EQ(tbal_stats(&r).refused, 0);
	vqr_fini(&r);
}

TEST(balloon_takes_page_zero_and_the_last_one)
{
	const uint32_t pfn[] = { 1, 0, TBAL_PAGES - 1 };
	struct vqr r;

	tbal_start(&r);
	vqr_fill(&r, 0, 0xaa, 8192);
	vqr_fill(&r, TBAL_RAM - GMEM_PAGE, 0xaa, GMEM_PAGE);
	tbal_list(&r, 0, pfn, 3);
	CHECK_EQ(vqr_get8(&r, 0), 0);
	CHECK_EQ(vqr_get8(&r, TBAL_RAM - 1), 0);
	CHECK_EQ(tbal_stats(&r).inflated_pages, 3);
	vqr_fini(&r);
}

TEST(balloon_refuses_pages_that_are_not_ram)
{
	const uint32_t pfn[] = { TBAL_PAGES, UINT32_MAX, UINT32_MAX - 1, UINT32_MAX, 0, 0x80000000,
				 LAYOUT_SLOT_BASE / GMEM_PAGE };
	struct vqr r;

	tbal_start(&r);
	tbal_list(&r, 0, pfn, ARRAY_LEN(pfn));
	CHECK(!vqr_is_broken(&r));
	CHECK_EQ(tbal_stats(&r).inflated_pages, 1);
	CHECK_EQ(tbal_stats(&r).refused, ARRAY_LEN(pfn) - 1);
	vqr_fini(&r);
}

TEST(balloon_looks_at_so_many_pages_of_a_request)
{
	const struct vqr_seg seg[] = { { TBAL_LIST, (uint32_t)MIB(4), false },
				       { TBAL_LIST, (uint32_t)MIB(4) + 3, false } };
	struct vqr r;

	tbal_start(&r);
	for (uint32_t i = 0; i < MIB(4) / 4; i++) {
		uint32_t pfn = TBAL_FREE / GMEM_PAGE + i % 512;
		vqr_put(&r, TBAL_LIST + 4 * i, &pfn, 4);
	}
	tbal_send(&r, 0, seg, 2);
	CHECK_EQ(tbal_stats(&r).inflated_pages, VBAL_MAX_PFNS);
	CHECK_EQ(tbal_stats(&r).refused, MIB(2) - VBAL_MAX_PFNS);
	vqr_fini(&r);
}

TEST(balloon_counts_deflation_and_bears_odd_requests)
{
	const struct vqr_seg odd[] = { { TBAL_LIST, 11, false } }, empty[] = { { 0, 0, false } },
			     in[] = { { TBAL_LIST, 8, true } };
	const uint32_t pfn[] = { 5, 6, 7 };
	struct vqr r;

	tbal_start(&r);
	tbal_list(&r, 1, pfn, 3);
	CHECK_EQ(tbal_stats(&r).deflated_pages, 3);
	tbal_send(&r, 1, odd, 1);
	CHECK_EQ(tbal_stats(&r).deflated_pages, 5);
	for (unsigned q = 0; q < 3; q++) {
		tbal_send(&r, q, empty, 1);
		if (q < 2)
			tbal_send(&r, q, in, 1);
	}
	CHECK_EQ(tbal_stats(&r).inflated_pages, 0);
	CHECK(!vqr_is_broken(&r));
	vqr_fini(&r);
}

TEST(balloon_reported_blocks_go_back_to_the_host)
{
	const struct vqr_seg seg[] = { { MIB(16), (uint32_t)MIB(2), true },
				       { MIB(32), (uint32_t)MIB(4), true } };
	struct vqr r;

	tbal_start(&r);
	vqr_fill(&r, MIB(16), 0xaa, MIB(24));
	tbal_send(&r, 2, seg, 2);
	CHECK(!tbal_is_resident(&r, MIB(16)));
	CHECK(!tbal_is_resident(&r, MIB(18) - GMEM_PAGE));
	CHECK(tbal_is_resident(&r, MIB(18)));
	CHECK(!tbal_is_resident(&r, MIB(36) - GMEM_PAGE));
	CHECK(tbal_is_resident(&r, MIB(36)));
	CHECK_EQ(tbal_stats(&r).reported_bytes, MIB(6));
	vqr_fini(&r);
}

TEST(balloon_reports_of_parts_of_pages_are_refused)
{
	static const struct vqr_seg row[] = {
		{ MIB(16) + 1, 4096, true }, { MIB(16), 4095, true }, { MIB(16), 1, true },
		{ MIB(16) + 2048, (uint32_t)MIB(2), true },
	};
	struct vqr r;

	tbal_start(&r);
	vqr_fill(&r, MIB(16), 0xaa, MIB(4));
	for (unsigned i = 0; i < ARRAY_LEN(row); i++)
		tbal_send(&r, 2, &row[i], 1);
	for (gpa_t at = MIB(16); at < MIB(20); at += GMEM_PAGE)
		CHECK(tbal_is_resident(&r, at));
	CHECK_EQ(tbal_stats(&r).refused, ARRAY_LEN(row));
	CHECK_EQ(tbal_stats(&r).reported_bytes, 0);
	vqr_fini(&r);
}

TEST(balloon_serves_a_full_queue_in_several_goes)
{
	const struct vqr_seg seg = { TBAL_LIST, 4, false };
	const uint32_t pfn = TBAL_FREE / GMEM_PAGE;
	struct vqr r;

	tbal_start(&r);
	vqr_put(&r, TBAL_LIST, &pfn, 4);
	for (unsigned q = 0; q < 2; q++)
		for (unsigned i = 0; i < VQ_MAX; i++)
			vqr_add(&r, q, &seg, 1);
	vqr_kick(&r, 0);
	CHECK(vqr_used_idx(&r, 0) < VQ_MAX);
	vqr_kick(&r, 1);
	CHECK(vqr_wait(&r, 0, VQ_MAX));
	CHECK(vqr_wait(&r, 1, VQ_MAX));
	CHECK_EQ(tbal_stats(&r).inflated_pages, VQ_MAX);
	vqr_fini(&r);
}

TEST(balloon_breaks_on_a_broken_queue_until_reset)
{
	const uint32_t pfn = 100;
	struct vqr r;

	tbal_start(&r);
	for (unsigned q = 0; q < 3; q++) {
		vqr_desc(&r, q, 0, TBAL_LIST, 4, VQR_NEXT, 0);
		vqr_publish(&r, q, 0);
		vqr_kick(&r, q);
		CHECK(vqr_is_broken(&r));
		CHECK_EQ(vqr_drive(&r, 0), 15);
	}
	tbal_list(&r, 0, &pfn, 1);
	vqr_fini(&r);
}

TEST(balloon_state_survives_and_cut_state_does_not)
{
	const uint32_t pfn[] = { TBAL_FREE / GMEM_PAGE, UINT32_MAX };
	struct vqr r, to;
	AUTO_BUF struct buf state = { 0 };

	tbal_start(&r);
	vbal_set_target(r.dev, 3);
	tbal_list(&r, 0, pfn, 2);
	vqr_write32(&r, 0x104, 99);
	slots_save_one(&r.slots, 0, &state);
	for (size_t cut = 0; cut <= state.len; cut++) {
		struct cur in = cur_of(state.data, state.len - cut);
		test_note("%zu bytes missing", cut);
		vqr_init(&to, TBAL_RAM);
		vqr_attach(&to, vbal_new(&to.loop, &to.mem));
		CHECK_EQ(slots_restore_one(&to.slots, 0, &in, NULL), cut ? -EINVAL : 0);
		if (cut == 0) {
			CHECK_EQ(tbal_stats(&to).target_pages, 768);
			CHECK_EQ(tbal_stats(&to).actual_pages, 99);
			CHECK_EQ(tbal_stats(&to).inflated_pages, 1);
			CHECK_EQ(tbal_stats(&to).refused, 1);
		}
		vqr_fini(&to);
	}
	vqr_write32(&r, 0x070, 0);
	CHECK_EQ(tbal_stats(&r).actual_pages, 0);
	vqr_fini(&r);
}

/* --- gmem_discard() under it ------------------------------------------------------------------ */

TEST(balloon_of_a_clone_leaves_the_template_alone)
{
	const struct vqr_seg block = { MIB(16), (uint32_t)MIB(2), true };
	const uint32_t pfn = TBAL_FREE / GMEM_PAGE;
	struct vqr r;
	uint8_t c;
	int fd = tbal_use_file(&r, TBAL_RAM, GMEM_PRIVATE);

	ASSERT(pwrite(fd, "t", 1, TBAL_FREE) == 1 && pwrite(fd, "t", 1, MIB(16)) == 1);
	vqr_fill(&r, TBAL_FREE, 0xaa, GMEM_PAGE);
	vqr_fill(&r, MIB(16), 0xaa, MIB(2));
	tbal_list(&r, 0, &pfn, 1);
	tbal_send(&r, 2, &block, 1);
	c = vqr_get8(&r, TBAL_FREE);
	CHECK(c == 0 || c == 't'); /* ours is gone */
	CHECK_EQ(vqr_get8(&r, MIB(16)), 0);
	vqr_fill(&r, TBAL_FREE, 0xbb, GMEM_PAGE); /* and it is still memory of our own */
	vqr_fill(&r, MIB(16), 0xbb, MIB(2));
	for (unsigned i = 0; i < 2; i++) {
		ASSERT(pread(fd, &c, 1, i ? (off_t)MIB(16) : (off_t)TBAL_FREE) == 1);
		CHECK_EQ(c, 't');
	}
	vqr_fini(&r);
	close(fd);
}

TEST(balloon_of_a_template_makes_holes_in_its_file)
{
	const struct vqr_seg block = { MIB(16), (uint32_t)MIB(2), true };
	struct vqr r;
	uint8_t c;
	int fd = tbal_use_file(&r, TBAL_RAM, GMEM_SHARED);

	vqr_fill(&r, MIB(16), 0xaa, MIB(2) + 1);
	tbal_send(&r, 2, &block, 1);
	CHECK_EQ(lseek(fd, MIB(16), SEEK_HOLE), MIB(16));
	CHECK_EQ(lseek(fd, MIB(16), SEEK_DATA), MIB(18));
	vqr_fill(&r, MIB(16), 0xbb, 1); /* still the file's memory */
	CHECK_EQ(pread(fd, &c, 1, MIB(16)), 1);
	CHECK_EQ(c, 0xbb);
	vqr_fini(&r);
	close(fd);
}

static unsigned tbal_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned lines = 0;

	ASSERT(f);
	for (int c; (c = getc(f)) != EOF;)
		lines += c == '\n';
	fclose(f);
	return lines;
}

/* Every second page of a clone: one mapping each would be the end at vm.max_map_count = 65530. */
TEST(balloon_of_a_fragmented_clone_does_not_use_up_mappings)
{
	struct vqr r;
	int fd = tbal_use_file(&r, TBAL_RAM, GMEM_PRIVATE);
	unsigned before = tbal_mappings();

	vqr_fill(&r, MIB(16), 0xaa, MIB(32));
	for (uint32_t first = MIB(16) / GMEM_PAGE; first < MIB(48) / GMEM_PAGE; first += 512) {
		uint32_t pfn[256];
		for (unsigned i = 0; i < 256; i++)
			pfn[i] = first + 2 * i;
		tbal_list(&r, 0, pfn, 256);
	}
	CHECK_EQ(tbal_stats(&r).inflated_pages, 4096);
	CHECK_EQ(vqr_get8(&r, MIB(16)), 0);
	CHECK_EQ(vqr_get8(&r, MIB(16) + GMEM_PAGE), 0xaa);
	CHECK(tbal_mappings() < before + 8);
	vqr_fini(&r);
	close(fd);
}
