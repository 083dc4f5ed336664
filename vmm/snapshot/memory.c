#include "vmm/snapshot/memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "amalgam/base/fd.h"

static bool snapmem_is_zero(const uint8_t *page)
{
	const uint64_t *w = (const uint64_t *)page;
	uint64_t any = 0;

	for (size_t i = 0; i < GMEM_PAGE / sizeof *w; i += 8) {
		any = w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7];
		if (any)
			return false;
	}
	return true;
}

/* Length of the run of zero pages at `at`, within [at, end). */
static uint64_t snapmem_zeros(const struct gmem *m, uint64_t at, uint64_t end)
{
	uint64_t to = at;

	while (to < end && snapmem_is_zero(m->map + to))
		to += GMEM_PAGE;
	return to - at;
}

/* Length of the stretch at `at` that is to be data: until a run of zeros worth a hole, or the end. */
static uint64_t snapmem_data(const struct gmem *m, uint64_t at, uint64_t end)
{
	uint64_t to = at;

	while (to < end) {
		uint64_t z = snapmem_zeros(m, to, MIN(end, to + SNAPMEM_MIN_HOLE));
		if (z >= SNAPMEM_MIN_HOLE || to + z == end)
			break;
		to += z + GMEM_PAGE;
	}
	return MIN(to, end) - at;
}

/* Within data of the file only: reading a hole through a shared mapping would allocate its page. */
static int snapmem_punch_extent(const struct gmem *m, uint64_t at, uint64_t end, struct err *e)
{
	while (at < end) {
		uint64_t zeros;
		at += snapmem_data(m, at, end);
		zeros = snapmem_zeros(m, at, end);
		if (zeros && fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
				       (off_t)zeros) < 0)
			return err_set(e, -errno, "memory file: punch a hole: %m");
		at += zeros;
	}
	return 0;
}

typedef int snapmem_extent_fn(const struct gmem *m, uint64_t at, uint64_t end, struct err *e);

/* Call fn for every extent of data (SEEK_DATA) or every hole (SEEK_HOLE) of the memory file. */
static int snapmem_each(const struct gmem *m, int what, snapmem_extent_fn *fn, struct err *e)
{
	int other = what == SEEK_DATA ? SEEK_HOLE : SEEK_DATA, r;
	off_t at = 0, end = (off_t)m->bytes, to;

	while (at < end && (at = lseek(m->fd, at, what)) >= 0 && at < end) {
		to = lseek(m->fd, at, other);
		if (to < 0 || to > end)
			to = end;
		if ((r = fn(m, (uint64_t)at, (uint64_t)to, e)) < 0)
			return r;
		at = to;
	}
	if (at < 0 && errno != ENXIO) /* ENXIO: none behind this point */
		return err_set(e, -errno, "memory file: seek: %m");
	return 0;
}

/* With written zeros: pages that fallocate() makes are still a hole to SEEK_DATA on tmpfs. */
static int snapmem_fill_hole(const struct gmem *m, uint64_t at, uint64_t end, struct err *e)
{
	static const uint8_t zeros[GMEM_PAGE];

	if (end - at >= SNAPMEM_MIN_HOLE)
		return 0;
	for (; at < end; at += GMEM_PAGE) {
		int r = fd_pwrite_full(m->fd, zeros, sizeof zeros, (off_t)at);
		if (r < 0)
			return err_set(e, r, "memory file: fill a hole: %s", strerror(-r));
	}
	return 0;
}

int snapmem_punch(const struct gmem *m, struct err *e)
{
	int r = snapmem_each(m, SEEK_DATA, snapmem_punch_extent, e);

	return r < 0 ? r : snapmem_each(m, SEEK_HOLE, snapmem_fill_hole, e);
}

int snapmem_write(const struct gmem *m, int fd, struct err *e)
{
	int r;

	if (ftruncate(fd, (off_t)m->bytes) < 0)
		return err_set(e, -errno, "memory file: %m");
	for (uint64_t at = 0; at < m->bytes;) {
		uint64_t n = snapmem_data(m, at, m->bytes);
		if (n && (r = fd_pwrite_full(fd, m->map + at, n, (off_t)at)) < 0)
			return err_set(e, r, "memory file: %s", strerror(-r));
		at += n;
		at += snapmem_zeros(m, at, m->bytes);
	}
	return 0;
}

/* --- the write set ------------------------------------------------------------------------------- */

#define SNAPMEM_MAX_RANGES 4096

static void snapmem_add_range(struct buf *out, uint64_t first, uint64_t n)
{
	if (n) {
		buf_le32(out, (uint32_t)first);
		buf_le32(out, (uint32_t)n);
	}
}

/* Append the ranges of pages in [at, end) that differ from `before`, or from zeros when that is NULL. */
static void snapmem_compare(const struct gmem *m, uint64_t at, uint64_t end, const uint8_t *before,
			    struct buf *out)
{
	uint64_t n = 0;

	for (uint64_t p = at; p < end; p += GMEM_PAGE) {
		bool same = before ? !memcmp(m->map + p, before + (p - at), GMEM_PAGE) :
				     snapmem_is_zero(m->map + p);
		if (same) {
			snapmem_add_range(out, p / GMEM_PAGE - n, n);
			n = 0;
		} else {
			n++;
		}
	}
	snapmem_add_range(out, end / GMEM_PAGE - n, n);
}

int snapmem_changed(const struct gmem *m, struct buf *out, struct err *e)
{
	uint64_t at = 0;

	while (at < m->bytes) {
		off_t data = lseek(m->fd, (off_t)at, SEEK_DATA), hole;
		void *before;

		if (data < 0 || (uint64_t)data > m->bytes)
			data = (off_t)m->bytes;
		snapmem_compare(m, at, (uint64_t)data, NULL, out);
		if ((uint64_t)data == m->bytes)
			break;
		hole = MIN(lseek(m->fd, data, SEEK_HOLE), (off_t)m->bytes);
		/* Only the data is mapped: reading a hole would allocate it. */
		before = mmap(NULL, (size_t)(hole - data), PROT_READ, MAP_PRIVATE, m->fd, data);
		if (hole <= data || before == MAP_FAILED)
			return err_set(e, -errno, "memory file: compare: %m");
		snapmem_compare(m, (uint64_t)data, (uint64_t)hole, before, out);
		munmap(before, (size_t)(hole - data));
		at = (uint64_t)hole;
	}
	return 0;
}

void snapmem_warm(const struct gmem *m, struct cur in)
{
	for (unsigned i = 0; i < SNAPMEM_MAX_RANGES && cur_left(&in) >= 8; i++) {
		uint32_t first = cur_le32(&in), n = cur_le32(&in);
		gmem_warm(m, first, n);
	}
}
