/* filter.c - the VMM's system call allow-list, and the BPF program made from it.
 *
 * One table for all threads of the process. Anything not in it is SIGSYS: the number is reported to
 * the supervisor as the process's last word, and it ends. seccomp(2);
 * Documentation/userspace-api/seccomp_filter.rst. */
#include "vmm/jail/jail.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum jail_rule {
	JAIL_ANY,      /* whatever the arguments */
	JAIL_IOCTL,    /* argument 1 is one of jail_ioctls */
	JAIL_NO_EXEC,  /* argument 2 has no PROT_EXEC */
	JAIL_THREAD,   /* argument 0 has CLONE_THREAD: threads, never a process */
	JAIL_UNIX,     /* argument 0 is AF_UNIX: an anonymous pair, reachable by nobody else */
};

struct jail_call {
	int nr;
	enum jail_rule rule;
};

/* Most frequent first: the filter is walked from the top. */
static const struct jail_call jail_calls[] = {
	{ SYS_ioctl, JAIL_IOCTL },
	{ SYS_read, JAIL_ANY },
	{ SYS_write, JAIL_ANY },
	{ SYS_epoll_wait, JAIL_ANY },
	{ SYS_epoll_pwait, JAIL_ANY },
	{ SYS_futex, JAIL_ANY },
	{ SYS_readv, JAIL_ANY },
	{ SYS_writev, JAIL_ANY },
	{ SYS_preadv, JAIL_ANY },
	{ SYS_pwritev, JAIL_ANY },
	{ SYS_preadv2, JAIL_ANY },
	{ SYS_pwritev2, JAIL_ANY },
	{ SYS_pread64, JAIL_ANY },
	{ SYS_pwrite64, JAIL_ANY },
	{ SYS_sendmsg, JAIL_ANY },
	{ SYS_recvmsg, JAIL_ANY },
	{ SYS_sendto, JAIL_ANY },
	{ SYS_recvfrom, JAIL_ANY },
	{ SYS_shutdown, JAIL_ANY },
	{ SYS_accept4, JAIL_ANY },
	{ SYS_getsockopt, JAIL_ANY },
	{ SYS_socketpair, JAIL_UNIX },
	{ SYS_poll, JAIL_ANY },
	{ SYS_epoll_ctl, JAIL_ANY },
	{ SYS_epoll_create1, JAIL_ANY },
	{ SYS_eventfd2, JAIL_ANY },
	{ SYS_close, JAIL_ANY },
	{ SYS_fcntl, JAIL_ANY },
	{ SYS_fstat, JAIL_ANY },
	{ SYS_newfstatat, JAIL_ANY }, /* musl's fstat(); there is no path to name in an empty root */
	{ SYS_lseek, JAIL_ANY },
	{ SYS_fallocate, JAIL_ANY },
	{ SYS_ftruncate, JAIL_ANY },
	{ SYS_fdatasync, JAIL_ANY },
	{ SYS_fsync, JAIL_ANY },
	{ SYS_madvise, JAIL_ANY },
	{ SYS_mmap, JAIL_NO_EXEC },
	{ SYS_mprotect, JAIL_NO_EXEC },
	{ SYS_munmap, JAIL_ANY },
	{ SYS_mremap, JAIL_ANY },
	{ SYS_brk, JAIL_ANY },
	{ SYS_clone, JAIL_THREAD },
	{ SYS_set_robust_list, JAIL_ANY },
	{ SYS_rt_sigprocmask, JAIL_ANY },
	{ SYS_rt_sigreturn, JAIL_ANY },
	{ SYS_tkill, JAIL_ANY }, /* other processes have other uids */
	{ SYS_gettid, JAIL_ANY },
	{ SYS_getpid, JAIL_ANY },
	{ SYS_sched_yield, JAIL_ANY },
	{ SYS_clock_gettime, JAIL_ANY },
	{ SYS_clock_nanosleep, JAIL_ANY },
	{ SYS_nanosleep, JAIL_ANY },
	{ SYS_restart_syscall, JAIL_ANY },
	{ SYS_getrandom, JAIL_ANY },
	{ SYS_exit, JAIL_ANY },
	{ SYS_exit_group, JAIL_ANY },
};

/* linux/fs.h, spelled here so that its macros stay out of everybody's way. */
#define JAIL_BLKGETSIZE64 0x80081272u
#define JAIL_BLKSSZGET    0x1268u
#define JAIL_BLKDISCARD   0x1277u
#define JAIL_BLKZEROOUT   0x127fu

static const uint32_t jail_ioctls[] = {
	KVM_RUN,
	KVM_SIGNAL_MSI,
	KVM_GET_API_VERSION,
	KVM_CHECK_EXTENSION,
	KVM_GET_VCPU_MMAP_SIZE,
	KVM_CREATE_VM,
	KVM_SET_USER_MEMORY_REGION,
	KVM_GET_DIRTY_LOG,
	KVM_SET_IDENTITY_MAP_ADDR,
	KVM_SET_TSS_ADDR,
	KVM_ENABLE_CAP,
	KVM_CREATE_VCPU,
	KVM_GET_SUPPORTED_CPUID,
	KVM_GET_MSR_INDEX_LIST,
	KVM_SET_CPUID2,
	KVM_GET_CPUID2,
	KVM_IOEVENTFD,
	KVM_GET_CLOCK,
	KVM_SET_CLOCK,
	KVM_KVMCLOCK_CTRL,
	KVM_GET_MP_STATE,
	KVM_SET_MP_STATE,
	KVM_GET_REGS,
	KVM_SET_REGS,
	KVM_GET_SREGS,
	KVM_SET_SREGS,
	KVM_GET_XSAVE,
	KVM_SET_XSAVE,
	KVM_GET_XSAVE2,
	KVM_GET_XCRS,
	KVM_SET_XCRS,
	KVM_GET_DEBUGREGS,
	KVM_SET_DEBUGREGS,
	KVM_GET_LAPIC,
	KVM_SET_LAPIC,
	KVM_GET_TSC_KHZ,
	KVM_SET_TSC_KHZ,
	KVM_GET_MSRS,
	KVM_SET_MSRS,
	KVM_GET_VCPU_EVENTS,
	KVM_SET_VCPU_EVENTS,
	JAIL_BLKGETSIZE64,
	JAIL_BLKSSZGET,
	JAIL_BLKDISCARD,
	JAIL_BLKZEROOUT,
};

#define JAIL_MAX_INSNS 512

struct jail_program {
	struct sock_filter insn[JAIL_MAX_INSNS];
	unsigned short n;
};

static void jail_emit(struct jail_program *p, struct sock_filter f)
{
	ASSERT(p->n < JAIL_MAX_INSNS);
	p->insn[p->n++] = f;
}

static void jail_load(struct jail_program *p, size_t offset)
{
	jail_emit(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void jail_return(struct jail_program *p, uint32_t verdict)
{
	jail_emit(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict));
}

/* Program order: checks first, verdicts last, so that one comparison is one instruction. Installing a
 * filter costs microseconds per instruction, and every clone installs one.
 *
 *   arch, nr loaded
 *   JEQ nr -> ALLOW           for each call of rule ANY
 *   JEQ nr -> else skip       for each other rule, followed by its body
 *   TRAP
 *   ALLOW
 *
 * Jumps of a conditional are 8 bits, so ALLOW is repeated when it gets too far away. */
#define JAIL_ARG(i) (offsetof(struct seccomp_data, args) + 8 * (i)) /* low half */
#define JAIL_FAR    255

/* Comparisons whose "true" branch is to be aimed at the next ALLOW. */
struct jail_pending {
	unsigned short at[JAIL_FAR];
	unsigned n;
};

/* Emit ALLOW here, jumped over by what comes from above, and aim all that wait for one at it. */
static void jail_land(struct jail_program *p, struct jail_pending *w, bool fall_through)
{
	if (w->n == 0)
		return;
	if (fall_through)
		jail_emit(p, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 1));
	for (unsigned i = 0; i < w->n; i++)
		p->insn[w->at[i]].jt = (uint8_t)(p->n - w->at[i] - 1);
	jail_return(p, SECCOMP_RET_ALLOW);
	w->n = 0;
}

static void jail_allow_if(struct jail_program *p, struct jail_pending *w, uint16_t op, uint32_t k)
{
	if (w->n && p->n - w->at[0] >= JAIL_FAR - 2)
		jail_land(p, w, true);
	w->at[w->n++] = p->n;
	jail_emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | op | BPF_K, k, 0, 0));
}

/* What is asked of the arguments once the call's number has matched; ends in a verdict. */
static void jail_emit_rule(struct jail_program *p, enum jail_rule rule)
{
	struct jail_pending w = { .n = 0 };

	switch (rule) {
	case JAIL_ANY:
		break;
	case JAIL_IOCTL:
		jail_load(p, JAIL_ARG(1));
		for (unsigned i = 0; i < ARRAY_LEN(jail_ioctls); i++)
			jail_allow_if(p, &w, BPF_JEQ, jail_ioctls[i]);
		break;
	case JAIL_NO_EXEC:
		jail_load(p, JAIL_ARG(2));
		jail_emit(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_EXEC));
		jail_allow_if(p, &w, BPF_JEQ, 0);
		break;
	case JAIL_THREAD:
		jail_load(p, JAIL_ARG(0));
		jail_allow_if(p, &w, BPF_JSET, 0x00010000 /* CLONE_THREAD */);
		break;
	case JAIL_UNIX:
		jail_load(p, JAIL_ARG(0));
		jail_allow_if(p, &w, BPF_JEQ, 1 /* AF_UNIX */);
		break;
	}
	jail_return(p, SECCOMP_RET_TRAP);
	jail_land(p, &w, false);
}

static void jail_build(struct jail_program *p)
{
	struct jail_pending any = { .n = 0 };

	p->n = 0;
	jail_load(p, offsetof(struct seccomp_data, arch));
	jail_emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
	jail_return(p, SECCOMP_RET_KILL_PROCESS);
	jail_load(p, offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < ARRAY_LEN(jail_calls); i++) {
		unsigned short at = p->n;
		if (jail_calls[i].rule == JAIL_ANY) {
			jail_allow_if(p, &any, BPF_JEQ, (uint32_t)jail_calls[i].nr);
			continue;
		}
		jail_emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							  (uint32_t)jail_calls[i].nr, 0, 0));
		jail_emit_rule(p, jail_calls[i].rule);
		ASSERT(p->n - at - 1 <= JAIL_FAR);
		p->insn[at].jf = (uint8_t)(p->n - at - 1);
	}
	jail_return(p, SECCOMP_RET_TRAP);
	jail_land(p, &any, false);
}

static void (*jail_trap_hook)(int nr); /* a signal handler has no other way to know */

static void jail_on_trap(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (jail_trap_hook)
		jail_trap_hook(info->si_syscall);
	_exit(128 + SIGSYS);
}

int jail_install_filter(void (*on_trap)(int nr), struct err *e)
{
	struct sigaction sa = { .sa_sigaction = jail_on_trap, .sa_flags = SA_SIGINFO };
	struct jail_program p;
	struct sock_fprog prog = { .filter = p.insn };

	jail_trap_hook = on_trap;
	sigaction(SIGSYS, &sa, NULL);
	jail_build(&p);
	prog.len = p.n;
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		return err_set(e, -errno, "jail: seccomp: %m");
	return 0;
}
