/* Threads and what they share.
 *
 *   loop thread     kick -> reads that need no waiting; for the rest wanted++, make a worker
 *   worker          wait for a turn -> pop -> host calls -> push, then look again
 *   vCPU thread     reset -> epoch++, wait for in_io == 0
 *
 * Two locks. The slot lock (vdev_lock) covers the queue and `epoch`; v->lock covers the counters.
 * They nest only as slot lock, then v->lock; no host file is touched under either.
 *
 * (inv 1) A worker that is counted idle holds no request.
 * (inv 2) Whoever pops rearms the queue under the same slot lock, and looks again when it is done:
 *         an entry published after that rearm causes a kick, one before it is found.
 * (inv 3) Guest memory is touched for a request only while in_io counts it, or under the slot lock
 *         with its epoch still the current one. */
#include "vmm/virtio/blk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"

#include "vmm/virtio/blk_req.h"

/* Section 5.2.3, feature bits. */
#define VBLK_F_SEG_MAX      (UINT64_C(1) << 2)
#define VBLK_F_RO           (UINT64_C(1) << 5)
#define VBLK_F_BLK_SIZE     (UINT64_C(1) << 6)
#define VBLK_F_FLUSH        (UINT64_C(1) << 9)
#define VBLK_F_TOPOLOGY     (UINT64_C(1) << 10)
#define VBLK_F_DISCARD      (UINT64_C(1) << 13)
#define VBLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

#define VBLK_SEG_MAX        128u
#define VBLK_PHYSICAL_BLOCK 4096u /* page cache and file systems work in these */

#define VBLK_STACK_BYTES KIB(64)

#define VBLK_INLINE_BURST 16 /* reads that the loop thread serves itself in one go */

static struct vblk *vblk_of(struct vdev *d)
{
	return container_of(d, struct vblk, dev);
}

/* --- the queue: one request out, one back ----------------------------------------------------- */

static void vblk_io_begins(struct vblk *v)
{
	pthread_mutex_lock(&v->lock);
	v->in_io++;
	pthread_mutex_unlock(&v->lock);
}

static void vblk_io_ends(struct vblk *v)
{
	pthread_mutex_lock(&v->lock);
	if (--v->in_io == 0)
		pthread_cond_broadcast(&v->calm);
	pthread_mutex_unlock(&v->lock);
}

/* Slot lock held. True: r is filled and its I/O counted; *more: there was another one behind it. */
static bool vblk_pop_locked(struct vblk *v, struct vblk_req *r, bool *more)
{
	struct vq *q = &v->dev.q[0];
	int n = v->dev.active ? vq_pop(q, &r->c) : 0;

	*more = false;
	if (n == 0)
		return false;
	if (n < 0 || vblk_parse(r) < 0) {
		vdev_broken(&v->dev, n < 0 ? "bad chain" : "request without header or status");
		return false;
	}
	r->epoch = v->epoch;
	r->writethrough = !(v->dev.features & VBLK_F_FLUSH);
	*more = vq_rearm(q);
	vblk_io_begins(v);
	return true;
}

static bool vblk_pop(struct vblk *v, struct vblk_req *r, bool *more)
{
	bool got;

	vdev_lock(&v->dev);
	got = vblk_pop_locked(v, r, more);
	vdev_unlock(&v->dev);
	return got;
}

static void vblk_push_locked(struct vblk *v, struct vblk_req *r, uint8_t status)
{
	if (r->epoch != v->epoch)
		return;
	memcpy(r->tail.iov_base, &status, 1);
	if (vq_push(&v->dev.q[0], r->c.head, vblk_written(r)) < 0)
		vdev_broken(&v->dev, "bad used ring");
	else
		vdev_signal(&v->dev, 0);
}

static void vblk_push(struct vblk *v, struct vblk_req *r, uint8_t status)
{
	vdev_lock(&v->dev);
	vblk_push_locked(v, r, status);
	vdev_unlock(&v->dev);
}

/* --- the short way: what the page cache holds needs no thread --------------------------------- */

/* True when the whole read was served from memory. */
static bool vblk_in_cached(struct vblk *v, struct vblk_req *r)
{
	int err = v->no_nowait ? -EAGAIN : vblk_read_cached(v, r);

	if (err == -EOPNOTSUPP || err == -ENOSYS) /* tmpfs, for one */
		v->no_nowait = true;
	return err == 0;
}

/* Slot lock held, loop thread. 1 = one request served, 0 = none and the queue is as it was, -errno
 * = the guest broke a rule. The lock is held over a copy of VBLK_INLINE_BYTES at most. */
static int vblk_serve_cached(struct vblk *v, struct vblk_req *r)
{
	struct vq *q = &v->dev.q[0];
	int n = vq_pop(q, &r->c);

	if (n <= 0)
		return n;
	if (vblk_parse(r) < 0)
		return -EINVAL;
	if (!vblk_in_cached(v, r)) {
		vq_unpop(q);
		return 0;
	}
	r->epoch = v->epoch;
	vblk_push_locked(v, r, VBLK_S_OK);
	return 1;
}

/* Slot lock held, loop thread. 0, or -errno as above. */
static int vblk_serve_all_cached(struct vblk *v)
{
	struct vq *q = &v->dev.q[0];
	struct vblk_req r;

	for (unsigned i = 0; i < VBLK_INLINE_BURST; i++) {
		int n = vblk_serve_cached(v, &r);
		if (n < 0)
			return n;
		if (n == 0 && (vq_backlog(q) || !vq_rearm(q)))
			break;
	}
	return 0;
}

/* --- workers ---------------------------------------------------------------------------------- */

static void vblk_deadline(struct timespec *ts, unsigned ms)
{
	uint64_t at = clock_mono_ns() + ms * NS_PER_MS;

	ts->tv_sec = (time_t)(at / NS_PER_S);
	ts->tv_nsec = (long)(at % NS_PER_S);
}

/* v->lock held, counted idle. True when it is this worker's turn, false when it should leave. */
static bool vblk_wait_turn(struct vblk *v)
{
	struct timespec until;

	vblk_deadline(&until, VBLK_LINGER_MS);
	while (!v->stop && (v->parked || !v->wanted)) {
		bool spare = v->workers > 1 && !v->parked;
		if (!spare)
			pthread_cond_wait(&v->work, &v->lock);
		else if (pthread_cond_timedwait(&v->work, &v->lock, &until) == ETIMEDOUT &&
			 v->workers > 1 && !v->parked && !v->wanted)
			return false;
	}
	return !v->stop;
}

/* Become idle until there is something to look at. `again`: the queue may hold more for us now.
 * False: this worker is no longer counted and must leave without touching v. */
static bool vblk_next_turn(struct vblk *v, bool again)
{
	bool go;

	pthread_mutex_lock(&v->lock);
	if (again && !v->wanted)
		v->wanted = 1;
	if (++v->idle == v->workers)
		pthread_cond_broadcast(&v->calm);
	go = vblk_wait_turn(v);
	v->idle--;
	if (go)
		v->wanted--;
	else if (--v->workers == v->idle)
		pthread_cond_broadcast(&v->calm);
	pthread_mutex_unlock(&v->lock);
	return go;
}

/* Another request is waiting: let an idle worker have it. */
static void vblk_call_idle(struct vblk *v)
{
	pthread_mutex_lock(&v->lock);
	if (v->idle && v->wanted < v->idle) {
		v->wanted++;
		pthread_cond_signal(&v->work);
	}
	pthread_mutex_unlock(&v->lock);
}

/* Take one request from the queue all the way; false when there was none. */
static bool vblk_serve_one(struct vblk *v, struct vblk_req *r)
{
	enum vblk_status status;
	bool more;

	if (!vblk_pop(v, r, &more))
		return false;
	if (more)
		vblk_call_idle(v);
	status = vblk_serve(v, r);
	vblk_io_ends(v);
	vblk_push(v, r, (uint8_t)status);
	return true;
}

static void *vblk_worker(void *arg)
{
	struct vblk *v = arg;
	struct vblk_req r;
	bool got = false;

	while (vblk_next_turn(v, got))
		got = vblk_serve_one(v, &r);
	return NULL;
}

/* v->lock held. The thread inherits the loop thread's signal mask. */
static int vblk_add_worker(struct vblk *v)
{
	pthread_attr_t attr;
	pthread_t t;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, VBLK_STACK_BYTES);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	v->workers++;
	r = pthread_create(&t, &attr, vblk_worker, v);
	if (r)
		v->workers--;
	pthread_attr_destroy(&attr);
	return -r;
}

/* `backlog` requests are waiting. Workers outside in_io are about to look at the queue (inv 2), so
 * threads are made for what is beyond those. Only a disk without any worker cannot go on. */
static int vblk_call(struct vblk *v, unsigned backlog)
{
	int r = 0;

	pthread_mutex_lock(&v->lock);
	v->wanted = MAX(v->wanted, MIN(backlog, VBLK_MAX_WORKERS));
	while (v->workers - v->in_io < v->wanted && v->workers < VBLK_MAX_WORKERS && r == 0)
		r = vblk_add_worker(v);
	if (v->workers)
		r = 0;
	pthread_cond_broadcast(&v->work);
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* --- vdev_ops --------------------------------------------------------------------------------- */

static uint64_t vblk_features(struct vdev *d)
{
	uint64_t f = VBLK_F_SEG_MAX | VBLK_F_BLK_SIZE | VBLK_F_FLUSH | VBLK_F_TOPOLOGY;

	if (vblk_of(d)->read_only)
		return f | VBLK_F_RO;
	return f | VBLK_F_DISCARD | VBLK_F_WRITE_ZEROES;
}

static void vblk_config_read(struct vdev *d, uint32_t offset, void *dst, uint32_t len)
{
	const struct vblk_space *s = &vblk_of(d)->space;

	if (offset < sizeof *s)
		memcpy(dst, (const uint8_t *)s + offset, MIN(len, sizeof *s - offset));
}

static int vblk_kick(struct vdev *d, unsigned q)
{
	struct vblk *v = vblk_of(d);
	int r = v->parked || v->no_nowait ? 0 : vblk_serve_all_cached(v);
	unsigned n = vq_backlog(&d->q[q]);

	if (r < 0)
		return r;
	if (n == 0)
		n = vq_rearm(&d->q[q]);
	return n ? vblk_call(v, n) : 0;
}

static void vblk_reset(struct vdev *d)
{
	struct vblk *v = vblk_of(d);
	struct timespec until;
	int r = 0;

	v->epoch++;
	vblk_deadline(&until, VBLK_RESET_MS);
	pthread_mutex_lock(&v->lock);
	while (v->in_io && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&v->calm, &v->lock, &until);
	pthread_mutex_unlock(&v->lock);
}

static void vblk_resume(struct vdev *d)
{
	struct vblk *v = vblk_of(d);

	pthread_mutex_lock(&v->lock);
	v->parked = false;
	pthread_cond_broadcast(&v->work);
	pthread_mutex_unlock(&v->lock);
}

static int vblk_quiesce(struct vdev *d)
{
	struct vblk *v = vblk_of(d);
	struct timespec until;
	bool busy;
	int r = 0;

	vblk_deadline(&until, VBLK_QUIESCE_MS);
	pthread_mutex_lock(&v->lock);
	v->parked = true;
	while (v->idle < v->workers && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&v->calm, &v->lock, &until);
	busy = v->idle < v->workers;
	pthread_mutex_unlock(&v->lock);
	if (busy)
		vblk_resume(d);
	return busy ? -EBUSY : 0;
}

/* The disk as the driver knows it: u64 sectors, u32 bytes of a logical block, u32 read-only. */
static void vblk_save(struct vdev *d, struct buf *out)
{
	const struct vblk *v = vblk_of(d);

	buf_le64(out, v->space.capacity);
	buf_le32(out, v->space.blk_size);
	buf_le32(out, v->read_only);
}

/* The file may have been replaced since, but not by less than the driver has been promised. */
static int vblk_restore(struct vdev *d, struct cur *in)
{
	struct vblk *v = vblk_of(d);
	uint64_t capacity = cur_le64(in);
	uint32_t blk_size = cur_le32(in), read_only = cur_le32(in);

	if (in->bad || capacity > v->space.capacity || (capacity == 0) != (v->fd < 0) ||
	    blk_size != v->space.blk_size || read_only != v->read_only)
		return -EINVAL;
	v->space.capacity = capacity;
	return 0;
}

static void vblk_destroy(struct vdev *d)
{
	struct vblk *v = vblk_of(d);

	pthread_mutex_lock(&v->lock);
	v->stop = true;
	pthread_cond_broadcast(&v->work);
	while (v->workers)
		pthread_cond_wait(&v->calm, &v->lock);
	pthread_mutex_unlock(&v->lock);
	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->work);
	pthread_cond_destroy(&v->calm);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

static const struct vdev_ops vblk_ops = {
	.name = "blk",
	.id = VDEV_BLK,
	.nqueues = 1,
	.features = vblk_features,
	.config_read = vblk_config_read,
	.kick = vblk_kick,
	.reset = vblk_reset,
	.quiesce = vblk_quiesce,
	.resume = vblk_resume,
	.save = vblk_save,
	.restore = vblk_restore,
	.destroy = vblk_destroy,
};

/* --- making one ------------------------------------------------------------------------------- */

/* Could the descriptor do what the disk promises? */
static int vblk_check_fd(int fd, bool read_only, struct err *e)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return err_set(e, -errno, "disk: %m");
	if ((flags & O_PATH) || (flags & O_ACCMODE) == O_WRONLY)
		return err_set(e, -EBADF, "disk: descriptor is not open for reading");
	if (!read_only && (flags & O_ACCMODE) != O_RDWR)
		return err_set(e, -EBADF, "disk: descriptor is not open for writing");
	/* pwrite(2), BUGS: with O_APPEND the offset is ignored. */
	if (!read_only && (flags & O_APPEND))
		return err_set(e, -EINVAL, "disk: descriptor is in append mode");
	return 0;
}

/* Size and, unless the caller chose one, logical block of what is behind the descriptor. */
static int vblk_measure(struct vblk *v, uint64_t *bytes, uint32_t *block, struct err *e)
{
	struct stat st;
	int native;

	if (fstat(v->fd, &st) < 0)
		return err_set(e, -errno, "disk: %m");
	v->is_bdev = S_ISBLK(st.st_mode);
	if (!v->is_bdev && !S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "disk: neither a regular file nor a block device");
	*bytes = (uint64_t)st.st_size;
	if (v->is_bdev && ioctl(v->fd, BLKGETSIZE64, bytes) < 0)
		return err_set(e, -errno, "disk: size of the block device: %m");
	if (v->is_bdev && *block == 0 && ioctl(v->fd, BLKSSZGET, &native) == 0)
		*block = (uint32_t)native;
	if (*block == 0)
		*block = VBLK_SECTOR;
	if (*block < VBLK_SECTOR || *block > 4096 || (*block & (*block - 1)))
		return err_set(e, -EINVAL, "disk: logical block of %u bytes", *block);
	return 0;
}

static void vblk_describe(struct vblk *v, uint64_t bytes, uint32_t block)
{
	uint32_t physical = MAX(block, VBLK_PHYSICAL_BLOCK);

	v->space = (struct vblk_space){
		.capacity = bytes / block * (block / VBLK_SECTOR),
		.seg_max = VBLK_SEG_MAX,
		.blk_size = block,
		.physical_block_exp = (uint8_t)__builtin_ctz(physical / block),
		.min_io_size = (uint16_t)(physical / block),
		.num_queues = 1,
	};
	if (v->read_only)
		return;
	v->space.max_discard_sectors = VBLK_MAX_DISCARD_SECTORS;
	v->space.max_discard_seg = VBLK_MAX_RANGES;
	v->space.discard_sector_alignment = physical / VBLK_SECTOR;
	v->space.max_write_zeroes_sectors = VBLK_MAX_ZERO_SECTORS;
	v->space.max_write_zeroes_seg = VBLK_MAX_RANGES;
	v->space.write_zeroes_may_unmap = 1;
}

static void vblk_note_tail(const struct vblk *v)
{
	char serial[VBLK_SERIAL_MAX + 1] = "";

	memcpy(serial, v->serial, VBLK_SERIAL_MAX);
	log_warn("disk is not a whole number of blocks; its tail is not used",
		 KV("serial", serial));
}

static void vblk_init_threads(struct vblk *v)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&v->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->work, &attr);
	pthread_cond_init(&v->calm, &attr);
	pthread_condattr_destroy(&attr);
}

/* Measure and describe c->fd, which v owns already. */
static int vblk_load(struct vblk *v, const struct vblk_config *c, struct err *e)
{
	uint32_t block = c->logical_block_bytes;
	uint64_t bytes = 0;
	int r;

	memcpy(v->serial, c->serial, sizeof v->serial);
	if ((r = vblk_check_fd(v->fd, v->read_only, e)) < 0 ||
	    (r = vblk_measure(v, &bytes, &block, e)) < 0)
		return r;
	vblk_describe(v, bytes, block);
	if (v->space.capacity == 0)
		return err_set(e, -EINVAL, "disk: %llu bytes is less than one block of %u",
			       (unsigned long long)bytes, block);
	if (bytes % block)
		vblk_note_tail(v);
	return 0;
}

static struct vblk *vblk_alloc(int fd, bool read_only, struct loop *loop, const struct gmem *mem)
{
	struct vblk *v = mem_zalloc(sizeof *v);

	v->dev = (struct vdev){ .ops = &vblk_ops, .mem = mem, .loop = loop };
	v->fd = fd;
	v->read_only = read_only;
	vblk_init_threads(v);
	return v;
}

int vblk_new(const struct vblk_config *c, struct loop *loop, const struct gmem *mem,
	     struct vdev **out, struct err *e)
{
	struct vblk *v = vblk_alloc(c->fd, c->read_only, loop, mem);
	int r = vblk_load(v, c, e);

	if (r < 0)
		vblk_destroy(&v->dev);
	else
		*out = &v->dev;
	return r;
}

struct vdev *vblk_new_empty(bool read_only, struct loop *loop, const struct gmem *mem)
{
	struct vblk *v = vblk_alloc(-1, read_only, loop, mem);

	vblk_describe(v, 0, VBLK_SECTOR);
	return &v->dev;
}

bool vblk_is_empty(struct vdev *d)
{
	return d->ops == &vblk_ops && vblk_of(d)->fd < 0;
}

int vblk_insert(struct vdev *d, const struct vblk_config *c, struct err *e)
{
	struct vblk *v = vblk_of(d), probe = { .fd = c->fd, .read_only = c->read_only };
	int r = vblk_load(&probe, c, e);

	if (r == 0 && (probe.space.blk_size != v->space.blk_size || probe.read_only != v->read_only))
		r = err_set(e, -ENOTSUP, "disk: needs a slot of its own");
	if (r < 0) {
		close(c->fd);
		return r;
	}
	vdev_lock(d);
	v->fd = probe.fd;
	v->is_bdev = probe.is_bdev;
	memcpy(v->serial, probe.serial, sizeof v->serial);
	v->space.capacity = probe.space.capacity;
	vdev_config_changed(d);
	vdev_unlock(d);
	return 0;
}

int vblk_eject(struct vdev *d, struct err *e)
{
	struct vblk *v = vblk_of(d);
	bool was_parked = v->parked;
	int fd, r = vblk_quiesce(d);

	if (r < 0)
		return err_set(e, r, "disk: requests under way do not end");
	vdev_lock(d);
	fd = take_fd(&v->fd);
	v->is_bdev = v->no_nowait = false;
	v->space.capacity = 0;
	vdev_config_changed(d);
	vdev_unlock(d);
	close(fd);
	if (!was_parked)
		vblk_resume(d);
	return 0;
}
