#include "vmm/virtio/balloon.h"

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"

/* Section 5.5.3, feature bits. */
#define VBAL_F_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define VBAL_F_REPORTING      (UINT64_C(1) << 5)

/* Queues, as numbered with these features (balloon.h). */
enum vbal_queue { VBAL_Q_INFLATE, VBAL_Q_DEFLATE, VBAL_Q_REPORT, VBAL_QUEUES };

/* Section 5.5.4, struct virtio_balloon_config; little-endian, as is this host. */
struct vbal_space {
	uint32_t num_pages;
	uint32_t actual;
	uint32_t free_page_hint_cmd_id;
	uint32_t poison_val;
};

struct vbal {
	struct vdev dev;
	struct vbal_space space;
	struct vbal_stats count; /* all but target and actual */
	struct timer later;      /* loop thread only: a queue was left with requests in it */
};

static struct vbal *vbal_of(struct vdev *d)
{
	return container_of(d, struct vbal, dev);
}

static uint32_t vbal_ram_pages(const struct vbal *v)
{
	return (uint32_t)MIN(v->dev.mem->bytes / GMEM_PAGE, UINT32_MAX);
}

/* --- what a request says ---------------------------------------------------------------------- */

/* Drop `n` pages from pfn on. */
static void vbal_drop(struct vbal *v, uint32_t pfn, uint32_t n)
{
	if (gmem_discard(v->dev.mem, pfn * GMEM_PAGE, n * GMEM_PAGE) < 0)
		v->count.refused += n;
	else
		v->count.inflated_pages += n;
}

/* Drop a list of pages. Drivers give up neighbours one after the other, upwards or downwards; each
 * run costs one system call, and one mapping where gmem_discard() has to make one. */
static void vbal_drop_list(struct vbal *v, const uint32_t *pfn, unsigned n)
{
	for (unsigned i = 0, run; i < n; i += run) {
		uint32_t first = pfn[i];

		run = 1;
		while (i + run < n && pfn[i + run] == pfn[i] + run && pfn[i + run] > first)
			run++;
		if (run == 1)
			while (i + run < n && pfn[i + run] == first - 1 && first > 0) {
				first--;
				run++;
			}
		vbal_drop(v, first, run);
	}
}

static void vbal_inflate(struct vbal *v, const struct vq_chain *c)
{
	uint32_t pfn[VBAL_MAX_PFNS]; /* our copy */
	uint32_t named = c->out_len / sizeof *pfn, n = MIN(named, VBAL_MAX_PFNS);

	vq_copy_out(c, 0, pfn, n * sizeof *pfn);
	vbal_drop_list(v, pfn, n);
	v->count.refused += named - n;
}

static void vbal_deflate(struct vbal *v, const struct vq_chain *c)
{
	/* "Merely a courtesy" (5.5.6): the pages come back when they are touched. */
	v->count.deflated_pages += c->out_len / sizeof(uint32_t);
}

/* Free blocks, as device-writable buffers that nobody writes to. */
static void vbal_report(struct vbal *v, const struct vq_chain *c)
{
	for (unsigned i = 0; i < c->nin; i++) {
		const struct iovec *block = &c->iov[c->nout + i];
		gpa_t gpa = gmem_gpa(v->dev.mem, block->iov_base);

		if (gpa % GMEM_PAGE || block->iov_len % GMEM_PAGE ||
		    gmem_discard(v->dev.mem, gpa, block->iov_len) < 0)
			v->count.refused++;
		else
			v->count.reported_bytes += block->iov_len;
	}
}

static void (*const vbal_serve_chain[VBAL_QUEUES])(struct vbal *v, const struct vq_chain *c) = {
	[VBAL_Q_INFLATE] = vbal_inflate,
	[VBAL_Q_DEFLATE] = vbal_deflate,
	[VBAL_Q_REPORT] = vbal_report,
};

/* --- queues ----------------------------------------------------------------------------------- */

static int vbal_serve_one(struct vbal *v, unsigned q)
{
	struct vq_chain c;
	int r = vq_pop(&v->dev.q[q], &c);

	if (r <= 0)
		return r;
	vbal_serve_chain[q](v, &c);
	/* Length 0: we wrote nothing, and make no promise about the content of reported pages. */
	r = vq_push(&v->dev.q[q], c.head, 0);
	return r < 0 ? r : 1;
}

static void vbal_later(struct timer *t);

/* Lock held, loop thread. */
static int vbal_serve(struct vbal *v, unsigned q)
{
	struct vdev *d = &v->dev;
	int r = 1;

	for (unsigned i = 0; i < VBAL_BURST && r > 0; i++) {
		r = vbal_serve_one(v, q);
		if (r == 0 && vq_rearm(&d->q[q]))
			r = 1;
	}
	vdev_signal(d, q);
	if (r > 0)
		timer_start(d->loop, &v->later, clock_mono_ns() + NS_PER_MS, vbal_later);
	return r < 0 ? r : 0;
}

static void vbal_later(struct timer *t)
{
	struct vbal *v = container_of(t, struct vbal, later);
	int r = 0;

	vdev_lock(&v->dev);
	for (unsigned q = 0; v->dev.active && q < VBAL_QUEUES && r == 0; q++)
		r = vbal_serve(v, q);
	if (r < 0)
		vdev_broken(&v->dev, "bad balloon queue");
	vdev_unlock(&v->dev);
}

/* --- vdev_ops --------------------------------------------------------------------------------- */

static uint64_t vbal_features(struct vdev *d)
{
	(void)d;
	return VBAL_F_DEFLATE_ON_OOM | VBAL_F_REPORTING;
}

static void vbal_config_read(struct vdev *d, uint32_t offset, void *dst, uint32_t len)
{
	const struct vbal_space *s = &vbal_of(d)->space;

	if (offset < sizeof *s)
		memcpy(dst, (const uint8_t *)s + offset, MIN(len, sizeof *s - offset));
}

/* Only `actual` is the driver's to write, and it writes all of it (5.5.4: le32). */
static void vbal_config_write(struct vdev *d, uint32_t offset, const void *src, uint32_t len)
{
	struct vbal_space *s = &vbal_of(d)->space;

	if (offset == offsetof(struct vbal_space, actual) && len == sizeof s->actual)
		memcpy(&s->actual, src, sizeof s->actual);
}

static int vbal_kick(struct vdev *d, unsigned q)
{
	return vbal_serve(vbal_of(d), q);
}

/* A driver that resets has its pages back (5.5.6 gives it no other way to say so). */
static void vbal_reset(struct vdev *d)
{
	vbal_of(d)->space.actual = 0;
}

/* u32 num_pages, u32 actual, then the counters. */
static void vbal_save(struct vdev *d, struct buf *out)
{
	const struct vbal *v = vbal_of(d);

	buf_le32(out, v->space.num_pages);
	buf_le32(out, v->space.actual);
	buf_le64(out, v->count.inflated_pages);
	buf_le64(out, v->count.deflated_pages);
	buf_le64(out, v->count.reported_bytes);
	buf_le64(out, v->count.refused);
}

static int vbal_restore(struct vdev *d, struct cur *in)
{
	struct vbal *v = vbal_of(d);
	uint32_t num_pages = cur_le32(in), actual = cur_le32(in);
	struct vbal_stats count = { .inflated_pages = cur_le64(in) };

	count.deflated_pages = cur_le64(in);
	count.reported_bytes = cur_le64(in);
	count.refused = cur_le64(in);
	if (in->bad || num_pages > vbal_ram_pages(v))
		return -EINVAL;
	v->space.num_pages = num_pages;
	v->space.actual = actual;
	v->count = count;
	return 0;
}

static void vbal_destroy(struct vdev *d)
{
	timer_stop(&vbal_of(d)->later);
	free(vbal_of(d));
}

static const struct vdev_ops vbal_ops = {
	.name = "balloon",
	.id = VDEV_BALLOON,
	.nqueues = VBAL_QUEUES,
	.features = vbal_features,
	.config_read = vbal_config_read,
	.config_write = vbal_config_write,
	.kick = vbal_kick,
	.reset = vbal_reset,
	.save = vbal_save,
	.restore = vbal_restore,
	.destroy = vbal_destroy,
};
static_assert(VBAL_QUEUES <= VDEV_MAX_QUEUES, "vbal_queue");

struct vdev *vbal_new(struct loop *loop, const struct gmem *mem)
{
	struct vbal *v = mem_zalloc(sizeof *v);

	v->dev = (struct vdev){ .ops = &vbal_ops, .mem = mem, .loop = loop };
	return &v->dev;
}

void vbal_set_target(struct vdev *d, uint32_t mib)
{
	struct vbal *v = vbal_of(d);
	uint32_t pages = (uint32_t)MIN(MIB(mib) / GMEM_PAGE, vbal_ram_pages(v));

	if (!d->slot) {
		v->space.num_pages = pages;
		return;
	}
	vdev_lock(d);
	if (v->space.num_pages != pages) {
		v->space.num_pages = pages;
		vdev_config_changed(d);
	}
	vdev_unlock(d);
}

ONLY_TESTED void vbal_get_stats(struct vdev *d, struct vbal_stats *out)
{
	struct vbal *v = vbal_of(d);

	if (d->slot)
		vdev_lock(d);
	*out = v->count;
	out->target_pages = v->space.num_pages;
	out->actual_pages = v->space.actual;
	if (d->slot)
		vdev_unlock(d);
}
