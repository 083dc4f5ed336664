/* fuzz_toml.c - any bytes as TOML. The first byte says after how many calls the reader objects. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/wire/toml.c"

static void fuzz_visit(const struct toml_value *v, unsigned depth)
{
	ASSERT(depth <= TOML_MAX_DEPTH && v->line > 0);
	ASSERT((v->type == TOML_STRING) == (v->string != NULL));
	for (size_t i = 0; i < v->n; i++)
		fuzz_visit(&v->items[i], depth + 1);
}

static int fuzz_value(void *arg, const char *key, const struct toml_value *v, struct err *e)
{
	unsigned *left = arg;
	const char *s;
	double d;

	ASSERT(*key && strlen(key) <= TOML_MAX_KEY + 16 * TOML_MAX_DEPTH);
	fuzz_visit(v, 0);
	(void)!toml_str(v, &s, e);
	(void)!toml_float(v, &d, e);
	(void)!toml_list(v, TOML_STRING, e);
	return --*left ? 0 : err_set(e, -ENOENT, "enough");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = { 0 };
	unsigned left;
	int r;

	if (!size)
		return 0;
	left = *data == 0xff ? UINT_MAX : *data + 1u;
	r = toml_parse(data + 1, size - 1, fuzz_value, &left, &e);
	ASSERT(r == 0 || (r == -EINVAL && *e.msg) || (r == -ENOENT && left == 0));
	return 0;
}
