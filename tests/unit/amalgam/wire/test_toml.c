#include "amalgam/wire/toml.h"

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

/* A parse as one line of text: "key=value;" for each call, "key;" for a table. */
static void ttoml_print(const struct toml_value *v, struct buf *b)
{
	switch (v->type) {
	case TOML_STRING:
		str_json(b, v->string);
		break;
	case TOML_INTEGER:
		buf_printf(b, "%lld", (long long)v->integer);
		break;
	case TOML_FLOAT:
		buf_printf(b, "%g", v->real);
		break;
	case TOML_BOOL:
		buf_add_str(b, v->is_true ? "true" : "false");
		break;
	case TOML_LIST:
		buf_add_str(b, "[");
		for (size_t i = 0; i < v->n; i++) {
			buf_add_str(b, i ? "," : "");
			ttoml_print(&v->items[i], b);
		}
		buf_add_str(b, "]");
		break;
	case TOML_TABLE:
		break;
	}
}

static int ttoml_note(void *arg, const char *key, const struct toml_value *v, struct err *e)
{
	struct buf *b = arg;

	(void)e;
	buf_add_str(b, key);
	if (v->type != TOML_TABLE) {
		buf_add_str(b, "=");
		ttoml_print(v, b);
	}
	buf_add_str(b, ";");
	return 0;
}

static int ttoml_parse(const char *text, struct buf *b, struct err *e)
{
	b->len = 0;
	return toml_parse(test_guard_str(text), strlen(text), ttoml_note, b, e);
}

struct ttoml_row {
	const char *text, *calls;
};

static void ttoml_check(const struct ttoml_row *rows, size_t n)
{
	AUTO_BUF struct buf b = { 0 };

	for (size_t i = 0; i < n; i++) {
		struct err e = { 0 };
		test_note("%s", rows[i].text);
		if (ttoml_parse(rows[i].text, &b, &e) < 0)
			CHECK_STR(e.msg, "no error");
		CHECK_STR(buf_cstr(&b), rows[i].calls);
	}
}

TEST(toml_reads_keys_tables_and_comments)
{
	static const struct ttoml_row rows[] = {
		{ "", "" },
		{ "\n\r\n  # only a comment", "" },
		{ "a = 1", "a=1;" },
		{ "a=1 # c\nb=2\r\n\tc\t=\t3\t", "a=1;b=2;c=3;" },
		{ "\xef\xbb\xbf" "a=1", "a=1;" },
		{ "[t]\na=1\n[u]\na=2", "t;t.a=1;u;u.a=2;" },
		{ "[ t . u ] # c\nx=1", "t.u;t.u.x=1;" },
		{ "a.b.c = 1\na.b.d = 2\na . e = 3", "a.b.c=1;a.b.d=2;a.e=3;" },
		{ "bare-key_9 = 1\n1234 = 2\n3.14 = 3", "bare-key_9=1;1234=2;3.14=3;" },
		{ "\"quoted\" = 1\n'lit' = 2", "quoted=1;lit=2;" },
		{ "\"a.b\" = 1\n'c d'.e = 2\n\"\" = 3\n\"\\u00e9\"=4",
		  "\"a.b\"=1;\"c d\".e=2;\"\"=3;\"\xc3\xa9\"=4;" },
		{ "[plugins.\"io.x.v1\"]\nk=true",
		  "plugins.\"io.x.v1\";plugins.\"io.x.v1\".k=true;" },
		{ "[a.b]\nx=1\n[a]\ny=2", "a.b;a.b.x=1;a;a.y=2;" },
		{ "[a]\nb.c=1\n[a.b.d]\nx=2", "a;a.b.c=1;a.b.d;a.b.d.x=2;" },
		{ "true = 1\ninf = 2", "true=1;inf=2;" },
	};

	ttoml_check(rows, ARRAY_LEN(rows));
}

TEST(toml_reads_scalars)
{
	static const struct ttoml_row rows[] = {
		{ "a=true\nb=false", "a=true;b=false;" },
		{ "a=0\nb=+7\nc=-0\nd=1_000_000", "a=0;b=7;c=0;d=1000000;" },
		{ "a=9223372036854775807\nb=-9223372036854775808",
		  "a=9223372036854775807;b=-9223372036854775808;" },
		{ "a=0xDEAD_beef\nb=0o755\nc=0b1101_0110\nd=0x0", "a=3735928559;b=493;c=214;d=0;" },
		{ "a=1.5\nb=-0.25\nc=5e+22\nd=1e06\ne=6.5E-2\nf=9_2.5_0",
		  "a=1.5;b=-0.25;c=5e+22;d=1e+06;e=0.065;f=92.5;" },
		{ "a=inf\nb=-inf", "a=inf;b=-inf;" },
	};

	ttoml_check(rows, ARRAY_LEN(rows));
}

TEST(toml_reads_strings)
{
	static const struct ttoml_row rows[] = {
		{ "a=\"\"\nb=''", "a=\"\";b=\"\";" },
		{ "a=\"x # y\" # c", "a=\"x # y\";" },
		{ "a=\"\\\"\\\\/\"", "a=\"\\\"\\\\/\";" },
		{ "a=\"\\b\\t\\n\\f\\r\"", "a=\"\\u0008\\u0009\\u000a\\u000c\\u000d\";" },
		{ "a=\"\\u00E9\\U0001F600\"", "a=\"\xc3\xa9\xf0\x9f\x98\x80\";" },
		{ "a='C:\\new\\\"x\"'", "a=\"C:\\\\new\\\\\\\"x\\\"\";" },
		{ "a=\"\"\"\"\"\"", "a=\"\";" },
		{ "a=\"\"\"\nx\n y\"\"\"", "a=\"x\\u000a y\";" },
		{ "a=\"\"\"\r\nx\r\ny\"\"\"", "a=\"x\\u000ay\";" },
		{ "a=\"\"\"x \\\n\n   y\\  \n z\"\"\"", "a=\"x yz\";" },
		{ "a=\"\"\"\"x\"\"\"\"", "a=\"\\\"x\\\"\";" },
		{ "a=\"\"\"\"\"x\"\"\"\"\"", "a=\"\\\"\\\"x\\\"\\\"\";" },
		{ "a=\"\"\"x\"\"y\\\"\"\"\"", "a=\"x\\\"\\\"y\\\"\";" },
		{ "a='''\nx\\n'y''z'''''", "a=\"x\\\\n'y''z''\";" },
		{ "a=\"tab\there\"", "a=\"tab\\u0009here\";" },
	};

	ttoml_check(rows, ARRAY_LEN(rows));
}

TEST(toml_reads_lists_and_inline_tables)
{
	static const struct ttoml_row rows[] = {
		{ "a=[]\nb=[ ]", "a=[];b=[];" },
		{ "a=[1,2,3]", "a=[1,2,3];" },
		{ "a=[1,2,]", "a=[1,2];" },
		{ "a=[ # c\n 'x', # c\n\n 'y' # c\n , 'z'\n]\nb=1", "a=[\"x\",\"y\",\"z\"];b=1;" },
		{ "a=[[1,2],['x'],[]]", "a=[[1,2],[\"x\"],[]];" },
		{ "a=[1,'x',true,1.5]", "a=[1,\"x\",true,1.5];" },
		{ "a={}", "a;" },
		{ "a={b=1,c='x'}", "a;a.b=1;a.c=\"x\";" },
		{ "a={ b.c = 1 , b.d = 2 }\ne=3", "a;a.b.c=1;a.b.d=2;e=3;" },
		{ "a={b={c={d=1}}}", "a;a.b;a.b.c;a.b.c.d=1;" },
		{ "a=[{b=1},{b=2}]", "a[0];a[0].b=1;a[1];a[1].b=2;" },
		{ "[t]\na=[{b=[{c=1}]}]", "t;t.a[0];t.a[0].b[0];t.a[0].b[0].c=1;" },
	};

	ttoml_check(rows, ARRAY_LEN(rows));
}

TEST(toml_reads_lists_of_tables)
{
	static const struct ttoml_row rows[] = {
		{ "[[a]]\nx=1\n[[a]]\nx=2", "a[0];a[0].x=1;a[1];a[1].x=2;" },
		{ "[[a]]\n[a.b]\nx=1\n[[a]]\n[a.b]\nx=2",
		  "a[0];a[0].b;a[0].b.x=1;a[1];a[1].b;a[1].b.x=2;" },
		{ "[[a]]\n[[a.b]]\nx=1\n[[a.b]]\nx=2\n[[a]]\n[[a.b]]\nx=3",
		  "a[0];a[0].b[0];a[0].b[0].x=1;a[0].b[1];a[0].b[1].x=2;"
		  "a[1];a[1].b[0];a[1].b[0].x=3;" },
		{ "[[a.b]]\nx=1\n[a]\ny=2", "a.b[0];a.b[0].x=1;a;a.y=2;" },
	};

	ttoml_check(rows, ARRAY_LEN(rows));
}

TEST(toml_says_what_is_wrong_and_in_which_line)
{
	static const struct {
		const char *text, *error;
	} rows[] = {
		{ "a=1\na=2", "line 2: the key is given a second time" },
		{ "a=1\n\"a\"=2", "line 2: the key is given a second time" },
		{ "[t]\nx=1\n[t]", "line 3: the table is defined a second time" },
		{ "a.b=1\na.b=2", "line 2: the key is given a second time" },
		{ "a.b=1\n[a]", "line 2: the table is defined a second time" },
		{ "[a]\n[[a]]", "line 2: the table is defined a second time" },
		{ "[[a]]\n[a]", "line 2: the table is defined a second time" },
		{ "a=[]\n[[a]]", "line 2: the table is defined a second time" },
		{ "a={}\n[a]", "line 2: the table is defined a second time" },
		{ "a={b=1}\na.c=2", "line 2: a part of the key is a value" },
		{ "a={b=1}\n[a.c]", "line 2: a part of the key is a value" },
		{ "a={b={x=1},b.y=2}", "line 1: a part of the key is a value" },
		{ "a=1\na.b=2", "line 2: a part of the key is a value" },
		{ "[a.b.c]\nz=1\n[a]\nb.d=2",
		  "line 4: a part of the key is a table defined elsewhere" },
		{ "[a]\nb.c=1\n[a.b]", "line 3: the table is defined a second time" },
		{ "[[a.b]]\n[a]\nb.c=1", "line 3: a part of the key is a table defined elsewhere" },
		{ "a=[{b=1}]\n[[a]]", "line 2: the table is defined a second time" },
		{ "a={b=1,b=2}", "line 1: the key is given a second time" },
		{ "= 1", "line 1: key expected" },
		{ "a..b=1", "line 1: key expected" },
		{ "a.=1", "line 1: key expected" },
		{ ".a=1", "line 1: key expected" },
		{ "[]\n", "line 1: key expected" },
		{ "[a", "line 1: ']' expected" },
		{ "[a]]", "line 1: end of line expected" },
		{ "[[a]", "line 1: ']]' expected" },
		{ "[a] b=1", "line 1: end of line expected" },
		{ "[ [a]]", "line 1: key expected" },
		{ "\"\"\"a\"\"\"=1", "line 1: '=' expected" },
		{ "a", "line 1: '=' expected" },
		{ "a b = 1", "line 1: '=' expected" },
		{ "a =", "line 1: value expected" },
		{ "a = # c", "line 1: value expected" },
		{ "\n\na = 1 b = 2", "line 3: end of line expected" },
		{ "a = x", "line 1: not a value" },
		{ "a = True", "line 1: not a value" },
		{ "a = truefalse", "line 1: end of line expected" },
		{ "a = 01", "line 1: not a value" },
		{ "a = 9223372036854775808", "line 1: not a value, or a number out of range" },
		{ "a = -9223372036854775809", "line 1: not a value, or a number out of range" },
		{ "a = 0xffffffffffffffffff", "line 1: not a value, or a number out of range" },
		{ "a = 0x", "line 1: not a value" },
		{ "a = +0x1", "line 1: not a value" },
		{ "a = 0o8", "line 1: not a value" },
		{ "a = 0b2", "line 1: not a value" },
		{ "a = 0X1", "line 1: not a value" },
		{ "a = 1__0", "line 1: '_' must stand between digits" },
		{ "a = _1", "line 1: '_' must stand between digits" },
		{ "a = 1_", "line 1: '_' must stand between digits" },
		{ "a = 0x_1", "line 1: '_' must stand between digits" },
		{ "a = 1_.5", "line 1: '_' must stand between digits" },
		{ "a = 1.", "line 1: not a value" },
		{ "a = .5", "line 1: not a value" },
		{ "a = 1e", "line 1: not a value" },
		{ "a = 1.e5", "line 1: not a value" },
		{ "a = 1.5.5", "line 1: not a value" },
		{ "a = ++1", "line 1: not a value" },
		{ "a = 1979-05-27", "line 1: dates and times are not supported" },
		{ "a = 07:32:00", "line 1: dates and times are not supported" },
		{ "a = \"x", "line 1: string without end" },
		{ "a = \"x\n\"", "line 1: string without end" },
		{ "a = \"\"\"x\n\"", "line 2: string without end" },
		{ "a = 'x", "line 1: string without end" },
		{ "a = '''\n\nx", "line 3: string without end" },
		{ "a = \"\\", "line 1: unknown escape" },
		{ "a = \"\\q\"", "line 1: unknown escape" },
		{ "a = \"\\x41\"", "line 1: unknown escape" },
		{ "a = \"\\\n\"", "line 1: unknown escape" },
		{ "a = \"\"\"\\ x\"\"\"", "line 1: unknown escape" },
		{ "a = \"\\u12\"", "line 1: bad \\u" },
		{ "a = \"\\ud800\"", "line 1: \\u of what is not a character" },
		{ "a = \"\\u0000\"", "line 1: \\u of what is not a character" },
		{ "a = \"\\U00110000\"", "line 1: \\u of what is not a character" },
		{ "a = \"x\x01\"", "line 1: control character in a string" },
		{ "a = 'x\x7f'", "line 1: control character in a string" },
		{ "a = 1 # x\x01", "line 1: control character" },
		{ "a = \"\"\"\"\"\"\"\"\"", "line 1: end of line expected" },
		{ "a = [1 2]", "line 1: ',' or ']' expected" },
		{ "a = [1\n,,2]", "line 2: value expected" },
		{ "a = [", "line 1: value expected" },
		{ "a = [1,\n\n", "line 3: value expected" },
		{ "a = [1}", "line 1: ',' or ']' expected" },
		{ "a = {b=1", "line 1: ',' or '}' expected" },
		{ "a = {b=1,}", "line 1: key expected" },
		{ "a = {b=1\n}", "line 1: ',' or '}' expected" },
		{ "a = {\n}", "line 1: key expected" },
		{ "a = [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "line 1: nested too deeply" },
		{ "a=1\n\xff", "line 2: not UTF-8 text" },
		{ "a=1\rb=2", "line 1: control character" },
	};
	AUTO_BUF struct buf b = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = { 0 };
		test_note("%s", rows[i].text);
		CHECK_EQ(ttoml_parse(rows[i].text, &b, &e), -EINVAL);
		CHECK_HAS(e.msg, rows[i].error);
		CHECK_EQ(e.code, -EINVAL);
	}
}

TEST(toml_cut_at_any_byte_does_no_harm)
{
	static const char text[] = "# spore\n[a.\"b c\"]\n"
				   "x = [ 1, 0x2, \"y\\u00e9\", '''z'''] # c\n"
				   "d.e = \"\"\"q\\\n  w\"\"\"\n"
				   "f = { g = 1.5, h = true }\n[[l]]\nk='v'\n";
	static const char calls[] = "a.\"b c\";a.\"b c\".x=[1,2,\"y\xc3\xa9\",\"z\"];"
				    "a.\"b c\".d.e=\"qw\";a.\"b c\".f;a.\"b c\".f.g=1.5;"
				    "a.\"b c\".f.h=true;l[0];l[0].k=\"v\";";
	AUTO_BUF struct buf b = { 0 };
	struct err e;

	for (size_t n = 0; n < sizeof text; n++) {
		b.len = 0;
		(void)!toml_parse(test_guard(text, n), n, ttoml_note, &b, &e);
	}
	b.len = 0;
	CHECK_EQ(toml_parse(text, sizeof text - 1, ttoml_note, &b, &e), 0);
	CHECK_STR(buf_cstr(&b), calls);
}

TEST(toml_with_any_byte_changed_does_no_harm)
{
	static const char text[] = "[a]\nx=[1,\"y\\n\",'z']\nd.e=\"\"\"q\"\"\"\n"
				   "f={g=1,h=[{i=2}]}\n[[l]]\n";
	static const char bytes[] = "\"'\\[]{}=.,#\n\r _0xe\x80\xc3";
	AUTO_BUF struct buf b = { 0 };
	struct err e;

	for (size_t i = 0; i < sizeof text - 1; i++)
		for (size_t k = 0; k < sizeof bytes; k++) {
			char *copy = test_guard(text, sizeof text - 1);
			copy[i] = bytes[k];
			b.len = 0;
			(void)!toml_parse(copy, sizeof text - 1, ttoml_note, &b, &e);
		}
}

static int ttoml_refuse(void *arg, const char *key, const struct toml_value *v, struct err *e)
{
	int64_t n;

	(void)arg;
	if (strcmp(key, "t.bad") == 0)
		return err_set(e, -ENOENT, "unknown key");
	return v->type == TOML_INTEGER ? toml_int(v, 1, 64, &n, e) : 0;
}

TEST(toml_puts_the_line_before_what_the_reader_says)
{
	static const char range[] = "[t]\na = 5\n\nb = 65\n", unknown[] = "[t]\nbad = [\n1\n]\n";
	struct err e = { 0 };

	CHECK_EQ(toml_parse(range, sizeof range - 1, ttoml_refuse, NULL, &e), -EINVAL);
	CHECK_STR(e.msg, "line 4: must be a whole number from 1 to 64");
	CHECK_EQ(toml_parse(unknown, sizeof unknown - 1, ttoml_refuse, NULL, &e), -ENOENT);
	CHECK_STR(e.msg, "line 2: unknown key");
}

static int ttoml_readers(void *arg, const char *key, const struct toml_value *v, struct err *e)
{
	const char *s = NULL;
	bool b = false;
	int64_t i = 0;
	double d = 0;

	++*(int *)arg;
	switch (*key) {
	case 's':
		CHECK_EQ(toml_str(v, &s, e), 0);
		CHECK_STR(s, "x");
		CHECK_EQ(toml_bool(v, &b, e), -EINVAL);
		CHECK_STR(e->msg, "must be true or false");
		break;
	case 'b':
		CHECK_EQ(toml_bool(v, &b, e), 0);
		CHECK(b);
		CHECK_EQ(toml_str(v, &s, e), -EINVAL);
		CHECK_STR(e->msg, "must be a string");
		break;
	case 'i':
		CHECK_EQ(toml_int(v, 0, 9, &i, e), 0);
		CHECK_EQ(i, 7);
		CHECK_EQ(toml_float(v, &d, e), 0);
		CHECK(d == 7.0);
		break;
	case 'f':
		CHECK_EQ(toml_float(v, &d, e), 0);
		CHECK(d == 1.5);
		CHECK_EQ(toml_int(v, 0, 9, &i, e), -EINVAL);
		CHECK_EQ(toml_list(v, TOML_STRING, e), -EINVAL);
		CHECK_STR(e->msg, "must be a list");
		break;
	case 'l':
		CHECK_EQ(toml_list(v, TOML_STRING, e), -EINVAL);
		CHECK_STR(e->msg, "item 1: must be a string");
		break;
	case 'm':
		CHECK_EQ(toml_list(v, TOML_INTEGER, e), 0);
		CHECK_EQ(v->n, 2);
	}
	return 0;
}

TEST(toml_readers_check_types)
{
	static const char text[] = "s='x'\nb=true\ni=7\nf=1.5\nl=['a',1]\nm=[1,2]";
	struct err e = { 0 };
	int calls = 0;

	CHECK_EQ(toml_parse(text, sizeof text - 1, ttoml_readers, &calls, &e), 0);
	CHECK_EQ(calls, 6);
}

TEST(toml_bounds_keys_names_and_size)
{
	AUTO_BUF struct buf text = { 0 };
	AUTO_BUF struct buf calls = { 0 };
	struct err e = { 0 };

	for (unsigned i = 0; i < TOML_MAX_NAMES; i++)
		buf_printf(&text, "k%u=1\n", i);
	CHECK_EQ(toml_parse(text.data, text.len, ttoml_note, &calls, &e), 0);
	buf_add_str(&text, "more=1");
	CHECK_EQ(toml_parse(text.data, text.len, ttoml_note, &calls, &e), -EINVAL);
	CHECK_HAS(e.msg, "too many keys");
	text.len = 0;
	for (unsigned i = 0; i < TOML_MAX_KEY; i++)
		buf_add_str(&text, "k");
	buf_add_str(&text, "k=1");
	CHECK_EQ(toml_parse(text.data, text.len, ttoml_note, &calls, &e), -EINVAL);
	CHECK_HAS(e.msg, "key too long");
	CHECK_EQ(toml_parse(text.data, TOML_MAX_BYTES + 1, ttoml_note, &calls, &e), -EINVAL);
	CHECK_HAS(e.msg, "longer than");
}
