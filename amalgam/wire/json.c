#include "amalgam/wire/json.h"

#include <stdarg.h>

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#include <jsmn.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"

/* jsmn cuts the text into tokens, in the order of their first byte, and pairs brackets. It does not
 * look at what stands between tokens, nor inside primitives. So the tree is built by a walk that
 * demands exactly one expected separator between neighbours, and nothing else but white space:
 * together with the tokens that accounts for every byte of the text. */
struct json_builder {
	struct json_doc *doc;
	const char *source; /* as it came: doc->text changes under the walk */
	size_t len;
	const jsmntok_t *tokens;
	size_t ntokens;
	size_t at;  /* token to read next */
	size_t pos; /* bytes before it are accounted for */
	struct json *spare;
	struct err *e;
};

/* ---- Parsing. */

static int json_error(struct err *e, const char *text, size_t pos, const char *what)
{
	unsigned line = 1;

	for (size_t i = 0; i < pos; i++)
		line += text[i] == '\n';
	return err_set(e, -EINVAL, "line %u: %s", line, what);
}

/* What jsmn does not bound. Depth costs it time squared, and us stack. */
static int json_check_text(const char *text, size_t n, struct err *e)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0, step; i < n; i += step) {
		step = str_utf8_len(text + i, n - i);
		if (step == 0 || text[i] == '\0')
			return json_error(e, text, i, "not UTF-8 text");
		if (in_string && (unsigned char)text[i] < 0x20)
			return json_error(e, text, i, "control character in a string");
		if (in_string && text[i] == '\\')
			step += i + 1 < n && (text[i + 1] == '"' || text[i + 1] == '\\');
		else if (text[i] == '"')
			in_string = !in_string;
		else if (!in_string && (text[i] == '[' || text[i] == '{'))
			depth++;
		else if (!in_string && depth && (text[i] == ']' || text[i] == '}'))
			depth--;
		if (depth > JSON_MAX_DEPTH)
			return json_error(e, text, i, "nested too deeply");
	}
	return 0;
}

static int json_builder_error(struct json_builder *b, const char *what)
{
	return json_error(b->e, b->source, b->pos, what);
}

/* Between b->pos and `end` there is white space, and `separator` once unless it is 0. */
static int json_gap(struct json_builder *b, size_t end, char separator)
{
	const char *text = b->doc->text;

	if (end < b->pos)
		return json_builder_error(b, "misplaced bracket");
	for (; b->pos < end; b->pos++) {
		if (strchr(" \t\r\n", text[b->pos]))
			continue;
		if (text[b->pos] != separator)
			return json_builder_error(b, "unexpected character");
		separator = 0;
	}
	return separator ? json_builder_error(b, separator == ':' ? "':' expected" : "',' expected")
			 : 0;
}

static bool json_hex4(const char *s, uint32_t *out)
{
	*out = 0;
	for (unsigned i = 0; i < 4; i++) {
		unsigned c = (unsigned char)s[i];
		if (c >= '0' && c <= '9')
			c -= '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			c = (c | 0x20) - 'a' + 10;
		else
			return false;
		*out = *out << 4 | c;
	}
	return true;
}

/* The code point of the \uXXXX at s, and of the second half of a surrogate pair behind it. Returns
 * the bytes used, 0 when it is not one. */
static size_t json_unicode(const char *s, const char *end, uint32_t *code)
{
	uint32_t low;

	if (end - s < 6 || !json_hex4(s + 2, code))
		return 0;
	if (*code < 0xd800 || *code > 0xdbff || end - s < 12 || s[6] != '\\' || s[7] != 'u' ||
	    !json_hex4(s + 8, &low) || low < 0xdc00 || low > 0xdfff)
		return 6;
	*code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
	return 12;
}

/* Unescape [start, end) in place; an escape is never shorter than what it stands for. */
static int json_unescape(struct json_builder *b, size_t start, size_t end, const char **out,
			 size_t *len)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	char *text = b->doc->text, *w = text + start;
	const char *s = w, *stop = text + end;
	AUTO_BUF struct buf utf8 = { 0 };

	*out = w;
	while (s < stop) {
		const char *simple = *s == '\\' && s + 1 < stop ? strchr(from, s[1]) : NULL;
		uint32_t code;
		size_t n;
		if (*s != '\\') {
			*w++ = *s++;
		} else if (simple && *simple) {
			*w++ = to[simple - from];
			s += 2;
		} else if ((n = json_unicode(s, stop, &code)) > 0 && code != 0) {
			utf8.len = 0;
			str_utf8_put(&utf8, code);
			memcpy(w, utf8.data, utf8.len);
			w += utf8.len;
			s += n;
		} else {
			return json_builder_error(b, "bad escape in a string");
		}
	}
	*len = (size_t)(w - *out);
	*w = '\0'; /* at the latest on the closing quote */
	b->pos = end + 1;
	return 0;
}

/* RFC 8259 section 6. */
static bool json_is_number(const char *s, size_t n)
{
	const char *end = s + n;
	const char *digits;

	s += s < end && *s == '-';
	digits = s;
	while (s < end && *s >= '0' && *s <= '9')
		s++;
	if (s == digits || (*digits == '0' && s > digits + 1))
		return false;
	if (s < end && *s == '.') {
		digits = ++s;
		while (s < end && *s >= '0' && *s <= '9')
			s++;
		if (s == digits)
			return false;
	}
	if (s < end && (*s == 'e' || *s == 'E')) {
		s++;
		s += s < end && (*s == '+' || *s == '-');
		digits = s;
		while (s < end && *s >= '0' && *s <= '9')
			s++;
		if (s == digits)
			return false;
	}
	return s == end;
}

static int json_primitive(struct json_builder *b, struct json *v, const char *s, size_t n)
{
	if (n == 4 && memcmp(s, "null", 4) == 0)
		v->type = JSON_NULL;
	else if (n == 4 && memcmp(s, "true", 4) == 0)
		*v = (struct json){ .type = JSON_BOOL, .is_true = true };
	else if (n == 5 && memcmp(s, "false", 5) == 0)
		v->type = JSON_BOOL;
	else if (json_is_number(s, n))
		*v = (struct json){ .type = JSON_NUMBER, .text = s, .len = n };
	else
		return json_builder_error(b, "unknown word");
	b->pos += n;
	return 0;
}

static int json_value(struct json_builder *b, char separator, struct json **out);

static int json_children(struct json_builder *b, struct json *v, const jsmntok_t *t)
{
	const struct json **link = &v->first;
	bool is_object = t->type == JSMN_OBJECT;

	v->type = is_object ? JSON_OBJECT : JSON_LIST;
	b->pos++;
	for (int i = 0; i < t->size; i++) {
		const jsmntok_t *key = is_object && b->at < b->ntokens ? &b->tokens[b->at] : NULL;
		const char *name = NULL;
		struct json *child;
		size_t name_len;

		if (key) {
			if (json_gap(b, (size_t)key->start - (key->type == JSMN_STRING),
				     i ? ',' : 0) < 0)
				return -EINVAL;
			if (key->type != JSMN_STRING || key->size != 1)
				return json_builder_error(b, "\"name\": value expected");
			if (json_unescape(b, (size_t)key->start, (size_t)key->end, &name,
					  &name_len) < 0)
				return -EINVAL;
			b->at++;
		}
		if (json_value(b, key ? ':' : i ? ',' : 0, &child) < 0)
			return -EINVAL;
		child->key = name;
		child->parent = v;
		*link = child;
		link = &child->next;
		v->n++;
	}
	if (json_gap(b, (size_t)t->end - 1, 0) < 0)
		return -EINVAL;
	b->pos = (size_t)t->end;
	return 0;
}

/* The value of the next token, with `separator` before it. */
static int json_value(struct json_builder *b, char separator, struct json **out)
{
	const jsmntok_t *t = &b->tokens[b->at];
	struct json *v = b->spare++;

	*out = v;
	if (b->at++ >= b->ntokens)
		return json_builder_error(b, "value expected");
	if (json_gap(b, (size_t)t->start - (t->type == JSMN_STRING), separator) < 0)
		return -EINVAL;
	switch (t->type) {
	case JSMN_STRING:
		v->type = JSON_STRING;
		return json_unescape(b, (size_t)t->start, (size_t)t->end, &v->text, &v->len);
	case JSMN_PRIMITIVE:
		return json_primitive(b, v, b->doc->text + t->start, (size_t)(t->end - t->start));
	default:
		return json_children(b, v, t);
	}
}

static int json_build(struct json_builder *b)
{
	struct json *root;

	b->doc->values = b->spare = mem_calloc(b->ntokens + 1, sizeof *b->spare);
	if (json_value(b, 0, &root) < 0)
		return -EINVAL;
	if (root->type != JSON_OBJECT && root->type != JSON_LIST)
		return json_error(b->e, b->source, 0, "must be an object or a list");
	if (json_gap(b, b->len, 0) < 0)
		return -EINVAL;
	/* The separators behind numbers have been looked at and can go. */
	for (struct json *v = b->doc->values; v < b->spare; v++)
		if (v->type == JSON_NUMBER)
			b->doc->text[v->text - b->doc->text + (ptrdiff_t)v->len] = '\0';
	b->doc->root = root;
	return 0;
}

int json_parse(struct json_doc *d, const void *text, size_t n, struct err *e)
{
	struct json_builder b = { .doc = d, .source = text, .len = n, .e = e };
	AUTO_FREE jsmntok_t *tokens = NULL;
	jsmn_parser parser;
	int count;

	json_fini(d);
	if (n > JSON_MAX_BYTES)
		return err_set(e, -EINVAL, "longer than %u bytes", JSON_MAX_BYTES);
	d->text = mem_strndup(n ? text : "", n);
	if (json_check_text(d->text, n, e) < 0)
		return -EINVAL;
	jsmn_init(&parser);
	count = jsmn_parse(&parser, d->text, n, NULL, 0);
	if (count > (int)JSON_MAX_VALUES)
		return err_set(e, -EINVAL, "more than %u values", JSON_MAX_VALUES);
	if (count > 0) {
		tokens = mem_calloc((size_t)count + 1, sizeof *tokens);
		jsmn_init(&parser);
		count = jsmn_parse(&parser, d->text, n, tokens, (unsigned)count);
	}
	if (count <= 0)
		return json_error(e, text, parser.pos,
				  count == JSMN_ERROR_INVAL ? "not JSON" : "ends too early");
	b.tokens = tokens;
	b.ntokens = (size_t)count;
	return json_build(&b);
}

void json_fini(struct json_doc *d)
{
	free(d->values);
	free(d->text);
	*d = (struct json_doc){ 0 };
}

/* ---- Reading. */

const struct json *json_get(const struct json *v, const char *key)
{
	const struct json *found = NULL;

	if (!v || v->type != JSON_OBJECT)
		return NULL;
	json_each(member, v) {
		if (strcmp(member->key, key) == 0)
			found = member;
	}
	return found && found->type != JSON_NULL ? found : NULL;
}

const struct json *json_find(const struct json *v, const char *path)
{
	char name[64];

	while (v && *path) {
		size_t n = strcspn(path, ".");
		snprintf(name, sizeof name, "%.*s", (int)n, path);
		v = json_get(v, name);
		path += n + (path[n] == '.');
	}
	return v;
}

static void json_path(const struct json *v, struct buf *b)
{
	unsigned index = 0;

	if (!v || !v->parent)
		return;
	json_path(v->parent, b);
	if (v->key) {
		buf_printf(b, "%s%.64s", b->len ? "." : "", v->key);
		return;
	}
	for (const struct json *u = v->parent->first; u != v; u = u->next)
		index++;
	buf_printf(b, "[%u]", index);
}

int json_refuse(const struct json *v, struct err *e, const char *fmt, ...)
{
	AUTO_BUF struct buf path = { 0 };
	AUTO_FREE char *words = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&words, fmt, ap) < 0)
		words = NULL;
	va_end(ap);
	json_path(v, &path);
	return err_set(e, -EINVAL, "%s%s%s", buf_cstr(&path), path.len ? ": " : "",
		       words ? words : "");
}

int json_is(const struct json *v, enum json_type type, struct err *e)
{
	static const char *const names[] = {
		[JSON_NULL] = "null",       [JSON_BOOL] = "true or false",
		[JSON_NUMBER] = "a number", [JSON_STRING] = "a string",
		[JSON_LIST] = "a list",     [JSON_OBJECT] = "an object",
	};

	if (!v || v->type == type)
		return 0;
	return json_refuse(v, e, "must be %s", names[type]);
}

int json_str(const struct json *v, const char **out, struct err *e)
{
	if (json_is(v, JSON_STRING, e) < 0)
		return -EINVAL;
	if (v)
		*out = v->text;
	return 0;
}

int json_bool(const struct json *v, bool *out, struct err *e)
{
	if (json_is(v, JSON_BOOL, e) < 0)
		return -EINVAL;
	if (v)
		*out = v->is_true;
	return 0;
}

int json_u64(const struct json *v, uint64_t min, uint64_t max, uint64_t *out, struct err *e)
{
	if (!v)
		return 0;
	if (v->type != JSON_NUMBER || str_u64(v->text, min, max, out) < 0)
		return json_refuse(v, e, "must be a whole number from %llu to %llu",
				   (unsigned long long)min, (unsigned long long)max);
	return 0;
}

int json_i64(const struct json *v, int64_t min, int64_t max, int64_t *out, struct err *e)
{
	bool negative = v && v->type == JSON_NUMBER && *v->text == '-';
	uint64_t magnitude;
	int64_t value;

	if (!v)
		return 0;
	if (v->type != JSON_NUMBER ||
	    str_u64(v->text + negative, 0, (uint64_t)INT64_MAX + negative, &magnitude) < 0)
		goto refuse;
	value = (int64_t)(negative ? 0 - magnitude : magnitude);
	if (value < min || value > max)
		goto refuse;
	*out = value;
	return 0;
refuse:
	return json_refuse(v, e, "must be a whole number from %lld to %lld", (long long)min,
			   (long long)max);
}
