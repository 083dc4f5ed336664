/* Threads and what they share.
 *
 *   file thread   the guest's kick wakes it -> pop -> serve -> push and pop the next one ... -> look again a
 *                 little -> rearm -> sleep
 *   loop thread   after a restore, a resume: ring the bell; without file threads, drain here
 *   vCPU thread   reset -> epoch++, wait for in_flight == 0
 *
 * A drain is one turn of one file thread at both queues, with buffers of its own for a request. Two locks:
 * the slot lock (vdev_lock) covers the queues and `epoch`; v->lock covers the counters. They nest only as
 * slot lock, then v->lock; no host file is touched under either.
 *
 * (inv 1) The queues are armed, or a drain is about to look at them: whoever pops what leads to a host call
 *         arms them first, unless another drain is looking; whoever stops looking arms them and looks once
 *         more, under the same slot lock.
 * (inv 2) Guest memory is touched for a request only while in_flight counts it, or under the slot lock with
 *         its epoch still the current one. */
#include "vmm/virtio/fs.h"

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"

#include "vmm/fuse/server.h"

static_assert(VFS_SHARE_READONLY == FSV_READONLY && VFS_SHARE_PRIVATE == FSV_PRIVATE, "one meaning");
static_assert(FSV_MAX_PAGES + 4 <= VQ_MAX_IOV, "a header and arguments in each direction, and the pages");

/* Section 5.11.4, struct virtio_fs_config; little-endian, as is this host. */
struct PACKED vfs_config {
	char tag[36]; /* padded with NULs */
	uint32_t num_request_queues;
};
static_assert(sizeof(struct vfs_config) == 40, "5.11.4");

/* Section 5.11.2. */
enum vfs_queue { VFS_HIPRIO, VFS_REQUEST, VFS_QUEUES };

/* How long an idle drain looks for the next request before it sleeps: about what a guest needs from an
 * answer to its next question. It stops looking where that does not help. */
#define VFS_LOOK_NS   20000u
#define VFS_LUCK_MAX  8
#define VFS_LOOK_TRY  32u /* without luck, one turn in so many is a look all the same */

struct vfs {
	struct vdev dev;
	struct fpool *pool;
	struct vfs_config config;

	/* Without a pool made for the first request: every machine has this device, few are asked. Until
	 * then the session is in the next line. */
	struct fsv *server;
	uint32_t minor, flags;

	struct fsv_call *call[FPOOL_MAX]; /* by number of the file thread */

	/* Slot lock: */
	uint32_t epoch;   /* counts resets: an answer to a request of an older one is dropped */
	unsigned looking; /* drains that look at the queues again and again */
	int luck;         /* of looking: 0 = none */
	unsigned turns;
	bool parked;      /* between quiesce() and resume() */

	pthread_mutex_t lock;
	pthread_cond_t calm; /* one of the two below became 0 */
	unsigned in_flight;  /* requests whose host calls may touch guest memory */
	unsigned draining;   /* file threads that look at the queues, or serve */
};

static struct vfs *vfs_of(struct vdev *d)
{
	return container_of(d, struct vfs, dev);
}

/* Have what serves a request. */
static void vfs_need_server(struct vfs *v)
{
	if (v->server)
		return;
	v->server = fsv_new();
	for (unsigned i = 0; i < (v->pool ? FPOOL_MAX : 1); i++)
		v->call[i] = fsv_call_new();
	if (fsv_set_session(v->server, v->minor, v->flags) < 0)
		ASSERT(!"a session that was looked at");
}

/* --- counters --------------------------------------------------------------------------------- */

static void vfs_count(struct vfs *v, unsigned *counter, int by)
{
	pthread_mutex_lock(&v->lock);
	*counter += (unsigned)by;
	if (*counter == 0)
		pthread_cond_broadcast(&v->calm);
	pthread_mutex_unlock(&v->lock);
}

/* True when the counter is 0 within the time. */
static bool vfs_wait_calm(struct vfs *v, const unsigned *counter, unsigned ms)
{
	uint64_t at = clock_mono_ns() + ms * NS_PER_MS;
	struct timespec until = { (time_t)(at / NS_PER_S), (long)(at % NS_PER_S) };
	bool calm;
	int r = 0;

	pthread_mutex_lock(&v->lock);
	while (*counter && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&v->calm, &v->lock, &until);
	calm = *counter == 0;
	pthread_mutex_unlock(&v->lock);
	return calm;
}

/* --- slot lock held --------------------------------------------------------------------------- */

static bool vfs_may_serve(const struct vfs *v)
{
	return v->dev.active && !v->parked && v->dev.q[VFS_REQUEST].ready;
}

static bool vfs_backlog(const struct vfs *v)
{
	return vfs_may_serve(v) && (vq_backlog(&v->dev.q[VFS_REQUEST]) || vq_backlog(&v->dev.q[VFS_HIPRIO]));
}

/* Ask for a notification of what comes next; true when something came meanwhile. */
static bool vfs_rearm(struct vfs *v)
{
	bool more = false;

	for (unsigned i = 0; vfs_may_serve(v) && i < VFS_QUEUES; i++)
		more |= vq_rearm(&v->dev.q[i]);
	return more;
}

/* The next request: from the request queue, or, when that is empty, the other one. Its index in *q. */
static bool vfs_pop(struct vfs *v, struct fsv_call *call, unsigned *q)
{
	struct vq_chain *c = fsv_call_chain(call);
	int n = 0;

	for (unsigned i = VFS_QUEUES; i-- > 0 && n == 0 && vfs_may_serve(v);) {
		*q = i;
		n = vq_pop(&v->dev.q[i], c);
	}
	if (n < 0)
		vdev_broken(&v->dev, "bad chain");
	if (n <= 0)
		return false;
	if (!v->looking && vfs_rearm(v) && v->pool)
		fpool_ring(v->pool);
	vfs_count(v, &v->in_flight, 1);
	return true;
}

static void vfs_push(struct vfs *v, struct fsv_call *call, unsigned q, uint32_t written, uint32_t epoch)
{
	if (epoch != v->epoch)
		return;
	if (vq_push(&v->dev.q[q], fsv_call_chain(call)->head, written) < 0)
		vdev_broken(&v->dev, "bad used ring");
	else
		vdev_signal(&v->dev, q);
}

/* Serve what there is. File threads give the lock away while a request is served. */
static unsigned vfs_serve_all(struct vfs *v, struct fsv_call *call)
{
	unsigned served = 0, q;

	while (vfs_pop(v, call, &q)) {
		uint32_t epoch = v->epoch, written;
		if (v->pool)
			vdev_unlock(&v->dev);
		written = fsv_serve(v->server, call);
		vfs_count(v, &v->in_flight, -1);
		if (v->pool)
			vdev_lock(&v->dev);
		vfs_push(v, call, q, written, epoch);
		served++;
	}
	return served;
}

/* Is it worth while to look a little longer? One drain at a time does. */
static bool vfs_shall_look(struct vfs *v)
{
	return !v->looking && vfs_may_serve(v) && (v->luck > 0 || v->turns++ % VFS_LOOK_TRY == 0);
}

/* Look for the next request for a short time, during which the guest need not notify us. */
static bool vfs_look(struct vfs *v)
{
	uint64_t until = clock_mono_ns() + VFS_LOOK_NS;
	bool found = false;

	v->looking++;
	while (!(found = vfs_backlog(v)) && vfs_may_serve(v) && clock_mono_ns() < until) {
		vdev_unlock(&v->dev);
		for (unsigned i = 0; i < 16; i++)
			__builtin_ia32_pause();
		vdev_lock(&v->dev);
	}
	v->looking--;
	v->luck = MIN(MAX(v->luck + (found ? 2 : -1), 0), VFS_LUCK_MAX);
	return found;
}

/* --- file threads ----------------------------------------------------------------------------- */

static void vfs_drain(void *arg, unsigned i)
{
	struct vfs *v = arg;
	unsigned served;

	vdev_lock(&v->dev);
	if (vfs_may_serve(v)) {
		vfs_count(v, &v->draining, 1);
		do
			served = vfs_serve_all(v, v->call[i]);
		while ((served && vfs_shall_look(v) && vfs_look(v)) || vfs_rearm(v));
		vfs_count(v, &v->draining, -1);
	}
	vdev_unlock(&v->dev);
}

/* --- vdev_ops --------------------------------------------------------------------------------- */

static void vfs_config_read(struct vdev *d, uint32_t offset, void *dst, uint32_t len)
{
	const struct vfs_config *c = &vfs_of(d)->config;

	if (offset < sizeof *c)
		memcpy(dst, (const uint8_t *)c + offset, MIN(len, sizeof *c - offset));
}

/* Without a pool there is no share either, and nothing of the host to wait for. */
static int vfs_kick(struct vdev *d, unsigned q)
{
	struct vfs *v = vfs_of(d);

	(void)q;
	if (!v->server) {
		if (!vfs_backlog(v) && !vfs_rearm(v))
			return 0;
		vfs_need_server(v);
	}
	if (v->pool && (vfs_backlog(v) || (!v->looking && vfs_rearm(v))))
		fpool_ring(v->pool);
	while (!v->pool && (vfs_serve_all(v, v->call[0]) || vfs_rearm(v)))
		;
	return 0;
}

static void vfs_reset(struct vdev *d)
{
	struct vfs *v = vfs_of(d);

	v->epoch++;
	vfs_wait_calm(v, &v->in_flight, VFS_RESET_MS);
}

static void vfs_resume(struct vdev *d)
{
	struct vfs *v = vfs_of(d);

	vdev_lock(d);
	v->parked = false;
	vfs_kick(d, VFS_REQUEST);
	vdev_unlock(d);
}

static int vfs_quiesce(struct vdev *d)
{
	struct vfs *v = vfs_of(d);

	vdev_lock(d);
	v->parked = true;
	vdev_unlock(d);
	if (vfs_wait_calm(v, &v->draining, VFS_QUIESCE_MS) && (!v->server || fsv_is_idle(v->server)))
		return 0;
	vfs_resume(d);
	return -EBUSY;
}

/* What INIT agreed upon: u32 minor (0: no session), u32 flags. */
static void vfs_save(struct vdev *d, struct buf *out)
{
	struct vfs *v = vfs_of(d);

	if (v->server)
		fsv_get_session(v->server, &v->minor, &v->flags);
	buf_le32(out, v->minor);
	buf_le32(out, v->flags);
}

static int vfs_restore(struct vdev *d, struct cur *in)
{
	struct vfs *v = vfs_of(d);

	v->minor = cur_le32(in);
	v->flags = cur_le32(in);
	if (in->bad || !fsv_session_is_valid(v->minor, v->flags))
		return -EINVAL;
	return v->server ? fsv_set_session(v->server, v->minor, v->flags) : 0;
}

static void vfs_destroy(struct vdev *d)
{
	struct vfs *v = vfs_of(d);

	if (v->pool)
		fpool_stop(v->pool); /* as long as the host takes: the threads have our buffers */
	for (unsigned i = 0; i < FPOOL_MAX; i++)
		fsv_call_free(v->call[i]);
	if (v->server)
		fsv_free(v->server);
	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->calm);
	free(v);
}

static const struct vdev_ops vfs_ops = {
	.name = "fs",
	.id = VDEV_FS,
	.nqueues = VFS_QUEUES,
	.config_read = vfs_config_read,
	.kick = vfs_kick,
	.reset = vfs_reset,
	.quiesce = vfs_quiesce,
	.resume = vfs_resume,
	.save = vfs_save,
	.restore = vfs_restore,
	.destroy = vfs_destroy,
};

/* --- what the header says --------------------------------------------------------------------- */

struct vdev *vfs_new(struct loop *loop, const struct gmem *mem, struct fpool *pool)
{
	struct vfs *v = mem_zalloc(sizeof *v);
	pthread_condattr_t attr;

	v->dev = (struct vdev){ .ops = &vfs_ops, .mem = mem, .loop = loop };
	v->pool = pool;
	memcpy(v->config.tag, VFS_TAG, strlen(VFS_TAG));
	v->config.num_request_queues = 1;
	if (pool) {
		vfs_need_server(v);
		fpool_set_work(pool, vfs_drain, v);
	}
	pthread_mutex_init(&v->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->calm, &attr);
	pthread_condattr_destroy(&attr);
	return &v->dev;
}

int vfs_share_add(struct vdev *d, const char *name, int root_fd, unsigned flags, struct err *e)
{
	struct vfs *v = vfs_of(d);

	if (!v->pool) {
		close(root_fd);
		return err_set(e, -EOPNOTSUPP, "share: this machine was made without file service");
	}
	return fsv_share_add(v->server, name, root_fd, flags, e);
}

int vfs_share_remove(struct vdev *d, const char *name, struct err *e)
{
	struct vfs *v = vfs_of(d);

	return v->server ? fsv_share_remove(v->server, name, e) :
			   err_set(e, -ENOENT, "share: there is no \"%s\"", name);
}
