#include "amalgam/wire/json.h"

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

static int tjson_parse(struct json_doc *d, const char *text, struct err *e)
{
	return json_parse(d, test_guard_str(text), strlen(text), e);
}

/* The tree as text again, in one form: a test then compares strings. */
static void tjson_print(const struct json *v, struct buf *b)
{
	const char *between = "";

	switch (v->type) {
	case JSON_NULL:
		buf_add_str(b, "null");
		return;
	case JSON_BOOL:
		buf_add_str(b, v->is_true ? "true" : "false");
		return;
	case JSON_NUMBER:
		buf_add_str(b, v->text);
		return;
	case JSON_STRING:
		str_json(b, v->text);
		return;
	case JSON_LIST:
	case JSON_OBJECT:
		buf_add_str(b, v->type == JSON_LIST ? "[" : "{");
		json_each(item, v) {
			buf_add_str(b, between);
			between = ",";
			CHECK(item->parent == v);
			if (v->type == JSON_OBJECT) {
				str_json(b, item->key);
				buf_add_str(b, ":");
			}
			tjson_print(item, b);
		}
		buf_add_str(b, v->type == JSON_LIST ? "]" : "}");
	}
}

TEST(json_reads_every_kind_of_value)
{
	static const struct {
		const char *text, *tree;
	} rows[] = {
		{ "{}", "{}" },
		{ "[]", "[]" },
		{ " \t\r\n[ ] \n", "[]" },
		{ "[true,false,null]", "[true,false,null]" },
		{ "[0,-0,12,-3.5,1e9,2E-3,1.25e+10]", "[0,-0,12,-3.5,1e9,2E-3,1.25e+10]" },
		{ "{\"a\":1,\"b\":[2,{\"c\":3}]}", "{\"a\":1,\"b\":[2,{\"c\":3}]}" },
		{ "{ \"a\" : { } , \"b\" : [ [ ] , [ [ ] ] ] }", "{\"a\":{},\"b\":[[],[[]]]}" },
		{ "[\"\",\"x y\",\"{,]:\"]", "[\"\",\"x y\",\"{,]:\"]" },
		{ "{\"\":0}", "{\"\":0}" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_JSON struct json_doc d = { 0 };
		AUTO_BUF struct buf b = { 0 };
		struct err e = { 0 };
		test_note("%s", rows[i].text);
		CHECK_EQ(tjson_parse(&d, rows[i].text, &e), 0);
		tjson_print(d.root, &b);
		CHECK_STR(buf_cstr(&b), rows[i].tree);
	}
}

TEST(json_unescapes_strings)
{
	static const struct {
		const char *text, *string;
	} rows[] = {
		{ "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]", "\"\\/\b\f\n\r\t" },
		{ "[\"\\u0041\\u00e9\\u20AC\"]", "A\xc3\xa9\xe2\x82\xac" },
		{ "[\"\\ud83d\\ude00\"]", "\xf0\x9f\x98\x80" },
		{ "[\"\\udbff\\udfff\"]", "\xf4\x8f\xbf\xbf" },
		{ "[\"\\ud83d\"]", "\xef\xbf\xbd" },
		{ "[\"\\ud83dx\"]", "\xef\xbf\xbdx" },
		{ "[\"\\ud83d\\n\"]", "\xef\xbf\xbd\n" },
		{ "[\"\\ud83d\\u0041\"]", "\xef\xbf\xbd"
					  "A" },
		{ "[\"\\ude00\\ud83d\"]", "\xef\xbf\xbd\xef\xbf\xbd" },
		{ "[\"gr\xc3\xbc\xc3\x9f\"]", "gr\xc3\xbc\xc3\x9f" },
		{ "[\"a\\\\\"]", "a\\" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_JSON struct json_doc d = { 0 };
		const char *s = NULL;
		struct err e = { 0 };
		test_note("%s", rows[i].text);
		CHECK_EQ(tjson_parse(&d, rows[i].text, &e), 0);
		CHECK_EQ(json_str(d.root->first, &s, &e), 0);
		CHECK_STR(s, rows[i].string);
		CHECK_EQ(d.root->first->len, strlen(s));
	}
}

TEST(json_refuses_what_is_not_json)
{
	static const char *const rows[] = {
		"", " ", "{", "}", "[", "]", "[}", "{]", "[[]", "[]]", "[] []", "[]x", "x", "nul",
		"[nul]", "[nulll]", "[True]", "[tru]", "[01]", "[-]", "[1.]", "[.5]", "[+1]",
		"[1e]",
		"[1e+]", "[0x1]", "[1_0]", "[--1]", "[1.2.3]", "[Infinity]", "[NaN]", "[1 2]",
		"[1,]", "[,1]", "[,]", "[1,,2]", "[1;2]", "{\"a\"}", "{\"a\":}", "{:1}", "{a:1}",
		"{1:1}", "{\"a\":1,}", "{,\"a\":1}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "{\"a\"::1}",
		"{\"a\":1:2}", "{\"a\",1}", "{\"a\":1,\"b\"}", "[\"a\":1]", "{\"a\":\"b\":\"c\"}",
		"{[]:1}", "{{}:1}", "[\"a]", "[\"\\x\"]", "[\"\\u12\"]", "[\"\\u12g4\"]",
		"[\"a\nb\"]", "[\"a\tb\"]", "['a']", "/**/[]", "[1]//x", "[\"\\u0000\"]",
		"[\"\xff\"]", "[\"\xc3\"]", "\xef\xbb\xbf[]", "[1}", "{\"a\":[}", "{\"a\":{]}",
		"[1:2]", "[:]", "{:}", "{,}", ",[]", ":[]", "\"a\" []", "{\"a\":1}}",
		"[\"a\"\"b\"]",
		"{\"a\":\"b\"\"c\"}", "[[1][2]]", "[{}{}]", "[1[2]]", "[1{}]", "{\"a\":1{}}",
		"{\"a\"[]}", "{\"a\"{}}", "[\"a\"1]", "[true false]", "[truefalse]", "[1\"a\"]",
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_JSON struct json_doc d = { 0 };
		struct err e = { 0 };
		test_note("%s", rows[i]);
		CHECK_EQ(tjson_parse(&d, rows[i], &e), -EINVAL);
		CHECK(!d.root);
		CHECK_HAS(e.msg, "line 1: ");
	}
}

TEST(json_refuses_a_nul_byte_and_a_root_that_holds_nothing)
{
	AUTO_JSON struct json_doc d = { 0 };
	struct err e = { 0 };

	CHECK_EQ(json_parse(&d, test_guard("[\"a\0b\"]", 7), 7, &e), -EINVAL);
	CHECK_EQ(json_parse(&d, test_guard("[1]\0", 4), 4, &e), -EINVAL);
	CHECK_EQ(tjson_parse(&d, "\"text\"", &e), -EINVAL);
	CHECK_STR(e.msg, "line 1: must be an object or a list");
	CHECK_EQ(tjson_parse(&d, "true", &e), -EINVAL);
	CHECK_EQ(json_parse(&d, NULL, 0, &e), -EINVAL);
}

TEST(json_names_the_line_of_an_error)
{
	AUTO_JSON struct json_doc d = { 0 };
	struct err e = { 0 };

	CHECK_EQ(tjson_parse(&d, "{\n \"a\\nb\": \"\\n\\n\",\n \"b\": [1\n 2]}", &e), -EINVAL);
	CHECK_HAS(e.msg, "line 4: ");
	CHECK_EQ(tjson_parse(&d, "[\n\n\"\\q\"]", &e), -EINVAL);
	CHECK_HAS(e.msg, "line 3: ");
	CHECK_EQ(tjson_parse(&d, "[\n\"\xff\"]", &e), -EINVAL);
	CHECK_HAS(e.msg, "line 2: not UTF-8");
}

TEST(json_cut_at_any_byte_is_refused)
{
	static const char text[] = "{\"process\":{\"args\":[\"sh\",\"-c\",\"a\\u00e9\\n\"],"
				   "\"n\":-1.5e3},"
				   "\"t\":true,\"x\":null, \"l\":[[],{}]}";
	AUTO_JSON struct json_doc d = { 0 };
	struct err e;

	for (size_t n = 0; n < sizeof text - 1; n++) {
		test_note("%zu bytes", n);
		CHECK_EQ(json_parse(&d, test_guard(text, n), n, &e), -EINVAL);
	}
	CHECK_EQ(json_parse(&d, test_guard(text, sizeof text - 1), sizeof text - 1, &e), 0);
}

TEST(json_with_any_byte_changed_does_no_harm)
{
	static const char text[] = "{\"a\":[\"x\\u0041\",1,true,{\"b\":null}],\"c\":-2.5}";
	static const char bytes[] = "\"\\{}[]:, 0tn\x80\xc3\n";
	AUTO_JSON struct json_doc d = { 0 };
	struct err e;

	for (size_t i = 0; i < sizeof text - 1; i++)
		for (size_t k = 0; k < sizeof bytes; k++) {
			char *copy = test_guard(text, sizeof text - 1);
			copy[i] = bytes[k];
			if (json_parse(&d, copy, sizeof text - 1, &e) == 0) {
				AUTO_BUF struct buf b = { 0 };
				tjson_print(d.root, &b);
			}
		}
}

static char *tjson_nested(unsigned depth)
{
	AUTO_BUF struct buf b = { 0 };

	for (unsigned i = 0; i < depth; i++)
		buf_add_str(&b, i % 2 ? "[" : "{\"a\":");
	buf_add_str(&b, "[]");
	for (unsigned i = depth; i-- > 0;)
		buf_add_str(&b, i % 2 ? "]" : "}");
	return buf_take_cstr(&b);
}

TEST(json_nests_to_its_limit_and_no_deeper)
{
	AUTO_FREE char *fits = tjson_nested(JSON_MAX_DEPTH - 1);
	AUTO_FREE char *deep = tjson_nested(JSON_MAX_DEPTH);
	AUTO_JSON struct json_doc d = { 0 };
	AUTO_BUF struct buf open = { 0 };
	struct err e = { 0 };

	CHECK_EQ(tjson_parse(&d, fits, &e), 0);
	CHECK_EQ(tjson_parse(&d, deep, &e), -EINVAL);
	CHECK_STR(e.msg, "line 1: nested too deeply");
	for (int i = 0; i < 1000000; i++)
		buf_add(&open, "[", 1);
	CHECK_EQ(json_parse(&d, open.data, open.len, &e), -EINVAL);
}

TEST(json_holds_so_many_values_and_no_more)
{
	AUTO_JSON struct json_doc d = { 0 };
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	buf_add_str(&b, "[0");
	for (unsigned i = 0; i < JSON_MAX_VALUES - 2; i++)
		buf_add_str(&b, ",0");
	buf_add_str(&b, "]");
	CHECK_EQ(json_parse(&d, b.data, b.len, &e), 0);
	CHECK_EQ(d.root->n, JSON_MAX_VALUES - 1);
	b.len--;
	buf_add_str(&b, ",0]");
	CHECK_EQ(json_parse(&d, b.data, b.len, &e), -EINVAL);
	CHECK_HAS(e.msg, "more than");
	buf_reserve(&b, JSON_MAX_BYTES);
	CHECK_EQ(json_parse(&d, b.data, JSON_MAX_BYTES + 1, &e), -EINVAL);
	CHECK_HAS(e.msg, "longer than");
}

TEST(json_get_returns_the_last_of_equal_members_and_no_null)
{
	AUTO_JSON struct json_doc d = { 0 };
	struct err e;
	uint64_t v = 0;

	CHECK_EQ(tjson_parse(&d, "{\"a\":1,\"b\":null,\"a\":2,\"c\":{\"d\":{\"e\":5}}}", &e), 0);
	CHECK_EQ(json_u64(json_get(d.root, "a"), 0, 9, &v, &e), 0);
	CHECK_EQ(v, 2);
	CHECK(!json_get(d.root, "b"));
	CHECK(!json_get(d.root, "x"));
	CHECK(!json_get(NULL, "x"));
	CHECK(!json_get(json_get(d.root, "a"), "x"));
	CHECK_EQ(json_u64(json_find(d.root, "c.d.e"), 0, 9, &v, &e), 0);
	CHECK_EQ(v, 5);
	CHECK(!json_find(d.root, "c.x.e"));
	CHECK(!json_find(d.root, "a.b"));
	CHECK(json_find(d.root, "") == d.root);
}

TEST(json_readers_leave_their_output_when_the_value_is_absent)
{
	const char *s = "default";
	bool b = true;
	uint64_t u = 7;
	int64_t i = -7;

	CHECK_EQ(json_str(NULL, &s, NULL), 0);
	CHECK_EQ(json_bool(NULL, &b, NULL), 0);
	CHECK_EQ(json_u64(NULL, 8, 9, &u, NULL), 0);
	CHECK_EQ(json_i64(NULL, 8, 9, &i, NULL), 0);
	CHECK_EQ(json_is(NULL, JSON_LIST, NULL), 0);
	CHECK_STR(s, "default");
	CHECK(b && u == 7 && i == -7);
}

TEST(json_readers_say_where_and_what_is_wrong)
{
	AUTO_JSON struct json_doc d = { 0 };
	const struct json *list;
	struct err e = { 0 };
	const char *s;
	uint64_t u;
	int64_t i;
	bool b;

	CHECK_EQ(tjson_parse(&d, "{\"p\":{\"l\":[\"a\",1,{\"x\":true}]},\"n\":300,\"neg\":-1}",
			     &e),
		 0);
	list = json_find(d.root, "p.l");
	CHECK_EQ(json_str(list->first->next, &s, &e), -EINVAL);
	CHECK_STR(e.msg, "p.l[1]: must be a string");
	CHECK_EQ(json_str(json_get(list->first->next->next, "x"), &s, &e), -EINVAL);
	CHECK_STR(e.msg, "p.l[2].x: must be a string");
	CHECK_EQ(json_bool(list, &b, &e), -EINVAL);
	CHECK_STR(e.msg, "p.l: must be true or false");
	CHECK_EQ(json_u64(json_get(d.root, "n"), 1, 255, &u, &e), -EINVAL);
	CHECK_STR(e.msg, "n: must be a whole number from 1 to 255");
	CHECK_EQ(json_u64(json_get(d.root, "neg"), 0, 255, &u, &e), -EINVAL);
	CHECK_EQ(json_i64(json_get(d.root, "n"), -128, 127, &i, &e), -EINVAL);
	CHECK_STR(e.msg, "n: must be a whole number from -128 to 127");
	CHECK_EQ(json_is(d.root, JSON_LIST, &e), -EINVAL);
	CHECK_STR(e.msg, "must be a list");
	CHECK_EQ(json_refuse(list, &e, "%s no", "oh"), -EINVAL);
	CHECK_STR(e.msg, "p.l: oh no");
}

TEST(json_numbers_keep_all_their_bits)
{
	static const struct {
		const char *text;
		int result;
		int64_t value;
	} rows[] = {
		{ "[0]", 0, 0 },
		{ "[-0]", 0, 0 },
		{ "[9223372036854775807]", 0, INT64_MAX },
		{ "[9223372036854775808]", -EINVAL, 0 },
		{ "[-9223372036854775808]", 0, INT64_MIN },
		{ "[-9223372036854775809]", -EINVAL, 0 },
		{ "[1.0]", -EINVAL, 0 },
		{ "[1e3]", -EINVAL, 0 },
		{ "[\"1\"]", -EINVAL, 0 },
	};
	AUTO_JSON struct json_doc d = { 0 };
	struct err e;
	uint64_t u = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t v = 0;
		test_note("%s", rows[i].text);
		CHECK_EQ(tjson_parse(&d, rows[i].text, &e), 0);
		CHECK_EQ(json_i64(d.root->first, INT64_MIN, INT64_MAX, &v, &e), rows[i].result);
		CHECK_EQ(v, rows[i].value);
	}
	CHECK_EQ(tjson_parse(&d, "[18446744073709551615]", &e), 0);
	CHECK_EQ(json_u64(d.root->first, 0, UINT64_MAX, &u, &e), 0);
	CHECK_EQ(u, UINT64_MAX);
}

TEST(json_parse_may_be_repeated_on_one_document)
{
	AUTO_JSON struct json_doc d = { 0 };
	struct err e;

	CHECK_EQ(tjson_parse(&d, "[1]", &e), 0);
	CHECK_EQ(tjson_parse(&d, "[", &e), -EINVAL);
	CHECK_EQ(tjson_parse(&d, "{\"a\":2}", &e), 0);
	CHECK_EQ(d.root->n, 1);
	json_fini(&d);
	json_fini(&d);
}
