/* vsock_rig.h - a guest's vsock driver in a few lines, for tests and the fuzzer: real guest memory,
 * real queues, real registers (vq_rig.h); the test decides every packet.
 *
 * The receive queue holds `nrx` buffers of `rx_bytes`; vskr_recv() takes the next packet and posts
 * the buffer again unless `hold` is set. */
#pragma once

#include <sys/socket.h>

#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/virtio/vsock_mux.h"
#include "vmm/virtio/vsock_pkt.h"

#define VSKR_RX    0
#define VSKR_TX    1
#define VSKR_EVENT 2

#define VSKR_RAM      MIB(16)
#define VSKR_RX_AT    VQR_DATA           /* buffers of the receive queue */
#define VSKR_TX_AT    (VQR_DATA + MIB(4)) /* 128 packets of up to 68 KiB */
#define VSKR_TX_BYTES KIB(72)
#define VSKR_EVENT_AT MIB(1) + KIB(512)
#define VSKR_CREDIT   (256 * 1024)

struct vskr {
	struct vqr r;
	struct vsk *v;
	unsigned nrx, rx_bytes;
	uint16_t rx_seen, tx_sent, event_seen;
	bool hold; /* do not post receive buffers again */
	struct vsk_hdr h; /* last packet received */
	uint8_t data[66000]; /* its payload */
};

static inline void vskr_post(struct vskr *g, uint16_t i)
{
	struct vqr_seg seg = { VSKR_RX_AT + (gpa_t)(i % g->nrx) * KIB(8), g->rx_bytes, true };

	vqr_add(&g->r, VSKR_RX, &seg, 1);
}

static inline void vskr_post_events(struct vskr *g, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct vqr_seg seg = { VSKR_EVENT_AT + i * 4, 4, true };
		vqr_add(&g->r, VSKR_EVENT, &seg, 1);
	}
}

/* Bring the driver up, as Linux does: all buffers posted. */
static inline void vskr_drive(struct vskr *g)
{
	uint32_t status = vqr_drive(&g->r, VIRTIO_F_RING_EVENT_IDX);
	ASSERT(status == 15);
	g->rx_seen = g->tx_sent = g->event_seen = 0;
	for (unsigned i = 0; i < g->nrx; i++)
		vskr_post(g, (uint16_t)i);
	vskr_post_events(g, 8);
	vqr_kick(&g->r, VSKR_RX);
	vqr_kick(&g->r, VSKR_EVENT);
}

static inline void vskr_init_with(struct vskr *g, unsigned nrx, unsigned rx_bytes,
				  const struct vsk_config *cfg)
{
	struct vdev *d = NULL;
	int err;

	memset(g, 0, sizeof *g);
	g->nrx = nrx;
	g->rx_bytes = rx_bytes;
	vqr_init(&g->r, VSKR_RAM);
	err = vsk_new(&g->r.loop, cfg, &d, NULL);
	ASSERT(err == 0);
	vqr_attach(&g->r, d);
	g->v = container_of(d, struct vsk, vdev);
	vskr_drive(g);
}

static inline void vskr_init(struct vskr *g, unsigned nrx, unsigned rx_bytes)
{
	struct vsk_config cfg = { 0 };

	vskr_init_with(g, nrx, rx_bytes, &cfg);
}

static inline void vskr_fini(struct vskr *g)
{
	vqr_fini(&g->r);
}

/* Let the device have its turns until nothing is left that can happen at once. */
static inline void vskr_settle(struct vskr *g)
{
	for (unsigned i = 0; i < 40; i++)
		loop_step(&g->r.loop, 0);
}

static inline struct vsk_hdr vskr_hdr(uint32_t host_port, uint32_t guest_port, enum vsk_op op)
{
	return (struct vsk_hdr){ .src_cid = VSK_GUEST_CID, .dst_cid = VSK_HOST_CID,
				 .src_port = guest_port, .dst_port = host_port, .type = 1,
				 .op = (uint16_t)op, .buf_alloc = VSKR_CREDIT };
}

/* Publish one packet as one or two descriptors; the device does not look before vskr_kick_tx(). */
static inline void vskr_queue(struct vskr *g, const struct vsk_hdr *h, const void *p, uint32_t n)
{
	gpa_t at = VSKR_TX_AT + g->tx_sent++ % 128 * VSKR_TX_BYTES;
	struct vqr_seg seg[2] = { { at, sizeof *h, false }, { at + sizeof *h, n, false } };

	vqr_put(&g->r, at, h, sizeof *h);
	if (n)
		vqr_put(&g->r, at + sizeof *h, p, n);
	vqr_add(&g->r, VSKR_TX, seg, n ? 2 : 1);
}

/* Ask for an interrupt as soon as the device returns element `i` (used_event, 2.7.7.1). */
static inline void vskr_used_event(struct vskr *g, unsigned k, uint16_t i)
{
	vqr_put16(&g->r, g->r.ring[k].avail + 4 + 2 * (gpa_t)g->r.ring[k].num, i);
}

static inline void vskr_kick_tx(struct vskr *g)
{
	vskr_used_event(g, VSKR_TX, vqr_used_idx(&g->r, VSKR_TX));
	vqr_kick(&g->r, VSKR_TX);
}

static inline void vskr_send(struct vskr *g, const struct vsk_hdr *h, const void *p, uint32_t n)
{
	vskr_queue(g, h, p, n);
	vskr_kick_tx(g);
}

/* One packet of a connection whose peer header `in` was received: answer it. */
static inline struct vsk_hdr vskr_reply_hdr(const struct vsk_hdr *in, enum vsk_op op)
{
	return vskr_hdr(in->src_port, in->dst_port, op);
}

/* The next packet into g->h and g->data, if there is one already. */
static inline bool vskr_poll(struct vskr *g)
{
	struct vqr_used u;
	gpa_t at;

	if (vqr_used_idx(&g->r, VSKR_RX) == g->rx_seen)
		return false;
	u = vqr_used(&g->r, VSKR_RX, g->rx_seen++);
	vskr_used_event(g, VSKR_RX, g->rx_seen);
	vqr_get(&g->r, g->r.ring[VSKR_RX].desc + 16 * (gpa_t)u.id, &at, sizeof at);
	memset(&g->h, 0, sizeof g->h);
	if (u.len >= sizeof g->h) {
		vqr_get(&g->r, at, &g->h, sizeof g->h);
		ASSERT(g->h.len == u.len - sizeof g->h);
		vqr_get(&g->r, at + sizeof g->h, g->data, g->h.len);
	}
	if (!g->hold) {
		vskr_post(g, (uint16_t)((at - VSKR_RX_AT) / KIB(8)));
		/* The device asks for this kick only when it ran out; an idle one does no harm. */
		vqr_write32(&g->r, VMMIO_REG_NOTIFY, VSKR_RX);
	}
	return true;
}

/* Wait for it, `ms` at most. */
static inline bool vskr_recv_in(struct vskr *g, unsigned ms)
{
	uint64_t deadline = clock_mono_ns() + ms * NS_PER_MS;

	while (!vskr_poll(g)) {
		if (clock_mono_ns() > deadline)
			return false;
		loop_step(&g->r.loop, 1);
	}
	return true;
}
static inline bool vskr_recv(struct vskr *g)
{
	return vskr_recv_in(g, 10000);
}

/* --- streams ---------------------------------------------------------------------------------- */

/* What the owner of a stream was told. */
struct vskr_told {
	unsigned opened, closed;
	int err;
	uint32_t port;
};

static inline void vskr_tell(void *arg, uint32_t host_port, enum vmux_event ev, int err)
{
	struct vskr_told *t = arg;

	t->port = host_port;
	if (ev == VMUX_OPENED) {
		ASSERT(!t->opened && !t->closed && err == 0);
		t->opened++;
	} else {
		ASSERT(!t->closed);
		t->closed++;
		t->err = err;
	}
}

/* Open a stream between descriptors and guest port 1024, the guest saying yes. Returns the host
 * port. */
static inline uint32_t vskr_open(struct vskr *g, int in_fd, int out_fd, struct vskr_told *t)
{
	struct vmux_spec s = { .guest_port = 1024, .in_fd = in_fd, .out_fd = out_fd,
			       .fn = vskr_tell, .arg = t };
	int port = vmux_connect(g->r.dev, &s);
	struct vsk_hdr h;
	bool got;

	*t = (struct vskr_told){ 0 };
	ASSERT(port > 0);
	do
		got = vskr_recv(g);
	while (got && g->h.op == VSK_OP_RW); /* other streams may be busy */
	ASSERT(got && g->h.op == VSK_OP_REQUEST && g->h.src_port == (uint32_t)port);
	h = vskr_reply_hdr(&g->h, VSK_OP_RESPONSE);
	vskr_send(g, &h, NULL, 0);
	vskr_settle(g);
	ASSERT(t->opened == 1 && t->port == (uint32_t)port);
	return (uint32_t)port;
}

/* A pair of stream sockets; [1] is what goes to the mux. */
static inline void vskr_pair(int fd[2])
{
	int r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd);
	ASSERT(r == 0);
}
