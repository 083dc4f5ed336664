#include "vmm/gmem.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "amalgam/base/mem.h"
#include "vmm/layout.h"

#define GMEM_HUGE MIB(2)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; EINVAL before that, and pages fault one by one */
#endif

/* The region that holds all of [gpa, gpa+len), or NULL. No sum here can wrap: every comparison is
 * between a length and what is left. */
static const struct gmem_region *gmem_find(const struct gmem *m, gpa_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct gmem_region *r = &m->region[i];
		if (gpa >= r->gpa && gpa - r->gpa < r->bytes)
			return len <= r->bytes - (gpa - r->gpa) ? r : NULL;
	}
	return NULL;
}

static void gmem_add_region(struct gmem *m, gpa_t gpa, uint64_t bytes)
{
	ASSERT(m->n < GMEM_MAX_REGIONS);
	m->region[m->n++] = (struct gmem_region){ .gpa = gpa, .bytes = bytes, .file_at = m->bytes,
						  .hva = m->map + m->bytes };
	m->bytes += bytes;
}

static int gmem_check_file(int fd, uint64_t bytes, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "memory file: %m");
	if (st.st_size < 0 || (uint64_t)st.st_size < bytes)
		return err_set(e, -EINVAL, "memory file: %lld bytes, need %llu",
			       (long long)st.st_size, (unsigned long long)bytes);
	return 0;
}

int gmem_init(struct gmem *m, uint64_t bytes, int fd, enum gmem_share share, struct err *e)
{
	const int fresh = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	uint8_t *p;
	int r;

	*m = (struct gmem){ .fd = fd, .shared = share == GMEM_SHARED,
			 .cow = fd >= 0 && share == GMEM_PRIVATE };
	if (bytes < GMEM_HUGE || bytes % GMEM_HUGE)
		return err_set(e, -EINVAL, "memory size %llu is not a multiple of 2 MiB",
			       (unsigned long long)bytes);
	if (fd >= 0 && (r = gmem_check_file(fd, bytes, e)) < 0)
		return r;
	/* Room to start at a multiple of 2 MiB, as guest memory does: else neither the host nor KVM
	 * could use huge pages. NORESERVE: a host with strict overcommit must not charge every clone for
	 * the whole RAM. */
	p = mmap(NULL, bytes + GMEM_HUGE, PROT_NONE, fresh, -1, 0);
	if (p != MAP_FAILED) {
		m->reserved = p;
		m->reserved_bytes = bytes + GMEM_HUGE;
		p = (uint8_t *)ALIGN_UP((uintptr_t)p, (uintptr_t)GMEM_HUGE);
		p = mmap(p, bytes, PROT_READ | PROT_WRITE,
			 MAP_FIXED | (m->shared ? MAP_SHARED | MAP_NORESERVE : fresh),
			 m->shared ? fd : -1, 0);
	}
	if (p == MAP_FAILED)
		return err_set(e, -errno, "map %llu MiB of guest memory: %m",
			       (unsigned long long)(bytes >> 20));
	m->map = p;
	gmem_add_region(m, 0, MIN(bytes, LAYOUT_HOLE_START));
	if (bytes > LAYOUT_HOLE_START)
		gmem_add_region(m, LAYOUT_HOLE_END, bytes - LAYOUT_HOLE_START);
	return 0;
}

int gmem_map_file(const struct gmem *m, uint64_t at, uint64_t n, struct err *e)
{
	ASSERT(!m->shared && at % GMEM_PAGE == 0 && n % GMEM_PAGE == 0 && at <= m->bytes &&
	       n <= m->bytes - at);
	if (mmap(m->map + at, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, m->fd,
		 (off_t)at) == MAP_FAILED)
		return err_set(e, -errno, "map guest memory: %m");
	return 0;
}

void gmem_huge(const struct gmem *m, gpa_t gpa, uint64_t len)
{
	gpa_t first = ALIGN_UP(gpa, GMEM_HUGE), end = (gpa + len) & ~(GMEM_HUGE - 1);
	void *p = first < end ? gmem_span(m, first, end - first) : NULL;

	if (p)
		(void)!madvise(p, end - first, MADV_HUGEPAGE);
}

void gmem_warm(const struct gmem *m, uint64_t first, uint64_t n)
{
	uint64_t pages = m->bytes / GMEM_PAGE;

	if (first < pages && n <= pages - first)
		(void)!madvise(m->map + first * GMEM_PAGE, n * GMEM_PAGE, MADV_POPULATE_WRITE);
}

void gmem_forget_file(struct gmem *m)
{
	ASSERT(!m->shared);
	if (m->fd >= 0)
		close(take_fd(&m->fd));
}

void gmem_fini(struct gmem *m)
{
	if (m->reserved)
		munmap(m->reserved, m->reserved_bytes);
	if (m->fd >= 0)
		close(m->fd);
	*m = (struct gmem){ .fd = -1 };
}

void *gmem_span(const struct gmem *m, gpa_t gpa, size_t len)
{
	const struct gmem_region *r = gmem_find(m, gpa, len);
	return r ? r->hva + (gpa - r->gpa) : NULL;
}

gpa_t gmem_gpa(const struct gmem *m, const void *span)
{
	const uint8_t *p = span;
	unsigned i = 0;

	while (i < m->n && !(p >= m->region[i].hva && p < m->region[i].hva + m->region[i].bytes))
		i++;
	ASSERT(i < m->n);
	return m->region[i].gpa + (gpa_t)(p - m->region[i].hva);
}

int gmem_read(const struct gmem *m, gpa_t gpa, void *dst, size_t len)
{
	const void *p = gmem_span(m, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(dst, p, len);
	return 0;
}

int gmem_write(const struct gmem *m, gpa_t gpa, const void *src, size_t len)
{
	void *p = gmem_span(m, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(p, src, len);
	return 0;
}

int gmem_load16(const struct gmem *m, gpa_t gpa, uint16_t *out)
{
	const uint16_t *p = gmem_span(m, gpa, sizeof *p);

	if (!p || gpa % sizeof *p)
		return -EFAULT;
	*out = __atomic_load_n(p, __ATOMIC_ACQUIRE);
	return 0;
}

int gmem_store16(const struct gmem *m, gpa_t gpa, uint16_t v)
{
	uint16_t *p = gmem_span(m, gpa, sizeof *p);

	if (!p || gpa % sizeof *p)
		return -EFAULT;
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
	return 0;
}

/* From this size on a clone's pages are replaced rather than reverted: below, every hole punched by
 * a fragmented guest would be a mapping of its own, and the process has 65530 of those
 * (vm.max_map_count) for everything. */
#define GMEM_REPLACE_MIN MIB(2)

static int gmem_drop(const struct gmem *m, void *p, size_t len)
{
	/* Shared: a hole in the file. A file system that cannot do that keeps the pages; to put
	 * other memory over them would cut the guest off from the file. */
	if (m->shared)
		return madvise(p, len, MADV_REMOVE) < 0 ? -errno : 0;
	/* Over a private file mapping DONTNEED gives our copy back and the template's page shows
	 * again. Fresh anonymous memory is better for large ranges: to touch it costs no copy, and
	 * no page in the template where that has a hole. */
	if (m->cow && len >= GMEM_REPLACE_MIN &&
	    mmap(p, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
		return 0;
	return madvise(p, len, MADV_DONTNEED) < 0 ? -errno : 0;
}

int gmem_discard(const struct gmem *m, gpa_t gpa, uint64_t len)
{
	gpa_t first, end;
	uint8_t *p = gmem_span(m, gpa, len);

	if (!p)
		return -EFAULT;
	first = ALIGN_UP(gpa, GMEM_PAGE);
	end = (gpa + len) & ~(GMEM_PAGE - 1);
	return first < end ? gmem_drop(m, p + (first - gpa), end - first) : 0;
}
