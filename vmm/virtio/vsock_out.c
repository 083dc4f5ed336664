#include "vmm/virtio/vsock_mux.h"
#include "vmm/virtio/vsock_pkt.h"

/* In the order in which they are sent. Data goes between the opening ones and the others: SHUTDOWN
 * (SEND) is owed only after the last byte, and data tells our credit, which saves an update. */
static const struct vsk_owe {
	uint8_t bit;
	enum vsk_op op;
} vsk_opening[] = { { VSK_OWE_REQUEST, VSK_OP_REQUEST }, { VSK_OWE_RESPONSE, VSK_OP_RESPONSE } },
  vsk_other[] = {
	  { VSK_OWE_SHUTDOWN, VSK_OP_SHUTDOWN },
	  { VSK_OWE_CREDIT_UPDATE, VSK_OP_CREDIT_UPDATE },
	  { VSK_OWE_CREDIT_REQUEST, VSK_OP_CREDIT_REQUEST },
  };

size_t vsk_scatter(const struct iovec *iov, unsigned niov, const void *src, size_t n)
{
	size_t done = 0;

	for (unsigned i = 0; i < niov && done < n; i++) {
		size_t k = MIN(n - done, iov[i].iov_len);
		memcpy(iov[i].iov_base, (const char *)src + done, k);
		done += k;
	}
	return done;
}

/* The n chains popped last were not used: they go back to the front of the queue. */
static void vsk_unpop(struct vq *q, unsigned n)
{
	while (n--)
		vq_unpop(q);
}

/* The next receive buffer with room for a header and `more` bytes. 0 = none: the driver will notify
 * us when there is. Smaller ones are handed back empty. */
static int vsk_pop_rx(struct vsk *v, struct vq_chain *chain, uint32_t more)
{
	struct vq *q = &v->vdev.q[VSK_RX];

	for (unsigned n = 0; n < VQ_MAX; n++) {
		int r = vq_pop(q, chain);
		if (r < 0)
			return r;
		if (r == 0 && !vq_rearm(q))
			return 0;
		if (r == 0)
			continue;
		if (chain->in_len >= sizeof(struct vsk_hdr) + more)
			return 1;
		v->bad_packets++;
		if ((r = vq_push(q, chain->head, 0)) < 0)
			return r;
	}
	v->rx_more = true; /* a driver that plays games gets its next chance in the next turn */
	return 0;
}

static struct vsk_hdr vsk_header(struct vsk *v, struct vsk_conn *c, enum vsk_op op, uint32_t len)
{
	c->fwd_told = c->fwd_cnt;
	c->owed &= (uint8_t)~VSK_OWE_CREDIT_UPDATE; /* this packet tells it */
	return (struct vsk_hdr){
		.src_cid = VSK_HOST_CID,
		.dst_cid = v->cid,
		.src_port = c->host_port,
		.dst_port = c->guest_port,
		.len = len,
		.type = VSK_TYPE_STREAM,
		.op = (uint16_t)op,
		.flags = op == VSK_OP_SHUTDOWN ? c->host_shut : 0,
		.buf_alloc = VSK_BUF_BYTES,
		.fwd_cnt = c->fwd_cnt,
	};
}

/* Send a packet without payload. 1, 0 = no buffer, -errno. */
static int vsk_send_bare(struct vsk *v, const struct vsk_hdr *h)
{
	struct vq_chain chain;
	int r = vsk_pop_rx(v, &chain, 0);

	if (r <= 0)
		return r;
	vq_copy_in(&chain, 0, h, sizeof *h);
	r = vq_push(&v->vdev.q[VSK_RX], chain.head, sizeof *h);
	return r < 0 ? r : 1;
}

static int vsk_send_resets(struct vsk *v)
{
	while (v->rst_n) {
		const struct vsk_rst *t = &v->rst[v->rst_at];
		struct vsk_hdr h = { .src_cid = t->host_cid,	 .dst_cid = v->cid,
				     .src_port = t->host_port,	 .dst_port = t->guest_port,
				     .type = t->type,		 .op = VSK_OP_RST };
		int r = vsk_send_bare(v, &h);
		if (r <= 0)
			return r;
		v->rst_at = (v->rst_at + 1) % VSK_RSTS;
		v->rst_n--;
	}
	return 1;
}

static int vsk_send_owed(struct vsk *v, struct vsk_conn *c, const struct vsk_owe *o, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct vsk_hdr h;
		int r;

		if (!(c->owed & o[i].bit))
			continue;
		h = vsk_header(v, c, o[i].op, 0);
		r = vsk_send_bare(v, &h);
		if (r <= 0) {
			c->owed |= o[i].bit;
			return r;
		}
		c->owed &= (uint8_t)~o[i].bit;
	}
	return 1;
}

/* Several receive buffers about to be filled with one read: where their headers go, and where the
 * payload goes. Linux posts 4 KiB buffers, so 17 of them carry 64 KiB. */
struct vsk_batch {
	unsigned n, nhdr, ndata;
	size_t room; /* bytes of payload */
	struct {
		uint16_t head;
		uint16_t nhdr; /* its share of hdr[] */
		uint32_t room;
	} buf[20];
	struct iovec hdr[64];		  /* one chain needs 44 at most */
	struct iovec data[VQ_MAX_IOV + 32]; /* one chain needs VQ_MAX_IOV at most */
};

/* False: no place left in the batch. The first chain always finds some. */
static bool vsk_batch_add(struct vsk_batch *b, const struct vq_chain *chain)
{
	const struct iovec *in = chain->iov + chain->nout;
	size_t left = sizeof(struct vsk_hdr);
	unsigned nhdr = b->nhdr, ndata = b->ndata;

	if (b->n == ARRAY_LEN(b->buf))
		return false;
	for (unsigned i = 0; i < chain->nin; i++) {
		size_t k = MIN(left, in[i].iov_len);

		if ((k && nhdr == ARRAY_LEN(b->hdr)) ||
		    (k < in[i].iov_len && ndata == ARRAY_LEN(b->data)))
			return false;
		if (k)
			b->hdr[nhdr++] = (struct iovec){ in[i].iov_base, k };
		if (k < in[i].iov_len)
			b->data[ndata++] = (struct iovec){ (char *)in[i].iov_base + k,
							   in[i].iov_len - k };
		left -= k;
	}
	b->buf[b->n].head = chain->head;
	b->buf[b->n].nhdr = (uint16_t)(nhdr - b->nhdr);
	b->buf[b->n].room = chain->in_len - (uint32_t)sizeof(struct vsk_hdr);
	b->room += b->buf[b->n++].room;
	b->nhdr = nhdr;
	b->ndata = ndata;
	return true;
}

/* Collect receive buffers for `want` bytes, or as many as there are. 1, 0 = none, -errno. */
static int vsk_batch_fill(struct vsk *v, struct vsk_batch *b, uint32_t want)
{
	struct vq *q = &v->vdev.q[VSK_RX];
	struct vq_chain chain;
	int r = vsk_pop_rx(v, &chain, 1);

	b->n = b->nhdr = b->ndata = 0;
	b->room = 0;
	for (; r == 1; r = vq_pop(q, &chain)) {
		if (chain.in_len <= sizeof(struct vsk_hdr) || !vsk_batch_add(b, &chain)) {
			vsk_unpop(q, 1);
			break;
		}
		if (b->room >= want)
			break;
	}
	if (r < 0)
		return r;
	for (size_t over = b->room > want ? b->room - want : 0; over;) {
		struct iovec *last = &b->data[b->ndata - 1];
		size_t k = MIN(over, last->iov_len);
		last->iov_len -= k;
		over -= k;
		b->ndata -= last->iov_len == 0;
	}
	return b->n ? 1 : 0;
}

/* Hand n filled bytes of the batch over as packets, and the rest of the buffers back. */
static int vsk_batch_send(struct vsk *v, struct vsk_conn *c, const struct vsk_batch *b, size_t n)
{
	struct vq *q = &v->vdev.q[VSK_RX];
	const struct iovec *hdr = b->hdr;
	unsigned i;

	for (i = 0; n; i++) {
		uint32_t len = (uint32_t)MIN(n, b->buf[i].room);
		struct vsk_hdr h = vsk_header(v, c, VSK_OP_RW, len);
		int r;

		vsk_scatter(hdr, b->buf[i].nhdr, &h, sizeof h);
		hdr += b->buf[i].nhdr;
		if ((r = vq_push(q, b->buf[i].head, (uint32_t)sizeof h + len)) < 0)
			return r;
		c->tx_cnt += len;
		n -= len;
	}
	vsk_unpop(q, b->n - i);
	return 1;
}

/* One read from the host side, as many packets as that gives. 1, 0 = no buffers, -errno. */
static int vsk_send_data(struct vsk *v, struct vsk_conn *c, size_t *sent)
{
	uint32_t want = MIN(vsk_credit(c), c->chunk);
	struct vsk_batch b;
	size_t n;
	int r = vsk_batch_fill(v, &b, want);

	if (r <= 0)
		return r;
	n = vmux_fill(v->mux, c, b.data, b.ndata);
	ASSERT(n <= b.room && n <= want);
	if (n == want)
		c->chunk = MIN(c->chunk * 4, VSK_CHUNK_MAX);
	else if (n <= VSK_CHUNK_MIN)
		c->chunk = VSK_CHUNK_MIN;
	*sent += n;
	return vsk_batch_send(v, c, &b, n);
}

/* All that is owed on c and one batch of data. 1, 0 = no buffers, -errno. */
static int vsk_serve(struct vsk *v, struct vsk_conn *c, size_t *sent)
{
	int r = vsk_send_owed(v, c, vsk_opening, ARRAY_LEN(vsk_opening));

	if (r == 1 && vsk_can_send(c))
		r = vsk_send_data(v, c, sent);
	if (r == 1)
		r = vsk_send_owed(v, c, vsk_other, ARRAY_LEN(vsk_other));
	return r;
}

int vsk_rx(struct vsk *v)
{
	size_t sent = 0;
	int r;

	v->rx_more = false;
	if (v->event != VSK_EVENT_NONE)
		return 0;
	if ((r = vsk_send_resets(v)) <= 0)
		return r;
	while (v->run_head) {
		struct vsk_conn *c = v->run_head;

		if (sent >= VSK_TURN_BYTES) {
			v->rx_more = true;
			return 0;
		}
		if ((r = vsk_serve(v, c, &sent)) <= 0)
			return r;
		vsk_unqueue(v, c);
		vsk_ready(v, c); /* more to say: behind the others */
	}
	return 0;
}
