#include "amalgam/base/mem.h"

#include <stdarg.h>

static NORETURN void mem_exhausted(size_t bytes)
{
	dprintf(2, "spore: out of memory: cannot allocate %zu bytes\n", bytes);
	abort();
}

void *mem_calloc(size_t n, size_t bytes_each)
{
	void *p = calloc(n ? n : 1, bytes_each ? bytes_each : 1);
	if (!p)
		mem_exhausted(n * bytes_each);
	return p;
}

void *mem_zalloc(size_t bytes)
{
	return mem_calloc(1, bytes);
}

void *mem_realloc(void *p, size_t bytes)
{
	void *q = realloc(p, bytes);
	if (!q && bytes)
		mem_exhausted(bytes);
	return q;
}

char *mem_strndup(const char *s, size_t n)
{
	char *p = mem_zalloc(n + 1);
	memcpy(p, s, n);
	return p;
}

char *mem_strdup(const char *s)
{
	return s ? mem_strndup(s, strlen(s)) : NULL;
}

char *mem_printf(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		mem_exhausted(strlen(fmt));
	va_end(ap);
	return s;
}

void mem_auto_free(void *p)
{
	free(*(void **)p);
}

void mem_auto_close(const int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
}
