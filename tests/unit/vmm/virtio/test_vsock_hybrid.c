/* The Unix socket: CONNECT and passfd. */
#include "tests/unit/vmm/virtio/vsock_check.h"

#include <sys/un.h>

#include "amalgam/base/fd.h"

struct tvhy {
	struct vskr g;
	struct sockaddr_un at;
};

static void tvhy_start(struct tvhy *h)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	vskr_init(&h->g, 16, 4096);
	h->at = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(h->at.sun_path, sizeof h->at.sun_path, "%s/vsock", test_dir());
	CHECK_EQ(bind(fd, (struct sockaddr *)&h->at, sizeof h->at), 0);
	CHECK_EQ(listen(fd, 64), 0);
	CHECK_EQ(vmux_serve(h->g.r.dev, fd, NULL), 0);
}

static int tvhy_client(struct tvhy *h)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_EQ(connect(fd, (struct sockaddr *)&h->at, sizeof h->at), 0);
	return fd;
}

static void tvhy_say(int fd, const char *text)
{
	CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* The client's next bytes are this text. */
static void tvhy_hears(struct tvhy *h, int fd, const char *text)
{
	char buf[128] = "";
	size_t n = 0;

	for (unsigned i = 0; i < 100 && n < strlen(text); i++) {
		ssize_t r = tvsk_read(fd, buf + n, strlen(text) - n);
		loop_step(&h->g.r.loop, 0);
		n += r > 0 ? (size_t)r : 0;
	}
	buf[n] = '\0';
	CHECK_STR(buf, text);
}

/* ... or the end, within `ms`. */
static void tvhy_is_closed(struct tvhy *h, int fd, unsigned ms)
{
	uint64_t deadline = clock_mono_ns() + ms * NS_PER_MS;
	ssize_t r;
	char c;

	while ((r = tvsk_read(fd, &c, 1)) < 0 && errno == EAGAIN) {
		CHECK(clock_mono_ns() < deadline);
		loop_step(&h->g.r.loop, 1);
	}
	CHECK(r <= 0);
	close(fd);
}

/* The guest says yes to the request that must come now. */
static uint32_t tvhy_accept(struct tvhy *h, uint32_t guest_port)
{
	struct vsk_hdr a;

	CHECK(vskr_recv(&h->g));
	CHECK_EQ(h->g.h.op, VSK_OP_REQUEST);
	CHECK_EQ(h->g.h.dst_port, guest_port);
	a = vskr_reply_hdr(&h->g.h, VSK_OP_RESPONSE);
	vskr_send(&h->g, &a, NULL, 0);
	return h->g.h.src_port;
}

static const char *tvhy_ok(uint32_t port)
{
	static char text[32];

	snprintf(text, sizeof text, "OK %u\n", port);
	return text;
}

TEST(vhyb_connect_gives_ok_and_then_raw_bytes)
{
	static const char *const lines[] = { "CONNECT 1024\n", "connect 1024\n", "Connect 1024\r\n",
					     "CONNECT  1024 \n" };
	static struct tvhy h;

	tvhy_start(&h);
	for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
		int fd = tvhy_client(&h);
		struct vsk_hdr d;
		uint32_t port;

		test_note("%s", lines[i]);
		tvhy_say(fd, lines[i]);
		port = tvhy_accept(&h, 1024);
		d = vskr_hdr(port, 1024, VSK_OP_RW);
		d.len = 6;
		vskr_send(&h.g, &d, "banner", 6);
		tvhy_hears(&h, fd, tvhy_ok(port));
		tvhy_hears(&h, fd, "banner");
		tvhy_say(fd, "hello");
		tvsk_expect(&h.g, VSK_OP_RW, port, 1024);
		CHECK_MEM(h.g.data, "hello", 5);
		close(fd);
		tvsk_expect(&h.g, VSK_OP_SHUTDOWN, port, 1024);
		d = vskr_hdr(port, 1024, VSK_OP_RST);
		vskr_send(&h.g, &d, NULL, 0);
	}
	vskr_fini(&h.g);
}

TEST(vhyb_command_may_come_in_pieces_and_with_data_behind_it)
{
	static struct tvhy h;
	uint32_t port;
	int fd;

	tvhy_start(&h);
	fd = tvhy_client(&h);
	for (const char *p = "CONNECT 52"; *p; p++) {
		CHECK_EQ(write(fd, p, 1), 1);
		vskr_settle(&h.g);
	}
	CHECK_EQ(epoll_wait(h.g.r.loop.epoll_fd, h.g.r.loop.ready, LOOP_BATCH, 0), 0);
	tvhy_say(fd, "\nimpatient\n");
	port = tvhy_accept(&h, 52);
	tvhy_hears(&h, fd, tvhy_ok(port));
	tvsk_expect(&h.g, VSK_OP_RW, port, 52);
	CHECK_EQ(h.g.h.len, 10);
	CHECK_MEM(h.g.data, "impatient\n", 10);
	close(fd);
	vskr_fini(&h.g);
}

TEST(vhyb_refusal_by_the_guest_closes_the_socket)
{
	static struct tvhy h;
	struct vsk_hdr a;
	int fd;

	tvhy_start(&h);
	fd = tvhy_client(&h);
	tvhy_say(fd, "CONNECT 9\n");
	CHECK(vskr_recv(&h.g));
	a = vskr_reply_hdr(&h.g.h, VSK_OP_RST);
	vskr_send(&h.g, &a, NULL, 0);
	tvhy_is_closed(&h, fd, 1000);
	vskr_fini(&h.g);
}

TEST(vhyb_closes_on_anything_that_is_not_a_command)
{
	static const char *const lines[] = {
		"\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT -1\n", "CONNECT 4294967296\n",
		"CONNECT 1 2\n", "CONNECT 0x10\n", "CONNECT\t\n", "CONNECTED 1\n", "passfd 1\n",
		"GET / HTTP/1.1\r\n", "CONNECT 1024                    \n",
		"CONNECT 000000000000000000000000000000000000000000001024\n",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};
	static struct tvhy h;

	tvhy_start(&h);
	for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
		int fd = tvhy_client(&h);
		test_note("%s", lines[i]);
		tvhy_say(fd, lines[i]);
		tvhy_is_closed(&h, fd, 1000);
	}
	int fd = tvhy_client(&h);
	CHECK_EQ(write(fd, "CONNECT 1\0" "2\n", 12), 12);
	tvhy_is_closed(&h, fd, 1000);
	tvsk_quiet(&h.g);
	vskr_fini(&h.g);
}

TEST(vhyb_does_not_wait_for_slow_clients_and_serves_the_next)
{
	static struct tvhy h;
	int slow[VMUX_CLIENTS], fd;

	tvhy_start(&h);
	for (unsigned i = 0; i < VMUX_CLIENTS; i++) {
		slow[i] = tvhy_client(&h);
		tvhy_say(slow[i], "CONN");
	}
	fd = tvhy_client(&h); /* one too many: it waits in the kernel's queue */
	tvhy_say(fd, "CONNECT 1024\n");
	CHECK(!vskr_recv_in(&h.g, VMUX_CLIENT_MS - 500));
	CHECK_EQ(epoll_wait(h.g.r.loop.epoll_fd, h.g.r.loop.ready, LOOP_BATCH, 0), 0);
	tvhy_accept(&h, 1024);
	for (unsigned i = 0; i < VMUX_CLIENTS; i++)
		tvhy_is_closed(&h, slow[i], 100);
	close(fd);
	vskr_fini(&h.g);
}

TEST(vhyb_client_that_leaves_makes_room_at_once)
{
	static struct tvhy h;

	tvhy_start(&h);
	for (unsigned i = 0; i < 3 * VMUX_CLIENTS; i++) {
		close(tvhy_client(&h));
		vskr_settle(&h.g);
	}
	CHECK(!h.g.v->mux->hybrid->client[0].watch.active);
	vskr_fini(&h.g);
}

TEST(vhyb_passfd_pumps_the_passed_descriptor_and_answers_on_the_socket)
{
	static struct tvhy h;
	int fd, p[2];
	uint32_t port;
	char buf[8];

	tvhy_start(&h);
	CHECK_EQ(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	fd = tvhy_client(&h);
	tvhy_say(fd, "passfd\n");
	CHECK_EQ(fd_send(fd, "1027", 4, &p[1], 1, 0), 4);
	close(p[1]);
	port = tvhy_accept(&h, 1027);
	tvhy_hears(&h, fd, tvhy_ok(port));
	tvhy_is_closed(&h, fd, 100);
	tvsk_say(&h.g, port, "x"); /* wrong guest port: a stray */
	tvsk_expect(&h.g, VSK_OP_RST, port, 1024);
	struct vsk_hdr d = vskr_hdr(port, 1027, VSK_OP_RW);
	d.len = 6;
	vskr_send(&h.g, &d, "stdout", 6);
	CHECK_EQ(read(p[0], buf, sizeof buf), 6);
	d = vskr_hdr(port, 1027, VSK_OP_SHUTDOWN);
	d.flags = VSK_SHUT_BOTH;
	vskr_send(&h.g, &d, NULL, 0);
	tvsk_expect(&h.g, VSK_OP_RST, port, 1027);
	CHECK_EQ(read(p[0], buf, sizeof buf), 0);
	close(p[0]);
	vskr_fini(&h.g);
}

TEST(vhyb_passfd_keep_outlives_the_reader_of_the_pipe)
{
	static struct tvhy h;
	int fd, p[2];
	uint32_t port;
	struct vsk_hdr d;

	signal(SIGPIPE, SIG_IGN);
	tvhy_start(&h);
	CHECK_EQ(pipe2(p, O_CLOEXEC), 0);
	fd = tvhy_client(&h);
	tvhy_say(fd, "PASSFD\n");
	CHECK_EQ(fd_send(fd, "1027 keep", 9, &p[1], 1, 0), 9);
	port = tvhy_accept(&h, 1027);
	close(p[0]);
	d = vskr_hdr(port, 1027, VSK_OP_RW);
	d.len = 6;
	vskr_send(&h.g, &d, "stdout", 6);
	tvsk_quiet(&h.g);
	close(p[1]);
	close(fd);
	vskr_fini(&h.g);
}

TEST(vhyb_passfd_needs_one_descriptor_and_a_port)
{
	static const struct {
		const char *text;
		unsigned nfds;
	} bad[] = { { "1027", 0 }, { "1027", 2 }, { "port", 1 }, { "1027 keeper", 1 },
		    { "1027 keep it", 1 }, { " ", 1 }, { "99999999999", 1 },
		    { "1027                              keep", 1 } };
	static struct tvhy h;
	int fds[2] = { 0, 0 };

	tvhy_start(&h);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		int next = dup(0), fd;

		close(next);
		fd = tvhy_client(&h);
		test_note("'%s' with %u", bad[i].text, bad[i].nfds);
		tvhy_say(fd, "passfd\n");
		CHECK_EQ(fd_send(fd, bad[i].text, strlen(bad[i].text), fds, bad[i].nfds, 0),
			 (ssize_t)strlen(bad[i].text));
		tvhy_is_closed(&h, fd, 1000);
		fd = dup(0);
		CHECK_EQ(fd, next); /* none of them leaked */
		close(fd);
	}
	tvsk_quiet(&h.g);
	vskr_fini(&h.g);
}

TEST(vhyb_is_started_once)
{
	static struct tvhy h;
	struct err e;

	tvhy_start(&h);
	CHECK_EQ(vmux_serve(h.g.r.dev, dup(0), &e), -EBUSY);
	CHECK_HAS(e.msg, "already");
	vskr_fini(&h.g);
}

TEST(vhyb_clients_survive_a_pause)
{
	static struct tvhy h;
	uint32_t port;
	int fd, waits;

	tvhy_start(&h);
	waits = tvhy_client(&h);
	vskr_settle(&h.g);
	CHECK_EQ(slots_quiesce(&h.g.r.slots, NULL), 0);
	fd = tvhy_client(&h);
	tvhy_say(fd, "CONNECT 1\n");
	tvhy_say(waits, "CONNECT 2\n");
	vskr_settle(&h.g);
	CHECK_EQ(epoll_wait(h.g.r.loop.epoll_fd, h.g.r.loop.ready, LOOP_BATCH, 0), 0);
	CHECK(!vskr_poll(&h.g));
	slots_resume(&h.g.r.slots);
	port = tvhy_accept(&h, 2);
	tvhy_hears(&h, waits, tvhy_ok(port));
	port = tvhy_accept(&h, 1);
	tvhy_hears(&h, fd, tvhy_ok(port));
	close(fd);
	close(waits);
	vskr_fini(&h.g);
}
