#include "amalgam/base/buf.h"

#include <stdarg.h>

#include "amalgam/base/mem.h"

void buf_fini(struct buf *b)
{
	free(b->data);
	*b = (struct buf){ 0 };
}

void buf_auto_fini(struct buf *b)
{
	buf_fini(b);
}

uint8_t *buf_reserve(struct buf *b, size_t extra)
{
	ASSERT(extra <= SIZE_MAX / 4 && b->len <= SIZE_MAX / 4);
	if (b->cap - b->len < extra) {
		size_t cap = MAX(b->cap * 2, (size_t)64);
		while (cap - b->len < extra)
			cap *= 2;
		b->data = mem_realloc(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	if (n == 0)
		return;
	memcpy(buf_reserve(b, n), p, n);
	b->len += n;
}

void buf_add_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	ASSERT(n >= 0);
	va_start(ap, fmt);
	vsnprintf((char *)buf_reserve(b, (size_t)n + 1), (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

void buf_consume(struct buf *b, size_t n)
{
	ASSERT(n <= b->len);
	b->len -= n;
	if (b->len)
		memmove(b->data, b->data + n, b->len);
}

const char *buf_cstr(struct buf *b)
{
	*buf_reserve(b, 1) = '\0';
	return (const char *)b->data;
}

char *buf_take_cstr(struct buf *b)
{
	char *s;

	buf_cstr(b);
	s = (char *)b->data;
	*b = (struct buf){ 0 };
	return s;
}

void buf_le32(struct buf *b, uint32_t v)
{
	uint8_t raw[4];
	for (unsigned i = 0; i < sizeof raw; i++)
		raw[i] = (uint8_t)(v >> (8 * i));
	buf_add(b, raw, sizeof raw);
}

void buf_le64(struct buf *b, uint64_t v)
{
	buf_le32(b, (uint32_t)v);
	buf_le32(b, (uint32_t)(v >> 32));
}

const uint8_t *cur_bytes(struct cur *c, size_t n)
{
	const uint8_t *p = c->p;

	if (c->bad || cur_left(c) < n) {
		c->bad = true;
		return NULL;
	}
	c->p += n;
	return p;
}

void cur_copy(struct cur *c, void *dst, size_t n)
{
	const uint8_t *p = cur_bytes(c, n);

	if (p)
		memcpy(dst, p, n);
	else
		memset(dst, 0, n);
}

uint32_t cur_le32(struct cur *c)
{
	uint8_t r[4];
	cur_copy(c, r, sizeof r);
	return r[0] | (uint32_t)r[1] << 8 | (uint32_t)r[2] << 16 | (uint32_t)r[3] << 24;
}

uint64_t cur_le64(struct cur *c)
{
	uint64_t lo = cur_le32(c);
	return lo | (uint64_t)cur_le32(c) << 32;
}
