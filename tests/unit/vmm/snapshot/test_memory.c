#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "amalgam/base/fd.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/memory.h"

#define TMEM_BYTES MIB(4)
#define TMEM_PAGES (TMEM_BYTES / GMEM_PAGE)

/* Which pages are not zero: a letter per page, '.' for a page that was never touched, '0' for one
 * that was written with zeros; the rest of RAM is never touched. */
static const char *const tmem_pattern[] = {
	"", "x", "0", ".x", "x.", "x0", "0x", "xx00xx..xx", "0.0.0.0", ".x0x.", "x0.0x", "00000000x",
	"x.x.x.x.x", "0000", "....x", "x....0",
};

static void tmem_fill(struct gmem *m, const char *pattern)
{
	for (unsigned i = 0; pattern[i]; i++)
		if (pattern[i] == 'x')
			/* one byte, in the middle and at both ends in turn */
			m->map[i * GMEM_PAGE + (uint64_t[]){ 0, 1234, 4095 }[i % 3]] = (uint8_t)(i + 1);
		else if (pattern[i] == '0')
			memset(m->map + i * GMEM_PAGE, 0, GMEM_PAGE);
}

/* fd holds the same bytes as m, and exactly the pages that are not zero. */
static void tmem_check(const struct gmem *m, int fd, unsigned pages)
{
	static uint8_t got[TMEM_BYTES];
	struct stat st;

	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, TMEM_BYTES);
	CHECK_EQ(st.st_blocks * 512 / GMEM_PAGE, pages);
	CHECK_EQ(fd_pread_full(fd, got, TMEM_BYTES, 0), 0);
	CHECK_MEM(got, m->map, TMEM_BYTES);
	CHECK_EQ(fstat(fd, &st), 0);
}

static unsigned tmem_count(const char *pattern)
{
	unsigned n = 0;

	for (; *pattern; pattern++)
		n += *pattern == 'x';
	return n;
}

static int tmem_shared(struct gmem *m)
{
	int fd = fd_memfd("memory");

	CHECK(fd >= 0 && ftruncate(fd, TMEM_BYTES) == 0);
	CHECK_EQ(gmem_init(m, TMEM_BYTES, fd, GMEM_SHARED, NULL), 0);
	return fd;
}

TEST(snapmem_write_makes_holes_of_zero_pages)
{
	for (unsigned i = 0; i < ARRAY_LEN(tmem_pattern); i++) {
		struct gmem m;
		int fd = fd_memfd("copy");

		test_note("pages %s", tmem_pattern[i]);
		CHECK_EQ(gmem_init(&m, TMEM_BYTES, -1, GMEM_PRIVATE, NULL), 0);
		tmem_fill(&m, tmem_pattern[i]);
		CHECK_EQ(snapmem_write(&m, fd, NULL), 0);
		tmem_check(&m, fd, tmem_count(tmem_pattern[i]));
		gmem_fini(&m);
		close(fd);
	}
}

TEST(snapmem_write_takes_a_clone_with_its_templates_pages)
{
	struct gmem t, m;
	int fd = tmem_shared(&t), out = fd_memfd("copy");

	tmem_fill(&t, "x.x0xx");
	CHECK_EQ(gmem_init(&m, TMEM_BYTES, dup(fd), GMEM_PRIVATE, NULL), 0);
	m.map[1 * GMEM_PAGE] = 9;                      /* new */
	memset(m.map + 4 * GMEM_PAGE, 0, GMEM_PAGE);   /* cleared by the clone */
	m.map[(TMEM_PAGES - 1) * GMEM_PAGE + 4095] = 7; /* the last byte there is */
	CHECK_EQ(snapmem_write(&m, out, NULL), 0);
	tmem_check(&m, out, 5); /* 0, 1, 2, 5 and the last */
	gmem_fini(&m);
	gmem_fini(&t);
	close(out);
}

TEST(snapmem_punch_frees_zero_pages_and_keeps_the_rest)
{
	for (unsigned i = 0; i < ARRAY_LEN(tmem_pattern); i++) {
		struct gmem m;
		int fd = tmem_shared(&m);
		struct stat st;

		test_note("pages %s", tmem_pattern[i]);
		tmem_fill(&m, tmem_pattern[i]);
		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(snapmem_punch(&m, NULL), 0);
		tmem_check(&m, fd, tmem_count(tmem_pattern[i]));
		CHECK_EQ(snapmem_punch(&m, NULL), 0); /* nothing left to do */
		CHECK_EQ(fstat(fd, &st), 0);
		gmem_fini(&m);
	}
}

TEST(snapmem_punch_leaves_holes_alone)
{
	struct gmem m;
	struct stat st;
	int fd = tmem_shared(&m);

	m.map[TMEM_BYTES / 2] = 1;
	CHECK_EQ(snapmem_punch(&m, NULL), 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_blocks * 512, GMEM_PAGE);
	CHECK_EQ(m.map[TMEM_BYTES / 2], 1);
	CHECK_EQ(lseek(fd, 0, SEEK_DATA), TMEM_BYTES / 2);
	gmem_fini(&m);
}

TEST(snapmem_punch_takes_a_memory_without_any_hole)
{
	struct gmem m;
	struct stat st;
	int fd = tmem_shared(&m);

	memset(m.map, 0, TMEM_BYTES);
	m.map[0] = m.map[TMEM_BYTES - 1] = 1;
	CHECK_EQ(snapmem_punch(&m, NULL), 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_blocks * 512, 2 * GMEM_PAGE);
	CHECK_EQ(m.map[0], 1);
	CHECK_EQ(m.map[TMEM_BYTES - 1], 1);
	memset(m.map, 0, TMEM_BYTES);
	CHECK_EQ(snapmem_punch(&m, NULL), 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_blocks, 0);
	gmem_fini(&m);
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
	memset(m.map, 0, GMEM_PAGE);
	close(fd);
	CHECK_EQ(snapmem_punch(&m, &e), -EBADF);
	CHECK_HAS(e.msg, "memory file: seek: ");
	m.fd = -1;
	gmem_fini(&m);
}
