#include "amalgam/resource/dan.h"

#include <fcntl.h>
#include <sched.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "tests/unit/test.h"

/* In a namespace of our own, with a tap "t7" that is nobody's. */
static void tdan_enter(void)
{
	if (unshare(CLONE_NEWNET) < 0)
		test_skip("no network namespace: %s", strerror(errno));
	if (system("ip tuntap add t7 mode tap && ip link set t7 address 06:00:00:00:00:01") != 0)
		test_skip("no taps");
}

static int tdan_open(struct net *n, const char *devices, struct err *e)
{
	AUTO_FREE char *file = mem_printf("%s/dan.json", test_dir());
	AUTO_FREE char *text = mem_printf("{\"netns\": null, \"devices\": [%s]}", devices);
	int r = path_replace(file, text, strlen(text), 0600, e);

	ASSERT(r == 0);
	return dan_open(n, file, e);
}

#define TDAN_DEVICE(more, info) \
	"{\"name\": \"eth0\", \"device\": {\"type\": \"host-tap\", \"tap_name\": \"t7\"}, " more \
	" \"network_info\": {\"interface\": {\"ip_addresses\": [\"10.0.0.2/24\", \"fd00::2/64\"]}" info "}}"

#define TDAN_ROUTES \
	", \"routes\": [{\"gateway\": \"10.0.0.1\"}, {\"dest\": \"10.9.0.0/16\", \"source\": \"10.0.0.2\"," \
	" \"scope\": 253, \"mtu\": 1400}], \"neighbors\": [{\"ip_address\": \"10.0.0.1\"," \
	" \"hardware_addr\": \"02:00:00:00:00:01\"}]"

TEST(dan_attaches_to_a_tap_and_tells_what_is_written)
{
	char text[RTNL_IP_TEXT];
	struct err e = { 0 };
	struct net n;

	tdan_enter();
	CHECK_EQ(tdan_open(&n, TDAN_DEVICE("\"guest_mac\": \"02:00:00:00:00:07\", ", TDAN_ROUTES), &e), 0);
	CHECK_EQ(n.nlinks, 1);
	CHECK_STR(n.link[0].host.name, "eth0");
	CHECK_MEM(n.link[0].host.mac, "\2\0\0\0\0\7", 6);
	CHECK_EQ(n.link[0].host.mtu, 1500);
	CHECK_EQ(n.link[0].naddrs, 2);
	CHECK_STR(rtnl_ip_text(&n.link[0].addr[1].ip, true, text), "fd00::2/64");
	CHECK_EQ(n.nroutes, 2);
	CHECK_STR(rtnl_ip_text(&n.route[0].gateway, false, text), "10.0.0.1");
	CHECK_EQ(n.route[0].dst.prefix, 0);
	CHECK_EQ(n.route[1].scope, 253);
	CHECK_EQ(n.route[1].mtu, 1400);
	CHECK_STR(net_name(&n, n.route[1].index), "eth0");
	CHECK_EQ(n.nneighs, 1);
	CHECK_EQ(net_scan(&n, &e), 0);
	CHECK(fcntl(n.link[0].tap_fd, F_GETFL) & O_NONBLOCK);
	net_close(&n);
	CHECK_EQ(system("ip link show t7 >/dev/null"), 0);
	CHECK_EQ(tdan_open(&n, TDAN_DEVICE("", ""), &e), 0);
	CHECK_MEM(n.link[0].host.mac, "\6\xff\0\0\0\1", 6);
	net_close(&n);
}

TEST(dan_says_what_is_wrong_and_where)
{
	static const struct {
		const char *devices, *words;
	} rows[] = {
		{ "{\"name\": \"eth0\", \"device\": {\"type\": \"vhost-user\", \"path\": \"/x\"}}",
		  "devices[0]: device of type \"vhost-user\": only host-tap is supported" },
		{ "{\"device\": {\"type\": \"host-tap\", \"tap_name\": \"t7\"}}",
		  "devices[0]: must have a name" },
		{ "{\"name\": \"eth0\", \"device\": {\"type\": \"host-tap\", \"tap_name\": \"t8\"}}",
		  "tap t8: there is none" },
		{ TDAN_DEVICE("\"guest_mac\": \"x\", ", ""),
		  "devices[0].guest_mac: must be a hardware address" },
		{ TDAN_DEVICE("", ", \"routes\": [{}]"), "routes[0]: must have a dest, a gateway or a source" },
		{ TDAN_DEVICE("", ", \"routes\": [{\"dest\": \"x\"}]"), "dest: must be an address" },
		{ TDAN_DEVICE("", ", \"neighbors\": [{\"ip_address\": \"10.0.0.1\"}]"),
		  "must have a hardware_addr" },
	};
	struct net n;

	tdan_enter();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = { 0 };
		test_note("%s", rows[i].devices);
		CHECK(tdan_open(&n, rows[i].devices, &e) < 0);
		CHECK_HAS(e.msg, rows[i].words);
		CHECK_HAS(e.msg, "/dan.json: ");
	}
}
