/* Names and numbers from the host: capabilities, limits, sysctls, slots, ids, addresses, paths. */
#include <linux/capability.h>

#include "tests/unit/guest/agent/agent.h"
#include "tests/unit/test.h"

TEST(ga_caps_number_knows_the_kernels_list)
{
	CHECK_EQ(ga_caps_number("CAP_CHOWN"), CAP_CHOWN);
	CHECK_EQ(ga_caps_number("CAP_SYS_ADMIN"), CAP_SYS_ADMIN);
	CHECK_EQ(ga_caps_number("CAP_CHECKPOINT_RESTORE"), CAP_CHECKPOINT_RESTORE);
	CHECK_EQ(ga_caps_number("cap_net_raw"), CAP_NET_RAW);
	CHECK_EQ(ga_caps_number("NET_RAW"), CAP_NET_RAW);
	CHECK_EQ(ga_caps_number("CAP_EVERYTHING"), -EINVAL);
	CHECK_EQ(ga_caps_number(""), -EINVAL);
	CHECK_EQ(ARRAY_LEN(ga_caps_names), CAP_LAST_CAP + 1);
}

TEST(ga_caps_parse_leaves_out_what_nobody_knows)
{
	char *names[] = { "CAP_KILL", "CAP_NEW", "CAP_CHOWN" };
	Grpc__LinuxCapabilities c = GRPC__LINUX_CAPABILITIES__INIT;
	struct ga_caps out;

	c.bounding = names;
	c.n_bounding = 3;
	ga_caps_parse(&c, &out);
	CHECK_EQ(out.bounding, 1 << CAP_KILL | 1 << CAP_CHOWN);
	CHECK_EQ(out.effective | out.permitted | out.inheritable | out.ambient, 0);
	ga_caps_parse(NULL, &out);
	CHECK_EQ(out.bounding, 0);
}

TEST(ga_limits_number_knows_every_rlimit)
{
	CHECK_EQ(ga_limits_number("RLIMIT_NOFILE"), RLIMIT_NOFILE);
	CHECK_EQ(ga_limits_number("RLIMIT_RTTIME"), RLIMIT_RTTIME);
	CHECK_EQ(ga_limits_number("NOFILE"), -EINVAL);
	CHECK_EQ(ARRAY_LEN(ga_limits_table), RLIM_NLIMITS);
}

TEST(ga_limits_sysctl_only_of_namespaces)
{
	CHECK_EQ(ga_limits_sysctl_ns("kernel.shmmax"), CLONE_NEWIPC);
	CHECK_EQ(ga_limits_sysctl_ns("fs.mqueue.msg_max"), CLONE_NEWIPC);
	CHECK_EQ(ga_limits_sysctl_ns("net.core.somaxconn"), CLONE_NEWNET);
	CHECK_EQ(ga_limits_sysctl_ns("kernel.hostname"), CLONE_NEWUTS);
	CHECK_EQ(ga_limits_sysctl_ns("kernel.shmmax2"), 0);
	CHECK_EQ(ga_limits_sysctl_ns("kernel.panic"), 0);
	CHECK_EQ(ga_limits_sysctl_ns("network"), 0);
	CHECK_EQ(ga_limits_sysctl_ns("net"), 0);
}

TEST(ga_limits_sysctl_path_takes_dots_or_slashes)
{
	static const struct {
		const char *name, *path;
	} rows[] = {
		{ "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward" },
		{ "net/ipv4/conf/eth0.1/forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding" },
		{ "net.ipv4.conf.eth0/1.forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_FREE char *p = ga_limits_sysctl_path(rows[i].name);
		CHECK_STR(p, rows[i].path);
	}
}

TEST(ga_limits_sysctl_cannot_climb)
{
	Grpc__Linux__SysctlEntry s = GRPC__LINUX__SYSCTL_ENTRY__INIT, *list[] = { &s };
	Grpc__Linux l = GRPC__LINUX__INIT;
	struct err e;

	l.sysctl = list;
	l.n_sysctl = 1;
	s.value = "1";
	s.key = "net/../kernel/panic";
	CHECK_EQ(ga_limits_sysctls(&l, &e), -EINVAL);
	CHECK_STR(e.msg, "sysctl \"net/../kernel/panic\" is not in a separate kernel namespace");
}

TEST(ga_slot_parse_takes_both_spellings)
{
	CHECK_EQ(ga_slot_parse("slot:0"), 0);
	CHECK_EQ(ga_slot_parse("slot:255"), 255);
	CHECK_EQ(ga_slot_parse("virtio-mmio.12"), 12);
	CHECK_EQ(ga_slot_parse("slot:256"), -1);
	CHECK_EQ(ga_slot_parse("slot:"), -1);
	CHECK_EQ(ga_slot_parse("slot:1x"), -1);
	CHECK_EQ(ga_slot_parse("/dev/vda"), -1);
}

TEST(ga_container_id_is_a_name)
{
	char longest[130];

	memset(longest, 'a', sizeof longest);
	longest[128] = '\0';
	CHECK(ga_container_id_is_valid(longest));
	longest[128] = 'a';
	longest[129] = '\0';
	CHECK(!ga_container_id_is_valid(longest));
	CHECK(ga_container_id_is_valid("Web_1.2-x"));
	CHECK(ga_container_id_is_valid("..a"));
	CHECK(!ga_container_id_is_valid(""));
	CHECK(!ga_container_id_is_valid("."));
	CHECK(!ga_container_id_is_valid(".."));
	CHECK(!ga_container_id_is_valid("a/b"));
	CHECK(!ga_container_id_is_valid("a b"));
	CHECK(!ga_container_id_is_valid("\xc3\xa9"));
}

TEST(ga_copyfile_stays_below_its_base)
{
	CHECK_STR(ga_copyfile_below("/run/kata-containers/a/b"), "a/b");
	CHECK_STR(ga_copyfile_below("/run/kata-containers/..a"), "..a");
	CHECK(!ga_copyfile_below("/run/kata-containers"));
	CHECK(!ga_copyfile_below("/run/kata-containers/"));
	CHECK(!ga_copyfile_below("/run/kata-containersX/a"));
	CHECK(!ga_copyfile_below("/run/kata-containers/../a"));
	CHECK(!ga_copyfile_below("/run/kata-containers/a/../../b"));
	CHECK(!ga_copyfile_below("/run/kata-containers/a/.."));
	CHECK(!ga_copyfile_below("/run/kata-containers/."));
	CHECK(!ga_copyfile_below("/etc/passwd"));
	CHECK(!ga_copyfile_below(""));
}

TEST(ga_signal_default_is_neither_caught_nor_ignored)
{
	static const char status[] =
		"Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000000001\n"
		"SigCgt:\t0000000000004000\n";

	CHECK(!ga_signal_is_default(status, 15)); /* caught */
	CHECK(!ga_signal_is_default(status, 1));  /* ignored */
	CHECK(ga_signal_is_default(status, 2));
	CHECK(ga_signal_is_default(status, 64));
	CHECK(ga_signal_is_default("", 15));
}

TEST(ga_boot_cmdline_takes_what_it_knows_and_can_use)
{
	struct ga_config c;
	char line[] = "console=ttyS0 agent.log=debug agent.hotplug_timeout=9 agent.log_vport=4000 "
		      "agent.passfd_listener_port=0 agent.container_pipe_size=99999999 "
		      "agent.launch_process_timeout=soon agent.future=1 agent.devmode quiet\n";

	log_setup(-1, LOG_ERROR);
	ga_boot_defaults(&c);
	ga_boot_cmdline(&c, line);
	CHECK_EQ(c.log_level, LOG_DEBUG);
	CHECK_EQ(c.hotplug_timeout_ms, 9000);
	CHECK_EQ(c.log_port, 4000);
	CHECK_EQ(c.stream_port, 1027);
	CHECK_EQ(c.pipe_size, 0);
	CHECK_EQ(c.launch_timeout_ms, 6000);
	CHECK_STR(c.listen, "");
}

TEST(ga_boot_cmdline_addresses)
{
	struct ga_config c;
	char unix_path[] = "agent.server_addr=unix:///tmp/x.sock",
	     vsock[] = "agent.server_addr=vsock://-1:2048";
	char too_long[300] = "agent.server_addr=unix://", other[] = "agent.server_addr=tcp://1";

	log_setup(-1, LOG_ERROR);
	ga_boot_defaults(&c);
	ga_boot_cmdline(&c, vsock);
	CHECK_EQ(c.rpc_port, 2048);
	ga_boot_cmdline(&c, unix_path);
	CHECK_STR(c.listen, "/tmp/x.sock");
	memset(too_long + 25, 'a', sizeof too_long - 26);
	ga_boot_cmdline(&c, too_long);
	ga_boot_cmdline(&c, other);
	CHECK_STR(c.listen, "/tmp/x.sock");
}

TEST(ga_metrics_table_reads_both_kinds_of_lines)
{
	AUTO_BUF struct buf b = { 0 };

	ga_metrics_table(&b, "m", "Help.",
			 "MemTotal:   2048 kB\nActive(anon): 5 kB\nnr_free 7\nName:\tagent\n\nx\n");
	CHECK_STR(buf_cstr(&b), "# HELP m Help.\n# TYPE m gauge\n"
				"m{item=\"memtotal\"} 2048\nm{item=\"active_anon_\"} 5\n"
				"m{item=\"nr_free\"} 7\n");
}

TEST(ga_stats_io_line_fills_both_lists)
{
	Grpc__BlkioStats *s = mem_zalloc(sizeof *s);

	grpc__blkio_stats__init(s);
	ga_stats_io_line("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6", s);
	ga_stats_io_line("garbage", s);
	CHECK_EQ(s->n_io_service_bytes_recursive, 3);
	CHECK_EQ(s->n_io_serviced_recursive, 3);
	CHECK_STR(s->io_serviced_recursive[1]->op, "Write");
	CHECK_EQ(s->io_serviced_recursive[1]->value, 4);
	CHECK_EQ(s->io_serviced_recursive[1]->major, 8);
	CHECK_EQ(s->io_serviced_recursive[1]->minor, 16);
	grpc__blkio_stats__free_unpacked(s, NULL);
}

TEST(ga_ns_kind_knows_all_of_oci)
{
	static const char *const types[] = { "pid", "network", "mount",  "ipc",
					     "uts", "user",    "cgroup", "time" };
	uint64_t flags = 0;

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		int k = ga_ns_kind(types[i]);
		test_note("%s", types[i]);
		CHECK(k >= 0);
		flags |= ga_ns_flag((unsigned)k);
	}
	CHECK_EQ(flags, CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
				CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWTIME);
	CHECK_EQ(ga_ns_kind("net"), -EINVAL);
}
