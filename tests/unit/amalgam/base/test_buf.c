#include "amalgam/base/buf.h"

#include "tests/unit/test.h"

TEST(buf_grows_with_what_is_added)
{
	AUTO_BUF struct buf b = { 0 };
	char want[4096];

	for (size_t i = 0; i < sizeof want; i++) {
		want[i] = (char)i;
		buf_add(&b, &want[i], 1);
		CHECK(b.cap >= b.len);
	}
	CHECK_EQ(b.len, sizeof want);
	CHECK_MEM(b.data, want, sizeof want);
	buf_add(&b, NULL, 0);
	CHECK_EQ(b.len, sizeof want);
}

TEST(buf_reserve_makes_room_without_using_it)
{
	AUTO_BUF struct buf b = { 0 };
	uint8_t *p = buf_reserve(&b, 10000);

	CHECK_EQ(b.len, 0);
	CHECK(b.cap >= 10000);
	memset(p, 1, 10000);
	buf_add_str(&b, "ab");
	CHECK(buf_reserve(&b, 1) == b.data + 2);
}

TEST(buf_is_a_string_on_demand)
{
	AUTO_BUF struct buf b = { 0 };
	char *s;

	CHECK_STR(buf_cstr(&b), "");
	buf_add_str(&b, "one");
	buf_printf(&b, " %d %s", 2, "three");
	CHECK_STR(buf_cstr(&b), "one 2 three");
	CHECK_EQ(b.len, 11);
	s = buf_take_cstr(&b);
	CHECK_STR(s, "one 2 three");
	free(s);
	CHECK(!b.data && !b.len && !b.cap);
	s = buf_take_cstr(&b);
	CHECK_STR(s, "");
	free(s);
}

TEST(buf_consume_drops_from_the_front)
{
	AUTO_BUF struct buf b = { 0 };

	buf_add_str(&b, "abcdef");
	buf_consume(&b, 0);
	buf_consume(&b, 2);
	CHECK_STR(buf_cstr(&b), "cdef");
	buf_consume(&b, 4);
	CHECK_EQ(b.len, 0);
	buf_add_str(&b, "x");
	CHECK_STR(buf_cstr(&b), "x");
}

TEST(buf_fini_empties_and_may_be_repeated)
{
	struct buf b = { 0 };

	buf_fini(&b);
	buf_add_str(&b, "x");
	buf_fini(&b);
	buf_fini(&b);
	CHECK(!b.data && !b.len && !b.cap);
}

TEST(buf_and_cur_agree_on_little_endian)
{
	static const uint8_t want[] = { 4,    3,    2,    1,    0x88, 0x77,
					0x66, 0x55, 0x44, 0x33, 0x22, 0x11 };
	AUTO_BUF struct buf b = { 0 };
	struct cur c;

	buf_le32(&b, 0x01020304);
	buf_le64(&b, 0x1122334455667788);
	CHECK_EQ(b.len, sizeof want);
	CHECK_MEM(b.data, want, sizeof want);
	c = cur_of(test_guard(b.data, b.len), b.len);
	CHECK_EQ(cur_le32(&c), 0x01020304);
	CHECK_EQ(cur_le64(&c), 0x1122334455667788);
	CHECK(!c.bad && cur_left(&c) == 0);
}

TEST(cur_reads_nothing_past_the_end_and_stays_bad)
{
	static const uint8_t raw[12] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

	for (size_t n = 0; n < sizeof raw; n++) {
		struct cur c = cur_of(test_guard(raw, n), n);
		uint8_t copy[5] = { 0xee, 0xee, 0xee, 0xee, 0xee };
		test_note("%zu bytes", n);
		(void)cur_le64(&c);
		cur_copy(&c, copy, sizeof copy);
		CHECK(c.bad);
		for (size_t i = 0; i < sizeof copy; i++)
			CHECK_EQ(copy[i], 0);
		CHECK(!cur_bytes(&c, 0));
		CHECK_EQ(cur_le32(&c), 0);
	}
}

TEST(cur_bytes_borrows)
{
	const uint8_t *raw = test_guard("abc", 3);
	struct cur c = cur_of(raw, 3);

	CHECK(cur_bytes(&c, 0) == raw);
	CHECK(cur_bytes(&c, 2) == raw);
	CHECK(cur_bytes(&c, 1) == raw + 2);
	CHECK(cur_bytes(&c, 0) == raw + 3);
	CHECK(!cur_bytes(&c, SIZE_MAX));
	CHECK(c.bad);
}

TEST(cur_of_nothing_is_empty)
{
	struct cur c = cur_of(NULL, 0);

	CHECK_EQ(cur_left(&c), 0);
	CHECK(cur_bytes(&c, 0));
	CHECK(!c.bad);
}
