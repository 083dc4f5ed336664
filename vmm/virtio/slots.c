#include "vmm/virtio/slots.h"

#include <sys/eventfd.h>

#include "amalgam/base/mem.h"

#include "vmm/layout.h"
#include "vmm/virtio/mmio.h"

void slots_init(struct slots *s, const struct gmem *mem, struct loop *loop,
		const struct slots_host *host)
{
	*s = (struct slots){ .host = *host, .mem = mem, .loop = loop };
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++) {
		struct slot *sl = &s->slot[i];
		sl->all = s;
		sl->index = i;
		pthread_mutex_init(&sl->lock, NULL);
		sl->kick_fd = -1;
		if (host->windows && i < LAYOUT_SLOT_PAGES)
			sl->window = (uint32_t *)((uint8_t *)host->windows + i * LAYOUT_SLOT_BYTES);
		vmmio_show(sl);
	}
}

static gpa_t slots_notify_gpa(const struct slot *sl)
{
	return LAYOUT_SLOT_BASE + sl->index * LAYOUT_SLOT_BYTES + VMMIO_REG_NOTIFY;
}

/* One eventfd serves all queues of a device: to look at an idle queue is three loads, while every
 * eventfd more is three system calls of each clone. */
static void slots_kick_all(struct slot *sl)
{
	pthread_mutex_lock(&sl->lock);
	for (unsigned q = 0; sl->dev && q < sl->dev->ops->nqueues; q++)
		vmmio_kick(sl, q);
	pthread_mutex_unlock(&sl->lock);
}

static void slots_kicked(struct watch *w, uint32_t events)
{
	uint64_t count;

	(void)events;
	if (read(w->fd, &count, sizeof count) < 0)
		return; /* EAGAIN: a wake-up that somebody else served */
	slots_kick_all(container_of(w, struct slot, kick));
}

static void slots_look(struct timer *t)
{
	struct slots *s = container_of(t, struct slots, look);

	/* Kicks of one asleep were served before its vCPU stopped; to look touches guest memory. */
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++)
		if (s->slot[i].kick_fd >= 0)
			slots_kick_all(&s->slot[i]);
}

static int slots_route(const struct slot *sl, bool assign)
{
	const struct slots_host *h = &sl->all->host;

	return h->ioeventfd(h->arg, slots_notify_gpa(sl), sl->kick_fd, assign);
}

static void slots_unwatch(struct slot *sl)
{
	if (sl->kick_fd < 0)
		return;
	slots_route(sl, false);
	if (!sl->kick_is_devices) {
		watch_stop(&sl->kick);
		close(sl->kick_fd);
	}
	sl->kick_fd = -1;
}

static int slots_watch(struct slot *sl, int fd, struct err *e)
{
	int r = 0;

	sl->kick_is_devices = fd >= 0;
	sl->kick_fd = fd >= 0 ? fd : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sl->kick_fd < 0)
		return err_set(e, -errno, "eventfd: %m");
	if (fd < 0)
		r = watch_start(sl->all->loop, &sl->kick, sl->kick_fd, EPOLLIN, slots_kicked);
	if (r < 0)
		return err_set(e, r, "watch a slot's queues: %s", strerror(-r));
	r = slots_route(sl, true);
	return r < 0 ? err_set(e, r, "ioeventfd: %s", strerror(-r)) : 0;
}

int slots_attach_asleep(struct slots *s, unsigned i, struct vdev *d, struct err *e)
{
	struct slot *sl = i < LAYOUT_SLOTS ? &s->slot[i] : NULL;

	if (!sl || sl->dev) {
		d->ops->destroy(d);
		return sl ? err_set(e, -EBUSY, "slot %u is taken", i) :
			    err_set(e, -EINVAL, "no slot %u", i);
	}
	d->slot = sl;
	d->mem = s->mem;
	d->loop = s->loop;
	pthread_mutex_lock(&sl->lock);
	sl->dev = d;
	sl->generation++;
	vmmio_reset(sl);
	pthread_mutex_unlock(&sl->lock);
	return 0;
}

int slots_wake(struct slots *s, unsigned i, int fd, struct err *e)
{
	struct slot *sl = &s->slot[i];
	int r;

	if (sl->kick_fd >= 0)
		return 0;
	if ((r = slots_watch(sl, fd, e)) < 0) {
		slots_unwatch(sl);
		return r;
	}
	slots_kick_all(sl);
	return 0;
}

int slots_attach(struct slots *s, unsigned i, struct vdev *d, struct err *e)
{
	int r = slots_attach_asleep(s, i, d, e);

	if (r == 0 && (r = slots_wake(s, i, -1, e)) < 0) {
		struct err ignored;
		slots_detach(s, i, &ignored);
	}
	return r;
}

int slots_detach(struct slots *s, unsigned i, struct err *e)
{
	struct slot *sl = i < LAYOUT_SLOTS ? &s->slot[i] : NULL;
	struct vdev *d;

	if (!sl || !sl->dev)
		return err_set(e, -ENOENT, "slot %u is empty", i);
	slots_unwatch(sl);
	pthread_mutex_lock(&sl->lock);
	vmmio_reset(sl);
	d = take_ptr(&sl->dev);
	sl->generation++;
	vmmio_show(sl);
	pthread_mutex_unlock(&sl->lock);
	d->ops->destroy(d);
	return 0;
}

ONLY_TESTED void slots_fini(struct slots *s)
{
	struct err ignored;

	timer_stop(&s->look);
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++) {
		slots_detach(s, i, &ignored);
		pthread_mutex_destroy(&s->slot[i].lock);
	}
}

void slots_mmio(struct slots *s, gpa_t gpa, uint8_t *data, uint32_t len, bool write)
{
	uint64_t at = gpa - LAYOUT_SLOT_BASE;
	struct slot *sl;

	if (at >= LAYOUT_SLOTS * LAYOUT_SLOT_BYTES)
		return;
	sl = &s->slot[at / LAYOUT_SLOT_BYTES];
	pthread_mutex_lock(&sl->lock);
	vmmio_access(sl, (uint32_t)(at % LAYOUT_SLOT_BYTES), data, len, write);
	pthread_mutex_unlock(&sl->lock);
}

int slots_quiesce(struct slots *s, struct err *e)
{
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++) {
		struct vdev *d = s->slot[i].dev;
		int r = d && d->ops->quiesce ? d->ops->quiesce(d) : 0;
		if (r < 0)
			return err_set(e, r, "%s in slot %u does not come to rest: %s",
				       d->ops->name, i, strerror(-r));
	}
	return 0;
}

void slots_resume(struct slots *s)
{
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++) {
		struct vdev *d = s->slot[i].dev;
		if (d && d->ops->resume)
			d->ops->resume(d);
	}
}

/* Layout of one saved slot: 6 x u32 registers, u64 driver features, then per queue
 * { u64 desc, avail, used; u32 num, ready; u32 next_avail, next_used }, then the device's own. */
void slots_save_one(struct slots *s, unsigned i, struct buf *out)
{
	struct slot *sl = &s->slot[i];
	struct vdev *d = sl->dev;

	pthread_mutex_lock(&sl->lock);
	buf_le32(out, sl->status);
	buf_le32(out, sl->isr);
	buf_le32(out, sl->generation);
	buf_le32(out, sl->dev_features_sel);
	buf_le32(out, sl->drv_features_sel);
	buf_le32(out, sl->queue_sel);
	buf_le64(out, sl->drv_features);
	for (unsigned q = 0; q < d->ops->nqueues; q++) {
		const struct vq *v = d->active ? &d->q[q] : &sl->staged[q];
		buf_le64(out, v->desc);
		buf_le64(out, v->avail);
		buf_le64(out, v->used);
		buf_le32(out, v->num);
		buf_le32(out, v->ready);
		buf_le32(out, v->next_avail);
		buf_le32(out, v->next_used);
	}
	if (d->ops->save)
		d->ops->save(d, out);
	pthread_mutex_unlock(&sl->lock);
}

static int slots_restore_queue(struct slot *sl, unsigned q, struct cur *in, struct err *e)
{
	struct vq *v = &sl->staged[q];
	uint32_t num, ready, next_avail, next_used;

	*v = (struct vq){ .mem = sl->all->mem };
	v->desc = cur_le64(in);
	v->avail = cur_le64(in);
	v->used = cur_le64(in);
	num = cur_le32(in);
	ready = cur_le32(in);
	next_avail = cur_le32(in);
	next_used = cur_le32(in);
	if (in->bad || num > VQ_MAX || ready > 1 || next_avail > UINT16_MAX ||
	    next_used > UINT16_MAX || (ready && !(sl->status & VMMIO_S_FEATURES_OK)))
		return err_set(e, -EINVAL, "slot %u: bad queue %u", sl->index, q);
	v->num = (uint16_t)num;
	v->next_avail = (uint16_t)next_avail;
	v->next_used = v->signalled = (uint16_t)next_used;
	v->ready = ready;
	if (v->ready && vq_check(v) < 0)
		return err_set(e, -EINVAL, "slot %u: queue %u is outside memory", sl->index, q);
	return 0;
}

/* Status bits are set one after the other (3.1.1), so only these rows can be. FAILED and NEEDS_RESET may
 * stand beside any of them. */
static bool slots_status_is_reachable(uint32_t status)
{
	static const uint32_t steps[] = {
		0,
		VMMIO_S_ACKNOWLEDGE,
		VMMIO_S_ACKNOWLEDGE | VMMIO_S_DRIVER,
		VMMIO_S_ACKNOWLEDGE | VMMIO_S_DRIVER | VMMIO_S_FEATURES_OK,
		VMMIO_S_ACKNOWLEDGE | VMMIO_S_DRIVER | VMMIO_S_FEATURES_OK | VMMIO_S_DRIVER_OK,
	};
	for (unsigned i = 0; i < ARRAY_LEN(steps); i++)
		if ((status & ~(VMMIO_S_FAILED | VMMIO_S_NEEDS_RESET)) == steps[i])
			return true;
	return false;
}

/* The registers must be a state the transport itself could have reached. */
static int slots_restore_registers(struct slot *sl, struct cur *in, struct err *e)
{
	sl->status = cur_le32(in);
	sl->isr = cur_le32(in) & (VMMIO_INT_VRING | VMMIO_INT_CONFIG);
	sl->generation = cur_le32(in);
	sl->dev_features_sel = cur_le32(in);
	sl->drv_features_sel = cur_le32(in);
	sl->queue_sel = cur_le32(in);
	sl->drv_features = cur_le64(in);
	if (in->bad || !slots_status_is_reachable(sl->status))
		return err_set(e, -EINVAL, "slot %u: bad registers", sl->index);
	if ((sl->status & VMMIO_S_FEATURES_OK) && !vmmio_features_ok(sl))
		return err_set(e, -EINVAL, "slot %u: features the device does not have", sl->index);
	return 0;
}

static int slots_restore_locked(struct slot *sl, struct cur *in, struct err *e)
{
	struct vdev *d = sl->dev;
	bool live;
	int r;

	if ((r = slots_restore_registers(sl, in, e)) < 0)
		return r;
	for (unsigned q = 0; q < d->ops->nqueues; q++)
		if ((r = slots_restore_queue(sl, q, in, e)) < 0)
			return r;
	live = (sl->status & VMMIO_S_DRIVER_OK) && !(sl->status & VMMIO_S_NEEDS_RESET);
	d->features = sl->drv_features;
	for (unsigned q = 0; live && q < d->ops->nqueues; q++) {
		d->q[q] = sl->staged[q];
		d->q[q].event_idx = d->features & VIRTIO_F_RING_EVENT_IDX;
	}
	if (d->ops->restore && (r = d->ops->restore(d, in)) < 0)
		return err_set(e, r, "slot %u: bad %s state", sl->index, d->ops->name);
	if (!live)
		return 0;
	d->active = true;
	if (d->ops->activate && (r = d->ops->activate(d)) < 0)
		return err_set(e, r, "slot %u: cannot activate %s", sl->index, d->ops->name);
	return 0;
}

int slots_restore_one(struct slots *s, unsigned i, struct cur *in, struct err *e)
{
	struct slot *sl = &s->slot[i];
	int r;

	pthread_mutex_lock(&sl->lock);
	r = slots_restore_locked(sl, in, e);
	vmmio_show(sl);
	pthread_mutex_unlock(&sl->lock);
	if (r < 0)
		return r;
	/* A kick between the device's last look and the snapshot is in nobody's memory: look again. So is
	 * an interrupt that was raised and not yet taken. */
	timer_start(s->loop, &s->look, 0, slots_look);
	if (sl->isr)
		s->host.irq(s->host.arg, LAYOUT_SLOT_GSI + i);
	return 0;
}
