#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/virtio/blk.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define TBLK_SECTORS 256u /* the disk; sector i is filled with byte i */

/* Where a request's parts lie, unless a test wants otherwise. */
#define TBLK_HEADER (VQR_DATA)
#define TBLK_STATUS (VQR_DATA + 64)
#define TBLK_BUF    (VQR_DATA + 4096)

#define TBLK_UNTOUCHED 0xee

static int tblk_file(void)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	uint8_t sector[512];

	ASSERT(fd >= 0);
	for (unsigned i = 0; i < TBLK_SECTORS; i++) {
		memset(sector, (int)i, sizeof sector);
		ASSERT(pwrite(fd, sector, sizeof sector, i * 512) == sizeof sector);
	}
	return fd;
}

static uint8_t tblk_byte(int fd, off_t at)
{
	uint8_t b = 0;
	ASSERT(pread(fd, &b, 1, at) == 1);
	return b;
}

/* A disk over a fresh file, driven to DRIVER_OK. Returns a second descriptor of the file. */
static int tblk_start(struct vqr *r, bool read_only)
{
	struct vblk_config c = { .fd = tblk_file(), .read_only = read_only, .serial = "spore-0" };
	int look = dup(c.fd);
	struct vdev *d = NULL;
	struct err e;

	vqr_init(r, VQR_RAM);
	CHECK_EQ(vblk_new(&c, &r->loop, &r->mem, &d, &e), 0);
	vqr_attach(r, d);
	CHECK_EQ(vqr_drive(r, ~UINT64_C(0)), 15);
	return look;
}

static void tblk_header(struct vqr *r, gpa_t at, uint32_t type, uint64_t sector)
{
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} h = { type, 0, sector };
	vqr_put(r, at, &h, sizeof h);
}

/* One request in the usual three pieces; returns its status, *len: used length. */
static int tblk_do(struct vqr *r, uint32_t type, uint64_t sector, uint32_t bytes, bool in,
		   uint32_t *len)
{
	struct vqr_seg seg[3] = { { TBLK_HEADER, 16, false }, { TBLK_BUF, bytes, in },
				  { TBLK_STATUS, 1, true } };
	uint16_t before = vqr_used_idx(r, 0), head;

	tblk_header(r, TBLK_HEADER, type, sector);
	vqr_fill(r, TBLK_STATUS, TBLK_UNTOUCHED, 1);
	head = vqr_add(r, 0, seg, 3);
	vqr_kick(r, 0);
	if (!vqr_wait(r, 0, (uint16_t)(before + 1)))
		return -1;
	CHECK_EQ(vqr_used(r, 0, before).id, head);
	if (len)
		*len = vqr_used(r, 0, before).len;
	return vqr_get8(r, TBLK_STATUS);
}


static long tblk_blocks(int fd)
{
	struct stat st;
	ASSERT(fstat(fd, &st) == 0);
	return (long)st.st_blocks;
}

static void tblk_end(struct vqr *r, int fd)
{
	vqr_fini(r);
	close(fd);
}

/* --- single requests -------------------------------------------------------------------------- */

TEST(blk_reads_what_is_in_the_file)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	uint32_t len;

	vqr_fill(&r, TBLK_BUF, TBLK_UNTOUCHED, 2048);
	CHECK_EQ(tblk_do(&r, 0, 7, 1024, true, &len), 0);
	CHECK_EQ(len, 1025);
	CHECK_EQ(vqr_get8(&r, TBLK_BUF), 7);
	CHECK_EQ(vqr_get8(&r, TBLK_BUF + 1023), 8);
	CHECK_EQ(vqr_get8(&r, TBLK_BUF + 1024), TBLK_UNTOUCHED);
	CHECK_EQ(r.irqs, 1);
	tblk_end(&r, fd);
}

TEST(blk_writes_reach_the_file_and_nothing_beside_them)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	uint32_t len;

	vqr_fill(&r, TBLK_BUF, 0xab, 1024);
	CHECK_EQ(tblk_do(&r, 1, 10, 1024, false, &len), 0);
	CHECK_EQ(len, 1);
	CHECK_EQ(tblk_byte(fd, 10 * 512 - 1), 9);
	CHECK_EQ(tblk_byte(fd, 10 * 512), 0xab);
	CHECK_EQ(tblk_byte(fd, 12 * 512 - 1), 0xab);
	CHECK_EQ(tblk_byte(fd, 12 * 512), 12);
	CHECK_EQ(tblk_do(&r, 4, 0, 0, false, &len), 0);
	CHECK_EQ(len, 1);
	tblk_end(&r, fd);
}

TEST(blk_gives_its_serial_to_those_who_have_room)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	char id[21] = "";
	uint32_t len;

	CHECK_EQ(tblk_do(&r, 8, 0, 20, true, &len), 0);
	CHECK_EQ(len, 21);
	vqr_get(&r, TBLK_BUF, id, 20);
	CHECK_STR(id, "spore-0");
	CHECK_EQ(tblk_do(&r, 8, 0, 64, true, &len), 0);
	CHECK_EQ(len, 20); /* the status is behind a gap */
	CHECK_EQ(tblk_do(&r, 8, 0, 19, true, &len), 1);
	CHECK_EQ(len, 0);
	tblk_end(&r, fd);
}

TEST(blk_requests_outside_the_disk_or_of_odd_length_fail)
{
	static const struct {
		const char *what;
		uint64_t sector;
		uint32_t bytes;
		int want;
	} row[] = {
		{ "last sector", TBLK_SECTORS - 1, 512, 0 },
		{ "whole disk", 0, TBLK_SECTORS * 512, 0 },
		{ "over the end", TBLK_SECTORS - 1, 1024, 1 },
		{ "at the end", TBLK_SECTORS, 512, 1 },
		{ "nothing at the end", TBLK_SECTORS, 0, 0 },
		{ "nothing behind the end", TBLK_SECTORS + 1, 0, 1 },
		{ "byte offset wraps to 0", UINT64_C(1) << 55, 512, 1 },
		{ "byte offset wraps to 512", (UINT64_C(1) << 55) + 1, 512, 1 },
		{ "byte offset is negative", UINT64_C(1) << 54, 512, 1 },
		{ "sector sum wraps", UINT64_MAX, 512, 1 },
		{ "sector sum wraps onto the disk", UINT64_MAX, 1024, 1 },
		{ "one byte", 0, 1, 1 },
		{ "one byte short", 0, 511, 1 },
		{ "one byte long", 0, 513, 1 },
	};
	struct vqr r;
	int fd = tblk_start(&r, false);

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		uint32_t len;
		test_note("%s", row[i].what);
		vqr_fill(&r, TBLK_BUF, 0x55, TBLK_SECTORS * 512);
		CHECK_EQ(tblk_do(&r, 0, row[i].sector, row[i].bytes, true, &len), row[i].want);
		if (row[i].want)
			CHECK_EQ(vqr_get8(&r, TBLK_BUF), 0x55);
		CHECK_EQ(len, row[i].want && row[i].bytes ? 0 : row[i].bytes + 1);
		CHECK_EQ(tblk_do(&r, 1, row[i].sector, row[i].bytes, false, &len), row[i].want);
	}
	CHECK_EQ(lseek(fd, 0, SEEK_END), TBLK_SECTORS * 512); /* it did not grow */
	tblk_end(&r, fd);
}

TEST(blk_answers_unsupp_to_what_it_does_not_know)
{
	static const uint32_t type[] = { 2, 3, 5, 9, 10, 12, 14, 15, 0x80000000, 0x80000001,
					 UINT32_MAX };
	struct vqr r;
	int fd = tblk_start(&r, false);

	for (unsigned i = 0; i < ARRAY_LEN(type); i++) {
		test_note("type %u", type[i]);
		CHECK_EQ(tblk_do(&r, type[i], 0, 512, false, NULL), 2);
		CHECK_EQ(tblk_do(&r, type[i], 0, 512, true, NULL), 2);
	}
	CHECK(!vqr_is_broken(&r));
	tblk_end(&r, fd);
}

/* 5.2.6.2, and whatever the driver thinks it negotiated: Kata's CVE-2026-24834 was a flag that
 * nobody enforced. */
TEST(blk_read_only_disk_is_never_written)
{
	const uint32_t types[] = { 1, 11, 13 };
	const struct vblk_range range = { .sector = 3, .num_sectors = 1 };

	for (unsigned negotiated = 0; negotiated < 2; negotiated++) {
		struct vqr r;
		int fd = tblk_start(&r, true);

		CHECK_EQ(vqr_drive(&r, negotiated ? VBLK_F_RO : 0), 15);
		for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
			vqr_fill(&r, TBLK_BUF, 0x55, 512);
			if (types[i] != 1)
				vqr_put(&r, TBLK_BUF, &range, sizeof range);
			CHECK_EQ(tblk_do(&r, types[i], 3, i ? 16 : 512, false, NULL), 1);
			CHECK_EQ(tblk_byte(fd, 3 * 512), 3);
		}
		CHECK_EQ(tblk_do(&r, 4, 0, 0, false, NULL), 0);
		CHECK_EQ(tblk_do(&r, 0, 3, 512, true, NULL), 0);
		CHECK_EQ(vqr_get8(&r, TBLK_BUF), 3);
		tblk_end(&r, fd);
	}
}

TEST(blk_medium_errors_are_ioerr)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	uint32_t len;

	/* Shorter than when it was attached: the missing part is an error, not old memory. */
	ASSERT(ftruncate(fd, 8 * 512) == 0);
	vqr_fill(&r, TBLK_BUF, TBLK_UNTOUCHED, 8192);
	CHECK_EQ(tblk_do(&r, 0, 100, 512, true, &len), 1);
	CHECK_EQ(len, 0);
	CHECK_EQ(tblk_do(&r, 0, 7, 1024, true, &len), 1);
	CHECK_EQ(len, 0);
	CHECK_EQ(vqr_get8(&r, TBLK_BUF + 512), TBLK_UNTOUCHED);
	/* Nothing may be written any more. */
	ASSERT(close(vblk_of(r.dev)->fd) == 0);
	vblk_of(r.dev)->fd = open("/dev/full", O_RDWR | O_CLOEXEC);
	CHECK_EQ(tblk_do(&r, 1, 0, 512, false, &len), 1);
	CHECK_EQ(len, 1);
	tblk_end(&r, fd);
}

/* --- framing ---------------------------------------------------------------------------------- */

/* One read of sector 5, its bytes cut into segments in many ways. */
TEST(blk_does_not_care_how_a_request_is_cut)
{
	static const struct {
		const char *what;
		unsigned n;
		struct vqr_seg seg[10];
	} row[] = {
		{ "usual", 3, { { TBLK_HEADER, 16, false }, { TBLK_BUF, 512, true },
				{ TBLK_BUF + 512, 1, true } } },
		{ "status joined to the data", 2, { { TBLK_HEADER, 16, false },
						    { TBLK_BUF, 513, true } } },
		{ "header in pieces", 6, { { TBLK_HEADER, 1, false }, { TBLK_HEADER + 1, 3, false },
					   { TBLK_HEADER + 4, 4, false },
					   { TBLK_HEADER + 8, 7, false },
					   { TBLK_HEADER + 15, 1, false },
					   { TBLK_BUF, 513, true } } },
		{ "data in pieces", 5, { { TBLK_HEADER, 16, false }, { TBLK_BUF, 1, true },
					 { TBLK_BUF + 1, 300, true }, { TBLK_BUF + 301, 211, true },
					 { TBLK_BUF + 512, 1, true } } },
		{ "last piece holds a byte of data and the status", 3,
		  { { TBLK_HEADER, 16, false }, { TBLK_BUF, 511, true },
		    { TBLK_BUF + 511, 2, true } } },
		{ "empty pieces between", 6,
		  { { TBLK_HEADER, 16, false }, { 0, 0, false }, { 0, 0, true },
		    { TBLK_BUF, 512, true }, { TBLK_BUF + 512, 1, true }, { 0, 0, true } } },
		{ "readable bytes behind the header", 3,
		  { { TBLK_HEADER, 16, false }, { TBLK_HEADER, 100, false },
		    { TBLK_BUF, 513, true } } },
	};
	struct vqr r;
	int fd = tblk_start(&r, false);

	tblk_header(&r, TBLK_HEADER, 0, 5);
	for (uint16_t i = 0; i < ARRAY_LEN(row); i++) {
		test_note("%s", row[i].what);
		vqr_fill(&r, TBLK_BUF, TBLK_UNTOUCHED, 1024);
		vqr_add(&r, 0, row[i].seg, row[i].n);
		vqr_kick(&r, 0);
		CHECK(vqr_wait(&r, 0, (uint16_t)(i + 1)));
		CHECK_EQ(vqr_used(&r, 0, i).len, 513);
		for (unsigned k = 0; k < 512; k++)
			CHECK_EQ(vqr_get8(&r, TBLK_BUF + k), 5);
		CHECK_EQ(vqr_get8(&r, TBLK_BUF + 512), 0);
		CHECK_EQ(vqr_get8(&r, TBLK_BUF + 513), TBLK_UNTOUCHED);
	}
	tblk_end(&r, fd);
}

TEST(blk_writes_may_share_a_segment_with_the_header)
{
	const struct vqr_seg seg[] = { { TBLK_BUF - 16, 100, false }, { TBLK_BUF + 84, 428, false },
				       { TBLK_STATUS, 1, true } };
	struct vqr r;
	int fd = tblk_start(&r, false);

	tblk_header(&r, TBLK_BUF - 16, 1, 5);
	vqr_fill(&r, TBLK_BUF, 0x77, 512);
	vqr_add(&r, 0, seg, 3);
	vqr_kick(&r, 0);
	CHECK(vqr_wait(&r, 0, 1));
	CHECK_EQ(vqr_get8(&r, TBLK_STATUS), 0);
	CHECK_EQ(tblk_byte(fd, 5 * 512 - 1), 4);
	CHECK_EQ(tblk_byte(fd, 5 * 512), 0x77);
	CHECK_EQ(tblk_byte(fd, 6 * 512 - 1), 0x77);
	CHECK_EQ(tblk_byte(fd, 6 * 512), 6);
	tblk_end(&r, fd);
}

TEST(blk_takes_as_many_segments_as_it_announces)
{
	static struct vqr_seg seg[130];
	struct vqr r;
	int fd = tblk_start(&r, false);

	CHECK_EQ(vqr_config(&r, 12, 4), 128);
	tblk_header(&r, TBLK_HEADER, 0, 0);
	seg[0] = (struct vqr_seg){ TBLK_HEADER, 16, false };
	for (unsigned i = 0; i < 128; i++)
		seg[1 + i] = (struct vqr_seg){ TBLK_BUF + 1024 * i, 512, true };
	seg[129] = (struct vqr_seg){ TBLK_STATUS, 1, true };
	vqr_add(&r, 0, seg, 130);
	vqr_kick(&r, 0);
	CHECK(vqr_wait(&r, 0, 1));
	for (unsigned i = 0; i < 128; i++)
		CHECK_EQ(vqr_get8(&r, TBLK_BUF + 1024 * i + 511), i);
	tblk_end(&r, fd);
}

TEST(blk_breaks_on_requests_it_cannot_answer_until_the_driver_resets)
{
	static const struct {
		const char *what;
		unsigned n;
		struct vqr_seg seg[2];
	} row[] = {
		{ "no status", 1, { { TBLK_HEADER, 16, false } } },
		{ "no header", 1, { { TBLK_BUF, 513, true } } },
		{ "short header", 2, { { TBLK_HEADER, 15, false }, { TBLK_STATUS, 1, true } } },
		{ "nothing at all", 2, { { 0, 0, false }, { 0, 0, true } } },
		{ "status outside RAM", 2, { { TBLK_HEADER, 16, false }, { VQR_RAM, 1, true } } },
		{ "readable behind writable", 2, { { TBLK_STATUS, 1, true },
						   { TBLK_HEADER, 16, false } } },
	};
	struct vqr r;
	int fd = tblk_start(&r, false);

	log_setup(-1, LOG_ERROR);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		uint64_t deadline = clock_mono_ns() + 10 * NS_PER_S;
		test_note("%s", row[i].what);
		tblk_header(&r, TBLK_HEADER, 0, 0);
		vqr_add(&r, 0, row[i].seg, row[i].n);
		vqr_kick(&r, 0);
		while (!vqr_is_broken(&r) && clock_mono_ns() < deadline)
			loop_step(&r.loop, 1);
		CHECK(vqr_is_broken(&r));
		CHECK_EQ(vqr_used_idx(&r, 0), 0);
		CHECK_EQ(vqr_drive(&r, ~UINT64_C(0)), 15);
		CHECK_EQ(tblk_do(&r, 0, 1, 512, true, NULL), 0);
		CHECK_EQ(vqr_drive(&r, ~UINT64_C(0)), 15);
	}
	tblk_end(&r, fd);
}

/* --- discard and write zeroes ----------------------------------------------------------------- */

static int tblk_ranges(struct vqr *r, uint32_t type, const struct vblk_range *range, unsigned n)
{
	vqr_put(r, TBLK_BUF, range, n * sizeof *range);
	return tblk_do(r, type, 0, n * (uint32_t)sizeof *range, false, NULL);
}

TEST(blk_write_zeroes_zeroes_what_it_was_told)
{
	const struct vblk_range range[] = { { 3, 2, 0 }, { 20, 1, VBLK_RANGE_UNMAP }, { 30, 0, 0 },
					    { TBLK_SECTORS, 0, 0 }, { TBLK_SECTORS - 1, 1, 0 } };
	struct vqr r;
	int fd = tblk_start(&r, false);

	CHECK_EQ(tblk_ranges(&r, 13, range, ARRAY_LEN(range)), 0);
	for (unsigned i = 0; i < TBLK_SECTORS; i++) {
		bool zero = i == 3 || i == 4 || i == 20 || i == TBLK_SECTORS - 1;
		test_note("sector %u", i);
		CHECK_EQ(tblk_byte(fd, i * 512), zero ? 0 : i);
		CHECK_EQ(tblk_byte(fd, i * 512 + 511), zero ? 0 : i);
	}
	CHECK_EQ(lseek(fd, 0, SEEK_END), TBLK_SECTORS * 512);
	tblk_end(&r, fd);
}

TEST(blk_discard_gives_blocks_back_to_the_host)
{
	const struct vblk_range range = { 8, 64, 0 };
	struct vqr r;
	int fd = tblk_start(&r, false);
	long before = tblk_blocks(fd);

	CHECK_EQ(tblk_ranges(&r, 11, &range, 1), 0);
	CHECK_EQ(tblk_blocks(fd), before - 64);
	CHECK_EQ(tblk_byte(fd, 7 * 512), 7);
	CHECK_EQ(tblk_byte(fd, 72 * 512), 72);
	tblk_end(&r, fd);
}

TEST(blk_checks_every_range_before_it_does_any)
{
	static const struct {
		const char *what;
		uint32_t type;
		struct vblk_range bad;
		int want;
	} row[] = {
		{ "discard with unmap", 11, { 9, 1, 1 }, 2 },
		{ "discard with an unknown flag", 11, { 9, 1, 2 }, 2 },
		{ "zeroes with an unknown flag", 13, { 9, 1, 3 }, 2 },
		{ "zeroes with the top flag", 13, { 9, 1, 0x80000000 }, 2 },
		{ "unknown flag and out of range", 13, { UINT64_MAX, 1, 2 }, 2 },
		{ "discard over the end", 11, { TBLK_SECTORS - 1, 2, 0 }, 1 },
		{ "zeroes over the end", 13, { TBLK_SECTORS - 1, 2, 0 }, 1 },
		{ "zeroes at a wrapping sector", 13, { UINT64_MAX, 2, 0 }, 1 },
		{ "zeroes at a wrapping byte offset", 13, { UINT64_C(1) << 55, 1, 0 }, 1 },
		{ "longest discard", 11, { 0, UINT32_MAX, 0 }, 1 },
		{ "longest zeroes", 13, { 0, UINT32_MAX, 0 }, 1 },
	};
	struct vqr r;
	int fd = tblk_start(&r, false);

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct vblk_range range[2] = { { 8, 8, 0 }, row[i].bad };
		test_note("%s", row[i].what);
		CHECK_EQ(tblk_ranges(&r, row[i].type, range, 2), row[i].want);
		CHECK_EQ(tblk_byte(fd, 8 * 512), 8);
	}
	tblk_end(&r, fd);
}

TEST(blk_refuses_range_lists_of_bad_length)
{
	static const struct {
		uint32_t bytes;
		int want;
	} row[] = { { 0, 1 }, { 1, 1 }, { 15, 1 }, { 16, 0 }, { 17, 1 }, { 24, 1 }, { 16 * 16, 0 },
		    { 16 * 17, 1 }, { 16 * 4096, 1 } };
	struct vqr r;
	int fd = tblk_start(&r, false);

	vqr_fill(&r, TBLK_BUF, 0, 16 * 4096); /* ranges of nothing */
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("%u bytes", row[i].bytes);
		CHECK_EQ(tblk_do(&r, 11, 0, row[i].bytes, false, NULL), row[i].want);
		CHECK_EQ(tblk_do(&r, 13, 0, row[i].bytes, false, NULL), row[i].want);
	}
	tblk_end(&r, fd);
}

TEST(blk_zeroes_by_hand_where_the_host_cannot)
{
	struct vqr r;
	int fd = tblk_start(&r, false);

	/* More than one batch of pages, neither end on a page. */
	CHECK_EQ(ftruncate(fd, MIB(1)), 0);
	for (off_t at = 0; at < (off_t)MIB(1); at += 512)
		CHECK_EQ(pwrite(fd, "x", 1, at), 1);
	CHECK_EQ(vblk_write_zeros(vblk_of(r.dev), 512, 700 * 512), 0);
	CHECK_EQ(tblk_byte(fd, 0), 'x');
	for (unsigned i = 1; i < 701; i++)
		CHECK_EQ(tblk_byte(fd, i * 512), 0);
	CHECK_EQ(tblk_byte(fd, 701 * 512), 'x');
	tblk_end(&r, fd);
}

/* --- features and configuration --------------------------------------------------------------- */

TEST(blk_offers_what_it_can_do)
{
	const uint64_t both = VBLK_F_SEG_MAX | VBLK_F_BLK_SIZE | VBLK_F_FLUSH | VBLK_F_TOPOLOGY |
			      VIRTIO_F_VERSION_1 | VIRTIO_F_RING_EVENT_IDX;
	struct vqr r;
	int fd = tblk_start(&r, false);

	CHECK_EQ(vqr_offered(&r), both | VBLK_F_DISCARD | VBLK_F_WRITE_ZEROES);
	CHECK_EQ(vqr_config(&r, 36, 4), VBLK_MAX_DISCARD_SECTORS);
	CHECK_EQ(vqr_config(&r, 48, 4), VBLK_MAX_ZERO_SECTORS);
	CHECK_EQ(vqr_config(&r, 56, 1), 1);
	tblk_end(&r, fd);
	fd = tblk_start(&r, true);
	CHECK_EQ(vqr_offered(&r), both | VBLK_F_RO);
	CHECK_EQ(vqr_config(&r, 56, 1), 0);
	tblk_end(&r, fd);
}

TEST(blk_config_space_can_be_read_in_any_way)
{
	struct vqr r;
	int fd = tblk_start(&r, false);

	CHECK_EQ(vqr_config(&r, 0, 8), TBLK_SECTORS);
	CHECK_EQ(vqr_config(&r, 0, 4), TBLK_SECTORS);
	CHECK_EQ(vqr_config(&r, 4, 4), 0);
	CHECK_EQ(vqr_config(&r, 1, 1), TBLK_SECTORS >> 8);
	CHECK_EQ(vqr_config(&r, 20, 4), 512);
	CHECK_EQ(vqr_config(&r, 24, 1), 3); /* 4096 = 512 << 3 */
	CHECK_EQ(vqr_config(&r, 26, 2), 8);
	CHECK_EQ(vqr_config(&r, 34, 2), 1);
	CHECK_EQ(vqr_config(&r, 56, 8), 1); /* half of it behind the end */
	CHECK_EQ(vqr_config(&r, 60, 4), 0);
	CHECK_EQ(vqr_config(&r, 0xef8, 8), 0);
	tblk_end(&r, fd);
}

static int tblk_new(int fd, bool read_only, uint32_t block, struct err *e)
{
	struct vblk_config c = { .fd = fd, .read_only = read_only, .logical_block_bytes = block };
	struct vdev *d = NULL;
	int r;

	log_setup(-1, LOG_ERROR);
	r = vblk_new(&c, NULL, NULL, &d, e);
	if (r == 0)
		d->ops->destroy(d);
	CHECK_EQ(fcntl(fd, F_GETFD), -1); /* closed either way */
	return r;
}

TEST(blk_refuses_descriptors_that_make_no_disk)
{
	char path[128];
	struct err e;
	int fd, p[2];

	snprintf(path, sizeof path, "%s/disk", test_dir());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK_EQ(tblk_new(fd, false, 0, &e), -EINVAL);
	CHECK_HAS(e.msg, "less than one block");
	CHECK_EQ(truncate(path, 511), 0);
	CHECK_EQ(tblk_new(open(path, O_RDWR | O_CLOEXEC), false, 0, &e), -EINVAL);
	CHECK_EQ(truncate(path, 4096), 0);
	CHECK_EQ(tblk_new(open(path, O_RDWR | O_CLOEXEC), false, 0, &e), 0);
	CHECK_EQ(tblk_new(open(path, O_RDONLY | O_CLOEXEC), true, 0, &e), 0);
	CHECK_EQ(tblk_new(open(path, O_RDONLY | O_CLOEXEC), false, 0, &e), -EBADF);
	CHECK_HAS(e.msg, "for writing");
	CHECK_EQ(tblk_new(open(path, O_WRONLY | O_CLOEXEC), false, 0, &e), -EBADF);
	CHECK_EQ(tblk_new(open(path, O_PATH | O_CLOEXEC), true, 0, &e), -EBADF);
	CHECK_EQ(tblk_new(open(path, O_RDWR | O_APPEND | O_CLOEXEC), false, 0, &e), -EINVAL);
	CHECK_HAS(e.msg, "append");
	CHECK_EQ(tblk_new(open(path, O_RDWR | O_CLOEXEC), false, 8192, &e), -EINVAL);
	CHECK_EQ(tblk_new(open(path, O_RDWR | O_CLOEXEC), false, 256, &e), -EINVAL);
	CHECK_EQ(tblk_new(open(path, O_RDWR | O_CLOEXEC), false, 1536, &e), -EINVAL);
	CHECK_EQ(pipe(p), 0);
	CHECK_EQ(tblk_new(p[0], true, 0, &e), -EINVAL);
	CHECK_HAS(e.msg, "neither");
	close(p[1]);
	CHECK_EQ(tblk_new(open(test_dir(), O_RDONLY | O_CLOEXEC), true, 0, &e), -EINVAL);
	CHECK_EQ(tblk_new(-1, true, 0, &e), -EBADF);
}

TEST(blk_leaves_out_a_tail_that_is_no_block)
{
	static const struct {
		uint32_t bytes, block, sectors;
	} row[] = { { 1023, 512, 1 }, { 4608, 4096, 8 }, { 8191, 4096, 8 }, { 8192, 4096, 16 } };

	log_setup(-1, LOG_ERROR);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct vblk_config c = { .fd = memfd_create("disk", MFD_CLOEXEC),
					 .logical_block_bytes = row[i].block };
		struct vdev *d = NULL;

		CHECK_EQ(ftruncate(c.fd, row[i].bytes), 0);
		CHECK_EQ(vblk_new(&c, NULL, NULL, &d, NULL), 0);
		CHECK_EQ(vblk_of(d)->space.capacity, row[i].sectors);
		d->ops->destroy(d);
	}
}

/* --- many at a time --------------------------------------------------------------------------- */

/* Request number i: header, sector and status in a page of their own, so many can be in flight. */
static gpa_t tblk_place(unsigned i)
{
	return VQR_DATA + (i % 64) * 4096;
}

static void tblk_send(struct vqr *r, unsigned i, uint32_t type)
{
	gpa_t at = tblk_place(i);
	struct vqr_seg seg[] = { { at, 16, false }, { at + 512, 512, type == 0 },
				 { at + 64, 1, true } };

	tblk_header(r, at, type, type == 4 ? 0 : i % TBLK_SECTORS);
	vqr_fill(r, at + 64, TBLK_UNTOUCHED, 1);
	if (type == 1)
		vqr_fill(r, at + 512, (uint8_t)(i % TBLK_SECTORS), 512);
	vqr_add(r, 0, seg, 3);
}

/* As a driver with EVENT_IDX does: kick only if the device asked for it. */
static void tblk_kick_if_wanted(struct vqr *r, uint16_t before)
{
	struct vqr_ring *g = &r->ring[0];
	uint16_t event;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	event = vqr_get16(r, g->used + 4 + 8 * (gpa_t)g->num);
	if ((uint16_t)(g->published - event - 1) < (uint16_t)(g->published - before))
		vqr_kick(r, 0);
}

static unsigned tblk_workers(struct vqr *r)
{
	struct vblk *v = vblk_of(r->dev);
	unsigned n;

	pthread_mutex_lock(&v->lock);
	n = v->workers;
	pthread_mutex_unlock(&v->lock);
	return n;
}

TEST(blk_serves_bursts_with_few_kicks_and_loses_none)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	unsigned sent = 0;

	for (unsigned round = 0; round < 400; round++) {
		uint16_t before = r.ring[0].published, burst = (uint16_t)(1 + round % 48);

		for (unsigned i = 0; i < burst; i++, sent++)
			tblk_send(&r, sent, sent % 3 == 2 ? 4 : sent % 2);
		tblk_kick_if_wanted(&r, before);
		CHECK(vqr_wait(&r, 0, (uint16_t)sent));
		for (unsigned i = sent - burst; i < sent; i++)
			CHECK_EQ(vqr_get8(&r, tblk_place(i) + 64), 0);
	}
	CHECK(tblk_workers(&r) >= 1 && tblk_workers(&r) <= VBLK_MAX_WORKERS);
	for (unsigned i = 0; i < TBLK_SECTORS; i++)
		CHECK_EQ(tblk_byte(fd, i * 512), i);
	tblk_end(&r, fd);
}

TEST(blk_makes_no_thread_before_the_first_request_and_keeps_one)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	uint64_t deadline;

	vqr_kick(&r, 0); /* a kick for nothing */
	CHECK_EQ(tblk_workers(&r), 0);
	CHECK_EQ(tblk_do(&r, 0, 0, 512, true, NULL), 0);
	CHECK_EQ(tblk_workers(&r), 1);
	for (unsigned i = 0; i < 48; i++)
		tblk_send(&r, i, 0);
	vqr_kick(&r, 0);
	CHECK(vqr_wait(&r, 0, 49));
	CHECK_EQ(tblk_workers(&r), VBLK_MAX_WORKERS);
	deadline = clock_mono_ns() + 2 * VBLK_LINGER_MS * NS_PER_MS;
	while (tblk_workers(&r) > 1 && clock_mono_ns() < deadline)
		usleep(10000);
	CHECK_EQ(tblk_workers(&r), 1);
	CHECK_EQ(tblk_do(&r, 0, 9, 512, true, NULL), 0);
	CHECK_EQ(vqr_get8(&r, TBLK_BUF), 9);
	tblk_end(&r, fd);
}

/* The same disk over a file that was written, synced and, cold, thrown out of the page cache. */
static int tblk_start_on_disk(struct vqr *r, bool cold)
{
	int from = tblk_file(), look;
	struct vblk_config c = { .read_only = true };
	struct vdev *d = NULL;
	char path[128], sector[512];

	snprintf(path, sizeof path, "%s/disk", test_dir());
	c.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	look = dup(c.fd);
	for (unsigned i = 0; i < TBLK_SECTORS; i++)
		ASSERT(pread(from, sector, 512, i * 512) == 512 &&
		       pwrite(c.fd, sector, 512, i * 512) == 512);
	close(from);
	if (cold)
		ASSERT(fsync(look) == 0 && posix_fadvise(look, 0, 0, POSIX_FADV_DONTNEED) == 0);
	vqr_init(r, VQR_RAM);
	CHECK_EQ(vblk_new(&c, &r->loop, &r->mem, &d, NULL), 0);
	vqr_attach(r, d);
	CHECK_EQ(vqr_drive(r, ~UINT64_C(0)), 15);
	return look;
}

TEST(blk_reads_from_the_page_cache_without_a_thread)
{
	struct vqr r;
	int fd = tblk_start_on_disk(&r, false);
	uint32_t len;

	for (unsigned i = 0; i < 40; i++) /* more than one burst */
		tblk_send(&r, i, 0);
	vqr_kick(&r, 0);
	CHECK(vqr_wait(&r, 0, 40));
	for (unsigned i = 0; i < 40; i++) {
		CHECK_EQ(vqr_get8(&r, tblk_place(i) + 512), i);
		CHECK_EQ(vqr_get8(&r, tblk_place(i) + 64), 0);
		CHECK_EQ(vqr_used(&r, 0, (uint16_t)i).len, 513);
	}
	tblk_end(&r, fd);
	fd = tblk_start_on_disk(&r, false);
	CHECK_EQ(tblk_do(&r, 0, 7, 1024, true, &len), 0);
	CHECK_EQ(len, 1025);
	CHECK_EQ(vqr_get8(&r, TBLK_BUF + 1023), 8);
	CHECK_EQ(tblk_do(&r, 0, TBLK_SECTORS, 512, true, &len), 1);
	CHECK_EQ(tblk_do(&r, 0, 1, 511, true, &len), 1);
	CHECK_EQ(tblk_do(&r, 0, TBLK_SECTORS, 0, true, &len), 0);
	tblk_end(&r, fd);
	fd = tblk_start_on_disk(&r, false);
	CHECK_EQ(tblk_do(&r, 0, 7, 1024, true, &len), 0);
	if (!vblk_of(r.dev)->no_nowait) /* not where the temporary directory is a tmpfs */
		CHECK_EQ(tblk_workers(&r), 0);
	tblk_end(&r, fd);
}

TEST(blk_reads_nothing_while_it_is_quiet_not_even_from_the_page_cache)
{
	struct vqr r;
	int fd = tblk_start_on_disk(&r, false);

	CHECK_EQ(slots_quiesce(&r.slots, NULL), 0);
	tblk_send(&r, 3, 0);
	vqr_kick(&r, 0);
	usleep(2000);
	CHECK_EQ(vqr_used_idx(&r, 0), 0);
	CHECK_EQ(r.dev->q[0].next_avail, 0);
	slots_resume(&r.slots);
	CHECK(vqr_wait(&r, 0, 1));
	CHECK_EQ(vqr_get8(&r, tblk_place(3) + 512), 3);
	tblk_end(&r, fd);
}

TEST(blk_reads_what_is_not_in_the_page_cache_too)
{
	struct vqr r;
	int fd = tblk_start_on_disk(&r, true);

	for (unsigned i = 0; i < TBLK_SECTORS; i += 5) {
		CHECK_EQ(tblk_do(&r, 0, i, 512, true, NULL), 0);
		CHECK_EQ(vqr_get8(&r, TBLK_BUF + 511), i);
		ASSERT(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
	}
	CHECK(tblk_workers(&r) >= 1);
	tblk_end(&r, fd);
}

/* CVE-2026-5747: a queue that grew after activation. */
TEST(blk_goes_on_when_the_driver_plays_with_queue_registers)
{
	static const uint32_t reg[] = { 0x038, 0x044, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4,
					0x020, 0x024, 0x0b0 };
	struct vqr r;
	int fd = tblk_start(&r, false);
	struct vq before = r.dev->q[0];

	for (unsigned i = 0; i < ARRAY_LEN(reg); i++)
		for (unsigned sel = 0; sel < 3; sel++) {
			test_note("register 0x%x, queue %u", reg[i], sel);
			vqr_write32(&r, 0x030, sel);
			vqr_write32(&r, reg[i], 0);
			vqr_write32(&r, reg[i], 0x40000000);
			CHECK_EQ(memcmp(&before, &r.dev->q[0], sizeof before), 0);
		}
	CHECK_EQ(tblk_do(&r, 0, 1, 512, true, NULL), 0);
	CHECK_EQ(vqr_get8(&r, TBLK_BUF), 1);
	tblk_end(&r, fd);
}

/* --- reset, quiesce, save --------------------------------------------------------------------- */

/* Step by step what a worker does, with a reset in the middle. */
TEST(blk_drops_completions_of_an_earlier_activation)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	struct vblk *v = vblk_of(r.dev);
	struct vblk_req req;
	bool more;

	tblk_send(&r, 1, 0);
	CHECK(vblk_pop(v, &req, &more));
	CHECK(!more);
	CHECK_EQ(v->in_io, 1);
	CHECK_EQ(vblk_serve(v, &req), VBLK_S_OK);
	vblk_io_ends(v);
	CHECK_EQ(vqr_drive(&r, 0), 15); /* reset and up again */
	vblk_push(v, &req, 0);
	CHECK_EQ(vqr_used_idx(&r, 0), 0);
	CHECK_EQ(vqr_get8(&r, tblk_place(1) + 64), TBLK_UNTOUCHED);
	CHECK_EQ(r.irqs, 0);
	CHECK_EQ(tblk_do(&r, 0, 1, 512, true, NULL), 0);
	tblk_end(&r, fd);
}

TEST(blk_reset_waits_for_a_slow_disk_but_not_for_ever)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	struct vblk *v = vblk_of(r.dev);
	uint64_t start = clock_mono_ns(), took;

	vblk_io_begins(v); /* a host call that does not return */
	vqr_write32(&r, 0x070, 0);
	took = clock_mono_ns() - start;
	CHECK(took >= VBLK_RESET_MS * NS_PER_MS);
	CHECK(took < 5 * VBLK_RESET_MS * NS_PER_MS);
	CHECK_EQ(vqr_read32(&r, 0x070), 0);
	vblk_io_ends(v);
	tblk_end(&r, fd);
}

TEST(blk_survives_resets_at_any_moment)
{
	struct vqr r;
	int fd = tblk_start(&r, false);

	for (unsigned round = 0; round < 300; round++) {
		uint16_t after;

		for (unsigned i = 0; i < 48; i++)
			tblk_send(&r, i, round % 2);
		vqr_kick(&r, 0);
		if (round % 3)
			usleep(round % 7 * 20);
		vqr_write32(&r, 0x070, 0);
		after = vqr_used_idx(&r, 0);
		if (round % 16 == 0)
			usleep(2000);
		CHECK_EQ(vqr_used_idx(&r, 0), after);
		CHECK_EQ(vqr_drive(&r, round % 2 ? ~UINT64_C(0) : 0), 15);
	}
	CHECK_EQ(tblk_do(&r, 0, 1, 512, true, NULL), 0);
	tblk_end(&r, fd);
}

TEST(blk_is_destroyed_with_requests_in_flight)
{
	for (unsigned round = 0; round < 50; round++) {
		struct vqr r;
		int fd = tblk_start(&r, false);

		for (unsigned i = 0; i < 48; i++)
			tblk_send(&r, i, 1);
		vqr_kick(&r, 0);
		if (round % 2)
			usleep(round * 4);
		tblk_end(&r, fd);
	}
}

TEST(blk_quiesce_leaves_nothing_in_flight_and_resume_goes_on)
{
	struct vqr r;
	int fd = tblk_start(&r, false);
	struct vblk *v = vblk_of(r.dev);
	unsigned sent = 0;

	for (unsigned round = 0; round < 100; round++) {
		uint16_t used;

		for (unsigned i = 0; i < 48; i++, sent++)
			tblk_send(&r, sent, 0);
		vqr_kick(&r, 0);
		if (round % 2)
			usleep(round);
		CHECK_EQ(slots_quiesce(&r.slots, NULL), 0);
		CHECK_EQ(v->idle, v->workers);
		CHECK_EQ(v->in_io, 0);
		used = vqr_used_idx(&r, 0);
		/* Popped and returned are the same, so the queue indices say it all. */
		CHECK_EQ(r.dev->q[0].next_avail, r.dev->q[0].next_used);
		vqr_kick(&r, 0);
		if (round % 8 == 0)
			usleep(1000);
		CHECK_EQ(vqr_used_idx(&r, 0), used);
		slots_resume(&r.slots);
		CHECK(vqr_wait(&r, 0, (uint16_t)sent));
	}
	tblk_end(&r, fd);
}

TEST(blk_whose_disk_is_taken_out_is_an_empty_drive)
{
	struct vqr r;
	struct err e = { 0 };
	int first = tblk_start(&r, false), second = tblk_file(), fd = vblk_of(r.dev)->fd;
	struct vblk_config c = { .fd = dup(second) };

	CHECK_EQ(tblk_do(&r, 0, 7, 512, true, NULL), 0);
	CHECK_EQ(vblk_eject(r.dev, &e), 0);
	CHECK(vblk_is_empty(r.dev));
	CHECK_EQ(fcntl(fd, F_GETFD), -1);
	CHECK_EQ(vblk_of(r.dev)->space.capacity, 0);
	CHECK_EQ(tblk_do(&r, 0, 7, 512, true, NULL), 1); /* VIRTIO_BLK_S_IOERR */
	CHECK_EQ(tblk_do(&r, 1, 7, 512, false, NULL), 1);
	CHECK_EQ(ftruncate(second, MIB(1)), 0);
	CHECK_EQ(vblk_insert(r.dev, &c, &e), 0);
	CHECK_EQ(vblk_of(r.dev)->space.capacity, MIB(1) / 512);
	CHECK_EQ(tblk_do(&r, 0, 7, 512, true, NULL), 0);
	CHECK_EQ(vqr_get8(&r, TBLK_BUF), 7);
	close(second);
	tblk_end(&r, first);
}

TEST(blk_takes_back_only_a_disk_with_blocks_of_the_same_size)
{
	struct vqr r;
	struct err e = { 0 };
	int fd = tblk_file();
	struct vblk_config c = { .fd = dup(fd), .logical_block_bytes = 4096 };
	struct vdev *d = NULL;

	vqr_init(&r, VQR_RAM);
	CHECK_EQ(vblk_new(&c, &r.loop, &r.mem, &d, &e), 0);
	vqr_attach(&r, d);
	CHECK_EQ(vblk_eject(d, &e), 0);
	c = (struct vblk_config){ .fd = dup(fd) };
	CHECK_EQ(vblk_insert(d, &c, &e), -ENOTSUP);
	CHECK(vblk_is_empty(d));
	tblk_end(&r, fd);
}

TEST(blk_answers_every_request_when_its_disk_is_taken_out)
{
	for (unsigned round = 0; round < 50; round++) {
		struct vqr r;
		struct err e = { 0 };
		int fd = tblk_start(&r, false);

		for (unsigned i = 0; i < 48; i++)
			tblk_send(&r, i, i % 2);
		vqr_kick(&r, 0);
		if (round % 2)
			usleep(round * 4);
		CHECK_EQ(vblk_eject(r.dev, &e), 0);
		CHECK(vqr_wait(&r, 0, 48));
		tblk_end(&r, fd);
	}
}

/* The other machine: same memory, fresh device over the same file. */
static int tblk_restore(struct vqr *from, struct vqr *to, const struct buf *state, size_t cut,
			int fd, bool read_only)
{
	struct vblk_config c = { .fd = dup(fd), .read_only = read_only };
	struct cur in = cur_of(state->data, state->len - cut);
	struct vdev *d = NULL;

	vqr_init(to, VQR_RAM);
	vqr_put(to, 0, from->mem.map, VQR_RAM);
	memcpy(to->ring, from->ring, sizeof to->ring);
	CHECK_EQ(vblk_new(&c, &to->loop, &to->mem, &d, NULL), 0);
	vqr_attach(to, d);
	return slots_restore_one(&to->slots, 0, &in, NULL);
}

TEST(blk_goes_on_in_another_machine)
{
	struct vqr r, to;
	int fd = tblk_start(&r, false);
	AUTO_BUF struct buf state = { 0 };

	CHECK_EQ(tblk_do(&r, 0, 2, 512, true, NULL), 0);
	CHECK_EQ(slots_quiesce(&r.slots, NULL), 0);
	tblk_send(&r, 5, 0); /* published, its kick lost in the snapshot */
	slots_save_one(&r.slots, 0, &state);
	CHECK_EQ(tblk_restore(&r, &to, &state, 0, fd, false), 0);
	CHECK(vqr_wait(&to, 0, 2));
	CHECK_EQ(vqr_get8(&to, tblk_place(5) + 512), 5);
	CHECK_EQ(tblk_do(&to, 0, 9, 512, true, NULL), 0);
	vqr_fini(&to);
	slots_resume(&r.slots);
	tblk_end(&r, fd);
}

TEST(blk_restore_refuses_another_disk_and_cut_state)
{
	struct vqr r, to;
	int fd = tblk_start(&r, false);
	AUTO_BUF struct buf state = { 0 };

	log_setup(-1, LOG_ERROR);
	slots_save_one(&r.slots, 0, &state);
	for (size_t cut = 1; cut <= state.len; cut++) {
		test_note("%zu bytes missing", cut);
		CHECK_EQ(tblk_restore(&r, &to, &state, cut, fd, false), -EINVAL);
		vqr_fini(&to);
	}
	CHECK(tblk_restore(&r, &to, &state, 0, fd, true) < 0);
	vqr_fini(&to);
	CHECK_EQ(ftruncate(fd, (TBLK_SECTORS + 8) * 512), 0); /* larger: the promise is kept */
	CHECK_EQ(tblk_restore(&r, &to, &state, 0, fd, false), 0);
	CHECK_EQ(vqr_config(&to, 0, 8), TBLK_SECTORS);
	vqr_fini(&to);
	CHECK_EQ(ftruncate(fd, (TBLK_SECTORS - 1) * 512), 0);
	CHECK_EQ(tblk_restore(&r, &to, &state, 0, fd, false), -EINVAL);
	vqr_fini(&to);
	tblk_end(&r, fd);
}
