/* filter.c - the VMM's system call allow-lists, and the BPF programs made from them.
 *
 * One table for the threads that run the machine, one for those that serve files; both are per thread.
 * Anything not in it is SIGSYS: the number is reported to the supervisor as the process's last word,
 * and it ends. seccomp(2);
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
	JAIL_IOCTL,    /* argument 1 is one of jail_ioctls, or vhost's */
	JAIL_IRQ,      /* argument 1 is the ioctl that interrupts the guest */
	JAIL_NO_EXEC,  /* argument 2 has no PROT_EXEC */
	JAIL_THREAD,   /* argument 0 has CLONE_THREAD: threads, never a process */
	JAIL_RULES,
};

struct jail_call {
	int nr;
	enum jail_rule rule;
};

struct jail_table {
	const struct jail_call *call;
	unsigned n;
};

/* In the order of their numbers (arch/x86/entry/syscalls/syscall_64.tbl): the filter searches by halves. */
static const struct jail_call jail_calls[] = {
	{ SYS_read, JAIL_ANY },
	{ SYS_write, JAIL_ANY },
	{ SYS_close, JAIL_ANY },
	{ SYS_fstat, JAIL_ANY },
	{ SYS_poll, JAIL_ANY },
	{ SYS_lseek, JAIL_ANY },
	{ SYS_mmap, JAIL_NO_EXEC },
	{ SYS_mprotect, JAIL_NO_EXEC },
	{ SYS_munmap, JAIL_ANY },
	{ SYS_brk, JAIL_ANY },
	{ SYS_rt_sigprocmask, JAIL_ANY },
	{ SYS_rt_sigreturn, JAIL_ANY },
	{ SYS_ioctl, JAIL_IOCTL },
	{ SYS_pread64, JAIL_ANY },
	{ SYS_pwrite64, JAIL_ANY },
	{ SYS_readv, JAIL_ANY },
	{ SYS_writev, JAIL_ANY },
	{ SYS_sched_yield, JAIL_ANY },
	{ SYS_mremap, JAIL_ANY },
	{ SYS_madvise, JAIL_ANY },
	{ SYS_getpid, JAIL_ANY },
	{ SYS_sendto, JAIL_ANY },
	{ SYS_recvfrom, JAIL_ANY },
	{ SYS_sendmsg, JAIL_ANY },
	{ SYS_recvmsg, JAIL_ANY },
	{ SYS_shutdown, JAIL_ANY },
	{ SYS_clone, JAIL_THREAD },
	{ SYS_exit, JAIL_ANY },
	{ SYS_fcntl, JAIL_ANY },
	{ SYS_fsync, JAIL_ANY },
	{ SYS_fdatasync, JAIL_ANY },
	{ SYS_ftruncate, JAIL_ANY },
	{ SYS_gettid, JAIL_ANY },
	{ SYS_tkill, JAIL_ANY }, /* other processes have other uids */
	{ SYS_futex, JAIL_ANY },
	{ SYS_restart_syscall, JAIL_ANY },
	{ SYS_clock_gettime, JAIL_ANY },
	{ SYS_exit_group, JAIL_ANY },
	{ SYS_epoll_wait, JAIL_ANY },
	{ SYS_epoll_ctl, JAIL_ANY },
	{ SYS_newfstatat, JAIL_ANY }, /* musl's fstat(); there is no path to name in an empty root */
	{ SYS_set_robust_list, JAIL_ANY },
	{ SYS_epoll_pwait, JAIL_ANY },
	{ SYS_fallocate, JAIL_ANY },
	{ SYS_accept4, JAIL_ANY },
	{ SYS_eventfd2, JAIL_ANY },
	{ SYS_epoll_create1, JAIL_ANY },
	{ SYS_preadv, JAIL_ANY },
	{ SYS_pwritev, JAIL_ANY },
	{ SYS_getrandom, JAIL_ANY },
	{ SYS_preadv2, JAIL_ANY },
	{ SYS_pwritev2, JAIL_ANY },
};

static const struct jail_table jail_machine = { jail_calls, ARRAY_LEN(jail_calls) };

/* What a file server does (vmm/fuse/pool.h), always relative to a descriptor or to /proc/<pid>/fd: the
 * root is empty, a share's mount ends at its root. No call that changes who the thread is, but for
 * setfsuid and setfsgid, which decide whose the new files are; none that makes a descriptor from a
 * handle, a mount, a socket, a process. */
static const struct jail_call jail_file_calls[] = {
	{ SYS_write, JAIL_ANY },
	{ SYS_close, JAIL_ANY },
	{ SYS_lseek, JAIL_ANY },
	{ SYS_mmap, JAIL_NO_EXEC },
	{ SYS_mprotect, JAIL_NO_EXEC },
	{ SYS_munmap, JAIL_ANY },
	{ SYS_brk, JAIL_ANY },
	{ SYS_rt_sigprocmask, JAIL_ANY },
	{ SYS_rt_sigreturn, JAIL_ANY },
	{ SYS_ioctl, JAIL_IRQ },
	{ SYS_mremap, JAIL_ANY },
	{ SYS_madvise, JAIL_ANY },
	{ SYS_getpid, JAIL_ANY },
	{ SYS_sendmsg, JAIL_ANY }, /* the last word about a call that is not here */
	{ SYS_clone, JAIL_THREAD },
	{ SYS_exit, JAIL_ANY },
	{ SYS_fcntl, JAIL_ANY },
	{ SYS_fsync, JAIL_ANY },
	{ SYS_fdatasync, JAIL_ANY },
	{ SYS_ftruncate, JAIL_ANY },
	{ SYS_setfsuid, JAIL_ANY },
	{ SYS_setfsgid, JAIL_ANY },
	{ SYS_capget, JAIL_ANY },
	{ SYS_capset, JAIL_ANY }, /* to have less for one call; there is no more to have */
	{ SYS_fstatfs, JAIL_ANY },
	{ SYS_setxattr, JAIL_ANY },
	{ SYS_getxattr, JAIL_ANY },
	{ SYS_listxattr, JAIL_ANY },
	{ SYS_removexattr, JAIL_ANY },
	{ SYS_tkill, JAIL_ANY },
	{ SYS_futex, JAIL_ANY },
	{ SYS_getdents64, JAIL_ANY },
	{ SYS_restart_syscall, JAIL_ANY },
	{ SYS_clock_gettime, JAIL_ANY },
	{ SYS_exit_group, JAIL_ANY },
	{ SYS_openat, JAIL_ANY },
	{ SYS_mkdirat, JAIL_ANY },
	{ SYS_mknodat, JAIL_ANY },
	{ SYS_fchownat, JAIL_ANY },
	{ SYS_unlinkat, JAIL_ANY },
	{ SYS_linkat, JAIL_ANY },
	{ SYS_symlinkat, JAIL_ANY },
	{ SYS_readlinkat, JAIL_ANY },
	{ SYS_fchmodat, JAIL_ANY },
	{ SYS_set_robust_list, JAIL_ANY },
	{ SYS_utimensat, JAIL_ANY },
	{ SYS_epoll_pwait, JAIL_ANY },
	{ SYS_fallocate, JAIL_ANY },
	{ SYS_preadv, JAIL_ANY },
	{ SYS_syncfs, JAIL_ANY },
	{ SYS_renameat2, JAIL_ANY },
	{ SYS_copy_file_range, JAIL_ANY },
	{ SYS_pwritev2, JAIL_ANY },
	{ SYS_statx, JAIL_ANY },
};

static const struct jail_table jail_files = { jail_file_calls, ARRAY_LEN(jail_file_calls) };

/* linux/fs.h, spelled here so that its macros stay out of everybody's way. */
#define JAIL_BLKGETSIZE64 0x80081272u
#define JAIL_BLKSSZGET    0x1268u
#define JAIL_BLKDISCARD   0x1277u

/* Most frequent first. */
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
};

/* And all of vhost (linux/vhost.h, type 0xaf), which needs a descriptor that a machine has for its network
 * only: two instructions in every clone's filter and not eleven. */
#define JAIL_IOCTL_TYPE  0xff00u
#define JAIL_IOCTL_VHOST 0xaf00u

/* The program:
 *
 *   arch: another than ours is the end of the process
 *   nr: a search by halves down to JAIL_LEAF calls or fewer, and from a call to its rule
 *   for each rule what it asks of an argument
 *   the verdicts
 *
 * Every clone installs it, and pays by its length and by its longest path: the kernel walks it once for
 * every system call there is, to learn which it may let pass unasked (seccomp_cache_prepare()).
 *
 * It is written from its end to its beginning. All jumps of BPF are forward, so where they go is there
 * already: whatever writes something returns where that begins. */
#define JAIL_LEAF      4
#define JAIL_MAX_INSNS 256 /* no further than a conditional jump reaches */

struct jail_program {
	struct sock_filter insn[JAIL_MAX_INSNS];
	unsigned first; /* from here to the end of insn */
};

static unsigned jail_emit(struct jail_program *p, struct sock_filter f)
{
	ASSERT(p->first > 0);
	p->insn[--p->first] = f;
	return p->first;
}

static unsigned jail_load(struct jail_program *p, size_t offset)
{
	return jail_emit(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static unsigned jail_return(struct jail_program *p, uint32_t verdict)
{
	return jail_emit(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict));
}

static unsigned jail_jump(struct jail_program *p, uint16_t op, uint32_t k, unsigned yes, unsigned no)
{
	return jail_emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | op | BPF_K, k,
							 (uint8_t)(yes - p->first),
							 (uint8_t)(no - p->first)));
}

#define JAIL_ARG(i) (offsetof(struct seccomp_data, args) + 8 * (i)) /* low half */

/* What is asked of the arguments once the call's number has matched. */
static unsigned jail_emit_rule(struct jail_program *p, enum jail_rule rule, unsigned allow, unsigned trap)
{
	unsigned to = trap;

	switch (rule) {
	case JAIL_IOCTL:
		jail_jump(p, BPF_JEQ, JAIL_IOCTL_VHOST, allow, trap);
		to = jail_emit(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, JAIL_IOCTL_TYPE));
		for (unsigned i = ARRAY_LEN(jail_ioctls); i-- > 0;)
			to = jail_jump(p, BPF_JEQ, jail_ioctls[i], allow, to);
		return jail_load(p, JAIL_ARG(1));
	case JAIL_IRQ:
		jail_jump(p, BPF_JEQ, KVM_SIGNAL_MSI, allow, trap);
		return jail_load(p, JAIL_ARG(1));
	case JAIL_NO_EXEC:
		jail_jump(p, BPF_JSET, PROT_EXEC, trap, allow);
		return jail_load(p, JAIL_ARG(2));
	case JAIL_THREAD:
		jail_jump(p, BPF_JSET, 0x00010000 /* CLONE_THREAD */, allow, trap);
		return jail_load(p, JAIL_ARG(0));
	default: /* JAIL_ANY */
		return allow;
	}
}

/* Find the loaded number among n calls and go where `rule` says for its rule. */
static unsigned jail_search(struct jail_program *p, const struct jail_call *call, unsigned n,
			    const unsigned rule[JAIL_RULES], unsigned trap)
{
	unsigned to = trap, upper;

	if (n > JAIL_LEAF) {
		upper = jail_search(p, call + n / 2, n - n / 2, rule, trap);
		to = jail_search(p, call, n / 2, rule, trap);
		return jail_jump(p, BPF_JGE, (uint32_t)call[n / 2].nr, upper, to);
	}
	while (n-- > 0)
		to = jail_jump(p, BPF_JEQ, (uint32_t)call[n].nr, rule[call[n].rule], to);
	return to;
}

static bool jail_has_rule(const struct jail_table *t, enum jail_rule rule)
{
	for (unsigned i = 0; i < t->n; i++)
		if (t->call[i].rule == rule)
			return true;
	return false;
}

static void jail_build(struct jail_program *p, const struct jail_table *t)
{
	unsigned rule[JAIL_RULES], allow, trap, kill, start;

	p->first = JAIL_MAX_INSNS;
	kill = jail_return(p, SECCOMP_RET_KILL_PROCESS);
	trap = jail_return(p, SECCOMP_RET_TRAP);
	allow = jail_return(p, SECCOMP_RET_ALLOW);
	for (unsigned i = 0; i < JAIL_RULES; i++)
		rule[i] = jail_has_rule(t, i) ? jail_emit_rule(p, i, allow, trap) : trap;
	jail_search(p, t->call, t->n, rule, trap);
	start = jail_load(p, offsetof(struct seccomp_data, nr));
	jail_jump(p, BPF_JEQ, AUDIT_ARCH_X86_64, start, kill);
	jail_load(p, offsetof(struct seccomp_data, arch));
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

void jail_setup_trap(void (*on_trap)(int nr))
{
	struct sigaction sa = { .sa_sigaction = jail_on_trap, .sa_flags = SA_SIGINFO };

	jail_trap_hook = on_trap;
	sigaction(SIGSYS, &sa, NULL);
}

int jail_install_filter(enum jail_who who, struct err *e)
{
	struct jail_program p;
	struct sock_fprog prog;

	jail_build(&p, who == JAIL_FILES ? &jail_files : &jail_machine);
	prog.filter = p.insn + p.first;
	prog.len = (unsigned short)(JAIL_MAX_INSNS - p.first);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		return err_set(e, -errno, "jail: seccomp: %m");
	return 0;
}
