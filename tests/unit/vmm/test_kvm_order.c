/* test_kvm_order.c - the system calls that make a clone, in the order vmm/kvm.h promises.
 *
 * A child makes a machine, saves it and restores it into a second one; the test traces it and writes
 * down every ioctl of KVM. What is checked is the order and what must never be there. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "tests/unit/test.h"
#include "tests/unit/vmm/machine_rig.h"

/* ioctl(-1, MARK): the child says where it is. */
enum { TORD_BOOT = 0x5d0001, TORD_BOOTED, TORD_RESTORE, TORD_RESTORED };

struct tord_call {
	int fd;
	uint32_t request;
	uint64_t cap, arg0; /* of KVM_ENABLE_CAP */
};

static struct {
	struct tord_call call[2048];
	unsigned n;
} tord;

static void tord_mark(unsigned mark)
{
	syscall(SYS_ioctl, -1, mark, 0);
}

/* Stop the child at its ioctls and at nothing else: a tenth of the time. */
static void tord_only_ioctls(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { ARRAY_LEN(code), code };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		_exit(1);
}

static NORETURN void tord_child(void)
{
	struct buf state = { 0 };
	struct mrig a, b;

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	tord_only_ioctls();
	raise(SIGSTOP);
	mrig_boot(&a, 2, 4);
	tord_mark(TORD_BOOT);
	mrig_must_create(&a);
	tord_mark(TORD_BOOTED);
	mrig_save(&a, &state);
	mrig_clone(&b, &a, &state);
	tord_mark(TORD_RESTORE);
	mrig_must_create(&b);
	tord_mark(TORD_RESTORED);
	mrig_end();
}

static uint64_t tord_peek(pid_t pid, uint64_t at)
{
	errno = 0;
	return (uint64_t)ptrace(PTRACE_PEEKDATA, pid, (void *)at, NULL);
}

static void tord_record(pid_t pid)
{
	struct user_regs_struct r;
	struct tord_call c;

	if (ptrace(PTRACE_GETREGS, pid, NULL, &r) < 0 || r.orig_rax != SYS_ioctl)
		return;
	/* KVM's own, and our marks */
	if ((r.rsi >> 8 & 0xff) != KVMIO && (r.rsi & ~UINT64_C(7)) != (TORD_BOOT & ~7))
		return;
	c = (struct tord_call){ (int)r.rdi, (uint32_t)r.rsi, 0, 0 };
	if (c.request == (uint32_t)KVM_ENABLE_CAP) {
		c.cap = (uint32_t)tord_peek(pid, r.rdx);
		c.arg0 = tord_peek(pid, r.rdx + offsetof(struct kvm_enable_cap, args));
	}
	CHECK(tord.n < ARRAY_LEN(tord.call));
	tord.call[tord.n++] = c;
}

/* Run the child to its end, threads included. */
static void tord_trace(void)
{
	const long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
	int status;
	pid_t child, pid;

	close(kvmr_open()); /* or skip */
	fflush(stdout);
	child = fork();
	if (child == 0)
		tord_child();
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFSTOPPED(status));
	if (ptrace(PTRACE_SETOPTIONS, child, NULL, options) < 0)
		test_skip("ptrace: %s", strerror(errno));
	ptrace(PTRACE_CONT, child, NULL, NULL);
	while ((pid = waitpid(-1, &status, __WALL)) > 0) {
		int sig = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;

		if (WIFSTOPPED(status)) {
			if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
				tord_record(pid);
			if (sig == SIGTRAP || sig == SIGSTOP)
				sig = 0; /* ours, or a new thread */
			ptrace(PTRACE_CONT, pid, NULL, sig);
		} else if (pid == child) {
			if (WIFSIGNALED(status))
				test_fail(__FILE__, __LINE__, "the child died of signal %d",
					  WTERMSIG(status));
			if (WEXITSTATUS(status) == TEST_SKIPPED) /* it said why */
				exit(TEST_SKIPPED);
			CHECK_EQ(WEXITSTATUS(status), 0);
			return;
		}
	}
	test_fail(__FILE__, __LINE__, "the child is gone");
}

/* The calls between two marks; the test is skipped when the child never got there (it said why). */
static struct tord_call *tord_between(unsigned from, unsigned to, unsigned *n)
{
	unsigned first = 0, end = 0;

	for (unsigned i = 0; i < tord.n; i++) {
		if (tord.call[i].request == from)
			first = i + 1;
		if (tord.call[i].request == to)
			end = i;
	}
	if (!end)
		test_skip("no machine can be made with this /dev/kvm");
	CHECK(first > 0 && first < end);
	*n = end - first;
	return &tord.call[first];
}

/* --- the order --------------------------------------------------------------------------------- */

/* vmm/kvm.h: CREATE_VM -> memory slots -> split irqchip -> vCPUs -> CPUID -> state -> ioeventfds. 0 =
 * asks something, may stand anywhere. */
static const struct {
	unsigned long request;
	const char *name;
	unsigned phase;
} tord_phases[] = {
	{ KVM_GET_API_VERSION, "GET_API_VERSION", 0 },
	{ KVM_CHECK_EXTENSION, "CHECK_EXTENSION", 0 },
	{ KVM_GET_VCPU_MMAP_SIZE, "GET_VCPU_MMAP_SIZE", 0 },
	{ KVM_GET_SUPPORTED_CPUID, "GET_SUPPORTED_CPUID", 0 },
	{ KVM_GET_TSC_KHZ, "GET_TSC_KHZ", 0 },
	{ KVM_GET_SREGS, "GET_SREGS", 0 },
	{ KVM_CREATE_VM, "CREATE_VM", 1 },
	{ KVM_SET_USER_MEMORY_REGION, "SET_USER_MEMORY_REGION", 2 },
	{ KVM_SET_IDENTITY_MAP_ADDR, "SET_IDENTITY_MAP_ADDR", 3 },
	{ KVM_SET_TSS_ADDR, "SET_TSS_ADDR", 3 },
	{ KVM_ENABLE_CAP, "ENABLE_CAP", 4 },
	{ KVM_CREATE_VCPU, "CREATE_VCPU", 5 },
	{ KVM_SET_CPUID2, "SET_CPUID2", 6 },
	{ KVM_SET_TSC_KHZ, "SET_TSC_KHZ", 7 },
	{ KVM_SET_MP_STATE, "SET_MP_STATE", 7 },
	{ KVM_SET_REGS, "SET_REGS", 7 },
	{ KVM_SET_SREGS, "SET_SREGS", 7 },
	{ KVM_SET_XCRS, "SET_XCRS", 7 },
	{ KVM_SET_XSAVE, "SET_XSAVE", 7 },
	{ KVM_SET_DEBUGREGS, "SET_DEBUGREGS", 7 },
	{ KVM_SET_LAPIC, "SET_LAPIC", 7 },
	{ KVM_SET_MSRS, "SET_MSRS", 7 },
	{ KVM_SET_VCPU_EVENTS, "SET_VCPU_EVENTS", 7 },
	{ KVM_KVMCLOCK_CTRL, "KVMCLOCK_CTRL", 7 },
	{ KVM_SET_CLOCK, "SET_CLOCK", 8 }, /* when all vCPUs exist */
	{ KVM_IOEVENTFD, "IOEVENTFD", 9 },
	{ KVM_SIGNAL_MSI, "SIGNAL_MSI", 9 }, /* an interrupt that waited in the snapshot */
	{ KVM_RUN, "RUN", 10 },
};

static unsigned tord_phase(uint32_t request, const char **name)
{
	for (unsigned i = 0; i < ARRAY_LEN(tord_phases); i++)
		if ((uint32_t)tord_phases[i].request == request) {
			*name = tord_phases[i].name;
			return tord_phases[i].phase;
		}
	test_fail(__FILE__, __LINE__, "an ioctl that has no place in the order: %#x", request);
}

static unsigned tord_count(const struct tord_call *c, unsigned n, unsigned long request)
{
	unsigned found = 0;

	for (unsigned i = 0; i < n; i++)
		found += c[i].request == (uint32_t)request;
	return found;
}

static void tord_check_order(const struct tord_call *c, unsigned n)
{
	const char *last_name = "nothing";
	unsigned last = 0;

	for (unsigned i = 0; i < n; i++) {
		const char *name;
		unsigned phase = tord_phase(c[i].request, &name);
		if (phase == 0)
			continue;
		if (phase < last)
			test_fail(__FILE__, __LINE__, "%s comes after %s", name, last_name);
		last = phase;
		last_name = name;
	}
	CHECK_EQ(tord_count(c, n, KVM_CREATE_VM), 1);
	CHECK_EQ(tord_count(c, n, KVM_SET_USER_MEMORY_REGION), 3); /* RAM twice, the windows */
	CHECK_EQ(tord_count(c, n, KVM_ENABLE_CAP), 1);
	CHECK_EQ(tord_count(c, n, KVM_CREATE_VCPU), 2);
	CHECK_EQ(tord_count(c, n, KVM_SET_CPUID2), 2);
	CHECK_EQ(tord_count(c, n, KVM_IOEVENTFD), 5); /* vsock, rng, balloon, two drives */
	for (unsigned i = 0; i < n; i++)
		if (c[i].request == (uint32_t)KVM_ENABLE_CAP) {
			CHECK_EQ(c[i].cap, KVM_CAP_SPLIT_IRQCHIP);
			CHECK_EQ(c[i].arg0, LAYOUT_PINS);
		}
}

TEST(vmm_boots_in_the_fast_order)
{
	struct tord_call *c;
	unsigned n;

	tord_trace();
	c = tord_between(TORD_BOOT, TORD_BOOTED, &n);
	tord_check_order(c, n);
	CHECK_EQ(tord_count(c, n, KVM_SET_REGS), 1); /* the first CPU; the others wait for it */
}

TEST(vmm_clones_in_the_fast_order)
{
	struct tord_call *c;
	unsigned n;

	tord_trace();
	c = tord_between(TORD_RESTORE, TORD_RESTORED, &n);
	tord_check_order(c, n);
	CHECK_EQ(tord_count(c, n, KVM_SET_CLOCK), 1);
}

TEST(vmm_restores_a_cpu_in_the_order_its_registers_need)
{
	/* TSC_KHZ is set only where it differs, XCRS only where there are some; MP_STATE, DEBUGREGS and
	 * VCPU_EVENTS are here as in any new vCPU and not set again. */
	static const unsigned long want[] = {
		KVM_SET_CPUID2, KVM_SET_REGS, KVM_SET_SREGS, KVM_SET_XSAVE, KVM_SET_LAPIC, KVM_SET_MSRS,
		KVM_KVMCLOCK_CTRL,
	};
	struct tord_call *c;
	unsigned n, at = 0;
	int vcpu = -1;

	tord_trace();
	c = tord_between(TORD_RESTORE, TORD_RESTORED, &n);
	for (unsigned i = 0; i < n; i++)
		if (c[i].request == (uint32_t)KVM_SET_REGS)
			vcpu = c[i].fd;
	CHECK(vcpu >= 0);
	for (unsigned i = 0; i < n; i++) {
		if (c[i].fd != vcpu || c[i].request == (uint32_t)KVM_GET_TSC_KHZ ||
		    c[i].request == (uint32_t)KVM_SET_XCRS || c[i].request == (uint32_t)KVM_RUN)
			continue;
		test_note("step %u", at);
		CHECK(at < ARRAY_LEN(want));
		CHECK_EQ(c[i].request, (uint32_t)want[at++]);
	}
	CHECK_EQ(at, ARRAY_LEN(want));
}

/* Each of them costs a clone milliseconds: kvm.h. */
TEST(vmm_never_makes_what_is_slow_to_make_or_to_close)
{
	static const struct {
		unsigned long request;
		const char *name;
	} never[] = {
		{ KVM_CREATE_IRQCHIP, "CREATE_IRQCHIP" }, { KVM_CREATE_PIT, "CREATE_PIT" },
		{ KVM_CREATE_PIT2, "CREATE_PIT2" },	  { KVM_CREATE_DEVICE, "CREATE_DEVICE" },
		{ KVM_SET_GSI_ROUTING, "SET_GSI_ROUTING" }, { KVM_IRQFD, "IRQFD" },
		{ KVM_SET_IRQCHIP, "SET_IRQCHIP" },	  { KVM_SET_PIT2, "SET_PIT2" },
	};
	unsigned n;

	tord_trace();
	tord_between(TORD_RESTORE, TORD_RESTORED, &n);
	for (unsigned i = 0; i < ARRAY_LEN(never); i++) {
		test_note("%s", never[i].name);
		CHECK_EQ(tord_count(tord.call, tord.n, never[i].request), 0);
	}
}

/* And everything the jail lets through is enough to do it, and no more than is used somewhere. */
TEST(vmm_uses_no_ioctl_that_the_jail_forbids)
{
	tord_trace();
	for (unsigned i = 0; i < tord.n; i++) {
		bool allowed = false;
		if ((tord.call[i].request & ~7u) == (TORD_BOOT & ~7u))
			continue;
		for (unsigned k = 0; k < ARRAY_LEN(jail_ioctls); k++)
			allowed |= jail_ioctls[k] == tord.call[i].request;
		test_note("ioctl %#x", tord.call[i].request);
		CHECK(allowed);
	}
}
