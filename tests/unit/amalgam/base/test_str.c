#include "amalgam/base/str.h"

#include "amalgam/base/buf.h"
#include "tests/unit/test.h"

TEST(str_u64_takes_whole_decimal_numbers_in_range)
{
	static const struct {
		const char *text;
		uint64_t min, max;
		int result;
		uint64_t value;
	} rows[] = {
		{ "0", 0, UINT64_MAX, 0, 0 },
		{ "007", 0, UINT64_MAX, 0, 7 },
		{ "18446744073709551615", 0, UINT64_MAX, 0, UINT64_MAX },
		{ "18446744073709551616", 0, UINT64_MAX, -ERANGE, 0 },
		{ "99999999999999999999999", 0, UINT64_MAX, -ERANGE, 0 },
		{ "4", 5, 6, -ERANGE, 0 },
		{ "5", 5, 6, 0, 5 },
		{ "7", 5, 6, -ERANGE, 0 },
		{ "", 0, 9, -EINVAL, 0 },
		{ "-1", 0, 9, -EINVAL, 0 },
		{ "+1", 0, 9, -EINVAL, 0 },
		{ " 1", 0, 9, -EINVAL, 0 },
		{ "1 ", 0, 9, -EINVAL, 0 },
		{ "0x1", 0, 9, -EINVAL, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t v = 0;
		test_note("\"%s\"", rows[i].text);
		CHECK_EQ(str_u64(rows[i].text, rows[i].min, rows[i].max, &v), rows[i].result);
		CHECK_EQ(v, rows[i].value);
	}
}

TEST(str_starts_compares_the_beginning)
{
	CHECK(str_starts("sandbox", "sand"));
	CHECK(str_starts("sandbox", ""));
	CHECK(!str_starts("san", "sand"));
	CHECK(!str_starts("", "s"));
}

TEST(str_utf8_len_knows_the_well_formed_sequences)
{
	static const struct {
		const char *bytes;
		unsigned n, len;
	} rows[] = {
		{ "a", 1, 1 },
		{ "\x7f", 1, 1 },
		{ "\xc2\x80", 2, 2 },
		{ "\xdf\xbf", 2, 2 },
		{ "\xe0\xa0\x80", 3, 3 },
		{ "\xed\x9f\xbf", 3, 3 },
		{ "\xef\xbf\xbf", 3, 3 },
		{ "\xf0\x90\x80\x80", 4, 4 },
		{ "\xf4\x8f\xbf\xbf", 4, 4 },
		/* overlong, surrogates, beyond the end, stray and missing continuations */
		{ "\xc0\x80", 2, 0 },
		{ "\xc1\xbf", 2, 0 },
		{ "\xe0\x9f\xbf", 3, 0 },
		{ "\xed\xa0\x80", 3, 0 },
		{ "\xf0\x8f\xbf\xbf", 4, 0 },
		{ "\xf4\x90\x80\x80", 4, 0 },
		{ "\xf5\x80\x80\x80", 4, 0 },
		{ "\x80", 1, 0 },
		{ "\xc3(", 2, 0 },
		{ "\xe2\x82(", 3, 0 },
		{ "\xf0\x9f\x98(", 4, 0 },
		{ "\xff", 1, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		test_note("row %zu", i);
		CHECK_EQ(str_utf8_len(test_guard(rows[i].bytes, rows[i].n), rows[i].n),
			 rows[i].len);
		for (unsigned n = 0; n < rows[i].len; n++)
			CHECK_EQ(str_utf8_len(test_guard(rows[i].bytes, n), n), 0);
	}
}

TEST(str_utf8_put_writes_what_str_utf8_len_accepts)
{
	static const uint32_t codes[] = { 0,      'a',    0x7f,   0x80,    0x7ff,   0x800,
					  0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff };

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		AUTO_BUF struct buf b = { 0 };
		str_utf8_put(&b, codes[i]);
		test_note("U+%04x", codes[i]);
		CHECK_EQ(str_utf8_len(b.data, b.len), b.len);
	}
}

TEST(str_utf8_put_replaces_what_is_no_character)
{
	static const uint32_t codes[] = { 0xd800, 0xdfff, 0x110000, UINT32_MAX };

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		AUTO_BUF struct buf b = { 0 };
		str_utf8_put(&b, codes[i]);
		CHECK_STR(buf_cstr(&b), "\xef\xbf\xbd");
	}
}

TEST(str_json_quotes_and_escapes)
{
	static const struct {
		const char *text, *json;
	} rows[] = {
		{ "", "\"\"" },
		{ "plain", "\"plain\"" },
		{ "a\"b\\c", "\"a\\\"b\\\\c\"" },
		{ "\n\x1f", "\"\\u000a\\u001f\"" },
		{ "gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\"" },
		{ "bad\xff!", "\"bad\\ufffd!\"" },
		{ "cut\xe2\x82", "\"cut\\ufffd\\ufffd\"" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF struct buf b = { 0 };
		str_json(&b, rows[i].text);
		CHECK_STR(buf_cstr(&b), rows[i].json);
	}
}

TEST(str_first_line_is_one_printable_line_that_fits)
{
	static const struct {
		const char *text, *line;
	} rows[] = {
		{ "", "" },
		{ "\n \t\r\n", "" },
		{ "one\ntwo", "one" },
		{ "\n  one\r\n", "one" },
		{ "a\033[1mb\177\302\205c", "a?[1mb??c" },
		{ "\377\303\251\303", "?\303\251?" },
		{ "123456789012", "12345678901" },
		{ "1234567890\303\251", "1234567890" },
	};
	char out[12];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		test_note("%s", rows[i].text);
		str_first_line(out, sizeof out, test_guard_str(rows[i].text), strlen(rows[i].text));
		CHECK_STR(out, rows[i].line);
	}
	str_first_line(out, sizeof out, "\0a", 2);
	CHECK_STR(out, "?a");
}
