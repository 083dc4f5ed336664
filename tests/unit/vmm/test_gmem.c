#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "amalgam/base/fd.h"
#include "tests/unit/test.h"
#include "vmm/gmem.h"
#include "vmm/layout.h"

#define TGMEM_BYTES MIB(8)

/* A memory file of `bytes`, every page of it full of `fill`. */
static int tgmem_file(uint64_t bytes, uint8_t fill)
{
	int fd = fd_memfd("memory");
	void *p;

	CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
	if (!fill)
		return fd;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	memset(p, fill, bytes);
	munmap(p, bytes);
	return fd;
}

static uint8_t tgmem_file_byte(int fd, uint64_t at)
{
	uint8_t v;
	CHECK_EQ(pread(fd, &v, 1, (off_t)at), 1);
	return v;
}

static uint8_t tgmem_byte(const struct gmem *m, gpa_t at)
{
	uint8_t v;
	CHECK_EQ(gmem_read(m, at, &v, 1), 0);
	return v;
}

TEST(gmem_lays_ram_out_around_the_mmio_hole)
{
	static const struct {
		uint64_t bytes, low, high;
	} row[] = {
		{ MIB(2), MIB(2), 0 },
		{ MIB(64), MIB(64), 0 },
		{ GIB(3), GIB(3), 0 },
		{ GIB(3) + MIB(2), GIB(3), MIB(2) },
		{ GIB(6), GIB(3), GIB(3) },
		{ LAYOUT_MAX_MEM, GIB(3), LAYOUT_MAX_MEM - GIB(3) },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct gmem m;
		test_note("%llu MiB", (unsigned long long)(row[i].bytes >> 20));
		CHECK_EQ(gmem_init(&m, row[i].bytes, -1, GMEM_PRIVATE, NULL), 0);
		CHECK_EQ(m.bytes, row[i].bytes);
		CHECK_EQ(m.n, row[i].high ? 2 : 1);
		CHECK_EQ(m.region[0].gpa, 0);
		CHECK_EQ(m.region[0].bytes, row[i].low);
		CHECK_EQ(m.region[0].file_at, 0);
		CHECK(m.region[0].hva == m.map);
		if (row[i].high) {
			CHECK_EQ(m.region[1].gpa, GIB(4));
			CHECK_EQ(m.region[1].bytes, row[i].high);
			CHECK_EQ(m.region[1].file_at, row[i].low);
			CHECK(m.region[1].hva == m.map + row[i].low);
		}
		gmem_fini(&m);
		CHECK(!m.map && m.fd == -1);
	}
}

TEST(gmem_refuses_a_size_that_is_not_a_multiple_of_2_mib)
{
	static const uint64_t bytes[] = { 0, 1, 4096, MIB(1), MIB(2) - 1, MIB(2) + 4096, MIB(3),
					  UINT64_MAX };

	for (unsigned i = 0; i < ARRAY_LEN(bytes); i++) {
		struct gmem m;
		struct err e = { 0 };
		test_note("%llu bytes", (unsigned long long)bytes[i]);
		CHECK_EQ(gmem_init(&m, bytes[i], -1, GMEM_PRIVATE, &e), -EINVAL);
		CHECK_HAS(e.msg, "is not a multiple of 2 MiB");
		gmem_fini(&m);
	}
}

TEST(gmem_refuses_a_memory_file_that_is_too_short)
{
	struct gmem m;
	struct err e = { 0 };
	int fd = tgmem_file(TGMEM_BYTES - 1, 0);

	CHECK_EQ(gmem_init(&m, TGMEM_BYTES, fd, GMEM_PRIVATE, &e), -EINVAL);
	CHECK_STR(e.msg, "memory file: 8388607 bytes, need 8388608");
	gmem_fini(&m);
	CHECK(fcntl(fd, F_GETFD) < 0); /* taken all the same */
	fd = tgmem_file(TGMEM_BYTES, 0);
	CHECK_EQ(gmem_init(&m, TGMEM_BYTES, fd, GMEM_PRIVATE, &e), 0);
	gmem_fini(&m);
	CHECK(fcntl(fd, F_GETFD) < 0);
}

TEST(gmem_refuses_a_descriptor_that_is_not_open)
{
	struct gmem m;
	struct err e = { 0 };

	CHECK_EQ(gmem_init(&m, TGMEM_BYTES, 999, GMEM_SHARED, &e), -EBADF);
	CHECK_HAS(e.msg, "memory file: ");
	m.fd = -1; /* never was one */
	gmem_fini(&m);
}

TEST(gmem_lends_only_what_lies_in_one_region)
{
	static const struct {
		gpa_t gpa;
		uint64_t len;
		bool ok;
	} row[] = {
		{ 0, 0, true },
		{ 0, 1, true },
		{ 0, GIB(3), true },
		{ 0, GIB(3) + 1, false },
		{ 1, GIB(3), false },
		{ GIB(3) - 1, 1, true },
		{ GIB(3) - 1, 2, false },
		{ GIB(3) - 1, 0, true },
		{ GIB(3), 0, false }, /* the hole */
		{ GIB(3), 1, false },
		{ GIB(3) - 1, GIB(1) + 2, false }, /* both ends are RAM */
		{ LAYOUT_SLOT_BASE, 4, false },
		{ GIB(4) - 1, 1, false },
		{ GIB(4) - 1, 2, false },
		{ GIB(4), 0, true },
		{ GIB(4), GIB(3), true },
		{ GIB(4), GIB(3) + 1, false },
		{ GIB(7) - 1, 1, true },
		{ GIB(7) - 1, 2, false },
		{ GIB(7), 0, false },
		{ GIB(7), 1, false },
		{ 16, UINT64_MAX, false }, /* sums that wrap */
		{ 16, UINT64_MAX - 15, false },
		{ GIB(4) + 16, UINT64_MAX - GIB(4) - 8, false },
		{ UINT64_MAX, 0, false },
		{ UINT64_MAX, 1, false },
		{ UINT64_MAX, UINT64_MAX, false },
	};
	struct gmem m;

	CHECK_EQ(gmem_init(&m, GIB(6), -1, GMEM_PRIVATE, NULL), 0);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		uint8_t *p = gmem_span(&m, row[i].gpa, row[i].len);
		test_note("%#llx + %#llx", (unsigned long long)row[i].gpa,
			  (unsigned long long)row[i].len);
		CHECK_EQ(p != NULL, row[i].ok);
		if (p)
			CHECK_EQ(gmem_gpa(&m, p), row[i].gpa);
		if (!row[i].ok)
			CHECK_EQ(gmem_discard(&m, row[i].gpa, row[i].len), -EFAULT);
	}
	gmem_fini(&m);
}

TEST(gmem_copies_and_refuses_at_every_edge)
{
	struct gmem m;
	uint64_t v = 0, w = UINT64_C(0x1122334455667788);

	CHECK_EQ(gmem_init(&m, GIB(6), -1, GMEM_PRIVATE, NULL), 0);
	CHECK_EQ(gmem_write(&m, GIB(3) - 8, &w, 8), 0);
	CHECK_EQ(gmem_read(&m, GIB(3) - 8, &v, 8), 0);
	CHECK_EQ(v, w);
	for (unsigned over = 1; over <= 8; over++) {
		test_note("%u bytes past the region", over);
		CHECK_EQ(gmem_write(&m, GIB(3) - 8 + over, &w, 8), -EFAULT);
		CHECK_EQ(gmem_read(&m, GIB(3) - 8 + over, &v, 8), -EFAULT);
		CHECK_EQ(gmem_read(&m, GIB(4) - over, &v, 8), -EFAULT);
		CHECK_EQ(gmem_write(&m, GIB(7) - 8 + over, &w, 8), -EFAULT);
	}
	CHECK_EQ(gmem_read(&m, GIB(3) - 8, &v, 8), 0);
	CHECK_EQ(v, w); /* a refused write wrote nothing */
	CHECK_EQ(tgmem_byte(&m, GIB(4)), 0);
	gmem_fini(&m);
}

TEST(gmem_ring_indices_are_aligned_and_inside)
{
	static const struct {
		gpa_t gpa;
		int want;
	} row[] = {
		{ 0, 0 },	      { 2, 0 },
		{ 1, -EFAULT },	      { 4097, -EFAULT },
		{ GIB(3) - 2, 0 },    { GIB(3) - 1, -EFAULT },
		{ GIB(3), -EFAULT },  { GIB(4) - 1, -EFAULT },
		{ GIB(7) - 2, 0 },    { GIB(7), -EFAULT },
		{ UINT64_MAX, -EFAULT }, { UINT64_MAX - 1, -EFAULT },
	};
	struct gmem m;

	CHECK_EQ(gmem_init(&m, GIB(6), -1, GMEM_PRIVATE, NULL), 0);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		uint16_t v = 0;
		test_note("%#llx", (unsigned long long)row[i].gpa);
		CHECK_EQ(gmem_store16(&m, row[i].gpa, 0xbeef), row[i].want);
		CHECK_EQ(gmem_load16(&m, row[i].gpa, &v), row[i].want);
		CHECK_EQ(v, row[i].want ? 0 : 0xbeef);
	}
	gmem_fini(&m);
}

TEST(gmem_dies_when_asked_for_the_address_of_foreign_memory)
{
	struct gmem m;
	int status;
	pid_t pid;

	CHECK_EQ(gmem_init(&m, MIB(2), -1, GMEM_PRIVATE, NULL), 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);
		dup2(null, 2);
		gmem_gpa(&m, m.map + m.bytes);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	CHECK_EQ(gmem_gpa(&m, m.map + m.bytes - 1), m.bytes - 1);
	gmem_fini(&m);
}

/* All of the file is data. */
static void tgmem_clone(struct gmem *m, int fd)
{
	CHECK_EQ(gmem_init(m, TGMEM_BYTES, fd, GMEM_PRIVATE, NULL), 0);
	CHECK_EQ(gmem_map_file(m, 0, TGMEM_BYTES, NULL), 0);
}

TEST(gmem_shows_of_a_private_file_what_was_mapped_and_fresh_memory_else)
{
	struct gmem m;
	int fd = tgmem_file(TGMEM_BYTES, 0x11);

	CHECK_EQ(gmem_init(&m, TGMEM_BYTES, fd, GMEM_PRIVATE, NULL), 0);
	CHECK_EQ(tgmem_byte(&m, 0), 0);
	CHECK_EQ(gmem_map_file(&m, 8192, 4096, NULL), 0);
	CHECK_EQ(gmem_map_file(&m, TGMEM_BYTES - 4096, 4096, NULL), 0);
	CHECK_EQ(tgmem_byte(&m, 8191), 0);
	CHECK_EQ(tgmem_byte(&m, 8192), 0x11);
	CHECK_EQ(tgmem_byte(&m, 8192 + 4095), 0x11);
	CHECK_EQ(tgmem_byte(&m, 8192 + 4096), 0);
	CHECK_EQ(tgmem_byte(&m, TGMEM_BYTES - 1), 0x11);
	gmem_fini(&m);
}

TEST(gmem_private_writes_never_reach_the_template)
{
	struct gmem m;
	int fd = tgmem_file(TGMEM_BYTES, 0x11), keep = dup(fd);

	tgmem_clone(&m, fd);
	CHECK_EQ(tgmem_byte(&m, 5000), 0x11);
	CHECK_EQ(gmem_write(&m, 5000, "x", 1), 0);
	CHECK_EQ(tgmem_byte(&m, 5000), 'x');
	CHECK_EQ(tgmem_file_byte(keep, 5000), 0x11);
	gmem_fini(&m);
	close(keep);
}

TEST(gmem_shared_writes_are_the_template)
{
	struct gmem m;
	int fd = tgmem_file(TGMEM_BYTES, 0x11), keep = dup(fd);

	CHECK_EQ(gmem_init(&m, TGMEM_BYTES, fd, GMEM_SHARED, NULL), 0);
	CHECK_EQ(gmem_write(&m, 5000, "x", 1), 0);
	CHECK_EQ(tgmem_file_byte(keep, 5000), 'x');
	gmem_fini(&m);
	CHECK_EQ(tgmem_file_byte(keep, 5000), 'x');
	close(keep);
}

/* What a range of the discard table must look like afterwards. */
struct tgmem_discard {
	gpa_t gpa;
	uint64_t len;
	gpa_t first, end; /* whole pages inside */
};
static const struct tgmem_discard tgmem_discards[] = {
	{ 0x10000, 0x1000, 0x10000, 0x11000 },
	{ 0x10000, 0, 0, 0 },
	{ 0x10000, 0xfff, 0, 0 },
	{ 0x10001, 0xfff, 0, 0 },
	{ 0x10001, 0x1000, 0, 0 },
	{ 0x10001, 0x1fff, 0x11000, 0x12000 },
	{ 0x10fff, 0x2001, 0x11000, 0x13000 },
	{ 0x10fff, 0x2002, 0x11000, 0x13000 },
	{ MIB(2) - 1, MIB(2) + 2, MIB(2), MIB(4) }, /* replaced, not reverted */
	{ TGMEM_BYTES - 0x1000, 0x1000, TGMEM_BYTES - 0x1000, TGMEM_BYTES },
};

/* Every byte of [first, end) is v. */
static bool tgmem_is_all(const uint8_t *p, gpa_t first, gpa_t end, uint8_t v)
{
	return first == end || (p[first] == v && !memcmp(p + first, p + first + 1, end - first - 1));
}

/* Fill RAM, discard, and see that every byte around the whole pages stayed; the pages inside are
 * `template` or, where that may be, zero, and can be written. */
static void tgmem_check_discards(struct gmem *m, uint8_t template)
{
	for (unsigned i = 0; i < ARRAY_LEN(tgmem_discards); i++) {
		const struct tgmem_discard *row = &tgmem_discards[i];
		uint8_t *p = gmem_span(m, 0, TGMEM_BYTES);

		test_note("discard %#llx + %#llx", (unsigned long long)row->gpa,
			  (unsigned long long)row->len);
		memset(p, 0x22, TGMEM_BYTES);
		CHECK_EQ(gmem_discard(m, row->gpa, row->len), 0);
		CHECK(tgmem_is_all(p, 0, row->first, 0x22));
		CHECK(tgmem_is_all(p, row->first, row->end, 0) ||
		      tgmem_is_all(p, row->first, row->end, template));
		CHECK(tgmem_is_all(p, row->end, TGMEM_BYTES, 0x22));
		memset(p + row->first, 0x33, row->end - row->first);
		CHECK(tgmem_is_all(p, row->first, row->end, 0x33));
	}
}

TEST(gmem_discards_whole_pages_of_anonymous_memory)
{
	struct gmem m;

	CHECK_EQ(gmem_init(&m, TGMEM_BYTES, -1, GMEM_PRIVATE, NULL), 0);
	tgmem_check_discards(&m, 0);
	gmem_fini(&m);
}

TEST(gmem_discards_whole_pages_of_a_clone_and_spares_its_template)
{
	struct gmem m;
	int fd = tgmem_file(TGMEM_BYTES, 0x11), keep = dup(fd);

	tgmem_clone(&m, fd);
	tgmem_check_discards(&m, 0x11);
	gmem_fini(&m);
	for (uint64_t at = 0; at < TGMEM_BYTES; at += GMEM_PAGE)
		CHECK_EQ(tgmem_file_byte(keep, at), 0x11);
	close(keep);
}

TEST(gmem_discard_punches_holes_into_a_shared_file)
{
	struct gmem m;
	struct stat before, after;
	int fd = tgmem_file(TGMEM_BYTES, 0x11);

	CHECK_EQ(gmem_init(&m, TGMEM_BYTES, fd, GMEM_SHARED, NULL), 0);
	CHECK_EQ(fstat(fd, &before), 0);
	CHECK_EQ(gmem_discard(&m, MIB(2), MIB(4)), 0);
	CHECK_EQ(fstat(fd, &after), 0);
	CHECK_EQ((before.st_blocks - after.st_blocks) * 512, MIB(4));
	CHECK_EQ(after.st_size, TGMEM_BYTES);
	tgmem_check_discards(&m, 0);
	gmem_fini(&m);
}

/* Pages of [p, p+n) that are our own copies: present and not the file's (proc/PID/pagemap). */
static unsigned tgmem_own_pages(const uint8_t *p, size_t n)
{
	unsigned own = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	CHECK(fd >= 0);
	for (size_t at = 0; at < n; at += GMEM_PAGE) {
		uint64_t e;
		CHECK_EQ(pread(fd, &e, 8, (off_t)((uintptr_t)(p + at) / GMEM_PAGE * 8)), 8);
		own += (e >> 63) && !(e >> 61 & 1);
	}
	close(fd);
	return own;
}

TEST(gmem_discard_frees_the_memory_of_a_clone)
{
	struct gmem m;

	tgmem_clone(&m, tgmem_file(TGMEM_BYTES, 0));
	memset(gmem_span(&m, 0, MIB(4)), 1, MIB(4));
	CHECK_EQ(tgmem_own_pages(m.map, MIB(4)), MIB(4) / GMEM_PAGE);
	CHECK_EQ(gmem_discard(&m, 0, MIB(1)), 0);      /* reverted */
	CHECK_EQ(gmem_discard(&m, MIB(2), MIB(2)), 0); /* replaced */
	CHECK_EQ(tgmem_own_pages(m.map, MIB(4)), MIB(1) / GMEM_PAGE);
	gmem_fini(&m);
}
