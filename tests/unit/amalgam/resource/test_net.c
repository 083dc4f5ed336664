#include "amalgam/resource/net.h"

#include <fcntl.h>
#include <linux/neighbour.h>
#include <sched.h>
#include <sys/wait.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "tests/unit/test.h"

/* Two namespaces with a link between them: "pod" is led, "net" is the rest of the world. */
struct tnw {
	int pod, net;
	struct net n;
	struct err e;
};

static int tnw_namespace(void)
{
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		test_skip("no network namespace: %s", strerror(errno));
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	ASSERT(fd >= 0);
	return fd;
}

/* A command of iproute2 in a namespace; true when it worked. */
static bool tnw_try(int ns, const char *command)
{
	pid_t pid = fork();
	int status;

	ASSERT(pid >= 0);
	if (pid == 0) {
		ASSERT(setns(ns, CLONE_NEWNET) == 0);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	ASSERT(waitpid(pid, &status, 0) == pid);
	return status == 0;
}

static void tnw_do(int ns, const char *command)
{
	test_note("%s", command);
	CHECK(tnw_try(ns, command));
	test_note("%s", "");
}

/* Everything that leading a link may change. */
static char *tnw_state(int ns)
{
	AUTO_FREE char *file = mem_printf("%s/state", test_dir()), *command = NULL;
	struct buf b = { 0 };

	command = mem_printf("(ip -o link; ip addr; ip route; tc qdisc; for l in eth0 tap0_spore; do "
			     "tc filter show dev $l ingress; done) 2>&1 | sed 's/valid_lft.*//' >%s", file);
	tnw_do(ns, command);
	CHECK_EQ(path_read(file, 1 << 20, &b, NULL), 0);
	return (char *)(uintptr_t)buf_cstr(&b);
}

static void tnw_make(struct tnw *t)
{
	int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	*t = (struct tnw){ .net = tnw_namespace() };
	t->pod = tnw_namespace();
	ASSERT(setns(own, CLONE_NEWNET) == 0);
	close(own);
	if (!tnw_try(t->net, "test -e /dev/net/tun && ip link add w0 type veth peer name w1 && "
			     "tc qdisc add dev w1 ingress && tc filter add dev w1 ingress "
			     "u32 match u8 0 0 action mirred egress redirect dev w0 && ip link del w0"))
		test_skip("no iproute2, veth, tc or tun");
	AUTO_FREE char *move = mem_printf("ip link add w0 type veth peer name eth0 netns /proc/%d/fd/%d && "
					  "ip link set w0 up", (int)getpid(), t->pod);
	tnw_do(t->net, move);
	tnw_do(t->pod, "ip link set lo up; ip link set eth0 address 02:00:00:00:00:07 mtu 1400 up");
}

static void tnw_open(struct tnw *t)
{
	CHECK_EQ(net_open(&t->n, fcntl(t->pod, F_DUPFD_CLOEXEC, 3), &t->e), 0);
}

static void tnw_end(struct tnw *t)
{
	net_close(&t->n);
	close(t->pod);
	close(t->net);
}

static const char *tnw_addr(const struct net_link *l, size_t i, char text[RTNL_IP_TEXT])
{
	return i < l->naddrs ? rtnl_ip_text(&l->addr[i].ip, true, text) : "none";
}

TEST(net_leads_a_link_and_tells_what_it_is_like)
{
	AUTO_FREE char *during = NULL;
	char text[RTNL_IP_TEXT];
	struct tnw t;

	tnw_make(&t);
	tnw_do(t.pod, "ip addr add 10.0.0.2/24 dev eth0; ip addr add fd00::2/64 dev eth0 nodad");
	tnw_open(&t);
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	CHECK_STR(t.n.link[0].host.name, "eth0");
	CHECK_STR(t.n.link[0].host.kind, "veth");
	CHECK_EQ(t.n.link[0].host.mtu, 1400);
	CHECK_MEM(t.n.link[0].host.mac, "\2\0\0\0\0\7", 6);
	CHECK_EQ(t.n.link[0].naddrs, 2);
	CHECK_STR(tnw_addr(&t.n.link[0], 0, text), "10.0.0.2/24");
	CHECK_STR(tnw_addr(&t.n.link[0], 1, text), "fd00::2/64");
	CHECK_EQ(t.n.nroutes, 0);
	during = tnw_state(t.pod);
	CHECK_HAS(during, "tap0_spore: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400");
	CHECK_HAS(during, "Egress Redirect to device tap0_spore");
	CHECK_HAS(during, "Egress Redirect to device eth0");
	CHECK_EQ(net_scan(&t.n, &t.e), 0);
	tnw_end(&t);
}

TEST(net_close_removes_what_was_added_and_no_more)
{
	static const char *const had[] = {
		"true",
		"tc qdisc add dev eth0 clsact",
		"tc qdisc add dev eth0 ingress; tc filter add dev eth0 ingress u32 match u8 0 0 classid 1:",
	};

	for (size_t i = 0; i < ARRAY_LEN(had); i++) {
		AUTO_FREE char *before = NULL, *after = NULL;
		struct tnw t;
		tnw_make(&t);
		tnw_do(t.pod, had[i]);
		before = tnw_state(t.pod);
		tnw_open(&t);
		CHECK_EQ(net_scan(&t.n, &t.e), 1);
		net_close(&t.n);
		after = tnw_state(t.pod);
		CHECK_STR(after, before);
		tnw_end(&t);
	}
}

TEST(net_frames_go_both_ways_between_link_and_tap)
{
	/* The tap's header, then a broadcast of a protocol nobody speaks. */
	uint8_t frame[12 + 64] = { [12] = 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 0x88, 0xb5 };
	uint8_t got[2048];
	ssize_t k = -1;
	struct tnw t;

	tnw_make(&t);
	tnw_open(&t);
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	CHECK_EQ(write(t.n.link[0].tap_fd, frame, sizeof frame), sizeof frame);
	tnw_do(t.net, "test $(cat /proc/net/dev | sed -n 's/^ *w0: *[0-9]* *\\([0-9]*\\).*/\\1/p') -ge 1");
	tnw_do(t.net, "ip addr add 10.0.0.1/24 dev w0; (echo > /dev/udp/10.0.0.2/9) 2>/dev/null || "
		      "bash -c 'echo > /dev/udp/10.0.0.2/9'");
	for (unsigned i = 0; i < 300 && !(k > 12 + 14 && got[12 + 12] == 8 && got[12 + 13] == 6); i++) {
		k = read(t.n.link[0].tap_fd, got, sizeof got);
		if (k < 0)
			usleep(10000);
	}
	CHECK_EQ(got[12 + 13], 6); /* who has 10.0.0.2? */
	tnw_end(&t);
}

TEST(net_copies_routes_and_neighbours_that_somebody_made)
{
	const struct rtnl_route *r;
	char text[RTNL_IP_TEXT];
	struct tnw t;

	tnw_make(&t);
	tnw_do(t.pod, "ip addr add 10.0.0.2/32 dev eth0 && ip route add 169.254.1.1 dev eth0 scope link && "
		      "ip route add default via 169.254.1.1 dev eth0 metric 50 mtu 1300 && "
		      "ip route add 10.9.0.0/16 via 192.168.1.1 dev eth0 onlink src 10.0.0.2 && "
		      "ip route add blackhole 10.8.0.0/16 && ip route add 10.7.0.0/16 dev lo && "
		      "ip neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent && "
		      "ip neigh add 169.254.1.2 lladdr ee:ee:ee:ee:ee:ef dev eth0 nud stale");
	tnw_open(&t);
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	CHECK_EQ(t.n.nroutes, 3);
	r = &t.n.route[0];
	CHECK_EQ(r->dst.prefix, 0);
	CHECK_STR(rtnl_ip_text(&r->gateway, false, text), "169.254.1.1");
	CHECK_EQ(r->metric, 50);
	CHECK_EQ(r->mtu, 1300);
	r = &t.n.route[1];
	CHECK_STR(rtnl_ip_text(&r->dst, true, text), "10.9.0.0/16");
	CHECK_STR(rtnl_ip_text(&r->source, false, text), "10.0.0.2");
	CHECK(r->flags & RTNH_F_ONLINK);
	r = &t.n.route[2];
	CHECK_STR(rtnl_ip_text(&r->dst, true, text), "169.254.1.1/32");
	CHECK_EQ(r->scope, RT_SCOPE_LINK);
	CHECK_STR(net_name(&t.n, r->index), "eth0");
	CHECK_EQ(t.n.nneighs, 1);
	CHECK_STR(rtnl_ip_text(&t.n.neigh[0].ip, false, text), "169.254.1.1");
	CHECK_MEM(t.n.neigh[0].mac, "\xee\xee\xee\xee\xee\xee", 6);
	tnw_end(&t);
}

TEST(net_scan_again_finds_what_has_come_since)
{
	struct tnw t;

	tnw_make(&t);
	tnw_do(t.pod, "ip link set eth0 down");
	tnw_open(&t);
	CHECK_EQ(net_scan(&t.n, &t.e), 0);
	tnw_do(t.pod, "ip link set eth0 up; ip link add eth1 type veth peer name other");
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	tnw_do(t.pod, "ip link set eth1 up; ip addr add 10.1.0.2/24 dev eth1");
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	CHECK_STR(t.n.link[1].host.name, "eth1");
	CHECK_STR(t.n.link[1].tap, "tap1_spore");
	CHECK_EQ(t.n.link[1].naddrs, 1);
	tnw_end(&t);
}

TEST(net_leads_a_bridge_and_not_what_is_part_of_it)
{
	struct tnw t;

	tnw_make(&t);
	if (!tnw_try(t.pod, "ip link add br0 type bridge"))
		test_skip("no bridges");
	tnw_do(t.pod, "ip link set eth0 master br0; ip link set br0 up");
	tnw_open(&t);
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	CHECK_STR(t.n.link[0].host.name, "br0");
	tnw_end(&t);
}

TEST(net_takes_a_tap_that_is_nobodys_and_leaves_one_in_use)
{
	struct net other = { .nl.fd = -1 };
	struct tnw t;

	tnw_make(&t);
	tnw_do(t.pod, "ip link del eth0; ip tuntap add t0 mode tap multi_queue; ip tuntap add t1 mode tap; "
		      "ip link set t0 up; ip link set t1 up");
	CHECK_EQ(net_open(&other, fcntl(t.pod, F_DUPFD_CLOEXEC, 3), &t.e), 0);
	CHECK_EQ(net_add_tap(&other, "t1", &t.e), 0);
	tnw_open(&t);
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	CHECK_STR(t.n.link[0].tap, "t0");
	CHECK_EQ(t.n.link[0].is_led, false);
	net_close(&other);
	net_close(&t.n);
	tnw_do(t.pod, "ip link show t0 && ip link show t1");
	tnw_end(&t);
}

TEST(net_of_a_link_that_is_gone_closes_all_the_same)
{
	struct tnw t;

	tnw_make(&t);
	tnw_open(&t);
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	tnw_do(t.net, "ip link del w0");
	net_close(&t.n);
	CHECK(!tnw_try(t.pod, "ip link | grep -q spore"));
	tnw_end(&t);
}

/* What is left of a machine that was killed with its supervisor: the taps go with their descriptors. */
static void tnw_kill(struct tnw *t)
{
	CHECK_EQ(net_scan(&t->n, &t->e), 1);
	close(take_fd(&t->n.link[0].tap_fd));
	free(take_ptr(&t->n.link[0].addr));
	t->n.nlinks = 0;
	net_close(&t->n);
}

TEST(net_of_a_machine_that_was_killed_is_repaired_or_used_again)
{
	static const char *const had[] = { "true", "tc qdisc add dev eth0 clsact" };

	for (size_t i = 0; i < 2 * ARRAY_LEN(had); i++) {
		AUTO_FREE char *before = NULL, *after = NULL;
		struct tnw t;
		tnw_make(&t);
		tnw_do(t.pod, had[i / 2]);
		before = tnw_state(t.pod);
		tnw_open(&t);
		tnw_kill(&t);
		tnw_do(t.pod, "tc filter show dev eth0 ingress | grep -q Redirect");
		tnw_open(&t);
		if (i % 2)
			CHECK_EQ(net_scan(&t.n, &t.e), 1);
		else
			net_repair(&t.n);
		net_close(&t.n);
		after = tnw_state(t.pod);
		CHECK_STR(after, before);
		tnw_end(&t);
	}
}

TEST(net_refuses_the_hosts_network_and_that_of_another_machine)
{
	struct net other;
	struct tnw t;

	tnw_make(&t);
	CHECK_EQ(net_open(&other, open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), &t.e), -EPERM);
	CHECK_STR(t.e.msg, "the host's own network cannot be a machine's");
	tnw_open(&t);
	CHECK_EQ(net_scan(&t.n, &t.e), 1);
	CHECK_EQ(net_open(&other, fcntl(t.pod, F_DUPFD_CLOEXEC, 3), &t.e), 0);
	CHECK_EQ(net_scan(&other, &t.e), -EBUSY);
	CHECK_STR(t.e.msg, "another machine is connected to this network namespace");
	net_repair(&other);
	net_close(&other);
	tnw_do(t.pod, "tc filter show dev eth0 ingress | grep -q tap0_spore");
	tnw_end(&t);
}

TEST(net_find_says_what_is_wrong_with_a_name)
{
	struct err e;

	CHECK_EQ(net_find("nobody-made-this", &e), -ENOENT);
	CHECK_STR(e.msg, "network namespace /run/netns/nobody-made-this: No such file or directory");
	CHECK_EQ(net_find("/dev/null", &e), -EINVAL);
	CHECK_STR(e.msg, "network namespace /dev/null: this is none");
	CHECK_EQ(net_find("/proc/self/ns/mnt", &e), -EINVAL);
}
