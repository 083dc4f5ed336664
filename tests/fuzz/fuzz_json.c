/* fuzz_json.c - any bytes as JSON: every value is visited, and read in every way. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/wire/json.c"

static void fuzz_visit(const struct json *v)
{
	const char *s = NULL;
	struct err e = { 0 };
	int64_t i = 0;
	uint64_t u = 0;
	bool b;

	if (json_str(v, &s, &e) == 0)
		ASSERT(strlen(s) == v->len);
	(void)!json_bool(v, &b, &e);
	if (json_u64(v, 1, 1000, &u, &e) == 0)
		ASSERT(u >= 1 && u <= 1000);
	(void)!json_i64(v, INT64_MIN, INT64_MAX, &i, &e);
	json_refuse(v, &e, "refused");
	json_each(item, v) {
		ASSERT(item->parent == v && (item->key != NULL) == (v->type == JSON_OBJECT));
		if (item->key && item->type != JSON_NULL)
			ASSERT(json_get(v, item->key));
		fuzz_visit(item);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_JSON struct json_doc doc = { 0 };
	struct err e = { 0 };

	if (json_parse(&doc, data, size, &e) == 0)
		fuzz_visit(doc.root);
	else
		ASSERT(e.code == -EINVAL && *e.msg && !doc.root);
	return 0;
}
