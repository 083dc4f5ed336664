#include "vmm/virtio/rng.h"

#include <sys/random.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"

struct vrng {
	struct vdev dev;
	struct timer later; /* loop thread only: the queue was left with requests in it */
};

static struct vrng *vrng_of(struct vdev *d)
{
	return container_of(d, struct vrng, dev);
}

/* Fill the request. Returns bytes written, or -errno when the host has no entropy for us. */
static int vrng_fill(const struct vq_chain *c)
{
	uint32_t want = MIN(c->in_len, VRNG_MAX), done = 0;

	while (done < want) {
		uint8_t bounce[256]; /* getrandom(2): up to 256 bytes come whole */
		ssize_t n = getrandom(bounce, MIN(want - done, sizeof bounce), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (uint32_t)vq_copy_in(c, done, bounce, (size_t)n);
	}
	return (int)done;
}

static int vrng_serve_one(struct vdev *d)
{
	struct vq *q = &d->q[0];
	struct vq_chain c;
	int n = vq_pop(q, &c);

	if (n <= 0)
		return n;
	if (c.nout || c.nin == 0) /* 5.4.6.1: no device-readable buffers, and something to fill */
		return -EINVAL;
	n = vrng_fill(&c);
	if (n < 0)
		return n;
	n = vq_push(q, c.head, (uint32_t)n);
	return n < 0 ? n : 1;
}

static void vrng_later(struct timer *t);

/* Lock held, loop thread. */
static int vrng_serve(struct vdev *d)
{
	int r = 1;

	for (unsigned i = 0; i < VRNG_BURST && r > 0; i++) {
		r = vrng_serve_one(d);
		if (r == 0 && vq_rearm(&d->q[0]))
			r = 1;
	}
	vdev_signal(d, 0);
	if (r > 0)
		timer_start(d->loop, &vrng_of(d)->later, clock_mono_ns() + NS_PER_MS, vrng_later);
	return r < 0 ? r : 0;
}

static void vrng_later(struct timer *t)
{
	struct vdev *d = &container_of(t, struct vrng, later)->dev;

	vdev_lock(d);
	if (d->active && vrng_serve(d) < 0)
		vdev_broken(d, "bad request queue");
	vdev_unlock(d);
}

static int vrng_kick(struct vdev *d, unsigned q)
{
	(void)q;
	return vrng_serve(d);
}

static void vrng_destroy(struct vdev *d)
{
	timer_stop(&vrng_of(d)->later);
	free(vrng_of(d));
}

static const struct vdev_ops vrng_ops = {
	.name = "rng",
	.id = VDEV_RNG,
	.nqueues = 1,
	.kick = vrng_kick,
	.destroy = vrng_destroy,
};

struct vdev *vrng_new(struct loop *loop, const struct gmem *mem)
{
	struct vrng *v = mem_zalloc(sizeof *v);

	v->dev = (struct vdev){ .ops = &vrng_ops, .mem = mem, .loop = loop };
	return &v->dev;
}
