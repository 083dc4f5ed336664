/* Packets no honest driver sends, driver resets, snapshots. */
#include "tests/unit/vmm/virtio/vsock_check.h"

/* One valid packet with one thing wrong, sent on an open stream. */
static const struct tvsk_bad {
	const char *what;
	struct vsk_hdr xor;  /* flipped in a RW packet of 4 bytes */
	uint32_t cut;	     /* bytes missing at the end of the descriptors */
	enum { TVSK_DROPPED, TVSK_RST, TVSK_KILLED } effect;
} tvsk_bad[] = {
	{ "a CID that is not the guest's", { .src_cid = 4 }, 0, TVSK_DROPPED },
	{ "a destination that is not the host", { .dst_cid = 1 }, 0, TVSK_RST },
	{ "a destination beyond 32 bits", { .dst_cid = UINT64_C(1) << 32 }, 0, TVSK_RST },
	{ "a seqpacket", { .type = 3 }, 0, TVSK_RST },
	{ "an unknown type", { .type = 0x100 }, 0, TVSK_RST },
	{ "an unknown host port", { .dst_port = 1 }, 0, TVSK_RST },
	{ "an unknown guest port", { .src_port = 1 }, 0, TVSK_RST },
	{ "operation 0", { .op = VSK_OP_RW }, 0, TVSK_KILLED },
	{ "an operation past the last", { .op = VSK_OP_RW ^ 8 }, 0, TVSK_KILLED },
	{ "an operation of 16 bits", { .op = 0x8000 }, 0, TVSK_KILLED },
	{ "a second response", { .op = VSK_OP_RW ^ VSK_OP_RESPONSE, .len = 4 }, 0, TVSK_KILLED },
	{ "a second request", { .op = VSK_OP_RW ^ VSK_OP_REQUEST, .len = 4 }, 0, TVSK_KILLED },
	{ "payload on a credit update", { .op = VSK_OP_RW ^ VSK_OP_CREDIT_UPDATE }, 0, TVSK_KILLED },
	{ "a length of one too many", { .len = 4 ^ 5 }, 0, TVSK_KILLED },
	{ "a length of 4 GiB", { .len = 4 ^ UINT32_MAX }, 0, TVSK_KILLED },
	{ "payload cut short", { 0 }, 1, TVSK_KILLED },
	{ "no payload at all", { 0 }, 4, TVSK_KILLED },
	{ "half a header", { 0 }, 4 + 22, TVSK_DROPPED },
	{ "an empty chain", { 0 }, 4 + 44, TVSK_DROPPED },
};

static void tvsk_xor(struct vsk_hdr *h, const struct vsk_hdr *with)
{
	for (unsigned i = 0; i < sizeof *h; i++)
		((uint8_t *)h)[i] ^= ((const uint8_t *)with)[i];
}

static void tvsk_send_cut(struct vskr *g, const struct vsk_hdr *h, uint32_t cut)
{
	uint8_t packet[48];
	struct vqr_seg seg = { VSKR_TX_AT, sizeof packet - cut, false };

	memcpy(packet, h, sizeof *h);
	memcpy(packet + sizeof *h, "oops", 4);
	vqr_put(&g->r, seg.gpa, packet, sizeof packet);
	vqr_add(&g->r, VSKR_TX, &seg, 1);
	g->tx_sent++;
	vskr_kick_tx(g);
}

TEST(vsk_refuses_packets_that_are_wrong_in_one_place)
{
	for (unsigned i = 0; i < ARRAY_LEN(tvsk_bad); i++) {
		const struct tvsk_bad *bad = &tvsk_bad[i];
		static struct vskr g;
		struct vskr_told told;
		struct vsk_hdr h;
		char buf[8];
		uint32_t port;
		int fd[2];

		test_note("%s", bad->what);
		vskr_init(&g, 8, 4096);
		vskr_pair(fd);
		port = vskr_open(&g, fd[1], fd[1], &told);
		h = vskr_hdr(port, 1024, VSK_OP_RW);
		h.len = 4;
		tvsk_xor(&h, &bad->xor);
		tvsk_send_cut(&g, &h, bad->cut);
		CHECK_EQ(vqr_used_idx(&g.r, VSKR_TX), g.tx_sent);
		if (bad->effect != TVSK_DROPPED) {
			CHECK(vskr_recv(&g));
			CHECK_EQ(g.h.op, VSK_OP_RST);
			CHECK_EQ(g.h.src_cid, h.dst_cid);
			CHECK_EQ(g.h.dst_cid, VSK_GUEST_CID);
			CHECK_EQ(g.h.src_port, h.dst_port);
			CHECK_EQ(g.h.dst_port, h.src_port);
			CHECK_EQ(g.h.type, h.type);
		}
		tvsk_quiet(&g);
		CHECK_EQ(told.closed, bad->effect == TVSK_KILLED);
		CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), bad->effect == TVSK_KILLED ? 0 : -1);
		CHECK(!vqr_is_broken(&g.r));
		close(fd[0]);
		vskr_fini(&g);
	}
}

TEST(vsk_does_not_answer_a_reset_it_knows_nothing_about)
{
	static struct vskr g;
	struct vsk_hdr h = vskr_hdr(77, 88, VSK_OP_RST);

	vskr_init(&g, 8, 4096);
	vskr_send(&g, &h, NULL, 0);
	h.type = 2;
	vskr_send(&g, &h, NULL, 0);
	tvsk_quiet(&g);
	vskr_fini(&g);
}

TEST(vsk_answers_a_flood_of_strays_with_as_many_resets_as_it_can_hold)
{
	static struct vskr g;
	struct vsk_hdr h = vskr_hdr(77, 88, VSK_OP_RW);
	unsigned n = 0;

	vskr_init(&g, 2, 4096);
	g.hold = true;
	for (unsigned i = 0; i < 100; i++)
		vskr_queue(&g, &h, NULL, 0);
	vskr_kick_tx(&g);
	vskr_settle(&g);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_TX), 100);
	CHECK(g.v->lost_resets > 0);
	g.hold = false;
	for (unsigned i = 0; i < 2; i++)
		vskr_post(&g, (uint16_t)i);
	for (; vskr_recv_in(&g, 50); n++)
		CHECK_EQ(g.h.op, VSK_OP_RST);
	CHECK_EQ(n, 100 - g.v->lost_resets);
	vskr_fini(&g);
}

TEST(vsk_hands_back_receive_buffers_too_small_for_a_header)
{
	static struct vskr g;
	struct vsk_hdr h = vskr_hdr(77, 88, VSK_OP_RW);

	vskr_init(&g, 4, sizeof(struct vsk_hdr) - 1);
	g.hold = true;
	vskr_send(&g, &h, NULL, 0);
	vskr_settle(&g);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_RX), 4);
	for (uint16_t i = 0; i < 4; i++)
		CHECK_EQ(vqr_used(&g.r, VSKR_RX, i).len, 0);
	vskr_fini(&g);
}

TEST(vsk_needs_a_reset_after_a_descriptor_outside_memory)
{
	for (unsigned queue = 0; queue < 3; queue++) {
		static struct vskr g;
		struct vqr_seg seg = { VSKR_RAM - 20, 4096, queue != VSKR_TX };
		struct vskr_told told = { 0 };
		struct vmux_spec s = { .guest_port = 1, .in_fd = -1, .out_fd = -1,
				       .timeout_ms = 20, .fn = vskr_tell, .arg = &told };

		test_note("queue %u", queue);
		vskr_init(&g, 0, 4096);
		for (unsigned i = 0; queue == VSKR_EVENT && i < 8; i++) { /* the good ones */
			vsk_reset_event(g.r.dev);
			vskr_settle(&g);
		}
		vqr_add(&g.r, queue, &seg, 1);
		if (queue == VSKR_EVENT)
			vsk_reset_event(g.r.dev);
		else
			CHECK(vmux_connect(g.r.dev, &s) > 0);
		vqr_kick(&g.r, queue);
		vskr_settle(&g);
		CHECK(vqr_is_broken(&g.r));
		while (queue != VSKR_EVENT && !told.closed)
			loop_step(&g.r.loop, 5);
		g.nrx = 4;
		vskr_drive(&g); /* and works again after one */
		CHECK(!vqr_is_broken(&g.r));
		s.fn = NULL;
		CHECK(vmux_connect(g.r.dev, &s) > 0);
		CHECK(vskr_recv(&g));
		CHECK_EQ(g.h.op, VSK_OP_REQUEST);
		vskr_fini(&g);
	}
}

TEST(vsk_ends_all_streams_on_a_driver_reset_but_keeps_requests_the_guest_has_not_seen)
{
	static struct vskr g;
	struct vskr_told told, waits = { 0 };
	struct vmux_spec s = { .guest_port = 5, .in_fd = -1, .out_fd = -1, .fn = vskr_tell,
			       .arg = &waits };
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	vskr_open(&g, fd[1], fd[1], &told);
	vqr_write32(&g.r, 0x070, 0);
	CHECK(vmux_connect(g.r.dev, &s) > 0);
	vskr_settle(&g);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, -ECONNRESET);
	CHECK_EQ(waits.closed, 0);
	vskr_drive(&g);
	CHECK(vskr_recv(&g));
	CHECK_EQ(g.h.op, VSK_OP_REQUEST);
	CHECK_EQ(g.h.dst_port, 5);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_sends_nothing_between_the_reset_event_and_its_return)
{
	static struct vskr g;
	struct vskr_told told;
	struct vmux_spec s = { .guest_port = 5, .in_fd = -1, .out_fd = -1 };
	uint32_t id, port;
	struct vsk_hdr h;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	memset(gmem_span(&g.r.mem, VSKR_EVENT_AT, 4), 0xee, 4);
	vsk_reset_event(g.r.dev);
	CHECK(vmux_connect(g.r.dev, &s) > 0);
	h = vskr_hdr(port, 1024, VSK_OP_RW); /* a stale stream: the event will end it, no RST needed */
	vskr_send(&g, &h, NULL, 0);
	h = vskr_hdr(99, 98, VSK_OP_REQUEST); /* a fresh one: it gets its answer later */
	vskr_send(&g, &h, NULL, 0);
	vqr_kick(&g.r, VSKR_EVENT); /* a kick alone proves nothing */
	tvsk_quiet(&g);
	CHECK_EQ(told.closed, 1);
	CHECK_EQ(told.err, -ECONNRESET);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_EVENT), 1);
	CHECK_EQ(vqr_used(&g.r, VSKR_EVENT, 0).len, 4);
	vqr_get(&g.r, VSKR_EVENT_AT, &id, 4);
	CHECK_EQ(id, 0);
	/* The device must have asked to be told about the ninth buffer, not the second. */
	CHECK_EQ(vqr_get16(&g.r, g.r.ring[VSKR_EVENT].used + 4 + 8 * g.r.ring[VSKR_EVENT].num), 8);
	vskr_post_events(&g, 1);
	vqr_kick(&g.r, VSKR_EVENT);
	tvsk_expect(&g, VSK_OP_RST, 99, 98);
	CHECK(vskr_recv(&g));
	CHECK_EQ(g.h.op, VSK_OP_REQUEST);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_keeps_the_event_until_the_driver_has_a_buffer_for_it)
{
	static struct vskr g;

	vskr_init(&g, 8, 4096);
	for (unsigned i = 0; i < 8; i++) { /* use up what the driver posted */
		vsk_reset_event(g.r.dev);
		vskr_settle(&g);
		CHECK_EQ(vqr_used_idx(&g.r, VSKR_EVENT), i + 1);
	}
	vsk_reset_event(g.r.dev);
	vskr_settle(&g);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_EVENT), 8);
	CHECK_EQ(g.v->event, VSK_EVENT_DUE);
	vskr_post_events(&g, 1);
	vqr_kick(&g.r, VSKR_EVENT);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_EVENT), 9);
	CHECK_EQ(g.v->event, VSK_EVENT_PUSHED);
	vskr_post_events(&g, 1);
	vqr_kick(&g.r, VSKR_EVENT);
	CHECK_EQ(g.v->event, VSK_EVENT_NONE);
	vskr_fini(&g);
}

/* Save g's slot and load it into a fresh machine with a copy of the memory. */
static void tvsk_clone(struct vskr *g, struct vskr *to, const struct vsk_config *cfg)
{
	struct buf state = { 0 };
	struct vdev *d = NULL;
	struct cur in;

	CHECK_EQ(slots_quiesce(&g->r.slots, NULL), 0);
	slots_save_one(&g->r.slots, 0, &state);
	memcpy(to, g, sizeof *to);
	vqr_init(&to->r, VSKR_RAM);
	memcpy(to->r.ring, g->r.ring, sizeof g->r.ring);
	memcpy(to->r.mem.map, g->r.mem.map, VSKR_RAM);
	CHECK_EQ(vsk_new(&to->r.loop, cfg, &d, NULL), 0);
	vqr_attach(&to->r, d);
	to->v = container_of(d, struct vsk, vdev);
	in = cur_of(state.data, state.len);
	CHECK_EQ(slots_restore_one(&to->r.slots, 0, &in, NULL), 0);
	CHECK_EQ(cur_left(&in), 0);
	buf_fini(&state);
	slots_resume(&g->r.slots);
}

TEST(vsk_clones_of_an_idle_template_talk_at_once_and_with_ports_of_their_own)
{
	static struct vskr g, a, b;
	struct vsk_config one = { .port_seed = 1000 }, two = { .port_seed = 70000 };
	struct vskr_told told;
	uint32_t pa, pb;
	int fd[2];

	vskr_init(&g, 8, 4096);
	tvsk_clone(&g, &a, &one);
	tvsk_clone(&g, &b, &two);
	vskr_pair(fd);
	pa = vskr_open(&a, fd[1], -1, &told); /* no event was needed: the first packet is ours */
	close(fd[0]);
	vskr_pair(fd);
	pb = vskr_open(&b, fd[1], -1, &told);
	CHECK_EQ(pb - pa, 69000);
	CHECK_EQ(vqr_used_idx(&a.r, VSKR_EVENT), 0);
	close(fd[0]);
	vskr_fini(&a);
	vskr_fini(&b);
	vskr_fini(&g);
}

TEST(vsk_clone_of_a_machine_with_streams_resets_them_and_the_original_keeps_them)
{
	static struct vskr g, c;
	struct vsk_config cfg = { 0 };
	struct vskr_told told;
	uint32_t port;
	char buf[4];
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	tvsk_clone(&g, &c, &cfg);
	vskr_settle(&c);
	CHECK_EQ(vqr_used_idx(&c.r, VSKR_EVENT), 1);
	CHECK_EQ(c.v->port_next, port + 1);
	tvsk_say(&c, port, "stale");
	tvsk_quiet(&c);

	CHECK_EQ(told.closed, 0);
	tvsk_say(&g, port, "live");
	CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), 4);
	CHECK_EQ(write(fd[0], "too", 3), 3);
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_EVENT), 0);
	close(fd[0]);
	vskr_fini(&c);
	vskr_fini(&g);
}

TEST(vsk_clone_under_another_cid_makes_the_driver_read_it)
{
	static struct vskr g, c;
	struct vsk_config cfg = { .guest_cid = 4711 };

	vskr_init(&g, 8, 4096);
	tvsk_clone(&g, &c, &cfg);
	vskr_settle(&c);
	CHECK_EQ(vqr_used_idx(&c.r, VSKR_EVENT), 1);
	CHECK_EQ(vqr_config(&c.r, 0, 8), 4711);
	vskr_fini(&c);
	vskr_fini(&g);
}

TEST(vsk_refuses_saved_state_that_it_did_not_write)
{
	static struct vskr g;
	const struct vdev_ops *ops;
	struct buf good = { 0 };

	vskr_init(&g, 8, 4096);
	ops = g.r.dev->ops;
	ops->save(g.r.dev, &good);
	CHECK_EQ(good.len, 16);
	for (size_t n = 0; n < good.len; n++) {
		struct cur in = cur_of(test_guard(good.data, n), n);
		test_note("%zu bytes", n);
		CHECK_EQ(ops->restore(g.r.dev, &in), -EINVAL);
	}
	for (unsigned at = 8; at < 16; at++) {
		struct cur in;
		uint8_t *bad = test_guard(good.data, good.len);
		test_note("byte %u", at);
		bad[at] ^= 0x80;
		in = cur_of(bad, good.len);
		CHECK_EQ(ops->restore(g.r.dev, &in), at < 11 ? 0 : -EINVAL);
	}
	buf_fini(&good);
	vskr_fini(&g);
}

TEST(vsk_does_nothing_while_quiet_and_forgets_nothing)
{
	static struct vskr g;
	struct vskr_told told;
	char buf[8];
	uint32_t port;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	port = vskr_open(&g, fd[1], fd[1], &told);
	CHECK_EQ(slots_quiesce(&g.r.slots, NULL), 0);
	CHECK_EQ(write(fd[0], "late", 4), 4);
	tvsk_say(&g, port, "later");
	tvsk_quiet(&g);
	CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), -1);
	CHECK_EQ(loop_step(&g.r.loop, 20), 0);
	slots_resume(&g.r.slots);
	tvsk_expect(&g, VSK_OP_RW, port, 1024);
	CHECK_EQ(tvsk_read(fd[0], buf, sizeof buf), 5);
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_EVENT), 0);
	close(fd[0]);
	vskr_fini(&g);
}

TEST(vsk_pause_does_not_count_against_a_request)
{
	static struct vskr g;
	struct vskr_told told = { 0 };
	struct vmux_spec s = { .guest_port = 7, .in_fd = -1, .out_fd = -1, .timeout_ms = 100,
			       .fn = vskr_tell, .arg = &told };
	uint64_t since;

	vskr_init(&g, 8, 4096);
	CHECK(vmux_connect(g.r.dev, &s) > 0);
	CHECK(vskr_recv(&g));
	CHECK_EQ(slots_quiesce(&g.r.slots, NULL), 0);
	CHECK(!vskr_recv_in(&g, 150));
	CHECK_EQ(told.closed, 0);
	since = clock_mono_ns();
	slots_resume(&g.r.slots);
	CHECK(vskr_recv(&g));
	CHECK_EQ(g.h.op, VSK_OP_RST);
	CHECK(clock_mono_ns() - since >= 90 * NS_PER_MS);
	CHECK_EQ(told.err, -ETIMEDOUT);
	vskr_fini(&g);
}

TEST(vsk_takes_a_full_transmit_queue_in_several_turns)
{
	static struct vskr g;
	struct vskr_told told;
	struct vsk_hdr h;
	uint16_t before;

	vskr_init(&g, 8, 4096);
	h = vskr_hdr(vskr_open(&g, -1, -1, &told), 1024, VSK_OP_CREDIT_UPDATE);
	before = g.tx_sent;
	for (unsigned i = 0; i < 250; i++)
		vskr_queue(&g, &h, NULL, 0);
	vskr_kick_tx(&g); /* one step of the loop: the kick and a turn */
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_TX), before + 2 * VSK_TX_BATCH);
	vskr_settle(&g); /* without another kick */
	CHECK_EQ(vqr_used_idx(&g.r, VSKR_TX), before + 250);
	vskr_fini(&g);
}

TEST(vsk_second_request_for_a_stream_ends_the_first)
{
	static struct vskr g;
	struct vsk_hdr h = vskr_hdr(2049, 55, VSK_OP_REQUEST);
	uint32_t asked;
	char c;
	int fd[2];

	vskr_init(&g, 8, 4096);
	vskr_pair(fd);
	tvsk_fd_for_guest = fd[1];
	vmux_on_guest_connect(g.r.dev, tvsk_on_guest, &asked);
	vskr_send(&g, &h, NULL, 0);
	tvsk_expect(&g, VSK_OP_RESPONSE, 2049, 55);
	vskr_send(&g, &h, NULL, 0);
	tvsk_expect(&g, VSK_OP_RST, 2049, 55);
	tvsk_quiet(&g);
	CHECK_EQ(tvsk_read(fd[0], &c, 1), 0);
	close(fd[0]);
	vskr_fini(&g);
}
