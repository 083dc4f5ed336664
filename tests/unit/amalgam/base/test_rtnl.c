#include "amalgam/base/rtnl.h"

#include <arpa/inet.h>

#include "tests/unit/test.h"

TEST(rtnl_ip_parse_of_both_families)
{
	static const struct {
		const char *text;
		int r;
		unsigned family, len, prefix;
	} rows[] = {
		{ "10.0.0.1", 0, AF_INET, 4, 32 },
		{ "10.0.0.0/8", 0, AF_INET, 4, 8 },
		{ "0.0.0.0/0", 0, AF_INET, 4, 0 },
		{ "::1", 0, AF_INET6, 16, 128 },
		{ "fd00::/8", 0, AF_INET6, 16, 8 },
		{ "10.0.0.1/33", -EINVAL, 0, 0, 0 },
		{ "fd00::/129", -EINVAL, 0, 0, 0 },
		{ "10.0.0", -EINVAL, 0, 0, 0 },
		{ "", -EINVAL, 0, 0, 0 },
		{ "10.0.0.1/", -EINVAL, 0, 0, 0 },
		{ "10.0.0.1/-1", -EINVAL, 0, 0, 0 },
		{ "1:2:3:4:5:6:7:8:9:1:2:3:4:5:6:7:8:9:1:2:3:4:5:6:7:8", -EINVAL, 0, 0, 0 },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct rtnl_ip a;
		test_note("%s", rows[i].text);
		CHECK_EQ(rtnl_ip_parse(rows[i].text, &a), rows[i].r);
		if (rows[i].r < 0)
			continue;
		CHECK_EQ(a.family, rows[i].family);
		CHECK_EQ(a.len, rows[i].len);
		CHECK_EQ(a.prefix, rows[i].prefix);
	}
}

TEST(rtnl_mac_parse_is_six_bytes)
{
	uint8_t mac[6];

	CHECK_EQ(rtnl_mac_parse("02:42:ac:11:00:0f", mac), 0);
	CHECK_MEM(mac, "\x02\x42\xac\x11\x00\x0f", 6);
	CHECK_EQ(rtnl_mac_parse("02:42:ac:11:00", mac), -EINVAL);
	CHECK_EQ(rtnl_mac_parse("02:42:ac:11:00:02:03", mac), -EINVAL);
	CHECK_EQ(rtnl_mac_parse("zz:42:ac:11:00:02", mac), -EINVAL);
	CHECK_EQ(rtnl_mac_parse("", mac), -EINVAL);
}

TEST(rtnl_ip_text_is_what_was_parsed)
{
	static const char *const rows[] = { "10.0.0.1/8", "0.0.0.0/0", "fd00::1/64", "::/0", "255.0.0.1/32" };
	char text[RTNL_IP_TEXT];
	struct rtnl_ip ip;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CHECK_EQ(rtnl_ip_parse(rows[i], &ip), 0);
		CHECK_STR(rtnl_ip_text(&ip, true, text), rows[i]);
	}
	CHECK_STR(rtnl_ip_text(&(struct rtnl_ip){ 0 }, true, text), "");
	memset(&ip, 0xff, sizeof ip);
	ip.family = AF_INET6;
	ip.prefix = 128;
	CHECK_STR(rtnl_ip_text(&ip, true, text), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
}
