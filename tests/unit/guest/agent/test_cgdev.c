#include "tests/unit/guest/agent/agent.h"
#include "tests/unit/test.h"

/* As much of a BPF machine as the programs use; everything else is a failed test. */
static uint64_t cgdev_run(const struct bpf_insn *p, size_t n, const struct bpf_cgroup_dev_ctx *ctx)
{
	uint64_t r[11] = { 0 };

	r[1] = (uintptr_t)ctx;
	for (size_t pc = 0, steps = 0; pc < n && steps < 100000; pc++, steps++) {
		const struct bpf_insn *i = &p[pc];
		switch (i->code) {
		case BPF_LDX | BPF_MEM | BPF_W: {
			uint32_t v;
			CHECK_EQ(r[i->src_reg], (uintptr_t)ctx);
			CHECK(i->off >= 0 && (size_t)i->off + 4 <= sizeof *ctx);
			memcpy(&v, (const char *)ctx + i->off, sizeof v);
			r[i->dst_reg] = v;
			break;
		}
		case BPF_ALU64 | BPF_MOV | BPF_X:
			r[i->dst_reg] = r[i->src_reg];
			break;
		case BPF_ALU64 | BPF_MOV | BPF_K:
			r[i->dst_reg] = (uint64_t)(int64_t)i->imm;
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			r[i->dst_reg] = (uint32_t)r[i->dst_reg] & (uint32_t)i->imm;
			break;
		case BPF_ALU | BPF_RSH | BPF_K:
			r[i->dst_reg] = (uint32_t)r[i->dst_reg] >> i->imm;
			break;
		case BPF_JMP | BPF_JNE | BPF_K:
			pc += r[i->dst_reg] != (uint64_t)(int64_t)i->imm ? (size_t)i->off : 0;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			pc += r[i->dst_reg] == (uint64_t)(int64_t)i->imm ? (size_t)i->off : 0;
			break;
		case BPF_JMP | BPF_EXIT:
			return r[0];
		default:
			test_fail(__FILE__, __LINE__, "instruction %zu: code %#x", pc, i->code);
		}
	}
	test_fail(__FILE__, __LINE__, "the program does not end");
}

struct cgdev_rule {
	bool allow;
	const char *type;
	int64_t major, minor;
	const char *access;
};

static bool cgdev_asks(const struct cgdev_rule *rules, size_t n, char type, uint32_t major,
		       uint32_t minor, unsigned access)
{
	Grpc__LinuxDeviceCgroup store[16], *list[16];
	struct bpf_cgroup_dev_ctx ctx = { 0 };
	AUTO_FREE struct bpf_insn *insns = NULL;
	struct err e;
	size_t count;

	for (size_t i = 0; i < n; i++) {
		grpc__linux_device_cgroup__init(&store[i]);
		store[i].allow = rules[i].allow;
		store[i].type = (char *)(uintptr_t)rules[i].type;
		store[i].major = rules[i].major;
		store[i].minor = rules[i].minor;
		store[i].access = (char *)(uintptr_t)rules[i].access;
		list[i] = &store[i];
	}
	CHECK_EQ(ga_cgdev_compile(list, n, &insns, &count, &e), 0);
	ctx.access_type = access << 16 | (type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
	ctx.major = major;
	ctx.minor = minor;
	return cgdev_run(insns, count, &ctx);
}

#define R BPF_DEVCG_ACC_READ
#define W BPF_DEVCG_ACC_WRITE
#define M BPF_DEVCG_ACC_MKNOD

TEST(ga_cgdev_without_a_rule_the_answer_is_no)
{
	CHECK(!cgdev_asks(NULL, 0, 'c', 1, 3, R));
}

TEST(ga_cgdev_the_last_rule_that_matches_decides)
{
	static const struct cgdev_rule rules[] = {
		{ false, "a", -1, -1, "rwm" }, { true, "c", 1, 3, "rw" }, { true, "b", 8, -1, "r" },
		{ true, "c", -1, -1, "m" },    { false, "c", 1, 5, "w" }, { true, "b", -1, 7, "" },
	};
	static const struct {
		char type;
		uint32_t major, minor;
		unsigned access;
		bool yes;
	} asks[] = {
		{ 'c', 1, 3, R, true },
		{ 'c', 1, 3, R | W, true },
		{ 'c', 1, 3, M, true },
		{ 'c', 1, 3, R | W | M, false }, /* no single rule covers it */
		{ 'c', 1, 5, W, false },
		{ 'c', 1, 5, W | M, false },
		{ 'c', 1, 5, M, true },
		{ 'b', 8, 1, R, true },
		{ 'b', 8, 1, W, false },
		{ 'b', 9, 1, R, false },
		{ 'b', 9, 7, R | W | M, true },
		{ 'c', 9, 7, R, false },
	};
	for (size_t i = 0; i < ARRAY_LEN(asks); i++) {
		test_note("ask %zu", i);
		CHECK_EQ(cgdev_asks(rules, ARRAY_LEN(rules), asks[i].type, asks[i].major,
				    asks[i].minor, asks[i].access),
			 asks[i].yes);
	}
}

TEST(ga_cgdev_a_rule_for_all_ignores_its_numbers)
{
	/* Stock hosts send 0:0 where the specification had none. */
	static const struct cgdev_rule rules[] = { { false, "a", -1, -1, "" },
						   { true, "a", 0, 0, "rwm" } };

	CHECK(cgdev_asks(rules, 2, 'b', 8, 1, R | W | M));
}

TEST(ga_cgdev_refuses_rules_that_are_not)
{
	static const struct cgdev_rule bad[] = {
		{ true, "x", 1, 1, "r" },
		{ true, "c", 1, 1, "rz" },
		{ true, "c", INT64_C(1) << 40, 1, "r" },
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		Grpc__LinuxDeviceCgroup r = GRPC__LINUX_DEVICE_CGROUP__INIT, *list[] = { &r };
		struct bpf_insn *insns;
		struct err e;
		size_t n;
		r.allow = true;
		r.type = (char *)(uintptr_t)bad[i].type;
		r.major = bad[i].major;
		r.minor = bad[i].minor;
		r.access = (char *)(uintptr_t)bad[i].access;
		test_note("rule %zu", i);
		CHECK_EQ(ga_cgdev_compile(list, 1, &insns, &n, &e), -EINVAL);
		CHECK_HAS(e.msg, "device rule");
	}
	struct err e;
	CHECK_EQ(ga_cgdev_compile(NULL, GA_CGDEV_MAX_RULES + 1, NULL, NULL, &e), -E2BIG);
}

/* May a container with these rules and the disk 254:16 in linux.devices do this? */
static bool cgdev_may(const Grpc__LinuxResources *given, unsigned access, unsigned type, unsigned major,
		      unsigned minor)
{
	Grpc__LinuxDevice d = GRPC__LINUX_DEVICE__INIT, *ds[] = { &d };
	AUTO_FREE Grpc__LinuxDeviceCgroup **rules = NULL;
	AUTO_FREE struct bpf_insn *insns = NULL;
	struct bpf_cgroup_dev_ctx ctx = { .access_type = access << 16 | type, major, minor };
	struct err e;
	size_t n, count;

	d.type = (char[]){ "b" };
	d.major = 254;
	d.minor = 16;
	n = ga_dev_rules(given, ds, 1, &rules);
	CHECK_EQ(ga_cgdev_compile(rules, n, &insns, &count, &e), 0);
	return cgdev_run(insns, count, &ctx);
}

TEST(ga_dev_rules_without_a_list_allow_the_defaults_and_the_containers_own)
{
	CHECK(cgdev_may(NULL, R | W, BPF_DEVCG_DEV_BLOCK, 254, 16)); /* its own disk */
	CHECK(!cgdev_may(NULL, R, BPF_DEVCG_DEV_BLOCK, 254, 0));     /* another's */
	CHECK(cgdev_may(NULL, R, BPF_DEVCG_DEV_CHAR, 1, 9));	     /* /dev/urandom */
	CHECK(!cgdev_may(NULL, R, BPF_DEVCG_DEV_CHAR, 1, 11));	     /* /dev/kmsg */
}

TEST(ga_dev_rules_with_a_list_leave_the_containers_devices_to_it)
{
	Grpc__LinuxResources res = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxDeviceCgroup deny = GRPC__LINUX_DEVICE_CGROUP__INIT, some = deny;
	Grpc__LinuxDeviceCgroup *list[] = { &deny, &some };

	deny.type = (char[]){ "a" };
	deny.access = (char[]){ "rwm" };
	some.allow = 1;
	some.type = (char[]){ "b" };
	some.major = 254;
	some.minor = 16;
	some.access = (char[]){ "r" };
	res.devices = list;
	res.n_devices = 1;
	CHECK(!cgdev_may(&res, R, BPF_DEVCG_DEV_BLOCK, 254, 16));
	CHECK(cgdev_may(&res, R, BPF_DEVCG_DEV_CHAR, 1, 9)); /* a default, denied in vain, as runc does */
	res.n_devices = 2;
	CHECK(cgdev_may(&res, R, BPF_DEVCG_DEV_BLOCK, 254, 16));
	CHECK(!cgdev_may(&res, W, BPF_DEVCG_DEV_BLOCK, 254, 16));
}

#undef R
#undef W
#undef M
