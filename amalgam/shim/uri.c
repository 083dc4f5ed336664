#include "amalgam/shim/uri.h"

#include <ctype.h>
#include <strings.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"

static const struct {
	const char *name;
	enum shim_uri_kind kind;
} shim_uri_schemes[] = {
	{ "fifo", SHIM_URI_FIFO },
	{ "file", SHIM_URI_FILE },
	{ "binary", SHIM_URI_BINARY },
	{ "binary-v2", SHIM_URI_BINARY_V2 },
};

static int shim_uri_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n bytes without their escapes; plus says that '+' is a space, as in a query. NULL when an escape is
 * wrong or stands for a NUL. */
static char *shim_uri_decode(const char *s, size_t n, bool plus)
{
	AUTO_FREE char *out = mem_zalloc(n + 1);
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		int hi, lo;
		if (s[i] != '%') {
			out[len++] = plus && s[i] == '+' ? ' ' : s[i];
			continue;
		}
		hi = i + 2 < n ? shim_uri_hex(s[i + 1]) : -1;
		lo = i + 2 < n ? shim_uri_hex(s[i + 2]) : -1;
		if (hi < 0 || lo < 0 || hi + lo == 0)
			return NULL;
		out[len++] = (char)(hi << 4 | lo);
		i += 2;
	}
	return take_ptr(&out);
}

static bool shim_uri_has_key(const struct shim_uri *u, const char *key)
{
	for (unsigned i = 0; i < u->nargs; i += 2)
		if (strcmp(u->args[i], key) == 0)
			return true;
	return false;
}

/* One "key=value" of n bytes. Go drops what it cannot decode, and what has a semicolon. */
static int shim_uri_add_arg(struct shim_uri *u, const char *s, size_t n, struct err *e)
{
	const char *eq = memchr(s, '=', n);
	size_t nkey = eq ? (size_t)(eq - s) : n;
	AUTO_FREE char *key = shim_uri_decode(s, nkey, true);
	AUTO_FREE char *value = eq ? shim_uri_decode(eq + 1, n - nkey - 1, true) : mem_strdup("");

	if (!n || !key || !value || memchr(s, ';', n) || shim_uri_has_key(u, key))
		return 0;
	if (u->nargs / 2 == SHIM_URI_MAX_ARGS)
		return err_set(e, -EINVAL, "more than %u arguments", SHIM_URI_MAX_ARGS);
	u->args[u->nargs++] = take_ptr(&key);
	u->args[u->nargs++] = take_ptr(&value);
	return 0;
}

static int shim_uri_query(struct shim_uri *u, const char *s, struct err *e)
{
	for (;;) {
		size_t n = strcspn(s, "&");
		int r = shim_uri_add_arg(u, s, n, e);
		if (r < 0 || !s[n])
			return r;
		s += n + 1;
	}
}

/* What follows the scheme and "//". */
static int shim_uri_rest(struct shim_uri *u, const char *s, struct err *e)
{
	size_t end = strcspn(s, "#"), n = strcspn(s, "?#");
	AUTO_FREE char *query = n < end ? mem_strndup(s + n + 1, end - n - 1) : NULL;

	if (*s != '/')
		return err_set(e, -EINVAL, "no absolute path");
	u->path = shim_uri_decode(s, n, false);
	if (!u->path)
		return err_set(e, -EINVAL, "a percent sign without two hexadecimal digits");
	return query ? shim_uri_query(u, query, e) : 0;
}

int shim_uri_parse(struct shim_uri *u, const char *text, struct err *e)
{
	size_t n = 0;

	*u = (struct shim_uri){ 0 };
	while (isalnum((unsigned char)text[n]) || (text[n] && n && strchr("+-.", text[n])))
		n++;
	if (!n || !str_starts(text + n, "://")) { /* a path */
		u->kind = *text ? SHIM_URI_FIFO : SHIM_URI_NONE;
		u->path = *text ? mem_strdup(text) : NULL;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(shim_uri_schemes); i++)
		if (strlen(shim_uri_schemes[i].name) == n &&
		    strncasecmp(shim_uri_schemes[i].name, text, n) == 0)
			u->kind = shim_uri_schemes[i].kind;
	if (u->kind == SHIM_URI_NONE)
		return err_set(e, -EINVAL, "%.200s: unknown STDIO scheme %.*s", text,
			       (int)MIN(n, (size_t)64), text);
	if (shim_uri_rest(u, text + n + 3, e) < 0)
		return err_wrap(e, "%.200s", text);
	return 0;
}

void shim_uri_fini(struct shim_uri *u)
{
	for (unsigned i = 0; i < u->nargs; i++)
		free(u->args[i]);
	free(u->path);
	*u = (struct shim_uri){ 0 };
}
