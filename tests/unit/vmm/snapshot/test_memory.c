#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/memory.h"

#define TMEM_BYTES MIB(4)
#define TMEM_PAGES (TMEM_BYTES / GMEM_PAGE)
#define TMEM_HOLE  (SNAPMEM_MIN_HOLE / GMEM_PAGE) /* the shortest hole, in pages */

/* What stands in memory: runs of pages, 'x' data, '0' written with zeros, '.' never touched. The rest
 * of RAM was never touched. */
static const struct tmem_shape {
	struct {
		char what;
		unsigned pages;
	} run[8];
} tmem_shapes[] = {
	{ { { 0, 0 } } },
	{ { { 'x', 1 } } },
	{ { { '0', 1 } } },
	{ { { '0', TMEM_PAGES } } },
	{ { { 'x', TMEM_PAGES } } },
	{ { { '0', TMEM_HOLE - 1 }, { 'x', 1 } } },
	{ { { '0', TMEM_HOLE }, { 'x', 1 } } },
	{ { { '0', TMEM_HOLE + 1 }, { 'x', 1 } } },
	{ { { '.', TMEM_HOLE - 1 }, { 'x', 1 } } },
	{ { { '.', TMEM_HOLE }, { 'x', 1 } } },
	{ { { 'x', 1 }, { '0', 1 }, { 'x', 1 }, { '.', 1 }, { 'x', 3 } } },
	{ { { 'x', 5 }, { '.', TMEM_HOLE - 1 }, { 'x', 1 }, { '.', TMEM_HOLE }, { 'x', 1 } } },
	{ { { 'x', 5 }, { '0', TMEM_HOLE - 1 }, { 'x', 1 }, { '0', TMEM_HOLE }, { 'x', 1 } } },
	/* a hole that is half punched already, and one that would be too short alone */
	{ { { 'x', 1 }, { '0', 20 }, { '.', 20 }, { 'x', 1 }, { '.', 10 }, { '0', 9 }, { '.', 10 },
	    { 'x', 1 } } },
	{ { { 'x', TMEM_PAGES - TMEM_HOLE }, { '0', TMEM_HOLE } } },
};

static void tmem_fill(struct gmem *m, const struct tmem_shape *s)
{
	uint64_t page = 0;

	for (unsigned r = 0; r < ARRAY_LEN(s->run); r++)
		for (unsigned i = 0; i < s->run[r].pages; i++, page++)
			if (s->run[r].what == 'x') /* one byte: first, last or in between */
				m->map[page * GMEM_PAGE + (uint64_t[]){ 0, 1234, 4095 }[page % 3]] = 7;
			else if (s->run[r].what == '0')
				memset(m->map + page * GMEM_PAGE, 0, GMEM_PAGE);
}

/* Is the page data by the rule: not zero, or in a run of zeros too short for a hole? */
static bool tmem_is_data(const bool *zero, uint64_t page)
{
	uint64_t first = page, end = page;

	while (first > 0 && zero[first - 1] && page - first < TMEM_HOLE)
		first--;
	while (end < TMEM_PAGES && zero[end] && end - first < TMEM_HOLE)
		end++;
	return !zero[page] || end - first < TMEM_HOLE;
}

/* fd holds m's bytes; its data and holes are where they should be. */
static void tmem_check(const struct gmem *m, int fd)
{
	AUTO_FREE uint8_t *got = mem_zalloc(TMEM_BYTES);
	static bool zero[TMEM_PAGES], hole[TMEM_PAGES];
	uint64_t data = 0, tail;
	struct stat st;

	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, TMEM_BYTES);
	for (uint64_t p = 0; p < TMEM_PAGES; p++)
		hole[p] = lseek(fd, (off_t)(p * GMEM_PAGE), SEEK_HOLE) == (off_t)(p * GMEM_PAGE);
	CHECK_EQ(fd_pread_full(fd, got, TMEM_BYTES, 0), 0);
	for (uint64_t p = 0; p < TMEM_PAGES; p++)
		zero[p] = snapmem_is_zero(got + p * GMEM_PAGE);
	/* Whether a short run that ends with RAM is a hole is left open. */
	for (tail = TMEM_PAGES; tail > 0 && zero[tail - 1]; tail--)
		;
	for (uint64_t p = 0; p < tail; p++) {
		if (hole[p] == tmem_is_data(zero, p))
			test_fail(__FILE__, __LINE__, "page %llu is %s", (unsigned long long)p,
				  hole[p] ? "a hole" : "data");
		data += !hole[p];
	}
	if (TMEM_PAGES - tail >= TMEM_HOLE) {
		CHECK(hole[tail]);
		CHECK_EQ(st.st_blocks * 512 / (long long)GMEM_PAGE, data);
	}
	CHECK(memcmp(got, m->map, TMEM_BYTES) == 0);
}

static int tmem_shared(struct gmem *m)
{
	int fd = fd_memfd("memory");

	CHECK(fd >= 0 && ftruncate(fd, TMEM_BYTES) == 0);
	CHECK_EQ(gmem_init(m, TMEM_BYTES, fd, GMEM_SHARED, NULL), 0);
	return fd;
}

/* A clone of the file, mapped as its list of data says. */
static void tmem_map(struct gmem *m, int fd)
{
	AUTO_BUF struct buf list = { 0 };

	CHECK_EQ(gmem_init(m, TMEM_BYTES, dup(fd), GMEM_PRIVATE, NULL), 0);
	CHECK_EQ(snapmem_list(fd, TMEM_BYTES, &list, NULL), 0);
	CHECK_EQ(snapmem_map(m, cur_of(list.data, list.len), NULL), 0);
}

static off_t tmem_blocks(int fd)
{
	struct stat st;
	CHECK_EQ(fstat(fd, &st), 0);
	return st.st_blocks;
}

TEST(snapmem_write_makes_holes_of_long_runs_of_zeros)
{
	for (unsigned i = 0; i < ARRAY_LEN(tmem_shapes); i++) {
		struct gmem m;
		int fd = fd_memfd("copy");

		test_note("shape %u", i);
		CHECK_EQ(gmem_init(&m, TMEM_BYTES, -1, GMEM_PRIVATE, NULL), 0);
		tmem_fill(&m, &tmem_shapes[i]);
		CHECK_EQ(snapmem_write(&m, fd, NULL), 0);
		tmem_check(&m, fd);
		gmem_fini(&m);
		close(fd);
	}
}

TEST(snapmem_punch_makes_holes_of_long_runs_of_zeros)
{
	for (unsigned i = 0; i < ARRAY_LEN(tmem_shapes); i++) {
		struct gmem m;
		int fd = tmem_shared(&m);

		test_note("shape %u", i);
		tmem_fill(&m, &tmem_shapes[i]);
		CHECK_EQ(snapmem_punch(&m, NULL), 0);
		tmem_check(&m, fd);
		gmem_fini(&m);
	}
}

TEST(snapmem_punch_leaves_holes_alone_and_does_not_even_read_them)
{
	struct rusage before, after;
	struct gmem m;
	int fd = tmem_shared(&m);
	off_t blocks;

	m.map[TMEM_BYTES / 2] = 1;
	memset(m.map + TMEM_BYTES / 2 + GMEM_PAGE, 0, GMEM_PAGE); /* goes; behind it is a hole */
	CHECK_EQ(getrusage(RUSAGE_SELF, &before), 0);
	CHECK_EQ(snapmem_punch(&m, NULL), 0);
	CHECK_EQ(getrusage(RUSAGE_SELF, &after), 0);
	/* On tmpfs each page read would have been allocated by a fault. */
	CHECK(after.ru_minflt - before.ru_minflt < 64);
	blocks = tmem_blocks(fd);
	CHECK_EQ(blocks * 512, GMEM_PAGE);
	CHECK_EQ(lseek(fd, 0, SEEK_DATA), TMEM_BYTES / 2);
	CHECK_EQ(snapmem_punch(&m, NULL), 0); /* nothing left to do */
	CHECK_EQ(tmem_blocks(fd), blocks);
	CHECK_EQ(m.map[TMEM_BYTES / 2], 1);
	gmem_fini(&m);
}

TEST(snapmem_write_takes_a_clone_with_its_templates_pages)
{
	struct gmem t, m;
	int fd = tmem_shared(&t), out = fd_memfd("copy");
	off_t blocks;

	memset(t.map, 0x11, 100 * GMEM_PAGE);
	memset(t.map + 300 * GMEM_PAGE, 0x22, GMEM_PAGE);
	tmem_map(&m, fd);
	blocks = tmem_blocks(fd);
	m.map[1] = 9;                                                /* changed */
	memset(m.map + 20 * GMEM_PAGE, 0, TMEM_HOLE * GMEM_PAGE);    /* cleared */
	m.map[200 * GMEM_PAGE] = 5;                                  /* new, in a hole */
	m.map[(TMEM_PAGES - 1) * GMEM_PAGE + 4095] = 7;              /* the last byte there is */
	CHECK_EQ(snapmem_write(&m, out, NULL), 0);
	tmem_check(&m, out);
	CHECK_EQ(tmem_blocks(fd), blocks); /* the template did not grow by being read */
	gmem_fini(&m);
	gmem_fini(&t);
	close(out);
}

TEST(snapmem_says_what_the_file_refused)
{
	struct gmem m;
	struct err e = { 0 };
	int ro = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fd = tmem_shared(&m);

	m.map[0] = 1;
	CHECK(snapmem_write(&m, ro, &e) < 0);
	CHECK_HAS(e.msg, "memory file: ");
	CHECK_EQ(snapmem_write(&m, -1, &e), -EBADF);
	close(ro);
	close(fd);
	CHECK_EQ(snapmem_punch(&m, &e), -EBADF);
	CHECK_HAS(e.msg, "memory file: seek: ");
	m.fd = -1;
	gmem_fini(&m);
}

/* --- lists of pages ----------------------------------------------------------------------------- */

/* A template with data in pages 10..19 and 100, and a clone of it. */
static void tmem_clone(struct gmem *t, struct gmem *m)
{
	int fd = tmem_shared(t);

	memset(t->map + 10 * GMEM_PAGE, 0x11, 10 * GMEM_PAGE);
	memset(t->map + 100 * GMEM_PAGE, 0x22, GMEM_PAGE);
	tmem_map(m, fd);
}

/* The list is these ranges. */
static void tmem_check_list(const struct buf *b, const uint32_t (*want)[2], unsigned n)
{
	struct cur in = cur_of(b->data, b->len);

	CHECK_EQ(b->len, n * 8);
	for (unsigned i = 0; i < n; i++) {
		test_note("range %u", i);
		CHECK_EQ(cur_le32(&in), want[i][0]);
		CHECK_EQ(cur_le32(&in), want[i][1]);
	}
}

TEST(snapmem_list_has_the_data_of_a_file)
{
	static const uint32_t want[][2] = { { 10, 10 }, { 100, 1 } }, all[][2] = { { 0, TMEM_PAGES } };
	AUTO_BUF struct buf some = { 0 }, full = { 0 }, none = { 0 };
	struct gmem t;
	struct err e = { 0 };
	int fd = tmem_shared(&t);

	CHECK_EQ(snapmem_list(fd, TMEM_BYTES, &none, NULL), 0);
	CHECK_EQ(none.len, 0);
	memset(t.map + 10 * GMEM_PAGE, 1, 10 * GMEM_PAGE);
	memset(t.map + 100 * GMEM_PAGE, 1, GMEM_PAGE);
	CHECK_EQ(snapmem_list(fd, TMEM_BYTES, &some, NULL), 0);
	tmem_check_list(&some, want, ARRAY_LEN(want));
	memset(t.map, 1, TMEM_BYTES);
	CHECK_EQ(snapmem_list(fd, TMEM_BYTES, &full, NULL), 0);
	tmem_check_list(&full, all, ARRAY_LEN(all));
	CHECK_EQ(snapmem_list(-1, TMEM_BYTES, &full, &e), -EBADF);
	CHECK_HAS(e.msg, "memory file: seek: ");
	gmem_fini(&t);
}

TEST(snapmem_map_refuses_a_list_that_makes_no_sense)
{
	static const struct {
		uint32_t range[4];
		size_t bytes;
	} row[] = {
		{ { 0, 0 }, 8 },
		{ { 0, 1 }, 7 },
		{ { 0, 1, 2 }, 12 },
		{ { 0, TMEM_PAGES + 1 }, 8 },
		{ { TMEM_PAGES, 1 }, 8 },
		{ { 1, ~0u }, 8 },
		{ { ~0u, 2 }, 8 },
		{ { 4, 2, 5, 1 }, 16 },
		{ { 4, 2, 0, 1 }, 16 },
	};
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct gmem m;
		struct err e = { 0 };
		int fd = fd_memfd("memory");

		test_note("row %u", i);
		CHECK(ftruncate(fd, TMEM_BYTES) == 0);
		CHECK_EQ(gmem_init(&m, TMEM_BYTES, fd, GMEM_PRIVATE, NULL), 0);
		CHECK_EQ(snapmem_map(&m, cur_of(test_guard(row[i].range, row[i].bytes), row[i].bytes), &e),
			 -EPROTO);
		CHECK_STR(e.msg, "state file: bad list of memory");
		gmem_fini(&m);
	}
}

TEST(snapmem_changed_lists_what_a_clone_wrote)
{
	static const uint32_t before[][2] = { { 12, 1 }, { 50, 1 } };
	static const uint32_t want[][2] = { { 10, 3 }, { 15, 1 }, { 19, 1 }, { 50, 1 }, { 100, 1 },
					    { 1023, 1 } };
	/* What the guest wrote, by KVM's account: two pages with what was there, and one in a hole. */
	uint64_t written[TMEM_PAGES / 64] = { UINT64_C(1) << 12 | UINT64_C(1) << 50 };
	AUTO_BUF struct buf first = { 0 }, b = { 0 };
	struct gmem t, m;
	off_t blocks;

	tmem_clone(&t, &m);
	blocks = tmem_blocks(t.fd);
	CHECK_EQ(snapmem_changed(&m, written, &first, NULL), 0);
	tmem_check_list(&first, before, ARRAY_LEN(before));
	m.map[10 * GMEM_PAGE] ^= 1;
	m.map[12 * GMEM_PAGE - 1] ^= 1;
	m.map[15 * GMEM_PAGE + 77] ^= 1;
	m.map[19 * GMEM_PAGE] ^= 1;
	m.map[100 * GMEM_PAGE + 4095] ^= 1;
	m.map[200 * GMEM_PAGE] ^= 1; /* a hole of the file that only a device wrote to: not looked at */
	written[1023 / 64] |= UINT64_C(1) << 1023 % 64;
	CHECK_EQ(snapmem_changed(&m, written, &b, NULL), 0);
	tmem_check_list(&b, want, ARRAY_LEN(want));
	CHECK_EQ(tmem_blocks(t.fd), blocks);
	gmem_fini(&m);
	gmem_fini(&t);
}

/* Is the page our own copy? /proc/PID/pagemap: present, and not a page of a file. */
static bool tmem_is_own(const struct gmem *m, uint64_t page)
{
	uint64_t e;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, &e, 8, (off_t)(((uintptr_t)m->map / GMEM_PAGE + page) * 8)), 8);
	close(fd);
	return (e >> 63) && !(e >> 61 & 1);
}

TEST(snapmem_warm_makes_the_listed_pages_private)
{
	AUTO_BUF struct buf b = { 0 };
	AUTO_FREE uint8_t *before = mem_zalloc(TMEM_BYTES);
	struct gmem t, m;

	tmem_clone(&t, &m);
	memcpy(before, t.map, TMEM_BYTES);
	buf_le32(&b, 12);
	buf_le32(&b, 3);
	buf_le32(&b, 200);
	buf_le32(&b, 1);
	snapmem_warm(&m, cur_of(b.data, b.len));
	for (uint64_t p = 0; p < 256; p++) {
		test_note("page %llu", (unsigned long long)p);
		CHECK_EQ(tmem_is_own(&m, p), (p >= 12 && p < 15) || p == 200);
	}
	CHECK(memcmp(m.map, before, TMEM_BYTES) == 0); /* and nobody sees a difference */
	gmem_fini(&m);
	gmem_fini(&t);
}

TEST(snapmem_warm_ignores_what_makes_no_sense)
{
	static const uint32_t row[][2] = {
		{ TMEM_PAGES, 1 }, { TMEM_PAGES - 1, 2 }, { 0, TMEM_PAGES + 1 }, { ~0u, ~0u }, { ~0u, 1 },
		{ 1, ~0u },	   { 5, 0 },		  { 0x80000000, 0x80000000 },
	};
	struct gmem t, m;

	tmem_clone(&t, &m);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		AUTO_BUF struct buf b = { 0 };
		test_note("row %u", i);
		buf_le32(&b, row[i][0]);
		buf_le32(&b, row[i][1]);
		for (size_t n = 0; n <= b.len; n++)
			snapmem_warm(&m, cur_of(test_guard(b.data, n), n));
		for (uint64_t p = 0; p < 8; p++)
			CHECK(!tmem_is_own(&m, p));
		CHECK(!tmem_is_own(&m, TMEM_PAGES - 1));
	}
	gmem_fini(&m);
	gmem_fini(&t);
}
