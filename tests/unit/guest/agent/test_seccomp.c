#include <linux/audit.h>
#include <sys/syscall.h>

#include "tests/unit/guest/agent/agent.h"
#include "tests/unit/test.h"

/* The classic BPF that seccomp(2) accepts: what the filter answers to one system call. */
static uint32_t seccomp_asks(const struct ga_seccomp *s, uint32_t arch, int nr,
			     const uint64_t *args)
{
	struct seccomp_data d = { .nr = nr, .arch = arch };
	uint32_t a = 0;

	if (args)
		memcpy(d.args, args, sizeof d.args);
	for (size_t pc = 0; pc < s->prog.len; pc++) {
		const struct sock_filter *f = &s->prog.filter[pc];
		bool jump;
		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			CHECK(f->k % 4 == 0 && f->k < sizeof d);
			memcpy(&a, (const char *)&d + f->k, sizeof a);
			continue;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= f->k;
			continue;
		case BPF_JMP | BPF_JA:
			pc += f->k;
			continue;
		case BPF_JMP | BPF_JEQ | BPF_K:
			jump = a == f->k;
			break;
		case BPF_JMP | BPF_JGT | BPF_K:
			jump = a > f->k;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			jump = a >= f->k;
			break;
		case BPF_RET | BPF_K:
			return f->k;
		default:
			test_fail(__FILE__, __LINE__, "instruction %zu: code %#x", pc, f->code);
		}
		pc += jump ? f->jt : f->jf;
	}
	test_fail(__FILE__, __LINE__, "the program does not end");
}

struct seccomp_rig {
	Grpc__LinuxSeccomp p;
	Grpc__LinuxSyscall call, *calls[1];
	Grpc__LinuxSeccompArg arg[2], *args[2];
	char *names[2], *archs[2];
	struct ga_seccomp out;
	struct err e;
};

static void seccomp_rig(struct seccomp_rig *r, char *fallback, char *name, char *action)
{
	memset(r, 0, sizeof *r);
	grpc__linux_seccomp__init(&r->p);
	grpc__linux_syscall__init(&r->call);
	r->p.defaultaction = fallback;
	r->calls[0] = &r->call;
	r->p.syscalls = r->calls;
	r->p.n_syscalls = 1;
	r->names[0] = name;
	r->call.names = r->names;
	r->call.n_names = 1;
	r->call.action = action;
	for (int i = 0; i < 2; i++) {
		grpc__linux_seccomp_arg__init(&r->arg[i]);
		r->args[i] = &r->arg[i];
	}
	r->call.args = r->args;
}

static int seccomp_make(struct seccomp_rig *r)
{
	ga_seccomp_fini(&r->out);
	return ga_seccomp_compile(&r->p, &r->out, &r->e);
}

static uint32_t seccomp_native(struct seccomp_rig *r, int nr, uint64_t arg0)
{
	uint64_t args[6] = { arg0 };

	return seccomp_asks(&r->out, AUDIT_ARCH_X86_64, nr, args);
}

TEST(ga_seccomp_no_profile_is_no_filter)
{
	struct ga_seccomp s;
	struct err e;

	CHECK_EQ(ga_seccomp_compile(NULL, &s, &e), 0);
	CHECK_EQ(s.prog.len, 0);
}

TEST(ga_seccomp_errno_is_the_one_given_or_eperm)
{
	struct seccomp_rig r;

	seccomp_rig(&r, "SCMP_ACT_ALLOW", "mkdir", "SCMP_ACT_ERRNO");
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(seccomp_native(&r, SYS_mkdir, 0), SECCOMP_RET_ERRNO | EPERM);
	CHECK_EQ(seccomp_native(&r, SYS_rmdir, 0), SECCOMP_RET_ALLOW);
	r.call.errno_ret_case = GRPC__LINUX_SYSCALL__ERRNO_RET_ERRNO_RET;
	r.call.errnoret = 42;
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(seccomp_native(&r, SYS_mkdir, 0), SECCOMP_RET_ERRNO | 42);
	ga_seccomp_fini(&r.out);
}

TEST(ga_seccomp_the_default_has_an_errno_of_its_own)
{
	struct seccomp_rig r;

	seccomp_rig(&r, "SCMP_ACT_ERRNO", "read", "SCMP_ACT_ALLOW");
	r.p.default_errno_ret_case = GRPC__LINUX_SECCOMP__DEFAULT_ERRNO_RET_DEFAULT_ERRNO_RET;
	r.p.defaulterrnoret = ENOSYS;
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(seccomp_native(&r, SYS_read, 0), SECCOMP_RET_ALLOW);
	CHECK_EQ(seccomp_native(&r, SYS_write, 0), SECCOMP_RET_ERRNO | ENOSYS);
	ga_seccomp_fini(&r.out);
}

TEST(ga_seccomp_every_action_has_its_number)
{
	static const struct {
		char *name;
		uint32_t ret;
	} rows[] = {
		{ "SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD },
		{ "SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS },
		{ "SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD },
		{ "SCMP_ACT_TRAP", SECCOMP_RET_TRAP },
		{ "SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO | EPERM },
		{ "SCMP_ACT_TRACE", SECCOMP_RET_TRACE | EPERM },
		{ "SCMP_ACT_LOG", SECCOMP_RET_LOG },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct seccomp_rig r;
		test_note("%s", rows[i].name);
		seccomp_rig(&r, "SCMP_ACT_ALLOW", "mkdir", rows[i].name);
		CHECK_EQ(seccomp_make(&r), 0);
		CHECK_EQ(seccomp_native(&r, SYS_mkdir, 0), rows[i].ret);
		ga_seccomp_fini(&r.out);
	}
}

TEST(ga_seccomp_arguments_are_compared)
{
	struct seccomp_rig r;

	seccomp_rig(&r, "SCMP_ACT_ALLOW", "close", "SCMP_ACT_ERRNO");
	r.call.n_args = 1;
	r.arg[0].op = "SCMP_CMP_MASKED_EQ";
	r.arg[0].value = 0xf0;
	r.arg[0].valuetwo = 0x30;
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(seccomp_native(&r, SYS_close, 0x35), SECCOMP_RET_ERRNO | EPERM);
	CHECK_EQ(seccomp_native(&r, SYS_close, 0x45), SECCOMP_RET_ALLOW);
	r.arg[0].op = "SCMP_CMP_GT";
	r.arg[0].value = UINT64_C(1) << 40;
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(seccomp_native(&r, SYS_close, (UINT64_C(1) << 40) + 1), SECCOMP_RET_ERRNO | EPERM);
	CHECK_EQ(seccomp_native(&r, SYS_close, UINT64_C(1) << 40), SECCOMP_RET_ALLOW);
	ga_seccomp_fini(&r.out);
}

TEST(ga_seccomp_two_conditions_on_one_argument_are_alternatives)
{
	struct seccomp_rig r;

	seccomp_rig(&r, "SCMP_ACT_ERRNO", "close", "SCMP_ACT_ALLOW");
	r.call.n_args = 2;
	r.arg[0].op = r.arg[1].op = "SCMP_CMP_EQ";
	r.arg[0].value = 1;
	r.arg[1].value = 2;
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(seccomp_native(&r, SYS_close, 1), SECCOMP_RET_ALLOW);
	CHECK_EQ(seccomp_native(&r, SYS_close, 2), SECCOMP_RET_ALLOW);
	CHECK_EQ(seccomp_native(&r, SYS_close, 3), SECCOMP_RET_ERRNO | EPERM);
	ga_seccomp_fini(&r.out);
}

TEST(ga_seccomp_another_architecture_gets_its_own_numbers)
{
	struct seccomp_rig r;

	seccomp_rig(&r, "SCMP_ACT_ALLOW", "mkdir", "SCMP_ACT_ERRNO");
	r.archs[0] = "SCMP_ARCH_X86_64";
	r.archs[1] = "SCMP_ARCH_X86";
	r.p.architectures = r.archs;
	r.p.n_architectures = 2;
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(seccomp_asks(&r.out, AUDIT_ARCH_I386, 39 /* mkdir there */, NULL),
		 SECCOMP_RET_ERRNO | EPERM);
	CHECK_EQ(seccomp_asks(&r.out, AUDIT_ARCH_I386, SYS_mkdir, NULL), SECCOMP_RET_ALLOW);
	CHECK_EQ(seccomp_asks(&r.out, AUDIT_ARCH_AARCH64, 0, NULL), SECCOMP_RET_KILL_THREAD);
	ga_seccomp_fini(&r.out);
}

TEST(ga_seccomp_unknown_names_are_passed_over)
{
	struct seccomp_rig r;

	seccomp_rig(&r, "SCMP_ACT_ALLOW", "of_the_year_2040", "SCMP_ACT_ERRNO");
	r.names[1] = "mkdir";
	r.call.n_names = 2;
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(seccomp_native(&r, SYS_mkdir, 0), SECCOMP_RET_ERRNO | EPERM);
	ga_seccomp_fini(&r.out);
}

TEST(ga_seccomp_what_it_cannot_do_it_refuses)
{
	struct seccomp_rig r;
	char *flags[] = { "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_FAST" };

	seccomp_rig(&r, "SCMP_ACT_ALLOW", "mkdir", "SCMP_ACT_NOTIFY");
	CHECK_EQ(seccomp_make(&r), -EOPNOTSUPP);
	CHECK_HAS(r.e.msg, "seccomp: action SCMP_ACT_NOTIFY is not supported");
	seccomp_rig(&r, "SCMP_ACT_MAYBE", "mkdir", "SCMP_ACT_ALLOW");
	CHECK_EQ(seccomp_make(&r), -EINVAL);
	CHECK_STR(r.e.msg, "seccomp: action \"SCMP_ACT_MAYBE\" is not known");
	seccomp_rig(&r, "SCMP_ACT_ALLOW", "mkdir", "SCMP_ACT_ERRNO");
	r.call.n_args = 1;
	r.arg[0].op = "SCMP_CMP_EQ";
	r.arg[0].index = 6;
	CHECK_EQ(seccomp_make(&r), -EINVAL);
	CHECK_STR(r.e.msg, "seccomp: argument index 6");
	r.arg[0].index = 0;
	r.arg[0].op = "SCMP_CMP_ALMOST";
	CHECK_EQ(seccomp_make(&r), -EINVAL);
	r.call.n_args = 0;
	r.p.flags = flags;
	r.p.n_flags = 1;
	CHECK_EQ(seccomp_make(&r), 0);
	CHECK_EQ(r.out.flags, SECCOMP_FILTER_FLAG_LOG);
	r.p.n_flags = 2;
	CHECK_EQ(seccomp_make(&r), -EINVAL);
	CHECK_STR(r.e.msg, "seccomp: flag \"SECCOMP_FILTER_FLAG_FAST\" is not supported");
}
