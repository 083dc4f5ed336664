/* fake_dev.h - a virtio device of two queues that does nothing and remembers what was asked of it. */
#pragma once

#include "tests/unit/test.h"
#include "vmm/virtio/virtio.h"

#define FDEV_FEATURES (UINT64_C(1) | UINT64_C(1) << 5 | UINT64_C(1) << 40)
#define FDEV_ID       VDEV_CONSOLE
#define FDEV_CONFIG   16

struct fdev {
	struct vdev d;
	unsigned activated, reset, destroyed, quiesced, resumed, kicks[VDEV_MAX_QUEUES];
	int activate_result, kick_result, quiesce_result;
	uint8_t config[FDEV_CONFIG];
	uint32_t state; /* saved; above 1000 is not valid */
	struct {
		uint32_t offset, len;
		unsigned n;
	} last; /* access to the configuration space */
};

static uint64_t fdev_features(struct vdev *d)
{
	(void)d;
	return FDEV_FEATURES;
}
static void fdev_config_read(struct vdev *d, uint32_t offset, void *dst, uint32_t len)
{
	struct fdev *f = (struct fdev *)d;

	f->last.offset = offset;
	f->last.len = len;
	f->last.n++;
	if (offset < FDEV_CONFIG)
		memcpy(dst, f->config + offset, MIN(len, FDEV_CONFIG - offset));
}
static void fdev_config_write(struct vdev *d, uint32_t offset, const void *src, uint32_t len)
{
	struct fdev *f = (struct fdev *)d;

	f->last.offset = offset;
	f->last.len = len;
	f->last.n++;
	if (offset < FDEV_CONFIG)
		memcpy(f->config + offset, src, MIN(len, FDEV_CONFIG - offset));
}
static int fdev_activate(struct vdev *d)
{
	struct fdev *f = (struct fdev *)d;
	f->activated++;
	return f->activate_result;
}
static int fdev_kick(struct vdev *d, unsigned q)
{
	struct fdev *f = (struct fdev *)d;
	f->kicks[q]++;
	return f->kick_result;
}
static void fdev_reset(struct vdev *d)
{
	struct fdev *f = (struct fdev *)d;
	for (unsigned q = 0; q < d->ops->nqueues; q++)
		CHECK(!d->q[q].ready);
	f->reset++;
}
static int fdev_quiesce(struct vdev *d)
{
	struct fdev *f = (struct fdev *)d;
	f->quiesced++;
	return f->quiesce_result;
}
static void fdev_resume(struct vdev *d)
{
	struct fdev *f = (struct fdev *)d;
	f->resumed++;
}
static void fdev_save(struct vdev *d, struct buf *out)
{
	struct fdev *f = (struct fdev *)d;
	buf_le32(out, f->state);
}
static int fdev_restore(struct vdev *d, struct cur *in)
{
	struct fdev *f = (struct fdev *)d;
	uint32_t v = cur_le32(in);

	if (in->bad || v > 1000)
		return -EINVAL;
	f->state = v;
	return 0;
}
static void fdev_destroy(struct vdev *d)
{
	struct fdev *f = (struct fdev *)d;
	CHECK(!d->active);
	f->destroyed++;
}

static const struct vdev_ops fdev_ops = {
	.name = "fake", .id = FDEV_ID, .nqueues = 2, .features = fdev_features,
	.config_read = fdev_config_read, .config_write = fdev_config_write,
	.activate = fdev_activate, .kick = fdev_kick, .reset = fdev_reset,
	.quiesce = fdev_quiesce, .resume = fdev_resume, .save = fdev_save,
	.restore = fdev_restore, .destroy = fdev_destroy,
};
/* As little as a device may have. */
static const struct vdev_ops fdev_bare_ops = {
	.name = "bare", .id = FDEV_ID, .nqueues = 1, .kick = fdev_kick, .destroy = fdev_destroy,
};
