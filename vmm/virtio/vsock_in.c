#include "vmm/virtio/vsock_mux.h"
#include "vmm/virtio/vsock_pkt.h"

static void vsk_do_response(struct vsk *v, struct vsk_conn *c, struct vq_chain *chain)
{
	(void)chain;
	c->state = VSK_OPEN;
	c->deadline_ns = 0;
	vmux_opened(v->mux, c);
}

static void vsk_do_rst(struct vsk *v, struct vsk_conn *c, struct vq_chain *chain)
{
	(void)chain;
	if (c->state == VSK_CONNECTING)
		vsk_gone(v, c, -ECONNREFUSED);
	else
		vsk_gone(v, c, c->state == VSK_CLOSING ? 0 : -ECONNRESET);
}

static void vsk_do_rw(struct vsk *v, struct vsk_conn *c, struct vq_chain *chain)
{
	uint32_t n = chain->out_len;

	if (n > VSK_BUF_BYTES - (c->rx_cnt - c->fwd_cnt)) { /* beyond its credit, 5.10.6.3 */
		v->bad_packets++;
		vsk_kill(v, c, -EPROTO);
		return;
	}
	c->rx_cnt += n;
	if ((c->host_shut & VSK_SHUT_RCV) || (c->guest_shut & VSK_SHUT_SEND))
		vsk_forwarded(v, c, n); /* nobody wants it */
	else
		vmux_data(v->mux, c, chain);
}

static void vsk_do_credit_update(struct vsk *v, struct vsk_conn *c, struct vq_chain *chain)
{
	(void)v;
	(void)c;
	(void)chain; /* every packet carries credit: see vsk_note_credit() */
}

static void vsk_do_credit_request(struct vsk *v, struct vsk_conn *c, struct vq_chain *chain)
{
	(void)chain;
	c->owed |= VSK_OWE_CREDIT_UPDATE;
	vsk_ready(v, c);
}

#define VSK_IN(state) (1U << (state))
#define VSK_IN_ANY    (VSK_IN(VSK_OFFERED) | VSK_IN(VSK_CONNECTING) | VSK_IN_UP)
#define VSK_IN_UP     (VSK_IN(VSK_OPEN) | VSK_IN(VSK_CLOSING))

/* virtio 1.2 section 5.10.6, operations; REQUEST and SHUTDOWN, which look at the header, are apart.
 * In a state that is not listed the packet is answered with RST. */
static const struct vsk_rule {
	unsigned states;
	void (*fn)(struct vsk *v, struct vsk_conn *c, struct vq_chain *chain);
} vsk_rules[] = {
	[VSK_OP_RESPONSE] = { VSK_IN(VSK_CONNECTING), vsk_do_response },
	[VSK_OP_RST] = { VSK_IN_ANY, vsk_do_rst },
	[VSK_OP_SHUTDOWN] = { VSK_IN_UP, NULL },
	[VSK_OP_RW] = { VSK_IN_UP, vsk_do_rw },
	[VSK_OP_CREDIT_UPDATE] = { VSK_IN_UP, vsk_do_credit_update },
	[VSK_OP_CREDIT_REQUEST] = { VSK_IN_UP, vsk_do_credit_request },
};
#undef VSK_IN
#undef VSK_IN_ANY
#undef VSK_IN_UP

static void vsk_do_shutdown(struct vsk *v, struct vsk_conn *c, const struct vsk_hdr *h)
{
	c->guest_shut |= h->flags & VSK_SHUT_BOTH;
	vmux_guest_shut(v->mux, c);
	if (c->guest_shut == VSK_SHUT_BOTH)
		vsk_kill(v, c, 0); /* RST is the proper answer, 5.10.6.5 */
	else
		vsk_check_over(v, c);
}

static void vsk_do_request(struct vsk *v, const struct vsk_hdr *h, struct vsk_conn *old)
{
	struct vsk_rst no = { h->dst_cid, h->dst_port, h->src_port, h->type };
	struct vsk_conn *c;

	if (old) { /* the guest forgot it: so do we */
		vsk_kill(v, old, -ECONNRESET);
		return;
	}
	c = vmux_offer(v->mux, h->dst_port, h->src_port);
	if (!c) {
		vsk_push_rst(v, &no);
		return;
	}
	c->host_port = h->dst_port;
	c->guest_port = h->src_port;
	c->state = VSK_OFFERED;
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	vsk_insert(v, c);
}

static void vsk_note_credit(struct vsk *v, struct vsk_conn *c, const struct vsk_hdr *h)
{
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (vsk_credit(c))
		c->asked = false;
	vsk_ready(v, c);
}

/* Is the packet one that we could have a connection for? */
static bool vsk_sane(const struct vsk_hdr *h, const struct vq_chain *chain)
{
	return h->dst_cid == VSK_HOST_CID && h->type == VSK_TYPE_STREAM &&
	       h->op > VSK_OP_INVALID && h->op <= VSK_OP_CREDIT_REQUEST &&
	       h->len <= chain->out_len - sizeof *h && (h->op == VSK_OP_RW || h->len == 0);
}

/* Make the readable part of the chain exactly the payload. */
static void vsk_trim(struct vq_chain *chain, size_t skip, uint32_t len)
{
	size_t left = len;

	for (unsigned i = 0; i < chain->nout; i++) {
		struct iovec *s = &chain->iov[i];
		size_t cut = MIN(skip, s->iov_len);

		s->iov_base = (char *)s->iov_base + cut;
		s->iov_len = MIN(s->iov_len - cut, left);
		skip -= cut;
		left -= s->iov_len;
	}
	chain->out_len = len;
}

static void vsk_packet(struct vsk *v, struct vq_chain *chain)
{
	struct vsk_conn *c = NULL;
	struct vsk_hdr h; /* our copy */
	bool sane;

	if (vq_copy_out(chain, 0, &h, sizeof h) < sizeof h || h.src_cid != v->cid) {
		v->bad_packets++; /* nobody to answer to */
		return;
	}
	sane = vsk_sane(&h, chain);
	if (h.dst_cid == VSK_HOST_CID && h.type == VSK_TYPE_STREAM)
		c = vsk_find(v, h.dst_port, h.src_port);
	if (sane && h.op == VSK_OP_REQUEST) {
		vsk_do_request(v, &h, c);
	} else if (sane && c && (vsk_rules[h.op].states & 1U << c->state) &&
		   !(c->owed & VSK_OWE_REQUEST)) {
		vsk_trim(chain, sizeof h, h.len);
		vsk_note_credit(v, c, &h);
		if (h.op == VSK_OP_SHUTDOWN)
			vsk_do_shutdown(v, c, &h);
		else
			vsk_rules[h.op].fn(v, c, chain);
	} else if (c) {
		v->bad_packets++;
		vsk_kill(v, c, -EPROTO);
	} else if (h.op != VSK_OP_RST && (v->event == VSK_EVENT_NONE || h.op == VSK_OP_REQUEST)) {
		/* After a transport reset the driver drops its old connections by itself. */
		struct vsk_rst no = { h.dst_cid, h.dst_port, h.src_port, h.type };
		vsk_push_rst(v, &no);
	}
}

int vsk_tx(struct vsk *v)
{
	struct vq *q = &v->vdev.q[VSK_TX];
	size_t bytes = 0;
	struct vq_chain chain;
	int r;

	for (unsigned n = 0; n < VSK_TX_BATCH && bytes < VSK_TURN_BYTES; n++) {
		while ((r = vq_pop(q, &chain)) == 0)
			if (!vq_rearm(q)) {
				v->tx_more = false;
				return 0;
			}
		if (r < 0)
			return r;
		bytes += chain.out_len;
		vsk_packet(v, &chain);
		if ((r = vq_push(q, chain.head, 0)) < 0)
			return r;
	}
	v->tx_more = true;
	return 0;
}
