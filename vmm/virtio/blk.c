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
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"

#define VBLK_SECTOR 512u

/* Section 5.2.3, feature bits. */
#define VBLK_F_SEG_MAX      (UINT64_C(1) << 2)
#define VBLK_F_RO           (UINT64_C(1) << 5)
#define VBLK_F_BLK_SIZE     (UINT64_C(1) << 6)
#define VBLK_F_FLUSH        (UINT64_C(1) << 9)
#define VBLK_F_TOPOLOGY     (UINT64_C(1) << 10)
#define VBLK_F_DISCARD      (UINT64_C(1) << 13)
#define VBLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

/* Section 5.2.6, request types and status. */
#define VBLK_T_IN           0u
#define VBLK_T_OUT          1u
#define VBLK_T_FLUSH        4u
#define VBLK_T_GET_ID       8u
#define VBLK_T_DISCARD      11u
#define VBLK_T_WRITE_ZEROES 13u

enum vblk_status { VBLK_S_OK, VBLK_S_IOERR, VBLK_S_UNSUPP };

/* Limits we announce. A zeroing request may have to be written out byte by byte, hence 64 MiB. */
#define VBLK_SEG_MAX             128u
#define VBLK_MAX_RANGES          16u
#define VBLK_MAX_DISCARD_SECTORS (GIB(1) / VBLK_SECTOR)
#define VBLK_MAX_ZERO_SECTORS    (MIB(64) / VBLK_SECTOR)
#define VBLK_PHYSICAL_BLOCK      4096u /* page cache and file systems work in these */

#define VBLK_STACK_BYTES KIB(64)

/* What the loop thread serves itself in one go: so many reads of at most so many bytes. */
#define VBLK_INLINE_BURST 16
#define VBLK_INLINE_BYTES KIB(128)

/* Section 5.2.4, struct virtio_blk_config; little-endian, as is this host. */
struct PACKED vblk_space {
	uint64_t capacity; /* sectors of 512 bytes */
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
};
static_assert(offsetof(struct vblk_space, blk_size) == 20, "5.2.4");
static_assert(sizeof(struct vblk_space) == 60, "5.2.4");

/* Section 5.2.6, what a request begins with, and one range of discard and write zeroes. */
struct vblk_header {
	uint32_t type, reserved;
	uint64_t sector;
};
struct vblk_range {
	uint64_t sector;
	uint32_t num_sectors, flags;
};
#define VBLK_RANGE_UNMAP 1u

struct vblk {
	struct vdev dev;
	int fd;
	bool read_only, is_bdev;
	bool no_nowait; /* loop thread; the host cannot say whether a read would wait */
	char serial[VBLK_SERIAL_MAX];
	struct vblk_space space;
	uint32_t epoch; /* slot lock; counts resets: a request of an older epoch is dropped */

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t work;  /* a turn may be had: wanted, parked or stop changed */
	pthread_cond_t calm;  /* idle, in_io or workers changed as somebody may wait for */
	unsigned workers;     /* threads that exist */
	unsigned idle;        /* of these, waiting for a turn (inv 1) */
	unsigned wanted;      /* turns to hand out: somebody should look at the queue */
	unsigned in_io;       /* requests whose host calls may touch guest memory */
	bool parked;          /* between quiesce() and resume(): no turns; set by the loop thread */
	bool stop;
};

/* A request being served. One lives on each worker's stack; nothing is allocated for requests. */
struct vblk_req {
	struct vq_chain c; /* its iov is consumed by the transfer */
	struct vblk_header h;
	struct iovec tail; /* the status byte */
	uint32_t epoch;
	bool writethrough; /* make it durable before it completes */
	uint32_t done;     /* bytes written to the driver, status excluded */
};

static struct vblk *vblk_of(struct vdev *d)
{
	return container_of(d, struct vblk, dev);
}

/* --- requests: bytes in, status out ----------------------------------------------------------- */

/* Copy the header and find the status byte. Framing is the driver's choice (2.7.4): header, data
 * and status may share or split segments. */
static int vblk_parse(struct vblk_req *r)
{
	const struct iovec *last;

	r->done = 0;
	if (vq_copy_out(&r->c, 0, &r->h, sizeof r->h) != sizeof r->h || r->c.nin == 0)
		return -EINVAL;
	last = &r->c.iov[r->c.nout + r->c.nin - 1];
	r->tail = (struct iovec){ (uint8_t *)last->iov_base + last->iov_len - 1, 1 };
	return 0;
}

/* Bytes of the request's data, either direction. */
static uint32_t vblk_out_bytes(const struct vblk_req *r)
{
	return r->c.out_len - (uint32_t)sizeof r->h;
}
static uint32_t vblk_in_bytes(const struct vblk_req *r)
{
	return r->c.in_len - 1;
}

static bool vblk_inside(const struct vblk *v, uint64_t sector, uint64_t count)
{
	return sector <= v->space.capacity && count <= v->space.capacity - sector;
}

/* Move the start of *iov forward by `bytes`, which it has. */
static void vblk_skip(struct iovec **iov, unsigned *n, size_t bytes)
{
	while (*n && bytes >= (*iov)->iov_len) {
		bytes -= (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	if (*n) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + bytes;
		(*iov)->iov_len -= bytes;
	}
}

static int vblk_transfer(const struct vblk *v, bool write, struct iovec *iov, unsigned n, off_t at)
{
	while (n) {
		ssize_t k = write ? pwritev(v->fd, iov, (int)n, at) :
				    preadv(v->fd, iov, (int)n, at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0) /* the file is shorter than when it was attached */
			return -EIO;
		at += k;
		vblk_skip(&iov, &n, (size_t)k);
	}
	return 0;
}

static enum vblk_status vblk_in(struct vblk *v, struct vblk_req *r)
{
	struct iovec *iov = r->c.iov + r->c.nout;
	uint32_t bytes = vblk_in_bytes(r);
	unsigned n = r->c.nin;

	if (bytes % VBLK_SECTOR || !vblk_inside(v, r->h.sector, bytes / VBLK_SECTOR))
		return VBLK_S_IOERR;
	if (--iov[n - 1].iov_len == 0)
		n--;
	if (vblk_transfer(v, false, iov, n, (off_t)(r->h.sector * VBLK_SECTOR)) < 0)
		return VBLK_S_IOERR;
	r->done = bytes;
	return VBLK_S_OK;
}

static enum vblk_status vblk_out(struct vblk *v, struct vblk_req *r)
{
	struct iovec *iov = r->c.iov;
	uint32_t bytes = vblk_out_bytes(r);
	unsigned n = r->c.nout;

	if (bytes % VBLK_SECTOR || !vblk_inside(v, r->h.sector, bytes / VBLK_SECTOR))
		return VBLK_S_IOERR;
	vblk_skip(&iov, &n, sizeof r->h);
	if (vblk_transfer(v, true, iov, n, (off_t)(r->h.sector * VBLK_SECTOR)) < 0)
		return VBLK_S_IOERR;
	return VBLK_S_OK;
}

static enum vblk_status vblk_flush(struct vblk *v, struct vblk_req *r)
{
	(void)r;
	if (v->read_only)
		return VBLK_S_OK;
	return fdatasync(v->fd) < 0 ? VBLK_S_IOERR : VBLK_S_OK;
}

static enum vblk_status vblk_get_id(struct vblk *v, struct vblk_req *r)
{
	if (vblk_in_bytes(r) < sizeof v->serial)
		return VBLK_S_IOERR;
	r->done = (uint32_t)vq_copy_in(&r->c, 0, v->serial, sizeof v->serial);
	return VBLK_S_OK;
}

/* Copy the ranges of a discard or write zeroes request, or say what is wrong with them. Nothing is
 * done before all are known to be good. */
static enum vblk_status vblk_ranges(const struct vblk *v, const struct vblk_req *r, uint32_t flags,
				    uint64_t max_sectors, struct vblk_range *range, unsigned *n)
{
	uint32_t bytes = vblk_out_bytes(r);

	*n = bytes / sizeof *range;
	if (bytes % sizeof *range || *n == 0 || *n > VBLK_MAX_RANGES)
		return VBLK_S_IOERR;
	vq_copy_out(&r->c, sizeof r->h, range, bytes);
	for (unsigned i = 0; i < *n; i++)
		if (range[i].flags & ~flags) /* 5.2.6.2: a MUST, so before any other complaint */
			return VBLK_S_UNSUPP;
	for (unsigned i = 0; i < *n; i++)
		if (range[i].num_sectors > max_sectors ||
		    !vblk_inside(v, range[i].sector, range[i].num_sectors))
			return VBLK_S_IOERR;
	return VBLK_S_OK;
}

static int vblk_fallocate(const struct vblk *v, int mode, off_t at, off_t bytes)
{
	int r;

	do
		r = fallocate(v->fd, mode | FALLOC_FL_KEEP_SIZE, at, bytes);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int vblk_discard_range(const struct vblk *v, const struct vblk_range *range)
{
	uint64_t span[2] = { range->sector * VBLK_SECTOR,
			     (uint64_t)range->num_sectors * VBLK_SECTOR };

	if (range->num_sectors == 0) /* fallocate and BLKDISCARD refuse it */
		return 0;
	if (v->is_bdev)
		return ioctl(v->fd, BLKDISCARD, span) < 0 ? -errno : 0;
	return vblk_fallocate(v, FALLOC_FL_PUNCH_HOLE, (off_t)span[0], (off_t)span[1]);
}

static enum vblk_status vblk_discard(struct vblk *v, struct vblk_req *r)
{
	struct vblk_range range[VBLK_MAX_RANGES];
	unsigned n;
	/* 5.2.6.2: UNSUPP also for the unmap flag, which is for write zeroes only. */
	enum vblk_status s = vblk_ranges(v, r, 0, VBLK_MAX_DISCARD_SECTORS, range, &n);

	for (unsigned i = 0; s == VBLK_S_OK && i < n; i++) {
		int err = vblk_discard_range(v, &range[i]);
		if (err < 0)
			s = err == -EOPNOTSUPP ? VBLK_S_UNSUPP : VBLK_S_IOERR;
	}
	return s;
}

static int vblk_write_zeros(const struct vblk *v, off_t at, uint64_t bytes)
{
	static const uint8_t zeros[4096] __attribute__((aligned(4096))); /* O_DIRECT */

	while (bytes) {
		struct iovec iov[64];
		unsigned n = 0;
		uint64_t batch = 0;
		int r;

		while (batch < bytes && n < ARRAY_LEN(iov)) {
			size_t k = MIN(bytes - batch, sizeof zeros);
			iov[n++] = (struct iovec){ (void *)(uintptr_t)zeros, k };
			batch += k;
		}
		r = vblk_transfer(v, true, iov, n, at);
		if (r < 0)
			return r;
		at += (off_t)batch;
		bytes -= batch;
	}
	return 0;
}

/* The cheapest way the host has: a hole if that is allowed, a mark in the file system, real
 * zeros. */
static int vblk_zero_range(const struct vblk *v, const struct vblk_range *range)
{
	off_t at = (off_t)(range->sector * VBLK_SECTOR);
	off_t bytes = (off_t)range->num_sectors * VBLK_SECTOR;

	if (bytes == 0)
		return 0;
	if ((range->flags & VBLK_RANGE_UNMAP) &&
	    vblk_fallocate(v, FALLOC_FL_PUNCH_HOLE, at, bytes) == 0)
		return 0;
	if (vblk_fallocate(v, FALLOC_FL_ZERO_RANGE, at, bytes) == 0)
		return 0;
	return vblk_write_zeros(v, at, (uint64_t)bytes);
}

static enum vblk_status vblk_write_zeroes(struct vblk *v, struct vblk_req *r)
{
	struct vblk_range range[VBLK_MAX_RANGES];
	unsigned n;
	enum vblk_status s =
		vblk_ranges(v, r, VBLK_RANGE_UNMAP, VBLK_MAX_ZERO_SECTORS, range, &n);

	for (unsigned i = 0; s == VBLK_S_OK && i < n; i++)
		if (vblk_zero_range(v, &range[i]) < 0)
			s = VBLK_S_IOERR;
	return s;
}

/* Section 5.2.6. What is not listed is VIRTIO_BLK_S_UNSUPP. */
static const struct vblk_type {
	uint32_t type;
	bool modifies;
	enum vblk_status (*serve)(struct vblk *v, struct vblk_req *r);
} vblk_types[] = {
	{ VBLK_T_IN,           false, vblk_in           },
	{ VBLK_T_OUT,          true,  vblk_out          },
	{ VBLK_T_FLUSH,        false, vblk_flush        },
	{ VBLK_T_GET_ID,       false, vblk_get_id       },
	{ VBLK_T_DISCARD,      true,  vblk_discard      },
	{ VBLK_T_WRITE_ZEROES, true,  vblk_write_zeroes },
};

static enum vblk_status vblk_serve(struct vblk *v, struct vblk_req *r)
{
	for (unsigned i = 0; i < ARRAY_LEN(vblk_types); i++) {
		const struct vblk_type *t = &vblk_types[i];
		enum vblk_status s;

		if (t->type != r->h.type)
			continue;
		/* 5.2.6.2: IOERR and no byte written. Here, whatever the driver negotiated. */
		if (t->modifies && v->read_only)
			return VBLK_S_IOERR;
		s = t->serve(v, r);
		if (s == VBLK_S_OK && t->modifies && r->writethrough)
			s = vblk_flush(v, r);
		return s;
	}
	return VBLK_S_UNSUPP;
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
	/* 2.7.8.2: the length counts from the first writable byte and without gaps, so a status
	 * that follows data we did not write is not in it. */
	uint32_t written = r->done == vblk_in_bytes(r) ? r->done + 1 : r->done;

	if (r->epoch != v->epoch)
		return;
	memcpy(r->tail.iov_base, &status, 1);
	if (vq_push(&v->dev.q[0], r->c.head, written) < 0)
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

/* preadv2(2) with RWF_NOWAIT: all that is in memory, EAGAIN if it would wait. Not in every libc. */
static ssize_t vblk_read_nowait(int fd, const struct iovec *iov, unsigned n, uint64_t at)
{
	return syscall(SYS_preadv2, fd, iov, (unsigned long)n, (unsigned long)at, 0ul, RWF_NOWAIT);
}

/* True when the whole read was served from memory. */
static bool vblk_in_cached(struct vblk *v, struct vblk_req *r)
{
	struct iovec *iov = r->c.iov + r->c.nout;
	uint32_t bytes = vblk_in_bytes(r);
	unsigned n = r->c.nin;
	ssize_t k;

	if (v->no_nowait || r->h.type != VBLK_T_IN || bytes > VBLK_INLINE_BYTES ||
	    bytes % VBLK_SECTOR || !vblk_inside(v, r->h.sector, bytes / VBLK_SECTOR))
		return false;
	if (--iov[n - 1].iov_len == 0)
		n--;
	k = vblk_read_nowait(v->fd, iov, n, r->h.sector * VBLK_SECTOR);
	if (k < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) /* tmpfs, for one */
		v->no_nowait = true;
	r->done = bytes;
	return k == (ssize_t)bytes;
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

	if (r == 0 && (probe.space.blk_size != VBLK_SECTOR || probe.read_only != v->read_only))
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
