#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/virtio/net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include "amalgam/resource/net.h"

#define TVH_RX  0u /* queues */
#define TVH_TX  1u
#define TVH_BUF 2048u
#define TVH_OUT (VQR_DATA + MIB(1))

/* A card served by the host's kernel: its tap is a link of ours, the wire a socket bound to that. */
struct tvh {
	struct vqr r;
	int wire;
};

static void tvh_start(struct tvh *t)
{
	struct net_link l = { .tap_fd = -1 };
	struct vnet_config c = { .mtu = 1500, .vhost_fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC) };
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(0x88b5) };
	struct vdev *d = NULL;
	struct err e;

	if (c.vhost_fd < 0 || unshare(CLONE_NEWNET) < 0 || net_make_tap(&l, &e) < 0)
		test_skip("no vhost-net, network namespace or tap: %s", strerror(errno));
	/* Or the host's stack speaks, too. */
	ASSERT(system("ip link set tap0_spore addrgenmode none && ip link set tap0_spore up") == 0);
	*t = (struct tvh){ .wire = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(0x88b5)) };
	at.sll_ifindex = l.tap_index;
	ASSERT(t->wire >= 0 && bind(t->wire, (struct sockaddr *)&at, sizeof at) == 0);
	c.fd = l.tap_fd;
	vqr_init(&t->r, VQR_RAM);
	CHECK_EQ(vnet_new(&c, &t->r.loop, &t->r.mem, &d, &e), 0);
	CHECK(vnet_of(d)->vhost.fd >= 0);
	vqr_attach(&t->r, d);
	CHECK_EQ(vqr_drive(&t->r, ~VIRTIO_F_RING_EVENT_IDX), 15); /* an interrupt for each frame */
	CHECK(vnet_of(d)->vhost.is_running);
	for (unsigned i = 0; i < 64; i++) {
		struct vqr_seg seg = { VQR_DATA + i * TVH_BUF, TVH_BUF, true };
		vqr_add(&t->r, TVH_RX, &seg, 1);
	}
	vqr_kick(&t->r, TVH_RX);
}

static void tvh_end(struct tvh *t)
{
	vqr_fini(&t->r);
	close(t->wire);
}

/* The guest sends a frame of a protocol nobody speaks; how long it is on the wire. */
static ssize_t tvh_send(struct tvh *t, uint8_t byte)
{
	struct vqr_seg seg[2] = { { TVH_OUT, 12, false }, { TVH_OUT + 64, 100, false } };
	const uint8_t head[] = { 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 0x88, 0xb5, byte };
	uint16_t before = vqr_used_idx(&t->r, TVH_TX);
	struct pollfd p = { .fd = t->wire, .events = POLLIN };
	uint8_t got[2048];
	ssize_t n;

	vqr_fill(&t->r, TVH_OUT, 0, 12);
	vqr_put(&t->r, TVH_OUT + 64, head, sizeof head);
	vqr_add(&t->r, TVH_TX, seg, 2);
	vqr_kick(&t->r, TVH_TX);
	CHECK(vqr_wait(&t->r, TVH_TX, (uint16_t)(before + 1)));
	CHECK_EQ(poll(&p, 1, 5000), 1);
	n = read(t->wire, got, sizeof got);
	CHECK_EQ(got[14], byte);
	return n;
}

/* A frame for the guest; where it was put. */
static gpa_t tvh_receive(struct tvh *t, uint8_t byte)
{
	uint8_t frame[200] = { 2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 8, 0x88, 0xb5, byte };
	uint16_t before = vqr_used_idx(&t->r, TVH_RX);
	struct vqr_used u;

	CHECK_EQ(write(t->wire, frame, sizeof frame), sizeof frame);
	test_note("%u received before", before);
	CHECK(vqr_wait(&t->r, TVH_RX, (uint16_t)(before + 1)));
	u = vqr_used(&t->r, TVH_RX, before);
	CHECK_EQ(u.len, 12 + sizeof frame);
	return VQR_DATA + u.id * TVH_BUF + 12 + 14;
}

TEST(vhost_moves_frames_and_interrupts_the_driver)
{
	struct tvh t;
	unsigned irqs;

	tvh_start(&t);
	CHECK_EQ(tvh_send(&t, 0x11), 100);
	irqs = t.r.irqs;
	CHECK_EQ(vqr_get8(&t.r, tvh_receive(&t, 0x22)), 0x22);
	for (unsigned i = 0; i < 500 && t.r.irqs == irqs; i++)
		loop_step(&t.r.loop, 10);
	CHECK(t.r.irqs > irqs);
	CHECK(vqr_read32(&t.r, 0x060) & VMMIO_INT_VRING);
	tvh_end(&t);
}

TEST(vhost_begins_again_where_it_stopped)
{
	struct tvh t;
	struct err e;

	tvh_start(&t);
	tvh_send(&t, 1);
	tvh_receive(&t, 2);
	CHECK_EQ(slots_quiesce(&t.r.slots, &e), 0);
	CHECK(!vnet_of(t.r.dev)->vhost.is_running);
	for (unsigned q = 0; q < 2; q++) {
		CHECK_EQ(t.r.dev->q[q].next_avail, vqr_used_idx(&t.r, q));
		CHECK_EQ(t.r.dev->q[q].next_used, vqr_used_idx(&t.r, q));
	}
	slots_resume(&t.r.slots);
	CHECK_EQ(tvh_send(&t, 3), 100);
	CHECK_EQ(vqr_get8(&t.r, tvh_receive(&t, 4)), 4);
	tvh_end(&t);
}

TEST(vhost_is_out_of_the_guests_memory_when_the_driver_has_reset)
{
	uint8_t frame[200] = { 2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 8, 0x88, 0xb5, 7 };
	struct tvh t;

	tvh_start(&t);
	tvh_receive(&t, 1);
	vqr_write32(&t.r, 0x070, 0);
	CHECK(!vnet_of(t.r.dev)->vhost.is_running);
	vqr_fill(&t.r, VQR_DATA, 0xee, 64 * TVH_BUF);
	CHECK_EQ(write(t.wire, frame, sizeof frame), sizeof frame);
	for (unsigned i = 0; i < 20; i++)
		loop_step(&t.r.loop, 5);
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(vqr_get8(&t.r, VQR_DATA + i * TVH_BUF), 0xee);
	CHECK_EQ(vqr_drive(&t.r, ~VIRTIO_F_RING_EVENT_IDX), 15);
	CHECK(vnet_of(t.r.dev)->vhost.is_running);
	CHECK_EQ(tvh_send(&t, 3), 100);
	tvh_end(&t);
}
