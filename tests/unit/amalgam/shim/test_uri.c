#include "amalgam/shim/uri.h"

#include "tests/unit/test.h"

TEST(shim_uri_tells_paths_from_uris)
{
	static const struct {
		const char *text;
		enum shim_uri_kind kind;
		const char *path;
	} rows[] = {
		{ "", SHIM_URI_NONE, NULL },
		{ "/run/a%20b?c", SHIM_URI_FIFO, "/run/a%20b?c" },
		{ "relative", SHIM_URI_FIFO, "relative" },
		{ "://x", SHIM_URI_FIFO, "://x" },
		{ "fifo:///run/a%20b+c", SHIM_URI_FIFO, "/run/a b+c" },
		{ "file:///var/log/%e2%82%AC", SHIM_URI_FILE, "/var/log/\xe2\x82\xac" },
		{ "FILE:///x#part", SHIM_URI_FILE, "/x" },
		{ "binary:///bin/log", SHIM_URI_BINARY, "/bin/log" },
		{ "binary-v2:///bin/log?", SHIM_URI_BINARY_V2, "/bin/log" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct shim_uri u;
		struct err e = { 0 };
		test_note("%s", rows[i].text);
		CHECK_EQ(shim_uri_parse(&u, rows[i].text, &e), 0);
		CHECK_EQ(u.kind, rows[i].kind);
		CHECK_STR(u.path, rows[i].path);
		CHECK_EQ(u.nargs, 0);
		shim_uri_fini(&u);
	}
}

TEST(shim_uri_queries_become_arguments)
{
	static const char *const want[] = { "id", "a b", "x y", "&=", "flag", "", "", "v" };
	struct shim_uri u;
	struct err e = { 0 };

	CHECK_EQ(shim_uri_parse(&u,
				"binary:///l?id=a+b&x%20y=%26%3d&flag&id=second&&=v&bad=%zz&se;mi=1"
				"#tail", &e), 0);
	CHECK_EQ(u.nargs, ARRAY_LEN(want));
	for (unsigned i = 0; i < u.nargs; i++)
		CHECK_STR(u.args[i], want[i]);
	CHECK(!u.args[u.nargs]);
	shim_uri_fini(&u);
}

TEST(shim_uri_refuses_with_a_reason)
{
	static const char *const rows[][2] = {
		{ "ttrpc+unix:///s?streaming_id=1",
		  "ttrpc+unix:///s?streaming_id=1: unknown STDIO scheme ttrpc+unix" },
		{ "npipe:////./pipe/x", "npipe:////./pipe/x: unknown STDIO scheme npipe" },
		{ "file://host/x", "file://host/x: no absolute path" },
		{ "binary://", "binary://: no absolute path" },
		{ "file:///a%2", "file:///a%2: a percent sign without two hexadecimal digits" },
		{ "file:///a%00b", "file:///a%00b: a percent sign without two hexadecimal digits" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct shim_uri u;
		struct err e = { 0 };
		CHECK_EQ(shim_uri_parse(&u, rows[i][0], &e), -EINVAL);
		CHECK_STR(e.msg, rows[i][1]);
		shim_uri_fini(&u);
	}
}

TEST(shim_uri_bounds_the_number_of_arguments)
{
	char text[1024] = "binary:///l?";
	struct shim_uri u;
	struct err e = { 0 };

	for (int i = 0; i <= SHIM_URI_MAX_ARGS; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "k%d=v&", i);
	CHECK_EQ(shim_uri_parse(&u, text, &e), -EINVAL);
	CHECK_HAS(e.msg, "more than 64 arguments");
	CHECK_EQ(u.nargs, 2 * SHIM_URI_MAX_ARGS);
	shim_uri_fini(&u);
}

TEST(shim_uri_survives_being_cut_anywhere)
{
	static const char text[] = "binary-v2:///bin/%41?a=%42&c+d=e%20f;g#h";

	for (size_t n = 0; n < sizeof text; n++) {
		char cut[sizeof text] = { 0 };
		struct shim_uri u;
		struct err e = { 0 };
		memcpy(cut, text, n);
		(void)!shim_uri_parse(&u, test_guard(cut, n + 1), &e);
		shim_uri_fini(&u);
	}
}
