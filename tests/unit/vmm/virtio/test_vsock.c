/* The packet level: what goes over the queues. */
#include "tests/unit/vmm/virtio/vsock_check.h"

TEST(vsk_config_space_holds_the_cid_and_nothing_else)
{
	static struct vskr g;
	struct vsk_config cfg = { .guest_cid = 0x1122334455667788 };

	vskr_init_with(&g, 4, 4096, &cfg);
	CHECK_EQ(vqr_read32(&g.r, 0x008), VDEV_VSOCK);
	CHECK_EQ(vqr_config(&g.r, 0, 8), 0x1122334455667788);
	CHECK_EQ(vqr_config(&g.r, 6, 2), 0x1122);
	CHECK_EQ(vqr_config(&g.r, 8, 4), 0);
	CHECK_EQ(vqr_config(&g.r, 0xe00, 4), 0);
	vskr_fini(&g);
}

TEST(vsk_connects_to_a_guest_port_and_carries_bytes_both_ways)
{
	static struct vskr g;
	struct vskr_told told;
	char buf[16];
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	CHECK(port >= VSK_PORT_FIRST);

	CHECK_EQ(write(fd[0], "ping", 4), 4);
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	CHECK_EQ(g.h.len, 4);
	CHECK_MEM(g.data, "ping", 4);
	CHECK_EQ(g.h.buf_alloc, VSK_BUF_BYTES);

	tvsk_say(&g, port, "pong!");
	CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), 5);
	CHECK_MEM(buf, "pong!", 5);
	tvsk_quiet(&g);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_sends_what_the_client_wrote_before_the_guest_accepted_without_waiting_for_epoll)
{
	static struct vskr g;
	struct vmux_spec s = { .guest_port = 1024 };
	struct vsk_hdr h;
	unsigned irqs;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	CHECK_EQ(write(fd[0], "early", 5), 5);
	s.in_fd = s.out_fd = fd[1];
	CHECK(vmux_connect(g.r.dev, &s) > 0);
	irqs = g.r.irqs;
	loop_step(&g.r.loop, 0);
	CHECK_EQ(g.r.irqs, irqs + 1);
	CHECK(vskr_poll(&g));
	h = vskr_reply_hdr(&g.h, VSK_OP_RESPONSE);
	vskr_send(&g, &h, NULL, 0); /* one step of the loop */
	CHECK(vskr_poll(&g));
	CHECK_EQ(g.h.op, VSK_OP_RW);
	CHECK_EQ(g.h.len, 5);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_answers_a_kick_with_one_interrupt_for_reply_and_completion_together)
{
	static struct vskr g;
	struct vskr_told told;
	unsigned irqs;
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	irqs = g.r.irqs;
	for (unsigned i = 0; i < 10; i++) {
		struct vsk_hdr h = vskr_hdr(port, 1024, VSK_OP_RW);
		h.len = 1;
		vskr_queue(&g, &h, "x", 1);
	}
	vskr_kick_tx(&g);
	CHECK_EQ(g.r.irqs, irqs + 1);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_TX), g.tx_sent);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_reports_a_refused_connection)
{
	static struct vskr g;
	struct vskr_told told = { 0 };
	struct vmux_spec s = { .guest_port = 7, .fn = vskr_tell, .arg = &told };
	struct vsk_hdr h;
	char c;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	s.in_fd = s.out_fd = fd[1];
	CHECK(vmux_connect(g.r.dev, &s) > 0);
	CHECK(vskr_recv(&g));
	CHECK_EQ(g.h.op, VSK_OP_REQUEST);
	h = vskr_reply_hdr(&g.h, VSK_OP_RST);
	vskr_send(&g, &h, NULL, 0);
	CHECK_EQ(told.opened, 0);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, -ECONNREFUSED);
	CHECK_EQ(read(fd[0], &c, 1), 0); /* our end is closed */
	tvsk_quiet(&g);			 /* no RST for an RST */
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_gives_up_a_request_after_its_time_and_resets_it)
{
	static struct vskr g;
	struct vskr_told told = { 0 };
	struct vmux_spec s = { .guest_port = 7, .in_fd = -1, .out_fd = -1, .timeout_ms = 30,
			       .fn = vskr_tell, .arg = &told };
	struct vsk_hdr late;
	uint32_t port;

	vskr_init(&g, 8, 4096);
	port = (uint32_t)vmux_connect(g.r.dev, &s);
	tvsk_expect(&g, VSK_OP_REQUEST, port, 7);
	late = vskr_reply_hdr(&g.h, VSK_OP_RESPONSE);
	tvsk_expect(&g, VSK_OP_RST, port, 7);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, -ETIMEDOUT);
	vskr_send(&g, &late, NULL, 0);
	tvsk_expect(&g, VSK_OP_RST, port, 7);
	vskr_fini(&g);
}

TEST(vsk_lets_the_guest_connect_where_the_hook_agrees)
{
	static struct vskr g;
	struct vsk_hdr h = vskr_hdr(2049, 55, VSK_OP_REQUEST);
	uint32_t asked = 0;
	char buf[8];
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	vskr_send(&g, &h, NULL, 0);
	tvsk_expect(&g, VSK_OP_RST, 2049, 55); /* no hook */

	tvsk_fd_for_guest = fd[1];
	vmux_on_guest_connect(g.r.dev, tvsk_on_guest, &asked);
	CHECK_EQ(write(fd[0], "hello", 5), 5);
	vskr_send(&g, &h, NULL, 0);
	CHECK_EQ(asked, 2049);
	tvsk_expect(&g, VSK_OP_RESPONSE, 2049, 55);
	tvsk_expect(&g, VSK_OP_RW, 2049, 55);
	CHECK_MEM(g.data, "hello", 5);
	h.op = VSK_OP_RW;
	h.len = 2;
	vskr_send(&g, &h, "hi", 2);
	CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), 2);

	h = vskr_hdr(2050, 55, VSK_OP_REQUEST);
	vskr_send(&g, &h, NULL, 0);
	CHECK_EQ(asked, 2050);
	tvsk_expect(&g, VSK_OP_RST, 2050, 55);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_splits_data_over_small_receive_buffers_and_waits_for_more)
{
	static struct vskr g;
	struct vskr_told told;
	uint8_t sent[1000], got[1000];
	size_t n = 0;
	uint32_t port;
	int fd[2];

	vskr_init(&g, 4, sizeof(struct vsk_hdr) + 7);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	for (unsigned i = 0; i < sizeof sent; i++)
		sent[i] = (uint8_t)(i * 7);
	CHECK_EQ(write(fd[0], sent, sizeof sent), sizeof sent);
	while (n < sizeof got) {
		tvsk_expect(&g, VSK_OP_RW, port, 1024);
		CHECK(g.h.len >= 1 && g.h.len <= 7);
		memcpy(got + n, g.data, g.h.len);
		n += g.h.len;
	}
	CHECK_MEM(got, sent, sizeof sent);
	tvsk_quiet(&g);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_puts_header_and_data_into_buffers_cut_at_odd_places)
{
	static struct vskr g;
	struct vskr_told told;
	struct vqr_seg odd[60];
	uint8_t raw[60];
	uint32_t port;
	int fd[2];

	vskr_init(&g, 2, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	g.hold = true;
	CHECK_EQ(write(fd[0], "a", 1), 1); /* uses up one of the two plain buffers */
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	CHECK_EQ(write(fd[0], "b", 1), 1);
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	for (unsigned i = 0; i < 60; i++)
		odd[i] = (struct vqr_seg){ VSKR_TX_AT + 16 * i, 1, true };
	vqr_add(&g.r, VSKR_RX, odd, 60); /* one byte per descriptor */
	CHECK_EQ(write(fd[0], "0123456789", 10), 10);
	vqr_kick(&g.r, VSKR_RX);
	vskr_settle(&g);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_RX), g.rx_seen + 1);
	CHECK_EQ(vqr_used(&g.r, VSKR_RX, g.rx_seen).len, 54);
	for (unsigned i = 0; i < 54; i++)
		raw[i] = vqr_get8(&g.r, odd[i].gpa);
	memcpy(&g.h, raw, sizeof g.h);
	CHECK_EQ(g.h.op, VSK_OP_RW);
	CHECK_EQ(g.h.len, 10);
	CHECK_MEM(raw + 44, "0123456789", 10);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_moves_64_kib_to_the_guest_with_one_read_and_one_interrupt)
{
	static struct vskr g;
	static uint8_t sent[65536];
	struct vskr_told told;
	size_t n = 0;
	unsigned irqs, packets = 0;
	uint32_t port;
	int fd[2], room = 1 << 20;

	vskr_init(&g, 64, 4096);
	vskr_pair(fd);
	setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	port = vskr_open(&g, fd[1], fd[1], &told);
	/* The first time it does not know how much there is. */
	CHECK_EQ(write(fd[0], sent, sizeof sent), sizeof sent);
	for (n = 0; n < sizeof sent; n += g.h.len)
		tvsk_expect(&g, VSK_OP_RW, port, 1024);
	irqs = g.r.irqs;
	CHECK_EQ(write(fd[0], sent, sizeof sent), sizeof sent);
	loop_step(&g.r.loop, 0);
	CHECK_EQ(g.r.irqs, irqs + 1);
	for (n = 0; vskr_poll(&g); packets++)
		n += g.h.len;
	CHECK_EQ(n, sizeof sent);
	CHECK_EQ(packets, 17);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_stops_when_the_guest_has_no_credit_and_goes_on_when_it_has)
{
	static struct vskr g;
	struct vmux_spec s = { .guest_port = 9 };
	struct vsk_hdr h;
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	s.in_fd = s.out_fd = fd[1];
	CHECK_EQ(write(fd[0], "0123456789", 10), 10);
	port = (uint32_t)vmux_connect(g.r.dev, &s);
	tvsk_expect(&g, VSK_OP_REQUEST, port, 9);
	h = vskr_hdr(port, 9, VSK_OP_RESPONSE);
	h.buf_alloc = 4;
	vskr_send(&g, &h, NULL, 0);
	tvsk_expect(&g, VSK_OP_RW, port, 9);
	CHECK_EQ(g.h.len, 4);
	tvsk_expect(&g, VSK_OP_CREDIT_REQUEST, port, 9);
	tvsk_quiet(&g);

	h.op = VSK_OP_CREDIT_UPDATE; /* "no change" is no credit, and no second question */
	vskr_send(&g, &h, NULL, 0);
	tvsk_quiet(&g);
	h.fwd_cnt = 5; /* more than was sent: a liar gets nothing */
	vskr_send(&g, &h, NULL, 0);
	tvsk_quiet(&g);
	h.fwd_cnt = 3;
	vskr_send(&g, &h, NULL, 0);
	tvsk_expect(&g, VSK_OP_RW, port, 9);
	CHECK_EQ(g.h.len, 3);
	CHECK_MEM(g.data, "456", 3);
	h.fwd_cnt = 7;
	h.buf_alloc = 100;
	vskr_send(&g, &h, NULL, 0);
	do
		CHECK(vskr_recv(&g));
	while (g.h.op == VSK_OP_CREDIT_REQUEST);
	CHECK_EQ(g.h.len, 3);
	CHECK_MEM(g.data, "789", 3);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_tells_credit_after_a_quarter_of_the_buffer_and_when_asked)
{
	static struct vskr g;
	static char bytes[VSK_BUF_BYTES / 4];
	struct vskr_told told;
	struct vsk_hdr h;
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	tvsk_say(&g, port, "little");
	tvsk_quiet(&g);
	tvsk_control(&g, port, VSK_OP_CREDIT_REQUEST, 0);
	tvsk_expect(&g, VSK_OP_CREDIT_UPDATE, port, 1024);
	CHECK_EQ(g.h.fwd_cnt, 6);
	CHECK_EQ(g.h.buf_alloc, VSK_BUF_BYTES);
	h = vskr_hdr(port, 1024, VSK_OP_RW);
	h.len = sizeof bytes;
	vskr_send(&g, &h, bytes, sizeof bytes);
	tvsk_expect(&g, VSK_OP_CREDIT_UPDATE, port, 1024);
	CHECK_EQ(g.h.fwd_cnt, 6 + sizeof bytes);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_resets_a_guest_that_sends_more_than_its_credit)
{
	static struct vskr g;
	static char bytes[VSK_BUF_BYTES];
	struct vskr_told told;
	struct vsk_hdr h;
	uint32_t port;
	int fd[2], small = 4096;

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	port = vskr_open(&g, fd[1], fd[1], &told);
	h = vskr_hdr(port, 1024, VSK_OP_RW);
	h.len = sizeof bytes;
	vskr_send(&g, &h, bytes, sizeof bytes); /* allowed, and more than the socket takes */
	CHECK_EQ(told.closed, 0);
	vskr_send(&g, &h, bytes, sizeof bytes);
	do
		CHECK(vskr_recv(&g));
	while (g.h.op == VSK_OP_CREDIT_UPDATE);
	CHECK_EQ(g.h.op, VSK_OP_RST);
	CHECK_EQ(g.v->bad_packets, 1);
	close(fd[0]);
	vskr_settle(&g);
	CHECK_EQ(told.err, -EPROTO);
	vskr_fini(&g);
}

TEST(vsk_half_close_from_the_host_keeps_the_other_direction)
{
	static struct vskr g;
	struct vskr_told told;
	char buf[8];
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	CHECK_EQ(write(fd[0], "end", 3), 3);
	shutdown(fd[0], SHUT_WR);
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
	CHECK_EQ(g.h.flags, VSK_SHUT_SEND);
	tvsk_say(&g, port, "still");
	CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), 5);
	tvsk_control(&g, port, VSK_OP_SHUTDOWN, VSK_SHUT_SEND);
	tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
	CHECK_EQ(g.h.flags, VSK_SHUT_BOTH);
	CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), 0);
	tvsk_control(&g, port, VSK_OP_RST, 0);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, 0);
	tvsk_quiet(&g);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_half_close_from_the_guest_keeps_the_other_direction)
{
	static struct vskr g;
	struct vskr_told told;
	char c;
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	tvsk_say(&g, port, "x");
	tvsk_control(&g, port, VSK_OP_SHUTDOWN, VSK_SHUT_SEND);
	vskr_settle(&g);
	CHECK_EQ(tvsk_read(fd[0], &c, 1), 1);
	CHECK_EQ(tvsk_read(fd[0], &c, 1), 0);
	CHECK_EQ(write(fd[0], "reply", 5), 5);
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	CHECK_EQ(g.h.len, 5);
	tvsk_control(&g, port, VSK_OP_SHUTDOWN, VSK_SHUT_RCV);
	tvsk_expect(&g, VSK_OP_RST, port, 1024);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, 0);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_says_goodbye_in_both_directions_when_the_client_is_gone)
{
	static struct vskr g;
	struct vskr_told told;
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	close(fd[0]);
	tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
	CHECK_EQ(g.h.flags, VSK_SHUT_BOTH);
	tvsk_say(&g, port, "nobody listens"); /* crossed on the way */
	tvsk_quiet(&g);
	tvsk_control(&g, port, VSK_OP_RST, 0);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, 0);
	vskr_fini(&g);
}

TEST(vsk_resets_a_goodbye_that_is_not_answered)
{
	static struct vskr g;
	struct vskr_told told;
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	close(fd[0]);
	tvsk_expect(&g, VSK_OP_SHUTDOWN, port, 1024);
	CHECK(!vskr_recv_in(&g, VSK_SHUTDOWN_MS - 500));
	tvsk_expect(&g, VSK_OP_RST, port, 1024);
	CHECK_EQ(told.closed, 1);
	vskr_fini(&g);
}

TEST(vsk_delivers_what_the_guest_sent_before_it_closed)
{
	static struct vskr g;
	static char bytes[60000], back[60000];
	struct vskr_told told;
	struct vsk_hdr h;
	size_t n = 0;
	uint32_t port;
	int fd[2], small = 4096;

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	port = vskr_open(&g, fd[1], fd[1], &told);
	for (unsigned i = 0; i < sizeof bytes; i++)
		bytes[i] = (char)(i * 31 >> 3);
	h = vskr_hdr(port, 1024, VSK_OP_RW);
	h.len = sizeof bytes;
	vskr_queue(&g, &h, bytes, sizeof bytes);
	h = vskr_hdr(port, 1024, VSK_OP_SHUTDOWN);
	h.flags = VSK_SHUT_BOTH;
	vskr_send(&g, &h, NULL, 0);
	tvsk_expect(&g, VSK_OP_RST, port, 1024); /* the guest need not wait for our reader */
	CHECK_EQ(told.closed, 0);
	while (n < sizeof back) {
		ssize_t r = tvsk_read(fd[0], back + n, sizeof back - n);
		if (r > 0)
			n += (size_t)r;
		loop_step(&g.r.loop, 0);
	}
	CHECK_MEM(back, bytes, sizeof bytes);
	vskr_settle(&g);
	CHECK_EQ(tvsk_read(fd[0], back, 1), 0);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, 0);
	close(fd[0]);
	vskr_fini(&g);
}
