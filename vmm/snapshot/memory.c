#include "vmm/snapshot/memory.h"

#include <fcntl.h>

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

/* Length of the run of pages from `at` that are all zero, or all not; at most to the end. */
static uint64_t snapmem_run(const struct gmem *m, uint64_t at, bool *zero)
{
	uint64_t end = at + GMEM_PAGE;

	*zero = snapmem_is_zero(m->map + at);
	while (end < m->bytes && snapmem_is_zero(m->map + end) == *zero)
		end += GMEM_PAGE;
	return end - at;
}

int snapmem_punch(const struct gmem *m, struct err *e)
{
	off_t at = 0, end = (off_t)m->bytes;

	/* Reading a hole of a shared tmpfs mapping would allocate its page: ask the file where data is. */
	while ((at = lseek(m->fd, at, SEEK_DATA)) >= 0 && at < end) {
		off_t hole = lseek(m->fd, at, SEEK_HOLE);
		if (hole < 0)
			break;
		while (at < hole) {
			bool zero;
			uint64_t n = MIN(snapmem_run(m, (uint64_t)at, &zero), (uint64_t)(hole - at));
			if (zero && fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
					      (off_t)n) < 0)
				return err_set(e, -errno, "memory file: punch hole: %m");
			at += (off_t)n;
		}
	}
	if (at < 0 && errno != ENXIO) /* ENXIO: no data behind this point */
		return err_set(e, -errno, "memory file: seek: %m");
	return 0;
}

int snapmem_write(const struct gmem *m, int fd, struct err *e)
{
	int r;

	if (ftruncate(fd, (off_t)m->bytes) < 0)
		return err_set(e, -errno, "memory file: %m");
	for (uint64_t at = 0; at < m->bytes;) {
		bool zero;
		uint64_t n = snapmem_run(m, at, &zero);
		if (!zero && (r = fd_pwrite_full(fd, m->map + at, n, (off_t)at)) < 0)
			return err_set(e, r, "memory file: %s", strerror(-r));
		at += n;
	}
	return 0;
}
