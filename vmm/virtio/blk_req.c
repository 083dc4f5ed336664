#include "vmm/virtio/blk_req.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* Section 5.2.6, request types. */
#define VBLK_T_IN           0u
#define VBLK_T_OUT          1u
#define VBLK_T_FLUSH        4u
#define VBLK_T_GET_ID       8u
#define VBLK_T_DISCARD      11u
#define VBLK_T_WRITE_ZEROES 13u

/* Section 5.2.6, one range of discard and write zeroes. */
struct vblk_range {
	uint64_t sector;
	uint32_t num_sectors, flags;
};
#define VBLK_RANGE_UNMAP 1u

/* --- framing and bounds ----------------------------------------------------------------------- */

/* Framing is the driver's choice (2.7.4): header, data and status may share or split segments. */
int vblk_parse(struct vblk_req *r)
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

/* 2.7.8.2: the length counts from the first writable byte and without gaps, so a status that
 * follows data we did not write is not in it. */
uint32_t vblk_written(const struct vblk_req *r)
{
	return r->done == vblk_in_bytes(r) ? r->done + 1 : r->done;
}

static bool vblk_inside(const struct vblk *v, uint64_t sector, uint64_t count)
{
	return sector <= v->space.capacity && count <= v->space.capacity - sector;
}

/* --- moving bytes ----------------------------------------------------------------------------- */

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

static enum vblk_status vblk_in(const struct vblk *v, struct vblk_req *r)
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

static enum vblk_status vblk_out(const struct vblk *v, struct vblk_req *r)
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

static enum vblk_status vblk_flush(const struct vblk *v, struct vblk_req *r)
{
	(void)r;
	if (v->read_only)
		return VBLK_S_OK;
	return fdatasync(v->fd) < 0 ? VBLK_S_IOERR : VBLK_S_OK;
}

static enum vblk_status vblk_get_id(const struct vblk *v, struct vblk_req *r)
{
	if (vblk_in_bytes(r) < sizeof v->serial)
		return VBLK_S_IOERR;
	r->done = (uint32_t)vq_copy_in(&r->c, 0, v->serial, sizeof v->serial);
	return VBLK_S_OK;
}

/* --- ranges: discard, write zeroes ------------------------------------------------------------ */

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

static enum vblk_status vblk_discard(const struct vblk *v, struct vblk_req *r)
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

static enum vblk_status vblk_write_zeroes(const struct vblk *v, struct vblk_req *r)
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

/* --- what a request means --------------------------------------------------------------------- */

/* Section 5.2.6. What is not listed is VIRTIO_BLK_S_UNSUPP. */
static const struct vblk_type {
	uint32_t type;
	bool modifies;
	enum vblk_status (*serve)(const struct vblk *v, struct vblk_req *r);
} vblk_types[] = {
	{ VBLK_T_IN,           false, vblk_in           },
	{ VBLK_T_OUT,          true,  vblk_out          },
	{ VBLK_T_FLUSH,        false, vblk_flush        },
	{ VBLK_T_GET_ID,       false, vblk_get_id       },
	{ VBLK_T_DISCARD,      true,  vblk_discard      },
	{ VBLK_T_WRITE_ZEROES, true,  vblk_write_zeroes },
};

enum vblk_status vblk_serve(const struct vblk *v, struct vblk_req *r)
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

/* --- the short way ---------------------------------------------------------------------------- */

/* preadv2(2) with RWF_NOWAIT: all that is in memory, EAGAIN if it would wait. Not in every libc. */
static ssize_t vblk_read_nowait(int fd, const struct iovec *iov, unsigned n, uint64_t at)
{
	return syscall(SYS_preadv2, fd, iov, (unsigned long)n, (unsigned long)at, 0ul, RWF_NOWAIT);
}

int vblk_read_cached(const struct vblk *v, struct vblk_req *r)
{
	struct iovec *iov = r->c.iov + r->c.nout;
	uint32_t bytes = vblk_in_bytes(r);
	unsigned n = r->c.nin;
	ssize_t k;

	if (r->h.type != VBLK_T_IN || bytes > VBLK_INLINE_BYTES || bytes % VBLK_SECTOR ||
	    !vblk_inside(v, r->h.sector, bytes / VBLK_SECTOR))
		return -EAGAIN;
	if (--iov[n - 1].iov_len == 0)
		n--;
	k = vblk_read_nowait(v->fd, iov, n, r->h.sector * VBLK_SECTOR);
	if (k < 0)
		return -errno;
	r->done = bytes;
	return k == (ssize_t)bytes ? 0 : -EAGAIN;
}
