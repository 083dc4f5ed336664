#include "amalgam/runtime/pump.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

#define TPUMP_BYTES 300000 /* more than a pump's buffer, and than a socket's */

static void tpump_done(void *arg)
{
	(*(unsigned *)arg)++;
}

static void tpump_fill(uint8_t *p)
{
	for (size_t i = 0; i < TPUMP_BYTES; i++)
		p[i] = (uint8_t)(i * 7 + i / 1000);
}

static int tpump_file(const void *bytes, size_t n)
{
	int fd = fd_memfd("input");

	CHECK_EQ(fd_write_full(fd, bytes, n), 0);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

/* Turn the loop and read what arrives at the other end of the output, until its end. */
static size_t tpump_drain(struct loop *l, int fd, uint8_t *to, size_t max)
{
	size_t len = 0;

	for (unsigned turns = 0; turns < 10000; turns++) {
		ssize_t n;
		CHECK(loop_step(l, 0) >= 0);
		n = recv(fd, to + len, max - len, MSG_DONTWAIT);
		if (n == 0)
			return len;
		len += n > 0 ? (size_t)n : 0;
	}
	test_fail(__FILE__, __LINE__, "no end after %zu bytes", len);
	return len;
}

/* A file's end raises no event, and comes here while the output is full. */
TEST(pump_ends_with_a_file_that_is_larger_than_the_sockets_buffer)
{
	static const size_t sizes[] = { 0, 1, PUMP_BYTES, PUMP_BYTES + 1, TPUMP_BYTES };
	AUTO_FREE uint8_t *in = mem_zalloc(TPUMP_BYTES), *out = mem_zalloc(TPUMP_BYTES + 1);

	tpump_fill(in);
	for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
		static struct pump p;
		struct loop l;
		int sv[2], fd = tpump_file(in, sizes[i]);
		unsigned over = 0;

		test_note("%zu bytes", sizes[i]);
		CHECK_EQ(loop_init(&l), 0);
		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
		CHECK_EQ(pump_start(&p, &l, fd, sv[0], tpump_done, &over), 0);
		CHECK_EQ(tpump_drain(&l, sv[1], out, TPUMP_BYTES + 1), sizes[i]);
		CHECK(memcmp(in, out, sizes[i]) == 0);
		CHECK_EQ(over, 1);
		close(fd);
		close(sv[0]);
		close(sv[1]);
		loop_fini(&l);
	}
}

TEST(pump_moves_a_stream_as_it_comes_and_ends_with_it)
{
	static struct pump p;
	struct loop l;
	int in[2], out[2];
	unsigned over = 0;
	uint8_t got[16];

	CHECK_EQ(loop_init(&l), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, in), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, out), 0);
	CHECK_EQ(pump_start(&p, &l, in[0], out[0], tpump_done, &over), 0);
	CHECK_EQ(write(in[1], "one", 3), 3);
	CHECK(loop_step(&l, 0) >= 0);
	CHECK_EQ(read(out[1], got, sizeof got), 3);
	CHECK_EQ(over, 0);
	CHECK_EQ(write(in[1], "two", 3), 3);
	close(in[1]);
	CHECK_EQ(tpump_drain(&l, out[1], got, sizeof got), 3);
	CHECK_EQ(over, 1);
	close(in[0]);
	close(out[0]);
	close(out[1]);
	loop_fini(&l);
}

TEST(pump_ends_when_nobody_reads_any_more)
{
	static struct pump p;
	static uint8_t bytes[TPUMP_BYTES];
	struct loop l;
	int out[2], fd = tpump_file(bytes, sizeof bytes);
	unsigned over = 0;

	CHECK_EQ(loop_init(&l), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, out), 0);
	CHECK_EQ(pump_start(&p, &l, fd, out[0], tpump_done, &over), 0);
	CHECK_EQ(over, 0); /* full */
	close(out[1]);
	for (unsigned i = 0; i < 3; i++)
		CHECK(loop_step(&l, 0) >= 0);
	CHECK_EQ(over, 1);
	close(fd);
	close(out[0]);
	loop_fini(&l);
}
