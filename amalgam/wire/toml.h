/* toml.h - reading TOML 1.0 configuration files, key by key.
 *
 *     static int on_value(void *arg, const char *key, const struct toml_value *v, struct err *e)
 *     {
 *             ... if strcmp(key, "hypervisor.spore.default_vcpus") == 0 ...
 *             return toml_int(v, 1, 64, &config->vcpus, e);
 *     }
 *     r = toml_parse(text, n, on_value, config, e);   -> "line 12: must be a whole number ..."
 *
 * The function is called in the order of the file: with a TABLE for every [header], so that a
 * reader whose keys are a table finds unknown ones of both kinds, and once per value with its full
 * key. However a table is written, it looks the same: inline tables arrive like headers. A part of
 * a key that is not bare is quoted: plugins."io.containerd.grpc".x; the n-th [[table]], or inline
 * table of a list, is table[n], from 0.
 *
 * All of TOML 1.0 but dates. Strings are UTF-8 without NUL. A key given twice, or a table, is an
 * error. Limits below. */
#pragma once

#include "amalgam/base/err.h"

#define TOML_MAX_BYTES (1u << 20)
#define TOML_MAX_NAMES 4096 /* keys and tables of one file */
#define TOML_MAX_DEPTH 16   /* of nested lists and inline tables */
#define TOML_MAX_KEY   1024 /* bytes of a full key */

enum toml_type { TOML_STRING, TOML_INTEGER, TOML_FLOAT, TOML_BOOL, TOML_LIST, TOML_TABLE };

/* Borrowed for the time of the call. A TABLE has nothing inside: its values follow. */
struct toml_value {
	enum toml_type type;
	unsigned line;
	const char *string;
	int64_t integer;
	double real;
	bool is_true;
	const struct toml_value *items; /* LIST */
	size_t n;
};

/* Negative stops the parse and is its result; the line is put before the words in e. */
typedef int toml_fn(void *arg, const char *key, const struct toml_value *v, struct err *e);

/* 0, -EINVAL for bad syntax, or what fn returned. */
INTERNAL MUST_USE int toml_parse(const void *text, size_t n, toml_fn *fn, void *arg, struct err *e);

/* Readers for use in fn: 0, or -EINVAL and "must be ...". */
INTERNAL MUST_USE int toml_str(const struct toml_value *v, const char **out, struct err *e);
INTERNAL MUST_USE int toml_bool(const struct toml_value *v, bool *out, struct err *e);
INTERNAL MUST_USE int toml_int(const struct toml_value *v, int64_t min, int64_t max, int64_t *out,
			       struct err *e);
/* A float, or an integer as one. */
INTERNAL MUST_USE int toml_float(const struct toml_value *v, double *out, struct err *e);
/* A list in which every item is of one type. */
INTERNAL MUST_USE int toml_list(const struct toml_value *v, enum toml_type items, struct err *e);
