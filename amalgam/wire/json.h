/* json.h - reading JSON (RFC 8259) that others wrote: runtime specs, state files, manifests.
 *
 *     AUTO_JSON struct json_doc doc = { 0 };
 *     const char *name = "default";
 *     uint64_t memory_mb = 128;
 *
 *     if (json_parse(&doc, text, n, e) < 0 ||
 *         json_str(json_get(doc.root, "name"), &name, e) < 0 ||
 *         json_u64(json_get(doc.root, "memory_mb"), 1, 1 << 20, &memory_mb, e) < 0)
 *             return err_wrap(e, "%s", path);
 *
 * fails as "state.json: memory_mb: must be a whole number from 1 to 1048576".
 *
 * A document is one tree that lives until json_fini(); everything read from it is borrowed. Members
 * that are absent, and null, read as NULL, and the readers below leave their output as it was then.
 *
 * Limits: JSON_MAX_BYTES, JSON_MAX_VALUES, JSON_MAX_DEPTH. The text must be UTF-8 and the root an
 * object or a list; a lone surrogate escape becomes U+FFFD, an escaped NUL is refused since strings
 * are C strings here. The same member twice: the last one wins. */
#pragma once

#include "amalgam/base/err.h"

#define JSON_MAX_BYTES  (16u << 20)
#define JSON_MAX_VALUES (256u << 10) /* keys count, too */
#define JSON_MAX_DEPTH  64

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_LIST, JSON_OBJECT };

struct json {
	enum json_type type;
	bool is_true;     /* BOOL */
	const char *key;  /* the member's name; NULL outside objects */
	const char *text; /* STRING: the characters; NUMBER: as written */
	size_t len;       /* of text */
	size_t n;         /* elements or members */
	const struct json *first, *next, *parent;
};

struct json_doc {
	const struct json *root;
	struct json *values;
	char *text; /* our copy; strings are unescaped in place */
};

/* Replaces what is in *d, which must be zeroed or used before. -EINVAL and "line 3: ..." */
INTERNAL MUST_USE int json_parse(struct json_doc *d, const void *text, size_t n, struct err *e);
INTERNAL void json_fini(struct json_doc *d);
#define AUTO_JSON __attribute__((cleanup(json_fini)))

/* A member by name; NULL when there is none, when it is null, or when v is no object (or NULL). */
INTERNAL const struct json *json_get(const struct json *v, const char *key);
/* The same for a path "process.user.uid" (names without dots). */
INTERNAL const struct json *json_find(const struct json *v, const char *path);

/* Elements of a list, members of an object; nothing for NULL and scalars. */
#define json_each(item, v) \
	for (const struct json *item = (v) ? (v)->first : NULL; item; item = item->next)

/* Readers. v may be NULL: 0, and *out stays. Wrong type or range: -EINVAL, "a.b[2]: must be ..." */
INTERNAL MUST_USE int json_str(const struct json *v, const char **out, struct err *e);
INTERNAL MUST_USE int json_bool(const struct json *v, bool *out, struct err *e);
INTERNAL MUST_USE int json_u64(const struct json *v, uint64_t min, uint64_t max, uint64_t *out,
			       struct err *e);
INTERNAL MUST_USE int json_i64(const struct json *v, int64_t min, int64_t max, int64_t *out,
			       struct err *e);
/* Check the type only, JSON_LIST or JSON_OBJECT mostly. */
INTERNAL MUST_USE int json_is(const struct json *v, enum json_type type, struct err *e);

/* Refuse a value in the caller's words: "<path of v>: <fmt>". -EINVAL. */
INTERNAL int json_refuse(const struct json *v, struct err *e, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
