/* fuzz_net.c - what a driver may do to its network card: vmm/virtio/net.c behind its real registers.
 *
 * Input: u8 flags (1 = no merged buffers, 2 = no EVENT_IDX, 4 = short queues, 8 = limits), then steps: buffers
 * posted, frames sent, frames from the wire, a reset, a rest. A step is a good one unless its knob turns one
 * thing around. Whatever happens: a page never offered for writing stays as it was, what comes out of the wire
 * is no longer than a frame can be, what is given back was given, the card comes to rest. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/base/log.c"
#include "amalgam/base/loop.c"
#include "vmm/gmem.c"
#include "vmm/virtio/queue.c"
#include "vmm/virtio/mmio.c"
#include "vmm/virtio/slots.c"
#include "vmm/virtio/vhost.c"
#include "vmm/virtio/net.c"

#include <sys/socket.h>

#include "tests/unit/vmm/virtio/vq_rig.h"

#define FNET_GUARD (VQR_DATA - 4096) /* never part of a good request */

static struct vqr fnet_rig[2]; /* as fast as it goes, with limits */
static int fnet_wire[2];

int LLVMFuzzerInitialize(int *argc, char ***argv);

static void fnet_init_one(unsigned limited)
{
	struct vnet_config c = { .vhost_fd = -1, .mtu = 1500 };
	struct vdev *d = NULL;
	int pair[2];

	c.rx_rate = c.tx_rate = limited * 80000;
	ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	fnet_wire[limited] = pair[0];
	c.fd = pair[1];
	vqr_init(&fnet_rig[limited], VQR_RAM);
	ASSERT(vnet_new(&c, &fnet_rig[limited].loop, &fnet_rig[limited].mem, &d, NULL) == 0);
	vqr_attach(&fnet_rig[limited], d);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	log_setup(-1, LOG_ERROR);
	fnet_init_one(0);
	fnet_init_one(1);
	return 0;
}

static uint8_t fnet_u8(struct cur *in)
{
	uint8_t v;
	cur_copy(in, &v, 1);
	return v;
}

/* A chain of up to four pieces in one of 64 places; a knob makes one of them something else. */
static void fnet_chain(struct cur *in, struct vqr *r, unsigned q)
{
	unsigned n = 1 + fnet_u8(in) % 4, knob = fnet_u8(in);
	gpa_t at = VQR_DATA + (fnet_u8(in) % 64) * KIB(16);
	struct vqr_seg seg[4];

	for (unsigned i = 0; i < n; i++) {
		uint32_t len = fnet_u8(in) * (i ? 64u : 8u);
		seg[i] = (struct vqr_seg){ at, len, q == VNET_RX };
		at += len;
	}
	if (knob == 1)
		seg[knob % n].gpa = cur_le64(in) >> fnet_u8(in) % 64;
	if (knob == 2)
		seg[knob % n].len = cur_le32(in) >> fnet_u8(in) % 32;
	if (knob == 3)
		seg[knob % n].in = !seg[knob % n].in;
	if (seg[knob % n].gpa < FNET_GUARD + 4096) /* not the guard, and not the rings: see fuzz_vq */
		seg[knob % n].gpa += FNET_GUARD + 4096;
	vqr_add(r, q, seg, n);
	if (knob == 4)
		vqr_desc(r, q, fnet_u8(in), VQR_DATA, 512, fnet_u8(in), fnet_u8(in));
	if (knob == 5)
		vqr_publish(r, q, (uint16_t)cur_le32(in));
}

static void fnet_arrive(struct cur *in, int wire)
{
	static uint8_t frame[KIB(66)];
	size_t n = fnet_u8(in) * (size_t)(fnet_u8(in) % 2 ? 256 : 6);

	(void)!write(wire, frame, n + 1);
}

/* What the guest has sent. */
static void fnet_drain(int wire)
{
	static uint8_t frame[KIB(128)];
	ssize_t n;

	while ((n = read(wire, frame, sizeof frame)) > 0)
		ASSERT(n >= VNET_HDR_BYTES + VNET_FRAME_MIN && n <= (ssize_t)VNET_FRAME_MAX);
}

static void fnet_rest(struct vqr *r)
{
	const struct vdev *d = r->dev;

	ASSERT(slots_quiesce(&r->slots, NULL) == 0);
	ASSERT(vnet_of(r->dev)->held.n == 0);
	for (unsigned q = 0; q < VNET_QUEUES && !vqr_is_broken(r); q++)
		ASSERT(d->q[q].next_avail == d->q[q].next_used);
	slots_resume(&r->slots);
}

static void fnet_check(struct vqr *r)
{
	const uint8_t *guard = gmem_span(&r->mem, FNET_GUARD, 4096);
	const struct vnet_held *h = &vnet_of(r->dev)->held;

	for (unsigned i = 0; i < 4096; i++)
		ASSERT(guard[i] == 0x5a);
	ASSERT(h->first + h->n <= VQ_MAX && h->iov_first + h->niov <= VNET_RX_IOV);
	ASSERT(h->n || !h->bytes);
}

static void fnet_step(struct cur *in, struct vqr *r, int wire, uint64_t features)
{
	switch (fnet_u8(in) % 8) {
	case 0: case 1: case 2:
		fnet_chain(in, r, VNET_RX);
		break;
	case 3: case 4:
		fnet_chain(in, r, VNET_TX);
		break;
	case 5: case 6:
		fnet_arrive(in, wire);
		break;
	default:
		if (fnet_u8(in) % 2)
			fnet_rest(r);
		else
			ASSERT(vqr_drive(r, features) == 15);
	}
	if (fnet_u8(in) % 4)
		vqr_kick(r, fnet_u8(in) % 2);
	loop_step(&r->loop, 0);
	fnet_drain(wire);
	fnet_check(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cur in = cur_of(data, len);
	uint8_t flags = fnet_u8(&in);
	unsigned limited = flags >> 3 & 1;
	struct vqr *r = &fnet_rig[limited];
	uint64_t features = ~UINT64_C(0);

	if (flags & 1)
		features &= ~VNET_F_MRG_RXBUF;
	if (flags & 2)
		features &= ~VIRTIO_F_RING_EVENT_IDX;
	for (unsigned q = 0; q < VNET_QUEUES; q++)
		r->ring[q].num = flags & 4 ? 4 : VQ_MAX;
	vqr_fill(r, FNET_GUARD, 0x5a, 4096);
	ASSERT(vqr_drive(r, features) == 15);
	for (unsigned n = 0; cur_left(&in) && n < 128; n++) {
		fnet_step(&in, r, fnet_wire[limited], features);
		if (vqr_is_broken(r))
			ASSERT(vqr_drive(r, features) == 15);
	}
	vqr_write32(r, 0x070, 0);
	for (uint8_t frame[8]; read(vnet_of(r->dev)->fd, frame, sizeof frame) > 0;)
		;
	fnet_drain(fnet_wire[limited]);
	return 0;
}
