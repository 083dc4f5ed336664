/* gmem.h - guest physical memory as the VMM sees it: the only door to it.
 *
 * A gpa_t is a number, never a pointer. Everything behind it may be rewritten by a vCPU at any
 * moment, so: copy a structure out once, validate the copy, never look at the original again. A
 * span goes into an iovec and nowhere else.
 *
 * Regions are added before vCPUs run; lookups need no lock and are safe from any thread.
 * Source: KVM api.rst 4.35 (KVM_SET_USER_MEMORY_REGION). */
#pragma once

#include "amalgam/base/err.h"

typedef uint64_t gpa_t; /* bytes from guest physical zero */

#define GMEM_MAX_REGIONS 4
#define GMEM_PAGE        UINT64_C(4096)

struct gmem_region {
	gpa_t gpa;        /* first byte, page aligned */
	uint64_t bytes;   /* length, page aligned */
	uint64_t file_at; /* offset of the first byte in the memory file */
	uint8_t *hva;     /* where we have it mapped */
};

struct gmem {
	struct gmem_region region[GMEM_MAX_REGIONS]; /* ascending, not overlapping */
	unsigned n;
	uint64_t bytes; /* sum of all regions = size of the memory file */
	uint8_t *map;   /* one stretch of address space for all regions, in region order */
	void *reserved; /* the stretch and the unmapped rest around it */
	size_t reserved_bytes;
	int fd;         /* memory file, -1 = anonymous; ours */
	bool shared;    /* GMEM_SHARED */
	bool cow;       /* there is, or was, a file below private memory */
};

enum gmem_share {
	GMEM_PRIVATE, /* fresh memory; with fd, gmem_map_file() lays parts of it over that, copy-on-write */
	GMEM_SHARED,  /* writes reach fd: how a template is built */
};

/* Lay out `bytes` of RAM (a multiple of 2 MiB) around the MMIO hole and map it; fd is taken, -1 for
 * anonymous memory. The file must be at least `bytes` long: a shorter one is -EINVAL, for a later
 * access would be SIGBUS. */
INTERNAL MUST_USE int gmem_init(struct gmem *m, uint64_t bytes, int fd, enum gmem_share share,
				struct err *e);
/* Map n bytes of the memory file, from offset `at` on, copy-on-write at their place in RAM; both are
 * multiples of a page and inside (ASSERT). What stays unmapped is fresh memory: touching a hole of the
 * file through a private mapping would allocate its page in the file as well, and find a full tmpfs
 * with SIGBUS. Before vCPUs run. */
INTERNAL MUST_USE int gmem_map_file(const struct gmem *m, uint64_t at, uint64_t n, struct err *e);

/* Close the memory file: what is mapped stays. A descriptor of a file is a way to write to it for a thread
 * that may open anything its process has (jail.h), and this one belongs to all clones. Not for memory
 * that is shared, or whose changes will be asked for. */
INTERNAL void gmem_forget_file(struct gmem *m);

/* Make the pages [first, first + n) (page numbers of the memory file) private and present now, in one
 * call and not in one fault each; those outside are ignored. Only a hint. */
INTERNAL void gmem_warm(const struct gmem *m, uint64_t first, uint64_t n);

/* Ask for 2 MiB pages for what of [gpa, gpa+len) fills them. For a template's memory file before it is
 * written: KVM then maps 512 of a clone's read-only pages at the first touch. Only a hint. */
INTERNAL void gmem_huge(const struct gmem *m, gpa_t gpa, uint64_t len);

INTERNAL void gmem_fini(struct gmem *m);

/* Copy len bytes at gpa to dst. 0, or -EFAULT if any byte is outside RAM (dst then unspecified). */
INTERNAL MUST_USE int gmem_read(const struct gmem *m, gpa_t gpa, void *dst, size_t len);
INTERNAL MUST_USE int gmem_write(const struct gmem *m, gpa_t gpa, const void *src, size_t len);

/* Borrow [gpa, gpa+len) for one iovec; NULL unless all of it lies in one region. The content is the
 * guest's and changes under you. len may be 0: then gpa alone must be inside. */
INTERNAL void *gmem_span(const struct gmem *m, gpa_t gpa, size_t len);

/* The address of what a span points to. The span is ours, so not finding it is our mistake. */
INTERNAL gpa_t gmem_gpa(const struct gmem *m, const void *span);

/* Give the pages of [gpa, gpa+len) back to the host (balloon, free page reporting). Afterwards they
 * read as zero or, in a copy-on-write clone, perhaps as the template has them; count on neither.
 * Only whole pages inside the range are dropped. 0, -EFAULT, or -errno when the host cannot. */
INTERNAL MUST_USE int gmem_discard(const struct gmem *m, gpa_t gpa, uint64_t len);

/* Aligned 16-bit ring indices shared with a running vCPU: acquire on load, release on store. */
INTERNAL MUST_USE int gmem_load16(const struct gmem *m, gpa_t gpa, uint16_t *out);
INTERNAL MUST_USE int gmem_store16(const struct gmem *m, gpa_t gpa, uint16_t v);
