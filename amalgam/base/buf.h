/* buf.h - growable bytes to write into, bounds-checked cursors to read from.
 *
 * A buf owns its memory; zero it to initialise, buf_fini() to release (then it is empty again).
 * A cur borrows bytes. Reading past the end sets `bad`, yields zeros and stays bad, so a parser
 * reads a whole record and checks once. */
#pragma once

#include "amalgam/base/base.h"

struct buf {
	uint8_t *data;
	size_t len; /* bytes in use */
	size_t cap; /* bytes allocated */
};

INTERNAL void buf_fini(struct buf *b);
/* Room for `extra` more bytes behind len; returns where they start. Does not change len. */
INTERNAL uint8_t *buf_reserve(struct buf *b, size_t extra);
INTERNAL void buf_add(struct buf *b, const void *p, size_t n);
INTERNAL void buf_add_str(struct buf *b, const char *s);
INTERNAL void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Drop n bytes from the front. */
INTERNAL void buf_consume(struct buf *b, size_t n);
/* The bytes as a C string: a NUL is kept behind len. Borrowed until the next change. */
INTERNAL const char *buf_cstr(struct buf *b);
/* Move the bytes out as a heap C string; the buf is empty after. */
INTERNAL MUST_USE char *buf_take_cstr(struct buf *b);

INTERNAL void buf_auto_fini(struct buf *b);
#define AUTO_BUF __attribute__((cleanup(buf_auto_fini)))

/* Little-endian and big-endian appends. */
INTERNAL void buf_le32(struct buf *b, uint32_t v);
INTERNAL void buf_le64(struct buf *b, uint64_t v);

struct cur {
	const uint8_t *p, *end;
	bool bad; /* somebody asked for more than there was */
};

static inline struct cur cur_of(const void *p, size_t n)
{
	const uint8_t *at = p ? p : (const uint8_t *)""; /* an empty buf has no memory */
	return (struct cur){ at, at + n, false };
}
static inline size_t cur_left(const struct cur *c)
{
	return (size_t)(c->end - c->p);
}
/* Borrow n bytes, or NULL (and bad). n == 0 gives a non-NULL pointer. */
INTERNAL const uint8_t *cur_bytes(struct cur *c, size_t n);
INTERNAL uint32_t cur_le32(struct cur *c);
INTERNAL uint64_t cur_le64(struct cur *c);
/* Copy n bytes to dst; dst is zeroed when there are fewer. */
INTERNAL void cur_copy(struct cur *c, void *dst, size_t n);
