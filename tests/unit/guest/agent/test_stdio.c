#include <sys/socket.h>

#include "tests/unit/guest/agent/agent.h"
#include "tests/unit/test.h"

/* A process's three streams, all direct; host[] are the far ends of the connections. */
struct stdio_rig {
	struct loop loop;
	struct ga_stdio io;
	int child[3], host[3];
};

static void stdio_connect(struct stdio_rig *r, unsigned i)
{
	int pair[2], small = 4096;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	r->host[i] = pair[1];
	CHECK(ga_stdio_wants(&r->io, 100 + i));
	ga_stdio_connect(&r->io, 100 + i, pair[0]);
}

static void stdio_open(struct stdio_rig *r, bool connect)
{
	static const uint32_t ports[3] = { 100, 101, 102 };
	struct err e;

	memset(r, 0, sizeof *r);
	signal(SIGPIPE, SIG_IGN);
	CHECK_EQ(loop_init(&r->loop), 0);
	ga_stdio_init(&r->io, &r->loop);
	CHECK_EQ(ga_stdio_open(&r->io, false, ports, 0, r->child, &e), 0);
	for (unsigned i = 0; i < 3; i++) {
		r->host[i] = -1;
		if (connect)
			stdio_connect(r, i);
	}
}

static void stdio_close(struct stdio_rig *r)
{
	ga_stdio_fini(&r->io);
	for (unsigned i = 0; i < 3; i++) {
		if (r->host[i] >= 0)
			close(r->host[i]);
		if (r->child[i] >= 0)
			close(r->child[i]);
	}
	loop_fini(&r->loop);
}

static void stdio_spin(struct stdio_rig *r, unsigned ms)
{
	uint64_t end = clock_mono_ns() + ms * NS_PER_MS;

	do
		CHECK_EQ(loop_step(&r->loop, 5), 0);
	while (clock_mono_ns() < end);
}

/* Read what is there from a non-blocking descriptor; -1 when there is nothing yet, 0 at the end. */
static ssize_t stdio_read(int fd, char *p, size_t n)
{
	ssize_t r = read(fd, p, n);

	return r < 0 ? -1 : r;
}

TEST(ga_stdio_output_arrives_and_ends_with_its_writer)
{
	struct stdio_rig r;
	char b[64];

	stdio_open(&r, true);
	CHECK_EQ(write(r.child[1], "out", 3), 3);
	CHECK_EQ(write(r.child[2], "error", 5), 5);
	stdio_spin(&r, 10);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), 3);
	CHECK_MEM(b, "out", 3);
	CHECK_EQ(stdio_read(r.host[2], b, sizeof b), 5);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), -1);
	close(r.child[1]);
	r.child[1] = -1;
	stdio_spin(&r, 10);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), 0);
	CHECK_EQ(stdio_read(r.host[2], b, sizeof b), -1);
	stdio_close(&r);
}

TEST(ga_stdio_output_before_the_connection_waits_for_it)
{
	struct stdio_rig r;
	char b[64];

	stdio_open(&r, false);
	CHECK_EQ(ga_stdio_missing(&r.io), 100);
	CHECK_EQ(write(r.child[1], "early", 5), 5);
	close(r.child[1]);
	r.child[1] = -1;
	stdio_spin(&r, 10);
	stdio_connect(&r, 1);
	stdio_spin(&r, 10);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), 5);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), 0);
	stdio_connect(&r, 0);
	stdio_connect(&r, 2);
	CHECK_EQ(ga_stdio_missing(&r.io), 0); /* one has been and gone, which is fine */
	CHECK(!ga_stdio_wants(&r.io, 101));
	stdio_close(&r);
}

TEST(ga_stdio_a_slow_host_holds_the_writer_and_loses_nothing)
{
	enum { total = 1 << 20 };
	size_t written = 0, got = 0;
	struct stdio_rig r;
	char b[8192];

	stdio_open(&r, true);
	fd_set_nonblock(r.child[1], true);
	while (got < total) {
		uint8_t chunk[1000];
		size_t n = MIN(sizeof chunk, total - written);
		ssize_t k;
		for (size_t i = 0; i < n; i++)
			chunk[i] = (uint8_t)((written + i) % 251);
		k = n ? write(r.child[1], chunk, n) : 0;
		written += k > 0 ? (size_t)k : 0;
		CHECK_EQ(loop_step(&r.loop, 0), 0);
		CHECK(written - got <= (1 << 20));
		if (written < total && k > 0)
			continue; /* read only when the writer is stuck */
		k = read(r.host[1], b, sizeof b);
		for (ssize_t i = 0; i < k; i++)
			CHECK_EQ((uint8_t)b[i], (got + (size_t)i) % 251);
		got += k > 0 ? (size_t)k : 0;
	}
	CHECK_EQ(r.io.stream[1].pending.len, 0);
	stdio_close(&r);
}

TEST(ga_stdio_a_host_that_has_gone_does_not_stop_the_writer)
{
	struct stdio_rig r;
	char b[4096] = { 0 };

	stdio_open(&r, true);
	fd_set_nonblock(r.child[1], true);
	close(r.host[1]);
	r.host[1] = -1;
	for (unsigned i = 0; i < 1000; i++) {
		CHECK_EQ(write(r.child[1], b, sizeof b), sizeof b);
		CHECK_EQ(loop_step(&r.loop, 0), 0);
	}
	stdio_close(&r);
}

TEST(ga_stdio_after_the_process_others_have_two_seconds)
{
	struct stdio_rig r;
	char b[64];

	stdio_open(&r, true);
	CHECK_EQ(write(r.child[1], "last", 4), 4);
	ga_stdio_drain(&r.io);
	stdio_spin(&r, 100);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), 4);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), -1);
	CHECK_EQ(write(r.child[1], "late", 4), 4); /* somebody it left behind */
	stdio_spin(&r, 2200);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), 4);
	CHECK_EQ(stdio_read(r.host[1], b, sizeof b), 0); /* though that one still lives */
	CHECK_EQ(stdio_read(r.host[2], b, sizeof b), 0);
	stdio_close(&r);
}

TEST(ga_stdio_what_is_in_the_pipe_at_the_end_is_not_lost_to_a_slow_host)
{
	enum { total = 60000 };
	struct stdio_rig r;
	char b[total] = { 0 };
	size_t got = 0;
	ssize_t n;

	stdio_open(&r, true);
	CHECK_EQ(write(r.child[1], b, total), total);
	ga_stdio_drain(&r.io);
	stdio_spin(&r, 700);
	for (unsigned i = 0; i < 1000 && (n = stdio_read(r.host[1], b, 1000)) != 0; i++) {
		got += n > 0 ? (size_t)n : 0;
		CHECK_EQ(loop_step(&r.loop, 0), 0);
	}
	CHECK_EQ(got, total);
	stdio_close(&r);
}

TEST(ga_stdio_input_arrives_and_its_end_too)
{
	struct stdio_rig r;
	char b[64];

	stdio_open(&r, true);
	CHECK_EQ(write(r.host[0], "typed", 5), 5);
	stdio_spin(&r, 10);
	CHECK_EQ(read(r.child[0], b, sizeof b), 5);
	shutdown(r.host[0], SHUT_WR);
	stdio_spin(&r, 10);
	CHECK_EQ(read(r.child[0], b, sizeof b), 0);
	stdio_close(&r);
}

TEST(ga_stdio_input_the_process_will_not_read_is_told_to_the_host)
{
	struct stdio_rig r;

	stdio_open(&r, true);
	close(r.child[0]);
	r.child[0] = -1;
	stdio_spin(&r, 10);
	CHECK_EQ(write(r.host[0], "x", 1), -1);
	CHECK_EQ(errno, EPIPE);
	stdio_close(&r);
}

TEST(ga_stdio_more_input_than_the_pipe_holds_waits_in_the_socket)
{
	enum { total = 300000 };
	size_t sent = 0, got = 0;
	struct stdio_rig r;
	char b[4096];

	stdio_open(&r, true);
	fd_set_nonblock(r.child[0], true);
	while (got < total) {
		uint8_t chunk[1024];
		size_t n = MIN(sizeof chunk, total - sent);
		ssize_t k;
		memset(chunk, (int)(sent / 1024 % 100), sizeof chunk);
		k = n ? write(r.host[0], chunk, n) : -1;
		sent += k > 0 ? (size_t)k : 0;
		CHECK_EQ(loop_step(&r.loop, 0), 0);
		CHECK(r.io.stream[0].pending.len <= GA_STDIO_CHUNK);
		if (k > 0)
			continue;
		k = read(r.child[0], b, sizeof b);
		got += k > 0 ? (size_t)k : 0;
	}
	CHECK_EQ(got, total);
	stdio_close(&r);
}

TEST(ga_stdio_one_connection_can_be_both_directions_of_a_terminal)
{
	static const uint32_t ports[3] = { 7, 7, 0 };
	struct stdio_rig r = { .child = { -1, -1, -1 }, .host = { -1, -1, -1 } };
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave, pair[2];
	struct err e;
	char b[64];

	CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	CHECK(slave >= 0);
	CHECK_EQ(loop_init(&r.loop), 0);
	ga_stdio_init(&r.io, &r.loop);
	CHECK_EQ(ga_stdio_open(&r.io, true, ports, 0, r.child, &e), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	r.host[0] = pair[1];
	ga_stdio_connect(&r.io, 7, pair[0]); /* before there is a terminal */
	CHECK_EQ(ga_stdio_missing(&r.io), 0);
	ga_stdio_set_terminal(&r.io, master);
	CHECK_EQ(ga_stdio_resize(&r.io, 11, 22), 0);
	CHECK_EQ(write(r.host[0], "in\n", 3), 3);
	stdio_spin(&r, 20);
	CHECK_EQ(read(slave, b, sizeof b), 3);
	CHECK_EQ(stdio_read(r.host[0], b, sizeof b), 4); /* the echo: "in\r\n" */
	CHECK_EQ(write(slave, "out", 3), 3);
	stdio_spin(&r, 20);
	CHECK_EQ(stdio_read(r.host[0], b, sizeof b), 3);
	close(slave);
	stdio_spin(&r, 20);
	ga_stdio_drain(&r.io);
	stdio_spin(&r, 20);
	CHECK_EQ(stdio_read(r.host[0], b, sizeof b), 0);
	CHECK_EQ(ga_stdio_resize(&r.io, 11, 22), -ENOTTY);
	stdio_close(&r);
}
