#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/virtio/net.h"

#include <sys/socket.h>

#define TNET_RX  0u /* queues */
#define TNET_TX  1u
#define TNET_HDR VNET_HDR_BYTES
#define TNET_BUF 2048u
#define TNET_OUT (VQR_DATA + MIB(1)) /* frames to send; buffers to receive are from VQR_DATA on */

/* A card whose tap is one end of a socket that keeps frames apart. */
struct tnet {
	struct vqr r;
	int wire; /* the other end; non-blocking */
	unsigned posted;
};

static void tnet_make(struct tnet *t, struct vnet_config c)
{
	struct vdev *d = NULL;
	int pair[2];

	*t = (struct tnet){ .wire = -1 };
	ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	t->wire = pair[0];
	c.fd = pair[1];
	c.vhost_fd = -1;
	memcpy(c.mac, "\2\0\0\0\0\1", 6);
	vqr_init(&t->r, VQR_RAM);
	CHECK_EQ(vnet_new(&c, &t->r.loop, &t->r.mem, &d, NULL), 0);
	vqr_attach(&t->r, d);
}

static void tnet_start(struct tnet *t)
{
	tnet_make(t, (struct vnet_config){ .mtu = 1500 });
	CHECK_EQ(vqr_drive(&t->r, ~UINT64_C(0)), 15);
}

static void tnet_end(struct tnet *t)
{
	vqr_fini(&t->r);
	if (t->wire >= 0)
		close(t->wire);
}

/* Post n receive buffers of `bytes` and say so. */
static void tnet_post(struct tnet *t, unsigned n, uint32_t bytes)
{
	while (n--) {
		struct vqr_seg seg = { VQR_DATA + t->posted++ * TNET_BUF, bytes, true };
		vqr_add(&t->r, TNET_RX, &seg, 1);
	}
	vqr_kick(&t->r, TNET_RX);
}

/* A frame from the wire: a header of the tap (its last field is not the tap's to fill), then `n` bytes. */
static void tnet_arrive(struct tnet *t, size_t n, uint8_t byte)
{
	uint8_t frame[KIB(66)] = { 0 };

	memset(frame + TNET_HDR, byte, n);
	frame[10] = frame[11] = 0xee;
	CHECK_EQ(write(t->wire, frame, TNET_HDR + n), TNET_HDR + n);
	for (unsigned i = 0; i < 3; i++)
		loop_step(&t->r.loop, 0);
}

/* The guest sends header and n bytes in two segments. */
static uint16_t tnet_send(struct tnet *t, uint32_t n, uint8_t byte)
{
	struct vqr_seg seg[2] = { { TNET_OUT, TNET_HDR, false }, { TNET_OUT + TNET_HDR, n, false } };

	vqr_fill(&t->r, TNET_OUT, 0, TNET_HDR);
	vqr_fill(&t->r, TNET_OUT + TNET_HDR, byte, n);
	vqr_add(&t->r, TNET_TX, seg, 2);
	vqr_kick(&t->r, TNET_TX);
	return vqr_used_idx(&t->r, TNET_TX);
}

static ssize_t tnet_wire(struct tnet *t, uint8_t *last)
{
	uint8_t frame[KIB(66)];
	ssize_t n = read(t->wire, frame, sizeof frame);

	if (n > 0)
		*last = frame[n - 1];
	return n < 0 ? -errno : n;
}

TEST(vnet_tells_address_mtu_and_that_the_link_is_up)
{
	struct tnet t;

	tnet_start(&t);
	CHECK_EQ(vqr_config(&t.r, 0, 4), 2);
	CHECK_EQ(vqr_config(&t.r, 5, 1), 1);
	CHECK_EQ(vqr_config(&t.r, 6, 2), 1);
	CHECK_EQ(vqr_config(&t.r, 10, 2), 1500);
	CHECK_EQ(vqr_config(&t.r, 12, 4), 0);
	CHECK_EQ(t.r.dev->features & 1 << 3, 1 << 3);
	tnet_end(&t);
	tnet_make(&t, (struct vnet_config){ .mtu = 0 });
	CHECK_EQ(vqr_offered(&t.r) & 1 << 3, 0);
	tnet_end(&t);
}

TEST(vnet_refuses_a_driver_that_does_not_take_what_the_tap_sends)
{
	struct tnet t;

	tnet_make(&t, (struct vnet_config){ .mtu = 1500 });
	CHECK(vqr_drive(&t.r, ~(UINT64_C(1) << 7)) & VMMIO_S_NEEDS_RESET);
	CHECK_EQ(vqr_drive(&t.r, ~UINT64_C(0)), 15);
	tnet_end(&t);
}

TEST(vnet_sends_a_frame_with_its_header_as_the_guest_wrote_it)
{
	struct tnet t;
	uint8_t last = 0;

	tnet_start(&t);
	CHECK_EQ(tnet_send(&t, 60, 0x77), 1);
	CHECK_EQ(tnet_wire(&t, &last), TNET_HDR + 60);
	CHECK_EQ(last, 0x77);
	CHECK_EQ(vqr_used(&t.r, TNET_TX, 0).len, 0);
	CHECK_EQ(t.r.irqs, 1);
	tnet_end(&t);
}

TEST(vnet_drops_frames_too_short_or_too_long_and_gives_them_back)
{
	static const uint32_t bytes[] = { 1, 13, 65563, 100000 };
	struct tnet t;
	uint8_t last;

	tnet_start(&t);
	for (unsigned i = 0; i < ARRAY_LEN(bytes); i++) {
		CHECK_EQ(tnet_send(&t, bytes[i], 1), i + 1);
		CHECK_EQ(tnet_wire(&t, &last), -EAGAIN);
	}
	CHECK_EQ(tnet_send(&t, 14, 5), ARRAY_LEN(bytes) + 1);
	CHECK_EQ(tnet_wire(&t, &last), TNET_HDR + 14);
	CHECK(!vqr_is_broken(&t.r));
	tnet_end(&t);
}

TEST(vnet_waits_for_a_tap_that_is_full_and_loses_nothing)
{
	struct tnet t;
	unsigned sent = 0, n = 0;
	uint8_t last;

	tnet_start(&t);
	do
		ASSERT(++sent < 100);
	while (tnet_send(&t, 60000, 1) == sent);
	while (n < sent) {
		ssize_t got = tnet_wire(&t, &last);
		if (got > 0) {
			CHECK_EQ(got, TNET_HDR + 60000);
			n++;
		}
		loop_step(&t.r.loop, 0);
	}
	CHECK_EQ(vqr_used_idx(&t.r, TNET_TX), sent);
	tnet_end(&t);
}

TEST(vnet_puts_a_small_frame_into_one_buffer)
{
	struct tnet t;

	tnet_start(&t);
	tnet_post(&t, 40, TNET_BUF);
	tnet_arrive(&t, 100, 0x33);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 1);
	CHECK_EQ(vqr_used(&t.r, TNET_RX, 0).len, TNET_HDR + 100);
	CHECK_EQ(vqr_get16(&t.r, VQR_DATA + 10), 1);
	CHECK_EQ(vqr_get8(&t.r, VQR_DATA + TNET_HDR + 99), 0x33);
	CHECK_EQ(vqr_get8(&t.r, VQR_DATA + TNET_HDR + 100), 0);
	CHECK_EQ(t.r.irqs, 1);
	tnet_end(&t);
}

TEST(vnet_spreads_a_large_frame_and_says_over_how_many_buffers)
{
	struct tnet t;

	tnet_start(&t);
	tnet_post(&t, 100, TNET_BUF);
	tnet_arrive(&t, 65000, 0x44);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 32);
	CHECK_EQ(vqr_get16(&t.r, VQR_DATA + 10), 32);
	CHECK_EQ(vqr_used(&t.r, TNET_RX, 30).len, TNET_BUF);
	CHECK_EQ(vqr_used(&t.r, TNET_RX, 31).len, TNET_HDR + 65000 - 31 * TNET_BUF);
	tnet_arrive(&t, 3000, 0x45);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 34);
	CHECK_EQ(vqr_get16(&t.r, VQR_DATA + 32 * TNET_BUF + 10), 2);
	CHECK_EQ(vqr_get8(&t.r, VQR_DATA + 33 * TNET_BUF), 0x45);
	tnet_end(&t);
}

TEST(vnet_leaves_frames_in_the_tap_until_there_are_buffers)
{
	struct tnet t;

	tnet_start(&t);
	tnet_arrive(&t, 100, 1);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 0);
	tnet_post(&t, 10, TNET_BUF); /* not enough for the longest there is */
	for (unsigned i = 0; i < 3; i++)
		loop_step(&t.r.loop, 0);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 0);
	CHECK_EQ(vnet_of(t.r.dev)->tap.events, 0);
	tnet_post(&t, 30, TNET_BUF);
	for (unsigned i = 0; i < 3; i++)
		loop_step(&t.r.loop, 0);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 1);
	tnet_end(&t);
}

TEST(vnet_does_what_it_can_with_a_queue_too_short_for_the_longest_frame)
{
	struct tnet t;

	tnet_make(&t, (struct vnet_config){ .mtu = 1500 });
	t.r.ring[TNET_RX].num = 4;
	CHECK_EQ(vqr_drive(&t.r, ~UINT64_C(0)), 15);
	tnet_post(&t, 4, TNET_BUF);
	tnet_arrive(&t, 4 * TNET_BUF, 1); /* is lost */
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 0);
	tnet_arrive(&t, 2 * TNET_BUF, 2);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 3);
	CHECK_EQ(vqr_get8(&t.r, VQR_DATA + TNET_HDR), 2);
	tnet_end(&t);
}

TEST(vnet_without_merged_buffers_puts_each_frame_into_one_chain)
{
	struct tnet t;
	struct vqr_seg seg[3] = { { VQR_DATA, 11, true }, { VQR_DATA + 64, 1, true },
				  { VQR_DATA + 4096, KIB(65), true } };

	tnet_make(&t, (struct vnet_config){ .mtu = 1500 });
	CHECK_EQ(vqr_drive(&t.r, ~(UINT64_C(1) << 15)), 15);
	t.posted = 64;
	vqr_add(&t.r, TNET_RX, seg, 3);
	tnet_post(&t, 1, TNET_BUF);
	tnet_arrive(&t, 60000, 9);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 1);
	CHECK_EQ(vqr_used(&t.r, TNET_RX, 0).len, TNET_HDR + 60000);
	CHECK_EQ(vqr_get8(&t.r, VQR_DATA + 10), 1); /* the count lies across two segments */
	CHECK_EQ(vqr_get8(&t.r, VQR_DATA + 64), 0);
	CHECK_EQ(vqr_get8(&t.r, VQR_DATA + 4096 + 59999), 9);
	tnet_arrive(&t, 3000, 1); /* too long for the other one */
	tnet_arrive(&t, 1000, 2);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 2);
	CHECK_EQ(vqr_used(&t.r, TNET_RX, 1).len, TNET_HDR + 1000);
	tnet_end(&t);
}

TEST(vnet_is_broken_by_a_buffer_without_room_for_the_header)
{
	struct tnet t;

	tnet_start(&t);
	tnet_post(&t, 40, TNET_HDR - 1);
	tnet_arrive(&t, 100, 1);
	CHECK(vqr_is_broken(&t.r));
	CHECK_EQ(vqr_drive(&t.r, ~UINT64_C(0)), 15);
	tnet_post(&t, 40, TNET_BUF);
	tnet_arrive(&t, 100, 2);
	CHECK(vqr_used_idx(&t.r, TNET_RX) >= 1);
	tnet_end(&t);
}

TEST(vnet_buffers_of_a_driver_that_resets_are_not_written_again)
{
	struct tnet t;

	tnet_start(&t);
	tnet_post(&t, 40, TNET_BUF);
	tnet_arrive(&t, 100, 1);
	CHECK_EQ(vnet_of(t.r.dev)->held.n > 0, true);
	CHECK_EQ(vqr_drive(&t.r, ~UINT64_C(0)), 15);
	CHECK_EQ(vnet_of(t.r.dev)->held.n, 0);
	vqr_fill(&t.r, VQR_DATA, 0xee, 40 * TNET_BUF);
	tnet_arrive(&t, 100, 2);
	for (unsigned i = 0; i < 40; i++)
		CHECK_EQ(vqr_get8(&t.r, VQR_DATA + i * TNET_BUF + TNET_HDR), 0xee);
	tnet_end(&t);
}

TEST(vnet_at_rest_holds_nothing_and_goes_on_where_it_was)
{
	struct tnet t;
	struct err e;

	tnet_start(&t);
	tnet_post(&t, 40, TNET_BUF);
	tnet_arrive(&t, 100, 1);
	CHECK_EQ(slots_quiesce(&t.r.slots, &e), 0);
	CHECK_EQ(t.r.dev->q[TNET_RX].next_avail, 1);
	CHECK_EQ(tnet_send(&t, 60, 1), 0);
	tnet_arrive(&t, 100, 2);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 1);
	slots_resume(&t.r.slots);
	for (unsigned i = 0; i < 3; i++)
		loop_step(&t.r.loop, 0);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_RX), 2);
	CHECK_EQ(vqr_used_idx(&t.r, TNET_TX), 1);
	tnet_end(&t);
}

TEST(vnet_is_restored_with_the_address_its_driver_knows)
{
	AUTO_BUF struct buf state = { 0 };
	struct tnet a, b;
	struct cur in;
	struct err e;

	tnet_start(&a);
	((struct vnet *)a.r.dev)->space.mac[5] = 9;
	tnet_post(&a, 40, TNET_BUF);
	CHECK_EQ(slots_quiesce(&a.r.slots, &e), 0);
	slots_save_one(&a.r.slots, 0, &state);
	tnet_make(&b, (struct vnet_config){ .mtu = 9000 });
	in = cur_of(state.data, state.len);
	CHECK_EQ(slots_restore_one(&b.r.slots, 0, &in, &e), 0);
	CHECK_EQ(vqr_config(&b.r, 5, 1), 9);
	CHECK_EQ(vqr_config(&b.r, 10, 2), 1500);
	for (size_t n = 0; n < state.len; n++) {
		in = cur_of(state.data, n);
		CHECK(slots_restore_one(&b.r.slots, 0, &in, &e) < 0);
	}
	tnet_end(&a);
	tnet_end(&b);
}

TEST(vnet_whose_tap_is_gone_has_its_link_down_and_does_not_spin)
{
	struct tnet t;

	tnet_start(&t);
	close(take_fd(&t.wire));
	loop_step(&t.r.loop, 0);
	CHECK_EQ(vqr_config(&t.r, 6, 2), 0);
	CHECK_EQ(vqr_read32(&t.r, 0x060) & VMMIO_INT_CONFIG, VMMIO_INT_CONFIG);
	CHECK_EQ(vnet_of(t.r.dev)->tap.active, false);
	CHECK_EQ(tnet_send(&t, 60, 1), 1);
	tnet_end(&t);
}

TEST(vnet_limit_lets_a_burst_go_and_holds_the_rest_back)
{
	struct tnet t;
	uint16_t done;
	uint8_t last;

	tnet_make(&t, (struct vnet_config){ .mtu = 1500, .tx_rate = 8 * 10000, .rx_rate = 8 * 10000 });
	CHECK_EQ(vqr_drive(&t.r, ~UINT64_C(0)), 15);
	for (unsigned i = 0; i < 5; i++)
		done = tnet_send(&t, 500, 1);
	CHECK_EQ(done, 2); /* 1000 bytes in 100 ms, and one frame beyond */
	CHECK_EQ(tnet_wire(&t, &last), TNET_HDR + 500);
	CHECK(vqr_wait(&t.r, TNET_TX, 5));
	tnet_post(&t, 40, TNET_BUF);
	for (unsigned i = 0; i < 5; i++)
		tnet_arrive(&t, 500, 1);
	CHECK(vqr_used_idx(&t.r, TNET_RX) < 5);
	CHECK(vqr_wait(&t.r, TNET_RX, 5));
	tnet_end(&t);
}

TEST(vnet_rings_that_lie_break_the_device_and_nothing_else)
{
	struct tnet t;

	for (unsigned q = 0; q < 2; q++) {
		tnet_start(&t);
		vqr_desc(&t.r, q, 0, GIB(3), 4096, q == TNET_RX ? VQR_WRITE : 0, 0);
		vqr_publish(&t.r, q, 0);
		vqr_kick(&t.r, q);
		tnet_arrive(&t, 100, 1);
		CHECK(vqr_is_broken(&t.r));
		tnet_end(&t);
	}
}
