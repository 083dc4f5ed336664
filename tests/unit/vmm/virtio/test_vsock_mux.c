/* What may stand behind a stream: sockets, pipes, files, terminals; and many of them at once. */
#include "tests/unit/vmm/virtio/vsock_check.h"

#include <sys/stat.h>

static void tvmx_start(struct vskr *g)
{
	signal(SIGPIPE, SIG_IGN);
	vskr_init(g, 32, 4096);
}

/* Take data packets until `n` bytes have come; they must be those of `want`. */
static void tvmx_take(struct vskr *g, uint32_t port, const uint8_t *want, size_t n)
{
	for (size_t got = 0; got < n; got += g->h.len) {
		CHECK(vskr_recv(g));
		CHECK_EQ(g->h.op, VSK_OP_RW);
		CHECK_EQ(g->h.src_port, port);
		CHECK(g->h.len <= n - got);
		CHECK_MEM(g->data, want + got, g->h.len);
	}
}

static uint8_t tvmx_bytes[200000];

static void tvmx_pattern(void)
{
	for (unsigned i = 0; i < sizeof tvmx_bytes; i++)
		tvmx_bytes[i] = (uint8_t)(i * 13 ^ i >> 7);
}

static int tvmx_file(size_t n)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, tvmx_bytes, n), (ssize_t)n);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static struct vmux_conn *tvmx_conn(struct vskr *g, uint32_t port)
{
	struct vsk_conn *c = vsk_find(g->v, port, 1024);

	CHECK(c != NULL);
	return container_of(c, struct vmux_conn, c);
}

TEST(vmux_reads_a_regular_file_to_its_end)
{
	static struct vskr g;
	struct vskr_told told;
	uint32_t port;

	tvmx_pattern();
	tvmx_start(&g);
	port = vskr_open(&g, tvmx_file(150000), -1, &told);
	tvmx_take(&g, port, tvmx_bytes, 150000);
	tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
	CHECK_EQ(g.h.flags, VSK_SHUT_BOTH); /* nothing to write to, either */
	tvsk_control(&g, port, VSK_OP_RST, 0);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, 0);
	vskr_fini(&g);
}

TEST(vmux_file_input_does_not_spin_when_the_guest_has_no_credit)
{
	static struct vskr g;
	struct vmux_spec s = { .guest_port = 1024, .out_fd = -1 };
	struct vsk_hdr h;
	uint32_t port;

	tvmx_pattern();
	tvmx_start(&g);
	s.in_fd = tvmx_file(1000);
	port = (uint32_t)vmux_connect(g.r.dev, &s);
	tvsk_expect(&g, VSK_OP_REQUEST, port, 1024);
	h = vskr_hdr(port, 1024, VSK_OP_RESPONSE);
	h.buf_alloc = 0;
	vskr_send(&g, &h, NULL, 0);
	tvsk_expect(&g, VSK_OP_CREDIT_REQUEST, port, 1024);
	tvsk_quiet(&g);
	CHECK(!g.v->turn.active);
	CHECK_EQ(epoll_wait(g.r.loop.epoll_fd, g.r.loop.ready, LOOP_BATCH, 0), 0);
	h.op = VSK_OP_CREDIT_UPDATE;
	h.buf_alloc = 300;
	vskr_send(&g, &h, NULL, 0);
	tvmx_take(&g, port, tvmx_bytes, 300);
	h.buf_alloc = 5000;
	vskr_send(&g, &h, NULL, 0);
	do
		CHECK(vskr_recv(&g));
	while (g.h.op == VSK_OP_CREDIT_REQUEST);
	CHECK_MEM(g.data, tvmx_bytes + 300, g.h.len);
	CHECK_EQ(g.h.len, 700);
	vskr_fini(&g);
}

TEST(vmux_writes_a_regular_file_and_closes_it_at_the_end)
{
	static struct vskr g;
	static uint8_t back[100000];
	struct vskr_told told;
	struct vsk_hdr h;
	uint32_t port;
	int fd;

	tvmx_pattern();
	tvmx_start(&g);
	fd = tvmx_file(0);
	port = vskr_open(&g, -1, dup(fd), &told);
	h = vskr_hdr(port, 1024, VSK_OP_RW);
	for (unsigned i = 0; i < 100000; i += 50000) {
		h.len = 50000;
		vskr_send(&g, &h, tvmx_bytes + i, h.len);
		tvsk_expect(&g, VSK_OP_CREDIT_UPDATE, port, 1024);
	}
	tvsk_control(&g, port, VSK_OP_SHUTDOWN, VSK_SHUT_SEND);
	tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
	CHECK_EQ(g.h.flags, VSK_SHUT_BOTH);
	tvsk_control(&g, port, VSK_OP_RST, 0);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(pread(fd, back, sizeof back, 0), sizeof back);
	CHECK_MEM(back, tvmx_bytes, sizeof back);
	close(fd);
	vskr_fini(&g);
}

TEST(vmux_dev_null_reads_as_ended_and_swallows_everything)
{
	static struct vskr g;
	struct vskr_told in, out;
	struct vsk_hdr h;
	uint32_t port;

	tvmx_start(&g);
	port = vskr_open(&g, open("/dev/null", O_RDONLY | O_CLOEXEC), -1, &in);
	tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
	port = vskr_open(&g, -1, open("/dev/null", O_WRONLY | O_CLOEXEC), &out);
	h = vskr_hdr(port, 1024, VSK_OP_RW);
	h.len = 65536;
	for (unsigned i = 0; i < 10; i++) {
		vskr_send(&g, &h, tvmx_bytes, h.len);
		tvsk_expect(&g, VSK_OP_CREDIT_UPDATE, port, 1024);
	}
	CHECK_EQ(g.h.fwd_cnt, 655360);
	vskr_fini(&g);
}

/* Pipes in every way a kernel lets us drive them. */
static const enum vmux_how tvmx_hows[] = { VMUX_NOWAIT, VMUX_NONBLOCK, VMUX_POLL };

TEST(vmux_reads_a_pipe_whatever_the_kernel_offers)
{
	tvmx_pattern();
	for (unsigned i = 0; i < ARRAY_LEN(tvmx_hows); i++) {
		static struct vskr g;
		struct vskr_told told;
		uint32_t port;
		int p[2];

		test_note("how %u", tvmx_hows[i]);
		tvmx_start(&g);
		CHECK_EQ(pipe2(p, O_CLOEXEC | (tvmx_hows[i] == VMUX_NONBLOCK ? O_NONBLOCK : 0)), 0);
		port = vskr_open(&g, p[0], -1, &told);
		tvmx_conn(&g, port)->in_how = tvmx_hows[i];
		for (unsigned k = 0; k < 5; k++) {
			CHECK_EQ(write(p[1], tvmx_bytes + k, 5000), 5000);
			tvmx_take(&g, port, tvmx_bytes + k, 5000);
			tvsk_quiet(&g);
			CHECK_EQ(epoll_wait(g.r.loop.epoll_fd, g.r.loop.ready, LOOP_BATCH, 0), 0);
		}
		close(p[1]);
		tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
		CHECK_EQ(g.h.flags, VSK_SHUT_BOTH);
		vskr_fini(&g);
	}
}

TEST(vmux_full_pipe_stalls_its_own_stream_and_no_other)
{
	tvmx_pattern();
	for (unsigned i = 0; i < ARRAY_LEN(tvmx_hows); i++) {
		static struct vskr g;
		static uint8_t back[VSK_BUF_BYTES];
		struct vskr_told told, other;
		struct vsk_hdr h;
		uint32_t stuck, free_;
		size_t sent = 0, n = 0;
		int p[2], fd[2];
		char buf[8];

		test_note("how %u", tvmx_hows[i]);
		tvmx_start(&g);
		CHECK_EQ(pipe2(p, O_CLOEXEC | (tvmx_hows[i] == VMUX_NONBLOCK ? O_NONBLOCK : 0)), 0);
		fcntl(p[1], F_SETPIPE_SZ, 4096);
		stuck = vskr_open(&g, -1, p[1], &told);
		tvmx_conn(&g, stuck)->out_how = tvmx_hows[i];
		vskr_pair(fd);
		free_ = vskr_open(&g, fd[1], fd[1], &other);

		h = vskr_hdr(stuck, 1024, VSK_OP_RW);
		h.len = 4096;
		for (; sent < VSK_BUF_BYTES; sent += h.len)
			vskr_send(&g, &h, tvmx_bytes + sent, h.len);
		vskr_settle(&g);
		CHECK(tvmx_conn(&g, stuck)->to_host.len >= VSK_BUF_BYTES - 8192);
		CHECK_EQ(epoll_wait(g.r.loop.epoll_fd, g.r.loop.ready, LOOP_BATCH, 0), 0);
		tvsk_say(&g, free_, "flows");
		CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), 5);

		tvsk_control(&g, stuck, VSK_OP_SHUTDOWN, VSK_SHUT_BOTH);
		fcntl(p[0], F_SETFL, O_NONBLOCK);
		while (n < sent) {
			ssize_t r = read(p[0], back + n, sizeof back - n);
			if (r > 0)
				n += (size_t)r;
			loop_step(&g.r.loop, 0);
		}
		CHECK_MEM(back, tvmx_bytes, sent);
		vskr_settle(&g);
		CHECK_EQ(read(p[0], back, 1), 0); /* closed, after all of it */
		CHECK_EQ(told.closed, 1);
		CHECK_EQ(other.closed, 0);
		close(p[0]);
		close(fd[0]);
		vskr_fini(&g);
	}
}

TEST(vmux_tells_the_guest_when_the_reader_of_a_pipe_is_gone)
{
	for (unsigned keep = 0; keep < 2; keep++) {
		static struct vskr g;
		struct vskr_told told = { 0 };
		struct vmux_spec s = { .guest_port = 1024, .in_fd = -1, .keep = keep,
				       .fn = vskr_tell, .arg = &told };
		struct vsk_hdr h;
		uint32_t port;
		int p[2];

		test_note("keep %u", keep);
		tvmx_start(&g);
		CHECK_EQ(pipe2(p, O_CLOEXEC), 0);
		s.out_fd = p[1];
		port = (uint32_t)vmux_connect(g.r.dev, &s);
		tvsk_expect(&g, VSK_OP_REQUEST, port, 1024);
		h = vskr_hdr(port, 1024, VSK_OP_RESPONSE);
		vskr_send(&g, &h, NULL, 0);
		close(p[0]);
		tvsk_say(&g, port, "anyone?");
		if (keep) {
			tvsk_quiet(&g);
			tvsk_control(&g, port, VSK_OP_CREDIT_REQUEST, 0);
			tvsk_expect(&g, VSK_OP_CREDIT_UPDATE, port, 1024);
			CHECK_EQ(g.h.fwd_cnt, 7); /* dropped, not held */
		} else {
			tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
			CHECK_EQ(g.h.flags, VSK_SHUT_BOTH);
		}
		tvsk_control(&g, port, VSK_OP_RST, 0);
		CHECK_EQ(told.closed, 1);
		vskr_fini(&g);
	}
}

TEST(vmux_pumps_a_terminal)
{
	static struct vskr g;
	struct vskr_told told;
	char name[64], buf[64];
	uint32_t port;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), tty;

	tvmx_start(&g);
	CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	CHECK_EQ(ptsname_r(master, name, sizeof name), 0);
	tty = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	CHECK(tty >= 0);
	port = vskr_open(&g, tty, tty, &told);
	CHECK_EQ(tvmx_conn(&g, port)->in_how, VMUX_POLL);
	CHECK_EQ(write(master, "ls\n", 3), 3);
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	CHECK_MEM(g.data, "ls\n", 3);
	tvsk_say(&g, port, "bin\n");
	for (size_t n = 0; n < 9;) { /* echo and output, with carriage returns */
		ssize_t r = read(master, buf + n, sizeof buf - n);
		n += r > 0 ? (size_t)r : 0;
		loop_step(&g.r.loop, 1);
	}
	CHECK_MEM(buf, "ls\r\nbin\r\n", 9);
	CHECK(!(fcntl(tty, F_GETFL) & O_NONBLOCK));
	close(master);
	tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
	vskr_fini(&g);
}

TEST(vmux_separate_descriptors_end_one_by_one)
{
	static struct vskr g;
	struct vskr_told told;
	uint32_t port;
	int in[2], out[2];
	char buf[4];

	tvmx_start(&g);
	CHECK_EQ(pipe2(in, O_CLOEXEC), 0);
	CHECK_EQ(pipe2(out, O_CLOEXEC | O_NONBLOCK), 0);
	port = vskr_open(&g, in[0], out[1], &told);
	tvsk_say(&g, port, "out");
	CHECK_EQ(read(out[0], buf, sizeof buf), 3);
	tvsk_control(&g, port, VSK_OP_SHUTDOWN, VSK_SHUT_SEND);
	vskr_settle(&g);
	CHECK_EQ(read(out[0], buf, 1), 0);
	CHECK_EQ(write(in[1], "in", 2), 2);
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	tvsk_control(&g, port, VSK_OP_SHUTDOWN, VSK_SHUT_RCV);
	tvsk_expect(&g, VSK_OP_RST, port, 1024);
	CHECK_EQ(write(in[1], "in", 2), -1);
	CHECK_EQ(errno, EPIPE);
	CHECK_EQ(told.closed, 1);
	close(in[1]);
	close(out[0]);
	vskr_fini(&g);
}

TEST(vmux_never_gives_an_open_host_port_away_again)
{
	static struct vskr g;
	struct vmux_spec s = { .guest_port = 1, .in_fd = -1, .out_fd = -1 };
	struct vsk_config cfg = { .port_seed = VSK_PORT_COUNT - 2 };
	uint32_t first;

	vskr_init_with(&g, 8, 4096, &cfg);
	first = (uint32_t)vmux_connect(g.r.dev, &s);
	CHECK_EQ(first, UINT32_C(0x7ffffffe));
	CHECK_EQ(vmux_connect(g.r.dev, &s), 0x7fffffff);
	CHECK_EQ(vmux_connect(g.r.dev, &s), VSK_PORT_FIRST);
	g.v->port_next = first; /* 2^30 connections later */
	CHECK_EQ(vmux_connect(g.r.dev, &s), VSK_PORT_FIRST + 1);
	vskr_fini(&g);
}

TEST(vmux_stops_at_1023_streams_and_recovers)
{
	static struct vskr g;
	struct vmux_spec s = { .guest_port = 1, .in_fd = -1, .out_fd = -1 };
	struct vsk_hdr h;
	uint32_t port = 0;

	tvmx_start(&g);
	for (unsigned i = 0; i < VSK_MAX_CONNS; i++)
		CHECK((port = (uint32_t)vmux_connect(g.r.dev, &s)) >= VSK_PORT_FIRST);
	s.in_fd = s.out_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	CHECK_EQ(vmux_connect(g.r.dev, &s), -EMFILE);
	CHECK_EQ(fcntl(s.in_fd, F_GETFD), -1);
	vmux_on_guest_connect(g.r.dev, (vmux_guest_fn *)NULL, NULL);
	h = vskr_hdr(1, 2, VSK_OP_REQUEST);
	vskr_send(&g, &h, NULL, 0);
	CHECK_EQ(vmux_close(g.r.dev, port), 0);
	vskr_settle(&g);
	CHECK_EQ(vmux_close(g.r.dev, port), -ENOENT);
	s.in_fd = s.out_fd = -1;
	CHECK(vmux_connect(g.r.dev, &s) > 0);
	CHECK_EQ(vmux_connect(g.r.dev, &s), -EMFILE);
	vskr_fini(&g);
}

/* A callback that closes its stream as soon as it is open, and opens another when it is closed. */
static struct vskr *tvmx_machine;
static void tvmx_restless(void *arg, uint32_t port, enum vmux_event ev, int err)
{
	unsigned *n = arg;
	struct vmux_spec s = { .guest_port = 1024, .in_fd = -1, .out_fd = -1, .fn = tvmx_restless,
			       .arg = arg };

	(void)err;
	++*n;
	if (ev == VMUX_OPENED)
		CHECK_EQ(vmux_close(tvmx_machine->r.dev, port), 0);
	else if (*n < 10)
		CHECK(vmux_connect(tvmx_machine->r.dev, &s) > 0);
}

TEST(vmux_callbacks_may_close_and_open_streams)
{
	static struct vskr g;
	unsigned n = 0;
	struct vmux_spec s = { .guest_port = 1024, .in_fd = -1, .out_fd = -1, .fn = tvmx_restless,
			       .arg = &n };

	tvmx_start(&g);
	tvmx_machine = &g;
	CHECK(vmux_connect(g.r.dev, &s) > 0);
	while (n < 10) {
		struct vsk_hdr h;
		CHECK(vskr_recv(&g));
		h = vskr_reply_hdr(&g.h, VSK_OP_RESPONSE);
		if (g.h.op == VSK_OP_REQUEST)
			vskr_send(&g, &h, NULL, 0);
	}
	vskr_settle(&g);
	CHECK_EQ(n, 10);
	vskr_fini(&g);
}

TEST(vmux_two_bulk_streams_share_the_receive_buffers)
{
	static struct vskr g;
	struct vskr_told told;
	uint32_t port[2];
	size_t got[2] = { 0 };

	tvmx_pattern();
	tvmx_start(&g);
	for (unsigned i = 0; i < 2; i++) {
		port[i] = vskr_open(&g, open("/dev/zero", O_RDONLY | O_CLOEXEC), -1, &told);
		while (vskr_poll(&g))
			;
	}
	for (unsigned n = 0; n < 60; n++) {
		CHECK(vskr_recv(&g));
		if (g.h.op == VSK_OP_RW)
			got[g.h.src_port == port[1]] += g.h.len;
	}
	CHECK(got[1] > 65536);
	vskr_fini(&g);
}
