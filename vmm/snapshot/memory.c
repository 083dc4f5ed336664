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

/* --- lists of pages ------------------------------------------------------------------------------ */

static void snapmem_add_range(struct buf *out, uint64_t first, uint64_t n)
{
	if (n) {
		buf_le32(out, (uint32_t)first);
		buf_le32(out, (uint32_t)n);
	}
}

static int snapmem_seek(int fd, uint64_t at, int what, uint64_t end, uint64_t *to, struct err *e)
{
	off_t r = lseek(fd, (off_t)at, what);

	*to = end;
	if (r < 0 && errno != ENXIO) /* ENXIO: nothing behind this point */
		return err_set(e, -errno, "memory file: seek: %m");
	if (r >= 0)
		*to = MIN((uint64_t)r, end);
	return 0;
}

int snapmem_list(int fd, uint64_t bytes, struct buf *out, struct err *e)
{
	uint64_t at, end = 0;
	int r;

	while ((r = snapmem_seek(fd, end, SEEK_DATA, bytes, &at, e)) == 0 && at < bytes) {
		if ((r = snapmem_seek(fd, at, SEEK_HOLE, bytes, &end, e)) < 0)
			break;
		/* A file system with blocks smaller than a page may start anywhere in one. */
		at &= ~(GMEM_PAGE - 1);
		end = ALIGN_UP(end, GMEM_PAGE);
		snapmem_add_range(out, at / GMEM_PAGE, (end - at) / GMEM_PAGE);
	}
	return r;
}

int snapmem_map(const struct gmem *m, struct cur in, struct err *e)
{
	uint64_t pages = m->bytes / GMEM_PAGE, end = 0;

	while (cur_left(&in)) {
		uint64_t first = cur_le32(&in), n = cur_le32(&in);
		int r;
		if (in.bad || n == 0 || first < end || first > pages || n > pages - first)
			return err_set(e, -EPROTO, "state file: bad list of memory");
		if ((r = gmem_map_file(m, first * GMEM_PAGE, n * GMEM_PAGE, e)) < 0)
			return r;
		end = first + n;
	}
	return 0;
}

/* Set the bits of the pages in [at, end), data of the file, that are not as the file has them. */
static int snapmem_compare(const struct gmem *m, uint64_t at, uint64_t end, uint64_t *changed,
			   struct err *e)
{
	uint8_t before[GMEM_PAGE];

	for (; at < end; at += GMEM_PAGE) {
		int r = fd_pread_full(m->fd, before, sizeof before, (off_t)at);
		if (r < 0)
			return err_set(e, r, "memory file: compare: %s", strerror(-r));
		if (memcmp(m->map + at, before, sizeof before))
			changed[at / GMEM_PAGE / 64] |= UINT64_C(1) << at / GMEM_PAGE % 64;
	}
	return 0;
}

int snapmem_changed(const struct gmem *m, uint64_t *written, struct buf *out, struct err *e)
{
	uint64_t pages = m->bytes / GMEM_PAGE, at, end = 0, n = 0;
	int r;

	while ((r = snapmem_seek(m->fd, end, SEEK_DATA, m->bytes, &at, e)) == 0 && at < m->bytes)
		if ((r = snapmem_seek(m->fd, at, SEEK_HOLE, m->bytes, &end, e)) < 0 ||
		    (r = snapmem_compare(m, at & ~(GMEM_PAGE - 1), end, written, e)) < 0)
			return r;
	if (r < 0)
		return r;
	for (uint64_t p = 0; p <= pages; p++) {
		bool is = p < pages && written[p / 64] >> p % 64 & 1;
		if (!is)
			snapmem_add_range(out, p - n, n);
		n = is ? n + 1 : 0;
	}
	return 0;
}

#define SNAPMEM_MAX_WARM 4096 /* ranges */

void snapmem_warm(const struct gmem *m, struct cur in)
{
	for (unsigned i = 0; i < SNAPMEM_MAX_WARM && cur_left(&in) >= 8; i++) {
		uint32_t first = cur_le32(&in), n = cur_le32(&in);
		gmem_warm(m, first, n);
	}
}
