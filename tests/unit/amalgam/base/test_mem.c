#include "amalgam/base/mem.h"

#include <fcntl.h>

#include "tests/unit/test.h"

TEST(mem_is_zeroed_and_never_null)
{
	unsigned char *p = mem_calloc(16, 4), *empty = mem_zalloc(0);

	for (int i = 0; i < 64; i++)
		CHECK_EQ(p[i], 0);
	CHECK(empty);
	p = mem_realloc(p, 1000);
	CHECK_EQ(p[63], 0);
	free(p);
	free(empty);
}

TEST(mem_copies_strings)
{
	AUTO_FREE char *a = mem_strdup("sandbox");
	AUTO_FREE char *b = mem_strndup(test_guard("sandbox", 4), 4);
	AUTO_FREE char *c = mem_printf("%s-%d", "x", 7);

	CHECK_STR(a, "sandbox");
	CHECK_STR(b, "sand");
	CHECK_STR(c, "x-7");
	CHECK(!mem_strdup(NULL));
}

static int tmem_scope(bool take)
{
	AUTO_CLOSE int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	AUTO_FREE char *p = mem_strdup("x");
	int seen = fd;

	errno = EBADMSG;
	if (take) {
		free(take_ptr(&p));
		CHECK(!p);
		seen = take_fd(&fd);
		CHECK_EQ(fd, -1);
	}
	return seen;
}

TEST(mem_scoped_locals_are_released_unless_taken)
{
	int fd = tmem_scope(false);

	CHECK_EQ(errno, EBADMSG); /* closing does not disturb it */
	CHECK_EQ(fcntl(fd, F_GETFD), -1);
	fd = tmem_scope(true);
	CHECK(fcntl(fd, F_GETFD) >= 0);
	close(fd);
}

TEST(align_up_rounds_to_powers_of_two)
{
	CHECK_EQ(ALIGN_UP(0u, 4096), 0);
	CHECK_EQ(ALIGN_UP(1u, 4096), 4096);
	CHECK_EQ(ALIGN_UP(4096u, 4096), 4096);
	CHECK_EQ(ALIGN_UP(UINT64_C(0x100000001), 8), 0x100000008);
}
