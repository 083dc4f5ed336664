#include "amalgam/wire/toml.h"

#include "amalgam/base/buf.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"

/* What a full key names. TOML 1.0 "Table": a table is defined once, by a header or by dotted keys,
 * but its super-tables need not be and may be defined later. */
enum toml_kind {
	TOML_IS_VALUE,   /* also an inline table: closed for good */
	TOML_IS_IMPLIED, /* a super-table of some header */
	TOML_IS_HEADER,  /* [a] */
	TOML_IS_DOTTED,  /* made by a.b = 1; grows only by dotted keys of the same section */
	TOML_IS_LIST,    /* [[a]]; its tables are a[0], a[1] ... */
};

struct toml_name {
	char *key;
	uint32_t hash;
	enum toml_kind kind;
	unsigned section; /* DOTTED: the section that made it; LIST: tables so far */
};

struct toml {
	const char *p, *end;
	unsigned line;
	unsigned depth;
	unsigned section; /* number of the header or inline table we are in */
	unsigned nsections;
	struct buf key; /* full key of what is being read */
	struct toml_name *names;
	size_t nnames, names_cap;
	toml_fn *fn;
	void *arg;
	struct err *e;
};

/* ---- Characters. */

static int toml_error(struct toml *t, const char *what)
{
	return err_set(t->e, -EINVAL, "line %u: %s", t->line, what);
}

static bool toml_at(const struct toml *t, const char *token)
{
	size_t n = strlen(token);

	return (size_t)(t->end - t->p) >= n && memcmp(t->p, token, n) == 0;
}

static bool toml_take(struct toml *t, const char *token)
{
	if (!toml_at(t, token))
		return false;
	t->p += strlen(token);
	return true;
}

static void toml_blanks(struct toml *t)
{
	while (t->p < t->end && (*t->p == ' ' || *t->p == '\t'))
		t->p++;
}

static bool toml_newline(struct toml *t)
{
	if (!toml_take(t, "\n") && !toml_take(t, "\r\n"))
		return false;
	t->line++;
	return true;
}

/* Control characters other than tab are not permitted in comments and strings. */
static bool toml_is_control(char c)
{
	return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

static void toml_comment(struct toml *t)
{
	if (!toml_take(t, "#"))
		return;
	while (t->p < t->end && !toml_is_control(*t->p))
		t->p++;
}

/* Blanks, comments and line ends, as they may stand between the items of a list. */
static void toml_space(struct toml *t)
{
	do {
		toml_blanks(t);
		toml_comment(t);
	} while (toml_newline(t));
}

static int toml_end_of_line(struct toml *t)
{
	toml_blanks(t);
	toml_comment(t);
	if (t->p == t->end || toml_newline(t))
		return 0;
	return toml_error(t, toml_is_control(*t->p) ? "control character" : "end of line expected");
}

/* ---- Strings. */

static int toml_digit(char c, unsigned base)
{
	int d = -1;

	if (c >= '0' && c <= '9')
		d = c - '0';
	else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		d = (c | 0x20) - 'a' + 10;
	return d < (int)base ? d : -1;
}

/* After \u or \U: n hexadecimal digits. */
static int toml_unicode(struct toml *t, unsigned n, struct buf *out)
{
	uint32_t code = 0;

	for (unsigned i = 0; i < n; i++) {
		int d = t->p < t->end ? toml_digit(*t->p, 16) : -1;
		if (d < 0)
			return toml_error(t, "bad \\u in a string");
		code = code << 4 | (uint32_t)d;
		t->p++;
	}
	if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return toml_error(t, "\\u of what is not a character");
	str_utf8_put(out, code);
	return 0;
}

/* After the backslash. */
static int toml_escape(struct toml *t, struct buf *out)
{
	static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
	char c = t->p < t->end ? *t->p++ : '\0';
	const char *at = c ? strchr(from, c) : NULL;

	if (at)
		buf_add(out, &to[at - from], 1);
	else if (c == 'u' || c == 'U')
		return toml_unicode(t, c == 'u' ? 4 : 8, out);
	else
		return toml_error(t, "unknown escape in a string");
	return 0;
}

/* A backslash at the end of a line takes all white space up to the next character with it. */
static bool toml_line_ending_backslash(struct toml *t)
{
	struct toml ahead = *t;

	toml_blanks(&ahead);
	if (!toml_newline(&ahead))
		return false;
	do {
		toml_blanks(&ahead);
	} while (toml_newline(&ahead));
	t->p = ahead.p;
	t->line = ahead.line;
	return true;
}

/* After the opening quotes. A multi-line string may end in one or two quotes of its own. */
static int toml_string_body(struct toml *t, const char *quotes, struct buf *out)
{
	bool basic = *quotes == '"', multi = quotes[1];

	if (multi)
		toml_newline(t);
	while (t->p < t->end) {
		const char *start = t->p;
		if (toml_at(t, quotes)) {
			while (multi && t->p + 3 < t->end && t->p[3] == *quotes && t->p < start + 2)
				buf_add(out, t->p++, 1);
			t->p += strlen(quotes);
			return 0;
		}
		if (multi && toml_newline(t)) {
			buf_add(out, "\n", 1);
		} else if (toml_is_control(*t->p)) {
			return toml_error(t, *t->p == '\n' ? "string without end"
							   : "control character in a string");
		} else if (basic && *t->p == '\\') {
			t->p++;
			if (!(multi && toml_line_ending_backslash(t)) && toml_escape(t, out) < 0)
				return -EINVAL;
		} else {
			buf_add(out, t->p++, 1);
		}
	}
	return toml_error(t, "string without end");
}

/* The string that starts here, if one does: 1, 0 when none does, -EINVAL. */
static int toml_string(struct toml *t, bool may_be_multi, struct buf *out)
{
	static const char *const quotes[] = { "\"\"\"", "'''", "\"", "'" };

	for (unsigned i = may_be_multi ? 0 : 2; i < ARRAY_LEN(quotes); i++)
		if (toml_take(t, quotes[i]))
			return toml_string_body(t, quotes[i], out) < 0 ? -EINVAL : 1;
	return 0;
}

/* ---- Names. */

static struct toml_name *toml_find(struct toml *t, uint32_t hash)
{
	const char *key = buf_cstr(&t->key);

	for (size_t i = 0; i < t->nnames; i++)
		if (t->names[i].hash == hash && strcmp(t->names[i].key, key) == 0)
			return &t->names[i];
	return NULL;
}

/* The entry of t->key; a new one, with *is_new set, is of the kind given. NULL when there are too
 * many. */
static struct toml_name *toml_name(struct toml *t, enum toml_kind kind, bool *is_new)
{
	struct toml_name *name;
	uint32_t hash = 2166136261; /* FNV-1a */

	for (size_t i = 0; i < t->key.len; i++)
		hash = (hash ^ t->key.data[i]) * 16777619;
	name = toml_find(t, hash);
	*is_new = !name;
	if (name)
		return name;
	if (t->nnames == TOML_MAX_NAMES) {
		toml_error(t, "too many keys");
		return NULL;
	}
	if (t->nnames == t->names_cap) {
		t->names_cap = MAX(2 * t->names_cap, (size_t)64);
		t->names = mem_realloc(t->names, t->names_cap * sizeof *t->names);
	}
	name = &t->names[t->nnames++];
	*name = (struct toml_name){ mem_strndup((char *)t->key.data, t->key.len), hash, kind,
				    kind == TOML_IS_DOTTED ? t->section : 0 };
	return name;
}

static bool toml_is_bare(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

/* Read one part of a key and append it to t->key. */
static int toml_key_part(struct toml *t)
{
	AUTO_BUF struct buf part = { 0 };
	bool bare = true;
	int r = toml_string(t, false, &part);

	if (r < 0)
		return r;
	while (r == 0 && t->p < t->end && toml_is_bare(*t->p))
		buf_add(&part, t->p++, 1);
	if (r == 0 && part.len == 0)
		return toml_error(t, "key expected");
	for (size_t i = 0; i < part.len; i++)
		bare = bare && toml_is_bare((char)part.data[i]);
	if (t->key.len)
		buf_add(&t->key, ".", 1);
	if (bare && part.len)
		buf_add(&t->key, part.data, part.len);
	else
		str_json(&t->key, buf_cstr(&part));
	return t->key.len > TOML_MAX_KEY ? toml_error(t, "key too long") : 0;
}

/* A part of a key that is not the last: what it names must be able to hold more. */
static int toml_enter(struct toml *t, bool by_header)
{
	bool is_new;
	struct toml_name *name =
		toml_name(t, by_header ? TOML_IS_IMPLIED : TOML_IS_DOTTED, &is_new);

	if (!name)
		return -EINVAL;
	if (name->kind == TOML_IS_LIST && by_header) {
		buf_printf(&t->key, "[%u]", name->section - 1);
		return 0;
	}
	if (name->kind == TOML_IS_VALUE)
		return toml_error(t, "a part of the key is a value already");
	if (!by_header && (name->kind != TOML_IS_DOTTED || name->section != t->section))
		return toml_error(t, "a part of the key is a table defined elsewhere");
	return 0;
}

/* A dotted key, appended to t->key; all parts but the last are entered. */
static int toml_key(struct toml *t, bool by_header)
{
	for (;;) {
		toml_blanks(t);
		if (toml_key_part(t) < 0)
			return -EINVAL;
		toml_blanks(t);
		if (!toml_take(t, "."))
			return 0;
		if (toml_enter(t, by_header) < 0)
			return -EINVAL;
	}
}

static int toml_call(struct toml *t, const struct toml_value *v)
{
	int r = t->fn(t->arg, buf_cstr(&t->key), v, t->e);

	if (r < 0)
		err_wrap(t->e, "line %u", v->line);
	return r < 0 ? r : 0;
}

/* ---- Numbers. */

static void toml_copy_number(struct toml *t, char *out, size_t size)
{
	size_t n = 0;

	while (t->p + n < t->end && n + 1 < size &&
	       (toml_is_bare(t->p[n]) || t->p[n] == '+' || t->p[n] == '.' || t->p[n] == ':'))
		n++;
	memcpy(out, t->p, n);
	out[n] = '\0';
}

/* Remove underscores; each must stand between two digits. */
static bool toml_strip_underscores(char *s, unsigned base)
{
	char *w = s;

	for (const char *r = s; *r; r++) {
		if (*r != '_')
			*w++ = *r;
		else if (r == s || toml_digit(r[-1], base) < 0 || toml_digit(r[1], base) < 0)
			return false;
	}
	*w = '\0';
	return true;
}

static bool toml_integer(const char *s, int64_t *out)
{
	bool negative = *s == '-';
	uint64_t v = 0, max = (uint64_t)INT64_MAX + negative;
	unsigned base = 10;

	if (s[0] == '0' && s[1] && strchr("xob", s[1])) {
		base = s[1] == 'x' ? 16 : s[1] == 'o' ? 8 : 2;
		s += 2;
	} else {
		s += *s == '-' || *s == '+';
		if (s[0] == '0' && s[1])
			return false;
	}
	if (!*s)
		return false;
	for (; *s; s++) {
		int d = toml_digit(*s, base);
		if (d < 0 || __builtin_mul_overflow(v, (uint64_t)base, &v) ||
		    __builtin_add_overflow(v, (uint64_t)d, &v) || v > max)
			return false;
	}
	*out = (int64_t)(negative ? 0 - v : v);
	return true;
}

/* TOML 1.0 "Float": [sign] integer, then fraction and/or exponent, digits around every point. */
static bool toml_float_text(const char *s, double *out)
{
	const char *unsigned_part = s + (*s == '+' || *s == '-');
	const char *q = unsigned_part;
	size_t whole = strspn(q, "0123456789"), n;
	char *end;

	if (strcmp(q, "inf") == 0 || strcmp(q, "nan") == 0) {
		*out = strtod(s, NULL);
		return true;
	}
	if (whole == 0 || (*q == '0' && whole > 1))
		return false;
	q += whole;
	if (*q == '.') {
		n = strspn(++q, "0123456789");
		if (n == 0)
			return false;
		q += n;
	}
	if (*q == 'e' || *q == 'E') {
		q++;
		q += *q == '+' || *q == '-';
		n = strspn(q, "0123456789");
		if (n == 0)
			return false;
		q += n;
	}
	if (*q || q == unsigned_part + whole)
		return false;
	*out = strtod(s, &end);
	return *end == '\0';
}

static int toml_number(struct toml *t, struct toml_value *v)
{
	char text[80];
	size_t n;

	toml_copy_number(t, text, sizeof text);
	n = strlen(text);
	if (strchr(text, ':') || (n >= 8 && text[4] == '-' && text[7] == '-'))
		return toml_error(t, "dates and times are not supported");
	if (!toml_strip_underscores(text, str_starts(text, "0x") ? 16 : 10))
		return toml_error(t, "'_' must stand between digits");
	if (toml_integer(text, &v->integer))
		v->type = TOML_INTEGER;
	else if (toml_float_text(text, &v->real))
		v->type = TOML_FLOAT;
	else
		return toml_error(t,
				  n ? "not a value, or a number out of range" : "value expected");
	t->p += n;
	return 0;
}

/* ---- Values. */

static int toml_value(struct toml *t, struct toml_value *v);
static int toml_key_value(struct toml *t);

static void toml_value_fini(struct toml_value *v)
{
	for (size_t i = 0; i < v->n; i++)
		toml_value_fini((struct toml_value *)&v->items[i]);
	free((void *)v->items);
	free((char *)v->string);
	*v = (struct toml_value){ .type = TOML_TABLE };
}

/* After '['. A list of inline tables calls fn for what they hold, as [[key]] would. */
static int toml_list_items(struct toml *t, struct toml_value *v)
{
	struct toml_value *items = NULL;
	size_t cap = 0, key_len = t->key.len;
	int r;

	v->type = TOML_LIST;
	for (;;) {
		toml_space(t);
		if (toml_take(t, "]"))
			return 0;
		if (v->n == cap) {
			cap = MAX(2 * cap, (size_t)8);
			v->items = items = mem_realloc(items, cap * sizeof *items);
		}
		items[v->n] = (struct toml_value){ .type = TOML_TABLE };
		buf_printf(&t->key, "[%zu]", v->n);
		r = toml_value(t, &items[v->n++]);
		t->key.len = key_len;
		if (r < 0)
			return r;
		toml_space(t);
		if (!toml_at(t, "]") && !toml_take(t, ","))
			return toml_error(t, "',' or ']' expected");
	}
}

/* After '{'. */
static int toml_inline_table(struct toml *t, struct toml_value *v)
{
	size_t key_len = t->key.len;
	unsigned outer = t->section;
	int r;

	v->type = TOML_TABLE;
	r = toml_call(t, v);
	if (r < 0)
		return r;
	t->section = ++t->nsections;
	toml_blanks(t);
	if (!toml_at(t, "}")) {
		do {
			r = toml_key_value(t);
			t->key.len = key_len;
			if (r < 0)
				return r;
			toml_blanks(t);
		} while (toml_take(t, ","));
	}
	t->section = outer;
	return toml_take(t, "}") ? 0 : toml_error(t, "',' or '}' expected");
}

static int toml_nested(struct toml *t, struct toml_value *v, bool is_list)
{
	int r;

	if (t->depth == TOML_MAX_DEPTH)
		return toml_error(t, "nested too deeply");
	t->depth++;
	t->p++;
	r = is_list ? toml_list_items(t, v) : toml_inline_table(t, v);
	t->depth--;
	return r;
}

static int toml_value(struct toml *t, struct toml_value *v)
{
	AUTO_BUF struct buf string = { 0 };
	int r;

	v->line = t->line;
	if (toml_at(t, "[") || toml_at(t, "{"))
		return toml_nested(t, v, *t->p == '[');
	r = toml_string(t, true, &string);
	if (r < 0)
		return r;
	if (r > 0) {
		v->type = TOML_STRING;
		v->string = buf_take_cstr(&string);
	} else if (toml_take(t, "true")) {
		*v = (struct toml_value){ .type = TOML_BOOL, .line = v->line, .is_true = true };
	} else if (toml_take(t, "false")) {
		v->type = TOML_BOOL;
	} else {
		return toml_number(t, v);
	}
	return 0;
}

/* A list that holds tables has been delivered by what is in them. */
static bool toml_is_delivered(const struct toml_value *v)
{
	bool all = v->n > 0;

	for (size_t i = 0; i < v->n; i++)
		all = all && v->items[i].type == TOML_TABLE;
	return v->type == TOML_TABLE || all;
}

static int toml_key_value(struct toml *t)
{
	struct toml_value v = { .type = TOML_TABLE };
	bool is_new;
	int r = toml_key(t, false);

	if (r < 0)
		return r;
	if (!toml_name(t, TOML_IS_VALUE, &is_new))
		return -EINVAL;
	if (!is_new)
		return toml_error(t, "the key is given a second time");
	toml_blanks(t);
	if (!toml_take(t, "="))
		return toml_error(t, "'=' expected");
	toml_blanks(t);
	r = toml_value(t, &v);
	if (r == 0 && !toml_is_delivered(&v))
		r = toml_call(t, &v);
	toml_value_fini(&v);
	return r;
}

/* ---- The file. */

/* After '[' or "[[". */
static int toml_header(struct toml *t, bool is_list)
{
	const struct toml_value v = { .type = TOML_TABLE, .line = t->line };
	struct toml_name *name;
	bool is_new;

	t->key.len = 0;
	t->section = ++t->nsections;
	if (toml_key(t, true) < 0)
		return -EINVAL;
	if (!toml_take(t, is_list ? "]]" : "]"))
		return toml_error(t, is_list ? "']]' expected" : "']' expected");
	name = toml_name(t, is_list ? TOML_IS_LIST : TOML_IS_HEADER, &is_new);
	if (!name)
		return -EINVAL;
	if (is_list && name->kind == TOML_IS_LIST)
		buf_printf(&t->key, "[%u]", name->section++);
	else if (!is_list && name->kind == TOML_IS_IMPLIED)
		name->kind = TOML_IS_HEADER;
	else if (!is_new)
		return toml_error(t, "the table is defined a second time");
	return toml_call(t, &v);
}

static int toml_line(struct toml *t, size_t *table_len)
{
	int r;

	if (toml_at(t, "[")) {
		bool is_list = toml_take(t, "[[");
		if (!is_list)
			t->p++;
		r = toml_header(t, is_list);
		*table_len = t->key.len;
	} else {
		r = toml_key_value(t);
		t->key.len = *table_len;
	}
	return r < 0 ? r : toml_end_of_line(t);
}

static int toml_check_utf8(struct toml *t)
{
	unsigned step;

	for (const char *p = t->p; p < t->end; p += step) {
		step = str_utf8_len(p, (size_t)(t->end - p));
		if (step == 0 || *p == '\0')
			return toml_error(t, "not UTF-8 text");
		t->line += *p == '\n';
	}
	t->line = 1;
	return 0;
}

int toml_parse(const void *text, size_t n, toml_fn *fn, void *arg, struct err *e)
{
	const char *p = n ? text : "";
	struct toml t = { .p = p, .end = p + n, .line = 1, .fn = fn, .arg = arg, .e = e };
	size_t table_len = 0;
	int r;

	if (n > TOML_MAX_BYTES)
		return err_set(e, -EINVAL, "longer than %u bytes", TOML_MAX_BYTES);
	r = toml_check_utf8(&t);
	toml_take(&t, "\xef\xbb\xbf");
	while (r == 0) {
		toml_space(&t);
		if (t.p == t.end)
			break;
		r = toml_line(&t, &table_len);
	}
	for (size_t i = 0; i < t.nnames; i++)
		free(t.names[i].key);
	free(t.names);
	buf_fini(&t.key);
	return r;
}

/* ---- Readers. */

static int toml_is(const struct toml_value *v, enum toml_type type, struct err *e)
{
	static const char *const names[] = {
		[TOML_STRING] = "a string", [TOML_INTEGER] = "a whole number",
		[TOML_FLOAT] = "a number",  [TOML_BOOL] = "true or false",
		[TOML_LIST] = "a list",     [TOML_TABLE] = "a table",
	};

	return v->type == type ? 0 : err_set(e, -EINVAL, "must be %s", names[type]);
}

int toml_str(const struct toml_value *v, const char **out, struct err *e)
{
	if (toml_is(v, TOML_STRING, e) < 0)
		return -EINVAL;
	*out = v->string;
	return 0;
}

int toml_bool(const struct toml_value *v, bool *out, struct err *e)
{
	if (toml_is(v, TOML_BOOL, e) < 0)
		return -EINVAL;
	*out = v->is_true;
	return 0;
}

int toml_int(const struct toml_value *v, int64_t min, int64_t max, int64_t *out, struct err *e)
{
	if (v->type != TOML_INTEGER || v->integer < min || v->integer > max)
		return err_set(e, -EINVAL, "must be a whole number from %lld to %lld",
			       (long long)min, (long long)max);
	*out = v->integer;
	return 0;
}

int toml_float(const struct toml_value *v, double *out, struct err *e)
{
	if (v->type != TOML_INTEGER && toml_is(v, TOML_FLOAT, e) < 0)
		return -EINVAL;
	*out = v->type == TOML_INTEGER ? (double)v->integer : v->real;
	return 0;
}

int toml_list(const struct toml_value *v, enum toml_type items, struct err *e)
{
	if (toml_is(v, TOML_LIST, e) < 0)
		return -EINVAL;
	for (size_t i = 0; i < v->n; i++)
		if (toml_is(&v->items[i], items, e) < 0)
			return err_wrap(e, "item %zu", i);
	return 0;
}
