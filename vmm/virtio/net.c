/* Threads and what they share.
 *
 *   loop thread   kick -> a turn at the end of the step; the tap's events -> frames in and out
 *   vCPU thread   reset -> epoch++, wait while the loop thread moves a frame, forget the buffers;
 *                 activate, reset -> vhost-net begins, ends
 *
 * The slot lock (vdev_lock) covers queues, epoch and the buffers held for receiving. It is not held while a
 * frame is moved: the host's whole network stack runs in writev(2). v->lock covers `moving` alone and nests
 * inside the slot lock.
 *
 * (inv 1) Guest memory is touched only while `moving`, or under the slot lock with the epoch still current.
 * (inv 2) While it is not `moving`, reset may change everything; so after each move the epoch is compared. */
#include "vmm/virtio/net.h"

#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "vmm/virtio/vhost.h"

/* Section 5.1.3, feature bits. */
#define VNET_F_CSUM       (UINT64_C(1) << 0)
#define VNET_F_GUEST_CSUM (UINT64_C(1) << 1)
#define VNET_F_MTU        (UINT64_C(1) << 3)
#define VNET_F_MAC        (UINT64_C(1) << 5)
#define VNET_F_GUEST_TSO4 (UINT64_C(1) << 7)
#define VNET_F_GUEST_TSO6 (UINT64_C(1) << 8)
#define VNET_F_GUEST_ECN  (UINT64_C(1) << 9)
#define VNET_F_HOST_TSO4  (UINT64_C(1) << 11)
#define VNET_F_HOST_TSO6  (UINT64_C(1) << 12)
#define VNET_F_HOST_ECN   (UINT64_C(1) << 13)
#define VNET_F_MRG_RXBUF  (UINT64_C(1) << 15)
#define VNET_F_STATUS     (UINT64_C(1) << 16)

/* What the tap sends without asking. */
#define VNET_F_GUEST_ALL (VNET_F_GUEST_CSUM | VNET_F_GUEST_TSO4 | VNET_F_GUEST_TSO6 | VNET_F_GUEST_ECN)
#define VNET_F_HOST_ALL  (VNET_F_CSUM | VNET_F_HOST_TSO4 | VNET_F_HOST_TSO6 | VNET_F_HOST_ECN)

enum { VNET_RX, VNET_TX, VNET_QUEUES };

#define VNET_S_LINK_UP   1
#define VNET_MTU_MIN     68                          /* 5.1.4.1 */
#define VNET_FRAME_MIN   14                          /* an Ethernet header */
#define VNET_FRAME_MAX   (65562u + VNET_HDR_BYTES)   /* 5.1.6.3.1, with the header */
#define VNET_NUM_BUFFERS 10                          /* offset in the header */
#define VNET_BURST       64                          /* frames in one go, then others have their turn */
#define VNET_RX_IOV      512
#define VNET_BUCKET_NS   (100 * NS_PER_MS)

/* 5.1.4, struct virtio_net_config as far as we offer it. */
struct vnet_space {
	uint8_t mac[VNET_MAC_BYTES];
	uint16_t status;
	uint16_t max_virtqueue_pairs;
	uint16_t mtu;
} __attribute__((packed));

/* Bytes that may still go; below zero: wait. */
struct vnet_bucket {
	uint64_t rate; /* bytes per second, 0 = no limit */
	int64_t tokens, size;
	uint64_t at_ns; /* when tokens was right */
};

/* A receive chain that waits for a frame. */
struct vnet_buffer {
	uint16_t head;
	uint16_t niov;
	uint32_t len;
};

/* Chains popped ahead of their frames, for it is not known how long the next one is. The segments of all
 * stand one after the other, as readv() wants them. */
struct vnet_held {
	struct vnet_buffer buf[VQ_MAX];
	unsigned first, n; /* buf[first .. first + n) */
	struct iovec iov[VNET_RX_IOV + 1]; /* and one for what does not fit */
	unsigned iov_first, niov;
	size_t bytes;
};

struct vnet {
	struct vdev dev;
	int fd;
	struct vnet_space space;
	struct watch tap;
	struct timer turn, rx_later, tx_later;
	bool rx_waits, tx_waits; /* for buffers, for a bucket */
	bool tx_blocked;         /* for the tap, or for the next step */
	bool parked;
	uint32_t epoch; /* slot lock */
	struct vnet_bucket rx_bucket, tx_bucket;
	struct vnet_held held;
	struct vq_chain chain; /* the one being looked at */
	uint8_t *spill; /* VNET_FRAME_MAX: the rest of a frame that is too long */

	struct vhost vhost; /* is_running, under the slot lock: nothing above matters */
	struct watch call;  /* what it has to say to the driver; also from us: it has ended */

	pthread_mutex_t lock;
	pthread_cond_t calm;
	bool moving;
};

static struct vnet *vnet_of(struct vdev *d)
{
	return container_of(d, struct vnet, dev);
}

/* --- limits ------------------------------------------------------------------------------------- */

static void vnet_bucket_init(struct vnet_bucket *b, uint64_t bits)
{
	const uint64_t most = INT64_MAX / NS_PER_S; /* so that a product of ours always fits */

	*b = (struct vnet_bucket){ .rate = MIN((bits + 7) / 8, most), .at_ns = clock_mono_ns() };
	b->size = b->tokens = (int64_t)MAX(b->rate / (NS_PER_S / VNET_BUCKET_NS), (uint64_t)1);
}

/* 0: go ahead; else when to try again. */
static uint64_t vnet_bucket_wait(struct vnet_bucket *b)
{
	uint64_t now, ns;

	if (!b->rate)
		return 0;
	now = clock_mono_ns();
	ns = MIN(now - b->at_ns, VNET_BUCKET_NS + NS_PER_S);
	if (b->tokens <= 0 || ns >= NS_PER_MS) { /* not so often that fractions of bytes are lost */
		int64_t more = (int64_t)(b->rate * ns / NS_PER_S);
		b->tokens = MIN(b->tokens + more, b->size);
		b->at_ns = more ? now : b->at_ns;
	}
	if (b->tokens > 0)
		return 0;
	return now + MAX((uint64_t)-b->tokens * NS_PER_S / b->rate, NS_PER_MS);
}

static void vnet_bucket_take(struct vnet_bucket *b, size_t n)
{
	if (b->rate)
		b->tokens -= (int64_t)n;
}

/* --- moving a frame ----------------------------------------------------------------------------- */

/* Slot lock held. */
static void vnet_move_begins(struct vnet *v)
{
	pthread_mutex_lock(&v->lock);
	v->moving = true;
	pthread_mutex_unlock(&v->lock);
}

static void vnet_move_ends(struct vnet *v)
{
	pthread_mutex_lock(&v->lock);
	v->moving = false;
	pthread_cond_signal(&v->calm);
	pthread_mutex_unlock(&v->lock);
}

/* What the tap is watched for follows from who waits for it. */
static void vnet_watch(struct vnet *v)
{
	bool off = v->parked || !v->dev.active || v->vhost.is_running;

	watch_want(&v->tap, off ? 0 : (v->rx_waits ? 0 : EPOLLIN) | (v->tx_blocked ? EPOLLOUT : 0));
}

/* --- to the guest ------------------------------------------------------------------------------- */

static void vnet_forget_held(struct vnet *v)
{
	struct vnet_held *h = &v->held;

	h->first = h->n = h->iov_first = h->niov = 0;
	h->bytes = 0;
}

/* Make the rest of the arrays one free stretch. */
static void vnet_held_tidy(struct vnet_held *h)
{
	memmove(h->buf, h->buf + h->first, h->n * sizeof h->buf[0]);
	memmove(h->iov, h->iov + h->iov_first, h->niov * sizeof h->iov[0]);
	h->first = h->iov_first = 0;
}

static void vnet_held_add(struct vnet_held *h, const struct vq_chain *c)
{
	h->buf[h->first + h->n++] = (struct vnet_buffer){ c->head, (uint16_t)c->nin, c->in_len };
	memcpy(h->iov + h->iov_first + h->niov, c->iov + c->nout, c->nin * sizeof c->iov[0]);
	h->niov += c->nin;
	h->bytes += c->in_len;
}

/* What the next frame may fill: any number of buffers, or one. */
static bool vnet_held_enough(const struct vnet *v)
{
	if (v->dev.features & VNET_F_MRG_RXBUF)
		return v->held.bytes >= VNET_FRAME_MAX;
	return v->held.n > 0;
}

/* Slot lock held. Hold buffers for a frame of any length, if the driver has so much to give; when it has
 * given everything, what there is must do. 1 = there are, 0 = it will notify us, -errno. */
static int vnet_hold(struct vnet *v)
{
	struct vq *q = &v->dev.q[VNET_RX];
	struct vnet_held *h = &v->held;
	struct vq_chain *c = &v->chain;

	while (!vnet_held_enough(v)) {
		int r;
		if (h->n == q->num || (h->n && h->niov + VQ_MAX_IOV > VNET_RX_IOV))
			return q->ready;
		if (h->first + h->n == VQ_MAX || h->iov_first + h->niov + VQ_MAX_IOV > VNET_RX_IOV)
			vnet_held_tidy(h);
		r = vq_pop(q, c);
		if (r < 0)
			return r;
		if (r == 0 && !vq_rearm(q))
			return 0;
		if (r == 0)
			continue;
		if (c->in_len < VNET_HDR_BYTES)
			return -EINVAL;
		vnet_held_add(h, c);
	}
	return q->ready;
}

/* The segments for one frame, and behind them the spill. */
static unsigned vnet_rx_segments(struct vnet *v, struct iovec **iov)
{
	struct vnet_held *h = &v->held;
	bool mrg = v->dev.features & VNET_F_MRG_RXBUF;
	unsigned n = mrg ? h->niov : h->buf[h->first].niov;

	*iov = h->iov + h->iov_first;
	return n;
}

static ssize_t vnet_read(struct vnet *v)
{
	struct iovec *iov, last;
	unsigned n = vnet_rx_segments(v, &iov);
	ssize_t r;

	last = iov[n];
	iov[n] = (struct iovec){ v->spill, VNET_FRAME_MAX };
	r = readv(v->fd, iov, (int)n + 1);
	iov[n] = last;
	return r < 0 ? -errno : r;
}

/* The header's last field, which the tap leaves alone (5.1.6.4). It may lie across segments. */
static void vnet_put_count(const struct vnet_held *h, uint16_t count)
{
	const struct iovec *iov = h->iov + h->iov_first;
	size_t at = VNET_NUM_BUFFERS;

	for (unsigned k = 0; k < sizeof count; k++, at++) {
		while (at >= iov->iov_len)
			at -= (iov++)->iov_len;
		((uint8_t *)iov->iov_base)[at] = (uint8_t)(count >> 8 * k);
	}
}

/* Slot lock held: the first buffers have been filled with n bytes; give them to the driver, all at once.
 * One that is longer than the driver has room for is gone. */
static int vnet_deliver(struct vnet *v, size_t n)
{
	struct vnet_held *h = &v->held;
	struct vq *q = &v->dev.q[VNET_RX];
	unsigned most = v->dev.features & VNET_F_MRG_RXBUF ? h->n : 1, count = 0, iovs = 0;
	size_t left = n, room = 0;

	while (count < most && left) {
		const struct vnet_buffer *b = &h->buf[h->first + count];
		uint32_t k = (uint32_t)MIN(left, (size_t)b->len);
		if (vq_fill(q, (uint16_t)count, b->head, k) < 0)
			return -EFAULT;
		left -= k;
		room += b->len;
		iovs += b->niov;
		count++;
	}
	if (left)
		return 0;
	vnet_put_count(h, (uint16_t)count);
	h->first += count;
	h->n -= count;
	h->iov_first += iovs;
	h->niov -= iovs;
	h->bytes -= room;
	if (vq_publish(q, (uint16_t)count) < 0)
		return -EFAULT;
	vdev_signal(&v->dev, VNET_RX);
	return 0;
}

/* One frame. False: there will be no more for now; rx_waits tells whether for want of buffers. */
static bool vnet_receive_one(struct vnet *v)
{
	struct vdev *d = &v->dev;
	uint32_t epoch;
	ssize_t n;
	int r;

	vdev_lock(d);
	r = d->active && !v->parked ? vnet_hold(v) : 0;
	if (r < 0)
		vdev_broken(d, strerror(-r));
	if (r <= 0) {
		v->rx_waits = true;
		vdev_unlock(d);
		return false;
	}
	epoch = v->epoch;
	vnet_move_begins(v);
	vdev_unlock(d);

	n = vnet_read(v);
	vnet_move_ends(v);

	vdev_lock(d);
	if (n >= VNET_HDR_BYTES && epoch == v->epoch && vnet_deliver(v, (size_t)n) < 0)
		vdev_broken(d, "bad used ring");
	vdev_unlock(d);
	if (n > 0)
		vnet_bucket_take(&v->rx_bucket, (size_t)n);
	return n > 0;
}

static void vnet_on_rx_later(struct timer *t)
{
	struct vnet *v = container_of(t, struct vnet, rx_later);

	v->rx_waits = false;
	vnet_watch(v);
}

static void vnet_receive(struct vnet *v)
{
	for (unsigned i = 0; i < VNET_BURST; i++) {
		uint64_t wait = vnet_bucket_wait(&v->rx_bucket);
		if (wait) {
			v->rx_waits = true;
			timer_start(v->dev.loop, &v->rx_later, wait, vnet_on_rx_later);
			return;
		}
		if (!vnet_receive_one(v))
			return;
	}
}

/* --- from the guest ----------------------------------------------------------------------------- */

/* A frame the host cannot take is dropped, except when it will later: -EAGAIN. */
static int vnet_write(struct vnet *v)
{
	const struct vq_chain *c = &v->chain;

	if (c->out_len < VNET_HDR_BYTES + VNET_FRAME_MIN || c->out_len > VNET_FRAME_MAX)
		return 0;
	if (writev(v->fd, c->iov, (int)c->nout) >= 0)
		return 0;
	return errno == EAGAIN ? -EAGAIN : 0;
}

/* Slot lock held. 1 = v->chain is the next frame, 0 = none, the driver will notify us, -errno. */
static int vnet_pop_tx(struct vnet *v)
{
	struct vq *q = &v->dev.q[VNET_TX];
	int r;

	do
		r = vq_pop(q, &v->chain);
	while (r == 0 && vq_rearm(q));
	return r;
}

/* Slot lock held, a frame has been moved. */
static int vnet_sent(struct vnet *v, int result)
{
	struct vq *q = &v->dev.q[VNET_TX];

	if (result < 0)
		vq_unpop(q);
	else if (vq_push(q, v->chain.head, 0) < 0)
		return -EFAULT;
	return 0;
}

/* One frame. False: no more, or none now (tx_blocked). */
static bool vnet_send_one(struct vnet *v)
{
	struct vdev *d = &v->dev;
	uint32_t epoch;
	int r;

	vdev_lock(d);
	r = d->active && !v->parked ? vnet_pop_tx(v) : 0;
	if (r < 0)
		vdev_broken(d, strerror(-r));
	epoch = v->epoch;
	if (r > 0)
		vnet_move_begins(v);
	vdev_unlock(d);
	if (r <= 0)
		return false;

	r = vnet_write(v);
	vnet_move_ends(v);

	vdev_lock(d);
	if (epoch == v->epoch && vnet_sent(v, r) < 0)
		vdev_broken(d, "bad used ring");
	vdev_unlock(d);
	vnet_bucket_take(&v->tx_bucket, r < 0 ? 0 : v->chain.out_len);
	v->tx_blocked = r < 0;
	return r == 0;
}

static void vnet_on_tx_later(struct timer *t);

static void vnet_send(struct vnet *v)
{
	unsigned i;

	v->tx_blocked = false;
	for (i = 0; i < VNET_BURST && !v->tx_waits; i++) {
		uint64_t wait = vnet_bucket_wait(&v->tx_bucket);
		if (wait) {
			v->tx_waits = true;
			timer_start(v->dev.loop, &v->tx_later, wait, vnet_on_tx_later);
		} else if (!vnet_send_one(v)) {
			break;
		}
	}
	if (i == VNET_BURST) /* there may be more: the tap wakes us in the next step */
		v->tx_blocked = true;
	vdev_lock(&v->dev);
	vdev_signal(&v->dev, VNET_TX);
	vdev_unlock(&v->dev);
}

static void vnet_on_tx_later(struct timer *t)
{
	struct vnet *v = container_of(t, struct vnet, tx_later);

	v->tx_waits = false;
	vnet_send(v);
	vnet_watch(v);
}

/* --- what wakes us ------------------------------------------------------------------------------ */

static void vnet_on_turn(struct timer *t)
{
	struct vnet *v = container_of(t, struct vnet, turn);

	/* New buffers, perhaps; a bucket is waited for elsewhere. */
	if (!v->rx_later.active)
		v->rx_waits = false;
	if (!v->tx_blocked)
		vnet_send(v);
	vnet_watch(v);
}

static void vnet_on_tap(struct watch *w, uint32_t events)
{
	struct vnet *v = container_of(w, struct vnet, tap);

	if (events & (EPOLLERR | EPOLLHUP)) { /* its interface was removed: no frames, ever */
		watch_stop(w);
		vdev_lock(&v->dev);
		v->space.status = 0;
		vdev_config_changed(&v->dev);
		vdev_unlock(&v->dev);
		return;
	}
	if (events & EPOLLIN)
		vnet_receive(v);
	if (events & EPOLLOUT)
		vnet_send(v);
	vnet_watch(v);
}

/* --- vhost-net ---------------------------------------------------------------------------------- */

/* Slot lock held. The kernel hears the driver's kicks now; so do we until the loop thread sees one. */
static int vnet_start_vhost(struct vnet *v)
{
	struct vdev *d = &v->dev;

	if (v->vhost.fd < 0)
		return 0;
	return vhost_start(&v->vhost, d->q, VNET_QUEUES, d->features, vdev_kick_fd(d), v->fd);
}

/* Slot lock held. The loop thread is to listen to kicks again. */
static void vnet_stop_vhost(struct vnet *v)
{
	uint64_t one = 1;

	if (!v->vhost.is_running)
		return;
	vhost_stop(&v->vhost, v->dev.q, VNET_QUEUES);
	if (write(v->vhost.call_fd, &one, sizeof one) < 0) {
		/* EAGAIN: it is awake already */
	}
}

static void vnet_on_call(struct watch *w, uint32_t events)
{
	struct vnet *v = container_of(w, struct vnet, call);
	uint64_t count;

	(void)events;
	if (read(w->fd, &count, sizeof count) < 0)
		return;
	vdev_lock(&v->dev);
	if (v->vhost.is_running)
		vdev_interrupt(&v->dev);
	else
		vdev_hear_kicks(&v->dev, true);
	vdev_unlock(&v->dev);
}

/* --- vdev_ops ----------------------------------------------------------------------------------- */

static uint64_t vnet_features(struct vdev *d)
{
	return VNET_F_MAC | VNET_F_STATUS | VNET_F_MRG_RXBUF | VNET_F_GUEST_ALL | VNET_F_HOST_ALL |
	       (vnet_of(d)->space.mtu ? VNET_F_MTU : 0);
}

static void vnet_config_read(struct vdev *d, uint32_t offset, void *dst, uint32_t len)
{
	const struct vnet_space *s = &vnet_of(d)->space;

	if (offset < sizeof *s)
		memcpy(dst, (const uint8_t *)s + offset, MIN(len, sizeof *s - offset));
}

static int vnet_activate(struct vdev *d)
{
	if ((d->features & VNET_F_GUEST_ALL) != VNET_F_GUEST_ALL)
		return -ENOTSUP;
	return vnet_start_vhost(vnet_of(d));
}

static int vnet_kick(struct vdev *d, unsigned q)
{
	struct vnet *v = vnet_of(d);

	(void)q;
	if (v->vhost.is_running)
		vdev_hear_kicks(d, false);
	else if (!v->parked && !v->turn.active)
		timer_start(d->loop, &v->turn, 0, vnet_on_turn);
	return 0;
}

static void vnet_reset(struct vdev *d)
{
	struct vnet *v = vnet_of(d);

	v->epoch++;
	vnet_stop_vhost(v);
	pthread_mutex_lock(&v->lock);
	while (v->moving)
		pthread_cond_wait(&v->calm, &v->lock);
	pthread_mutex_unlock(&v->lock);
	vnet_forget_held(v);
}

static int vnet_quiesce(struct vdev *d)
{
	struct vnet *v = vnet_of(d);

	vdev_lock(d);
	v->parked = true;
	vnet_stop_vhost(v);
	for (unsigned i = 0; i < v->held.n; i++)
		vq_unpop(&d->q[VNET_RX]);
	vnet_forget_held(v);
	vdev_unlock(d);
	vnet_watch(v);
	return 0;
}

static void vnet_resume(struct vdev *d)
{
	struct vnet *v = vnet_of(d);

	v->parked = false;
	vdev_lock(d);
	if (d->active && vnet_start_vhost(v) < 0)
		vdev_broken(d, "vhost-net does not start again");
	vdev_unlock(d);
	timer_start(d->loop, &v->turn, 0, vnet_on_turn);
}

/* The card as the driver knows it: MAC, u32 MTU. */
static void vnet_save(struct vdev *d, struct buf *out)
{
	const struct vnet *v = vnet_of(d);

	buf_add(out, v->space.mac, sizeof v->space.mac);
	buf_le32(out, v->space.mtu);
}

/* Another tap is behind it now, but the driver is not asked again. */
static int vnet_restore(struct vdev *d, struct cur *in)
{
	struct vnet *v = vnet_of(d);
	uint8_t mac[VNET_MAC_BYTES];
	uint32_t mtu;

	cur_copy(in, mac, sizeof mac);
	mtu = cur_le32(in);
	if (in->bad || !mtu != !v->space.mtu || mtu > UINT16_MAX || (mtu && mtu < VNET_MTU_MIN))
		return -EINVAL;
	memcpy(v->space.mac, mac, sizeof mac);
	v->space.mtu = (uint16_t)mtu;
	return 0;
}

static void vnet_destroy(struct vdev *d)
{
	struct vnet *v = vnet_of(d);

	watch_stop(&v->tap);
	watch_stop(&v->call);
	vhost_fini(&v->vhost);
	timer_stop(&v->turn);
	timer_stop(&v->rx_later);
	timer_stop(&v->tx_later);
	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->calm);
	close(v->fd);
	free(v->spill);
	free(v);
}

static const struct vdev_ops vnet_ops = {
	.name = "net",
	.id = VDEV_NET,
	.nqueues = VNET_QUEUES,
	.features = vnet_features,
	.config_read = vnet_config_read,
	.activate = vnet_activate,
	.kick = vnet_kick,
	.reset = vnet_reset,
	.quiesce = vnet_quiesce,
	.resume = vnet_resume,
	.save = vnet_save,
	.restore = vnet_restore,
	.destroy = vnet_destroy,
};

/* --- making one --------------------------------------------------------------------------------- */

/* Where it cannot be had we do without. */
static int vnet_init_vhost(struct vnet *v, const struct vnet_config *c, struct err *e)
{
	bool limits = c->rx_rate || c->tx_rate;
	int r;

	if (limits && c->vhost_fd >= 0)
		close(c->vhost_fd);
	if (vhost_init(&v->vhost, limits ? -1 : c->vhost_fd, v->dev.mem, e) < 0)
		log_warn("network card is slower than it could be", KV("reason", e->msg));
	if (v->vhost.fd < 0)
		return 0;
	r = watch_start(v->dev.loop, &v->call, v->vhost.call_fd, EPOLLIN, vnet_on_call);
	return r < 0 ? err_set(e, r, "network card: %s", strerror(-r)) : 0;
}

int vnet_new(const struct vnet_config *c, struct loop *loop, const struct gmem *mem, struct vdev **out,
	     struct err *e)
{
	struct vnet *v = mem_zalloc(sizeof *v);
	int r;

	v->dev = (struct vdev){ .ops = &vnet_ops, .mem = mem, .loop = loop };
	v->fd = c->fd;
	v->space = (struct vnet_space){ .status = VNET_S_LINK_UP, .max_virtqueue_pairs = 1,
					.mtu = c->mtu >= VNET_MTU_MIN ? c->mtu : 0 };
	memcpy(v->space.mac, c->mac, sizeof v->space.mac);
	v->spill = mem_zalloc(VNET_FRAME_MAX);
	v->rx_waits = true; /* until the driver's first kick */
	vnet_bucket_init(&v->rx_bucket, c->rx_rate);
	vnet_bucket_init(&v->tx_bucket, c->tx_rate);
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->calm, NULL);
	if ((r = vnet_init_vhost(v, c, e)) == 0 &&
	    (r = watch_start(loop, &v->tap, v->fd, 0, vnet_on_tap)) < 0)
		err_set(e, r, "network card: %s", strerror(-r));
	if (r < 0)
		vnet_destroy(&v->dev);
	else
		*out = &v->dev;
	return r;
}
