/* mem.h - allocation policy and scoped ownership.
 *
 * Allocation: sizes that come from outside are capped by whoever parses them, so an allocation here
 * is small and under Linux overcommit does not fail; if it does, the process says so and dies (there
 * is nothing a container runtime could sensibly do instead). No allocation happens on a path a guest
 * drives: the VMM allocates when a device is attached.
 *
 * Ownership: verbs tell it. x_init/x_fini caller's storage, x_new/x_free heap, x_open/x_close kernel
 * object, take_* moves. AUTO_* locals are released at the end of their scope unless taken. */
#pragma once

#include "amalgam/base/base.h"

/* Zeroed memory for one object or an array; never NULL. Free with free(). */
INTERNAL MUST_USE void *mem_zalloc(size_t bytes);
INTERNAL MUST_USE void *mem_calloc(size_t n, size_t bytes_each);

/* Like realloc(); never NULL unless bytes is 0. */
INTERNAL MUST_USE void *mem_realloc(void *p, size_t bytes);

/* Heap copies; never NULL, except that mem_strdup(NULL) is NULL. */
INTERNAL MUST_USE char *mem_strdup(const char *s);
INTERNAL MUST_USE char *mem_strndup(const char *s, size_t n);
INTERNAL MUST_USE char *mem_printf(const char *fmt, ...) PRINTF_LIKE(1, 2);

INTERNAL void mem_auto_free(void *p); /* p is T ** */
INTERNAL void mem_auto_close(const int *fd);

#define AUTO_FREE __attribute__((cleanup(mem_auto_free)))
#define AUTO_CLOSE __attribute__((cleanup(mem_auto_close)))

static inline int take_fd(int *fd)
{
	int f = *fd;
	*fd = -1;
	return f;
}

#define take_ptr(pp)                     \
	({                               \
		__typeof__(*(pp)) p_ = *(pp); \
		*(pp) = NULL;            \
		p_;                      \
	})
