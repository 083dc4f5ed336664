#include "amalgam/base/str.h"

#include "amalgam/base/buf.h"

int str_u64(const char *s, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!*s)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	}
	if (v < min || v > max)
		return -ERANGE;
	*out = v;
	return 0;
}

bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

unsigned str_utf8_len(const void *text, size_t n)
{
	const uint8_t *s = text;
	/* RFC 3629 section 4 */
	static const struct {
		uint8_t first_lo, first_hi, second_lo, second_hi, len;
	} rows[] = {
		{ 0x00, 0x7f, 0x00, 0x00, 1 }, { 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};
	for (unsigned r = 0; n && r < ARRAY_LEN(rows); r++) {
		if (s[0] < rows[r].first_lo || s[0] > rows[r].first_hi)
			continue;
		if (rows[r].len > n)
			return 0;
		if (rows[r].len > 1 && (s[1] < rows[r].second_lo || s[1] > rows[r].second_hi))
			return 0;
		for (unsigned i = 2; i < rows[r].len; i++)
			if ((s[i] & 0xc0) != 0x80)
				return 0;
		return rows[r].len;
	}
	return 0;
}

void str_utf8_put(struct buf *b, uint32_t code)
{
	static const struct {
		uint32_t max;
		uint8_t lead, more;
	} rows[] = {
		{ 0x7f, 0x00, 0 }, { 0x7ff, 0xc0, 1 }, { 0xffff, 0xe0, 2 }, { 0x10ffff, 0xf0, 3 }
	};
	uint8_t raw[4];
	unsigned r = 0;

	if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		code = 0xfffd;
	while (code > rows[r].max)
		r++;
	raw[0] = (uint8_t)(rows[r].lead | code >> (6 * rows[r].more));
	for (unsigned i = 1; i <= rows[r].more; i++)
		raw[i] = (uint8_t)(0x80 | (code >> (6 * (rows[r].more - i)) & 0x3f));
	buf_add(b, raw, 1u + rows[r].more);
}

void str_json(struct buf *b, const char *s)
{
	const uint8_t *p = (const uint8_t *)s, *end = p + strlen(s);

	buf_add(b, "\"", 1);
	while (p < end) {
		unsigned n = str_utf8_len(p, (size_t)(end - p));
		if (n == 0) {
			buf_add_str(b, "\\ufffd");
			n = 1;
		} else if (*p == '"' || *p == '\\') {
			buf_printf(b, "\\%c", *p);
		} else if (*p < 0x20) {
			buf_printf(b, "\\u%04x", *p);
		} else {
			buf_add(b, p, n);
		}
		p += n;
	}
	buf_add(b, "\"", 1);
}

void str_first_line(char *out, size_t room, const void *text, size_t n)
{
	const uint8_t *p = n ? text : (const uint8_t *)"",
		      *end = p + n; /* an empty buf has no memory */
	size_t len = 0;

	while (p < end && strchr(" \t\r\n", *p) && *p)
		p++;
	while (p < end && *p != '\n' && *p != '\r') {
		unsigned k = str_utf8_len(p, (size_t)(end - p));
		bool odd = k == 0 || *p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0);
		if (len + (odd ? 1 : k) >= room)
			break;
		memcpy(out + len, odd ? (const uint8_t *)"?" : p, odd ? 1 : k);
		len += odd ? 1 : k;
		p += k ? k : 1;
	}
	out[len] = '\0';
}
