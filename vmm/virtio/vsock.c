#include "vmm/virtio/vsock.h"

#include <sys/eventfd.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"

#include "vmm/virtio/vsock_mux.h"
#include "vmm/virtio/vsock_pkt.h"

/* --- the table of connections ----------------------------------------------------------------- */

static struct vsk_conn **vsk_bucket(struct vsk *v, uint32_t host_port, uint32_t guest_port)
{
	uint32_t h = (host_port * UINT32_C(0x9e3779b1)) ^ (guest_port * UINT32_C(0x85ebca6b));

	return &v->bucket[(h ^ h >> 16) % VSK_BUCKETS];
}

struct vsk_conn *vsk_find(struct vsk *v, uint32_t host_port, uint32_t guest_port)
{
	struct vsk_conn *c = *vsk_bucket(v, host_port, guest_port);

	while (c && (c->host_port != host_port || c->guest_port != guest_port))
		c = c->hash_next;
	return c;
}

void vsk_insert(struct vsk *v, struct vsk_conn *c)
{
	struct vsk_conn **at = vsk_bucket(v, c->host_port, c->guest_port);

	c->chunk = VSK_CHUNK_MIN;
	c->hash_next = *at;
	*at = c;
}

static void vsk_remove(struct vsk *v, struct vsk_conn *c)
{
	struct vsk_conn **at = vsk_bucket(v, c->host_port, c->guest_port);

	while (*at != c)
		at = &(*at)->hash_next;
	*at = c->hash_next;
}

void vsk_unqueue(struct vsk *v, struct vsk_conn *c)
{
	struct vsk_conn **at = &v->run_head, *before = NULL;

	if (!c->queued)
		return;
	while (*at != c) {
		before = *at;
		at = &before->run_next;
	}
	*at = c->run_next;
	if (v->run_tail == c)
		v->run_tail = before;
	c->queued = false;
}

static void vsk_enqueue(struct vsk *v, struct vsk_conn *c)
{
	c->queued = true;
	c->run_next = NULL;
	if (v->run_head)
		v->run_tail->run_next = c;
	else
		v->run_head = c;
	v->run_tail = c;
}

/* --- what the host side asks for -------------------------------------------------------------- */

uint32_t vsk_credit(const struct vsk_conn *c)
{
	uint32_t in_flight = c->tx_cnt - c->peer_fwd;

	/* A guest that claims to have taken more than was sent ends here too: no credit. */
	return in_flight < c->peer_alloc ? c->peer_alloc - in_flight : 0;
}

bool vsk_can_send(const struct vsk_conn *c)
{
	return c->state == VSK_OPEN && c->readable && vsk_credit(c) &&
	       !(c->host_shut & VSK_SHUT_SEND) && !(c->guest_shut & VSK_SHUT_RCV);
}

void vsk_ready(struct vsk *v, struct vsk_conn *c)
{
	if (c->state == VSK_OPEN && c->readable && !vsk_credit(c) && !c->asked) {
		c->asked = true;
		c->owed |= VSK_OWE_CREDIT_REQUEST;
	}
	if (!c->queued && (c->owed || vsk_can_send(c)))
		vsk_enqueue(v, c);
}

static void vsk_deadline(struct vsk *v, struct vsk_conn *c, uint32_t ms)
{
	c->wait_ms = ms;
	c->deadline_ns = clock_mono_ns() + ms * NS_PER_MS;
	if (!v->quiet && (!v->expire.active || v->expire.deadline_ns > c->deadline_ns))
		timer_start(v->vdev.loop, &v->expire, c->deadline_ns, v->expire.fn);
}

void vsk_connect(struct vsk *v, struct vsk_conn *c, uint32_t timeout_ms)
{
	do {
		c->host_port = v->port_next;
		v->port_next = VSK_PORT_FIRST + (v->port_next + 1) % VSK_PORT_COUNT;
	} while (vmux_port_used(v->mux, c));
	c->state = VSK_CONNECTING;
	c->owed = VSK_OWE_REQUEST;
	vsk_insert(v, c);
	vsk_deadline(v, c, timeout_ms);
	vsk_ready(v, c);
	vsk_soon(v);
}

void vsk_accept(struct vsk *v, struct vsk_conn *c)
{
	c->state = VSK_OPEN;
	c->owed |= VSK_OWE_RESPONSE;
	vsk_ready(v, c);
}

/* When too many are owed, this one is forgotten: a guest that goes on talking to a
 * connection we do not know earns itself another. */
void vsk_push_rst(struct vsk *v, const struct vsk_rst *r)
{
	if (v->rst_n == VSK_RSTS) {
		v->lost_resets++;
		return;
	}
	v->rst[(v->rst_at + v->rst_n++) % VSK_RSTS] = *r;
}

void vsk_gone(struct vsk *v, struct vsk_conn *c, int why)
{
	vsk_remove(v, c);
	vsk_unqueue(v, c);
	c->state = VSK_GONE;
	c->owed = 0;
	c->deadline_ns = 0;
	vmux_gone(v->mux, c, why);
}

void vsk_kill(struct vsk *v, struct vsk_conn *c, int why)
{
	struct vsk_rst r = { VSK_HOST_CID, c->host_port, c->guest_port, VSK_TYPE_STREAM };

	if (c->state == VSK_GONE)
		return;
	if (!(c->owed & VSK_OWE_REQUEST)) /* else the guest has not heard of it */
		vsk_push_rst(v, &r);
	vsk_gone(v, c, why);
	vsk_soon(v);
}

/* A direction is over when either side said so or there is nothing behind it. When both are, say
 * goodbye completely, so that the guest answers with RST and forgets (5.10.6.5). */
void vsk_check_over(struct vsk *v, struct vsk_conn *c)
{
	bool in = c->no_in || (c->host_shut & VSK_SHUT_SEND) || (c->guest_shut & VSK_SHUT_RCV);
	bool out = c->no_out || (c->host_shut & VSK_SHUT_RCV) || (c->guest_shut & VSK_SHUT_SEND);

	if (c->state == VSK_OPEN && in && out && (c->host_shut || c->guest_shut)) {
		c->state = VSK_CLOSING;
		c->host_shut = VSK_SHUT_BOTH;
		c->owed |= VSK_OWE_SHUTDOWN;
		vsk_deadline(v, c, VSK_SHUTDOWN_MS);
	}
	vsk_ready(v, c);
}

void vsk_shutdown(struct vsk *v, struct vsk_conn *c, unsigned flags)
{
	if (c->state != VSK_OPEN || (c->host_shut | flags) == c->host_shut)
		return;
	c->host_shut |= (uint8_t)flags;
	c->owed |= VSK_OWE_SHUTDOWN;
	vsk_check_over(v, c);
}

void vsk_forwarded(struct vsk *v, struct vsk_conn *c, uint32_t n)
{
	c->fwd_cnt += n;
	if (c->state == VSK_OPEN && c->fwd_cnt - c->fwd_told >= VSK_CREDIT_STEP) {
		c->owed |= VSK_OWE_CREDIT_UPDATE;
		vsk_ready(v, c);
	}
}

/* --- transport reset event, 5.10.6.7 ---------------------------------------------------------- */

/* Where the published entries end, none taken; asks to be notified of the next one behind them. */
static int vsk_find_tail(struct vq *q, uint16_t *tail)
{
	uint16_t at = q->next_avail;
	bool more = true;

	for (unsigned n = 0; more && n < VQ_MAX; n++) {
		if (vq_backlog(q) > q->num)
			return -EINVAL;
		*tail = q->next_avail = (uint16_t)(at + vq_backlog(q));
		more = vq_rearm(q);
		q->next_avail = at;
	}
	return 0;
}

/* Give the driver the event if it has a buffer for it. The tail is taken before: the driver returns
 * the buffer when it has dropped its connections, and then the tail has moved. */
static int vsk_event_push(struct vsk *v)
{
	struct vq *q = &v->vdev.q[VSK_EVENT];
	const uint32_t transport_reset = 0; /* VIRTIO_VSOCK_EVENT_TRANSPORT_RESET */
	struct vq_chain chain;
	uint16_t tail;
	int r = vsk_find_tail(q, &tail);

	if (r < 0)
		return r;
	for (unsigned n = 0; n < VQ_MAX && v->event == VSK_EVENT_DUE; n++) {
		size_t len;

		if ((r = vq_pop(q, &chain)) <= 0)
			return r;
		len = vq_copy_in(&chain, 0, &transport_reset, sizeof transport_reset);
		if (len == sizeof transport_reset) {
			v->event = VSK_EVENT_PUSHED;
			v->event_tail = tail;
		}
		if ((r = vq_push(q, chain.head, (uint32_t)len)) < 0)
			return r;
	}
	return 0;
}

static int vsk_event_kicked(struct vsk *v)
{
	uint16_t tail;
	int r;

	if (v->event != VSK_EVENT_PUSHED)
		return 0;
	if ((r = vsk_find_tail(&v->vdev.q[VSK_EVENT], &tail)) < 0)
		return r;
	if (tail != v->event_tail)
		v->event = VSK_EVENT_NONE;
	return 0;
}

/* --- turns ------------------------------------------------------------------------------------ */

/* Any thread. */
static void vsk_wake(struct vsk *v)
{
	uint64_t one = 1;

	if (write(v->wake.fd, &one, sizeof one) < 0) {
		/* EAGAIN: the counter is full, so a wake-up is pending anyway. */
	}
}

void vsk_soon(struct vsk *v)
{
	if (v->in_turn)
		v->again = true;
	else if (!v->turn.active)
		timer_start(v->vdev.loop, &v->turn, 0, v->turn.fn);
}

/* Walk the table; fn may take the connection out of it. */
static void vsk_each(struct vsk *v, void (*fn)(struct vsk *v, struct vsk_conn *c))
{
	for (unsigned i = 0; i < VSK_BUCKETS; i++)
		for (struct vsk_conn *c = v->bucket[i], *next; c; c = next) {
			next = c->hash_next;
			fn(v, c);
		}
}

static void vsk_drop(struct vsk *v, struct vsk_conn *c)
{
	if (!(c->owed & VSK_OWE_REQUEST)) /* what the guest has not seen may wait for it */
		vsk_gone(v, c, -ECONNRESET);
}

/* The driver was reset, or told to forget everything: so do we. Lock held. */
static void vsk_sync(struct vsk *v)
{
	if (v->epoch_seen == v->epoch)
		return;
	v->epoch_seen = v->epoch;
	v->rst_n = 0;
	vsk_each(v, vsk_drop);
}

/* Lock held. */
static int vsk_exchange(struct vsk *v)
{
	int r = 0;

	vsk_sync(v);
	if (!v->vdev.active) {
		v->tx_more = v->rx_more = false;
		return 0;
	}
	if (v->event == VSK_EVENT_DUE)
		r = vsk_event_push(v);
	if (r >= 0 && v->tx_more)
		r = vsk_tx(v);
	if (r >= 0)
		r = vsk_rx(v);
	return r;
}

static void vsk_turn(struct vsk *v)
{
	struct vdev *d = &v->vdev;
	bool more;
	int r;

	if (v->quiet || !d->slot)
		return;
	v->in_turn = true;
	v->again = false;
	vmux_io(v->mux);
	vdev_lock(d);
	if ((r = vsk_exchange(v)) < 0)
		vdev_broken(d, strerror(-r));
	for (unsigned q = 0; q < VSK_NQUEUES; q++)
		vdev_signal(d, q);
	vdev_unlock(d);
	more = vmux_report(v->mux);
	v->in_turn = false;
	/* Through epoll rather than at once: others on this loop get their share. */
	if (r >= 0 && (more || v->again || v->tx_more || v->rx_more))
		vsk_wake(v);
}

static void vsk_turn_due(struct timer *t)
{
	vsk_turn(container_of(t, struct vsk, turn));
}

static void vsk_woken(struct watch *w, uint32_t events)
{
	uint64_t count;

	(void)events;
	if (read(w->fd, &count, sizeof count) < 0)
		return;
	vsk_soon(container_of(w, struct vsk, wake));
}

static void vsk_expire_one(struct vsk *v, struct vsk_conn *c)
{
	if (!c->deadline_ns)
		return;
	if (c->deadline_ns <= clock_mono_ns())
		vsk_kill(v, c, c->state == VSK_CLOSING ? 0 : -ETIMEDOUT);
	else if (!v->expire.active || v->expire.deadline_ns > c->deadline_ns)
		timer_start(v->vdev.loop, &v->expire, c->deadline_ns, v->expire.fn);
}

static void vsk_expired(struct timer *t)
{
	struct vsk *v = container_of(t, struct vsk, expire);

	vsk_each(v, vsk_expire_one);
	vsk_soon(v);
}

/* --- the device as the transport sees it ------------------------------------------------------ */

static void vsk_config_read(struct vdev *d, uint32_t offset, void *dst, uint32_t len)
{
	struct vsk *v = container_of(d, struct vsk, vdev);
	uint64_t cid = v->cid; /* struct virtio_vsock_config, 5.10.4 */

	memset(dst, 0, len);
	if (offset < sizeof cid)
		memcpy(dst, (const char *)&cid + offset, MIN(len, sizeof cid - offset));
}

static int vsk_activate(struct vdev *d)
{
	vsk_wake(container_of(d, struct vsk, vdev)); /* requests may be waiting */
	return 0;
}

static void vsk_reset(struct vdev *d)
{
	struct vsk *v = container_of(d, struct vsk, vdev);

	v->epoch++;
	v->event = VSK_EVENT_NONE; /* a driver that starts afresh has nothing to forget */
	vsk_wake(v);
}

static int vsk_kick(struct vdev *d, unsigned q)
{
	struct vsk *v = container_of(d, struct vsk, vdev);
	int r = 0;

	vsk_soon(v);
	if (v->quiet) /* resume() looks at all queues */
		return 0;
	vsk_sync(v);
	if (q == VSK_TX)
		r = vsk_tx(v); /* not in the turn: bytes reach the host side earlier so */
	else if (q == VSK_EVENT)
		r = vsk_event_kicked(v);
	return r;
}

static int vsk_quiesce(struct vdev *d)
{
	struct vsk *v = container_of(d, struct vsk, vdev);

	v->quiet = true; /* nothing is in flight between two turns */
	timer_stop(&v->expire);
	return 0;
}

static void vsk_rearm_deadline(struct vsk *v, struct vsk_conn *c)
{
	if (c->deadline_ns) /* the guest could not answer while it was paused */
		vsk_deadline(v, c, c->wait_ms);
}

static void vsk_resume(struct vdev *d)
{
	struct vsk *v = container_of(d, struct vsk, vdev);

	v->quiet = false;
	v->tx_more = true;
	vsk_each(v, vsk_rearm_deadline);
	vmux_resume(v->mux);
	vsk_soon(v);
}

/* Saved state: u64 cid, u32 next host port, u32 flags. */
#define VSK_SAVED_RESET 1 /* the guest knows connections that no clone will have */

static void vsk_save(struct vdev *d, struct buf *out)
{
	struct vsk *v = container_of(d, struct vsk, vdev);
	bool reset = v->event != VSK_EVENT_NONE || v->rst_n;

	for (unsigned i = 0; i < VSK_BUCKETS; i++)
		for (const struct vsk_conn *c = v->bucket[i]; c; c = c->hash_next)
			reset |= !(c->owed & VSK_OWE_REQUEST);
	buf_le64(out, v->cid);
	buf_le32(out, v->port_next);
	buf_le32(out, reset ? VSK_SAVED_RESET : 0);
}

static int vsk_restore(struct vdev *d, struct cur *in)
{
	struct vsk *v = container_of(d, struct vsk, vdev);
	uint64_t cid = cur_le64(in);
	uint32_t port = cur_le32(in), flags = cur_le32(in);

	if (in->bad || port < VSK_PORT_FIRST || port - VSK_PORT_FIRST >= VSK_PORT_COUNT ||
	    (flags & ~(uint32_t)VSK_SAVED_RESET))
		return -EINVAL;
	v->port_next = VSK_PORT_FIRST + (port + v->port_seed) % VSK_PORT_COUNT;
	if (cid != v->cid || (flags & VSK_SAVED_RESET))
		v->event = VSK_EVENT_DUE; /* the turn after activate() pushes it */
	return 0;
}

ONLY_TESTED void vsk_reset_event(struct vdev *d)
{
	struct vsk *v = container_of(d, struct vsk, vdev);

	vdev_lock(d);
	v->epoch++;
	v->event = VSK_EVENT_DUE;
	vdev_unlock(d);
	vsk_soon(v);
}

static void vsk_destroy(struct vdev *d)
{
	struct vsk *v = container_of(d, struct vsk, vdev);
	int fd = v->wake.fd;

	timer_stop(&v->turn);
	timer_stop(&v->expire);
	watch_stop(&v->wake);
	if (fd >= 0)
		close(fd);
	vmux_free(v->mux);
	free(v);
}

static const struct vdev_ops vsk_ops = {
	.name = "vsock",
	.id = VDEV_VSOCK,
	.nqueues = VSK_NQUEUES,
	.config_read = vsk_config_read,
	.activate = vsk_activate,
	.kick = vsk_kick,
	.reset = vsk_reset,
	.quiesce = vsk_quiesce,
	.resume = vsk_resume,
	.save = vsk_save,
	.restore = vsk_restore,
	.destroy = vsk_destroy,
};

int vsk_new(struct loop *loop, const struct vsk_config *cfg, struct vdev **out, struct err *e)
{
	struct vsk *v = mem_zalloc(sizeof *v);
	int r, fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	v->vdev.ops = &vsk_ops;
	v->vdev.loop = loop;
	v->cid = cfg->guest_cid ? cfg->guest_cid : VSK_GUEST_CID;
	v->port_seed = cfg->port_seed;
	v->port_next = VSK_PORT_FIRST + cfg->port_seed % VSK_PORT_COUNT;
	v->turn.fn = vsk_turn_due;
	v->expire.fn = vsk_expired;
	v->wake.fd = fd;
	v->mux = vmux_new(v);
	r = fd < 0 ? -errno : watch_start(loop, &v->wake, fd, EPOLLIN, vsk_woken);
	if (r < 0) {
		vsk_destroy(&v->vdev);
		return err_set(e, r, "vsock wake-up: %s", strerror(-r));
	}
	*out = &v->vdev;
	return 0;
}

