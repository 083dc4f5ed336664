#include <sys/wait.h>

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "tests/unit/test.h"
#include "vmm/jail/jail.h"

/* --- the program, read ------------------------------------------------------------------------- */

static unsigned tjail_steps; /* instructions since somebody set it to 0 */

/* What the program says to one system call: classic BPF over struct seccomp_data, with every load and
 * jump checked. seccomp(2), "Filters"; Documentation/networking/filter.rst. */
static uint32_t tjail_verdict(const struct jail_program *p, const struct seccomp_data *d)
{
	uint32_t a = 0;

	for (unsigned at = p->first; at < JAIL_MAX_INSNS; at++, tjail_steps++) {
		const struct sock_filter *f = &p->insn[at];
		bool taken;

		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			CHECK(f->k % 4 == 0 && f->k + 4 <= sizeof *d);
			memcpy(&a, (const char *)d + f->k, 4);
			continue;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= f->k;
			continue;
		case BPF_RET | BPF_K:
			return f->k;
		case BPF_JMP | BPF_JEQ | BPF_K:
			taken = a == f->k;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			taken = a >= f->k;
			break;
		case BPF_JMP | BPF_JSET | BPF_K:
			taken = a & f->k;
			break;
		default:
			test_fail(__FILE__, __LINE__, "instruction %u has code %#x", at, f->code);
		}
		at += taken ? f->jt : f->jf;
	}
	test_fail(__FILE__, __LINE__, "the program runs off its end");
}

static uint32_t tjail_ask(int nr, uint64_t a0, uint64_t a1, uint64_t a2)
{
	const struct seccomp_data d = { .nr = nr, .arch = AUDIT_ARCH_X86_64, .args = { a0, a1, a2 } };
	struct jail_program p;

	jail_build(&p, &jail_machine);
	return tjail_verdict(&p, &d);
}

TEST(jail_every_jump_lands_inside_the_program)
{
	struct jail_program p;

	jail_build(&p, &jail_machine);
	CHECK(p.first < JAIL_MAX_INSNS - 50);
	for (unsigned at = p.first; at < JAIL_MAX_INSNS; at++) {
		const struct sock_filter *f = &p.insn[at];
		test_note("instruction %u", at);
		if (BPF_CLASS(f->code) == BPF_JMP)
			CHECK(at + 1 + MAX(f->jt, f->jf) < JAIL_MAX_INSNS);
	}
	CHECK_EQ(BPF_CLASS(p.insn[JAIL_MAX_INSNS - 1].code), BPF_RET);
}

TEST(jail_every_instruction_can_be_reached)
{
	struct jail_program p;
	bool reached[JAIL_MAX_INSNS] = { false };

	jail_build(&p, &jail_machine);
	reached[p.first] = true;
	for (unsigned at = p.first; at < JAIL_MAX_INSNS; at++) {
		const struct sock_filter *f = &p.insn[at];
		test_note("instruction %u", at);
		CHECK(reached[at]);
		if (BPF_CLASS(f->code) == BPF_JMP)
			reached[at + 1 + f->jt] = reached[at + 1 + f->jf] = true;
		else if (BPF_CLASS(f->code) != BPF_RET)
			reached[at + 1] = true;
	}
}

/* The search relies on it; and so no call is there twice. */
TEST(jail_has_its_calls_in_the_order_of_their_numbers)
{
	for (unsigned i = 1; i < ARRAY_LEN(jail_calls); i++) {
		test_note("system calls %d, %d", jail_calls[i - 1].nr, jail_calls[i].nr);
		CHECK(jail_calls[i - 1].nr < jail_calls[i].nr);
	}
}

TEST(jail_has_no_ioctl_twice)
{
	for (unsigned i = 0; i < ARRAY_LEN(jail_ioctls); i++)
		for (unsigned k = i + 1; k < ARRAY_LEN(jail_ioctls); k++)
			CHECK(jail_ioctls[i] != jail_ioctls[k]);
}

TEST(jail_kills_calls_of_another_architecture)
{
	static const uint32_t arch[] = { AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, 0, ~0u };
	struct jail_program p;

	jail_build(&p, &jail_machine);
	for (unsigned i = 0; i < ARRAY_LEN(arch); i++)
		for (int nr = 0; nr < 512; nr++) {
			const struct seccomp_data d = { .nr = nr, .arch = arch[i] };
			CHECK_EQ(tjail_verdict(&p, &d), SECCOMP_RET_KILL_PROCESS);
		}
}

static const struct jail_call *tjail_row(int nr)
{
	for (unsigned i = 0; i < ARRAY_LEN(jail_calls); i++)
		if (jail_calls[i].nr == nr)
			return &jail_calls[i];
	return NULL;
}

/* The kernel walks the program for every call there is when a clone installs it. */
TEST(jail_takes_few_steps_unless_it_looks_at_arguments)
{
	struct jail_program p;

	jail_build(&p, &jail_machine);
	for (int nr = 0; nr < 512; nr++) {
		const struct jail_call *row = tjail_row(nr);
		const struct seccomp_data d = { .nr = nr, .arch = AUDIT_ARCH_X86_64 };

		test_note("system call %d", nr);
		tjail_steps = 0;
		CHECK(tjail_verdict(&p, &d) != SECCOMP_RET_KILL_PROCESS);
		if (!row || row->rule == JAIL_ANY)
			CHECK(tjail_steps <= 12);
	}
}

TEST(jail_traps_every_call_that_is_not_in_the_table)
{
	struct jail_program p;

	jail_build(&p, &jail_machine);
	for (int nr = -2; nr < 1024; nr++) {
		const struct jail_call *row = tjail_row(nr);
		/* x32 calls carry bit 30 (arch/x86/entry/syscalls) */
		const struct seccomp_data d = { .nr = nr, .arch = AUDIT_ARCH_X86_64 },
					  x32 = { .nr = nr | 0x40000000, .arch = AUDIT_ARCH_X86_64 };
		test_note("system call %d", nr);
		if (!row)
			CHECK_EQ(tjail_verdict(&p, &d), SECCOMP_RET_TRAP);
		else if (row->rule == JAIL_ANY)
			CHECK_EQ(tjail_verdict(&p, &d), SECCOMP_RET_ALLOW);
		CHECK_EQ(tjail_verdict(&p, &x32), SECCOMP_RET_TRAP);
	}
}

/* A table may be changed in good faith: these must not come in. */
TEST(jail_has_no_way_to_a_file_a_network_or_a_process)
{
	static const int nr[] = {
		SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_open_by_handle_at, SYS_open_tree,
		SYS_socket, SYS_connect, SYS_bind, SYS_listen, SYS_execve, SYS_execveat, SYS_fork,
		SYS_vfork, SYS_clone3, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev,
		SYS_pidfd_getfd, SYS_pidfd_open, SYS_kill, SYS_tgkill, SYS_mount, SYS_umount2,
		SYS_pivot_root, SYS_chroot, SYS_chdir, SYS_fchdir, SYS_mkdir, SYS_mkdirat, SYS_mknod,
		SYS_mknodat, SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat, SYS_rename, SYS_renameat2,
		SYS_unlink, SYS_unlinkat, SYS_chmod, SYS_fchmod, SYS_chown, SYS_fchown, SYS_setuid,
		SYS_setgid, SYS_setresuid, SYS_setresgid, SYS_setns, SYS_unshare, SYS_capset, SYS_prctl,
		SYS_seccomp, SYS_bpf, SYS_perf_event_open, SYS_io_uring_setup, SYS_io_uring_enter,
		SYS_userfaultfd, SYS_memfd_create, SYS_init_module, SYS_finit_module, SYS_kexec_load,
		SYS_keyctl, SYS_add_key, SYS_request_key, SYS_rt_sigaction, SYS_sigaltstack,
		SYS_arch_prctl, SYS_personality, SYS_pkey_mprotect, SYS_shmat, SYS_name_to_handle_at,
		SYS_ioperm, SYS_iopl, SYS_modify_ldt, SYS_reboot, SYS_swapon, SYS_quotactl,
	};

	for (unsigned i = 0; i < ARRAY_LEN(nr); i++) {
		test_note("system call %d", nr[i]);
		CHECK_EQ(tjail_ask(nr[i], 0, 0, 0), SECCOMP_RET_TRAP);
		CHECK_EQ(tjail_ask(nr[i], ~UINT64_C(0), ~UINT64_C(0), ~UINT64_C(0)), SECCOMP_RET_TRAP);
	}
}

TEST(jail_passes_the_ioctls_of_its_table_and_no_other)
{
	for (unsigned i = 0; i < ARRAY_LEN(jail_ioctls); i++) {
		test_note("ioctl %#x", jail_ioctls[i]);
		CHECK_EQ(tjail_ask(SYS_ioctl, 5, jail_ioctls[i], 0), SECCOMP_RET_ALLOW);
		/* the kernel looks at 32 bits of the request, and so does the filter */
		CHECK_EQ(tjail_ask(SYS_ioctl, 5, jail_ioctls[i] | UINT64_C(1) << 32, 0),
			 SECCOMP_RET_ALLOW);
		for (unsigned bit = 0; bit < 32; bit++) {
			uint32_t other = jail_ioctls[i] ^ 1u << bit;
			bool listed = (other & JAIL_IOCTL_TYPE) == JAIL_IOCTL_VHOST;
			for (unsigned k = 0; k < ARRAY_LEN(jail_ioctls); k++)
				listed |= jail_ioctls[k] == other;
			CHECK_EQ(tjail_ask(SYS_ioctl, 5, other, 0),
				 listed ? SECCOMP_RET_ALLOW : SECCOMP_RET_TRAP);
		}
	}
	CHECK_EQ(tjail_ask(SYS_ioctl, 5, 0xaf01 /* VHOST_SET_OWNER */, 0), SECCOMP_RET_ALLOW);
	CHECK_EQ(tjail_ask(SYS_ioctl, 5, TIOCSTI, 0), SECCOMP_RET_TRAP);
	CHECK_EQ(tjail_ask(SYS_ioctl, 5, KVM_CREATE_IRQCHIP, 0), SECCOMP_RET_TRAP);
	CHECK_EQ(tjail_ask(SYS_ioctl, 5, KVM_CREATE_PIT2, 0), SECCOMP_RET_TRAP);
	CHECK_EQ(tjail_ask(SYS_ioctl, 5, KVM_CREATE_DEVICE, 0), SECCOMP_RET_TRAP);
}

TEST(jail_looks_at_the_arguments_that_matter)
{
	static const struct {
		int nr;
		uint64_t a0, a1, a2;
		bool ok;
	} row[] = {
		{ SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, true },
		{ SYS_mmap, 0, 4096, PROT_NONE, true },
		{ SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, false },
		{ SYS_mmap, 0, 4096, PROT_EXEC, false },
		{ SYS_mmap, 0, 4096, 0xffffffff, false },
		{ SYS_mprotect, 0, 4096, PROT_READ, true },
		{ SYS_mprotect, 0, 4096, PROT_READ | PROT_EXEC, false },
		{ SYS_clone, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND, 0, 0, true },
		{ SYS_clone, SIGCHLD, 0, 0, false },
		{ SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, false },
		{ SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, false },
		{ SYS_clone, (uint64_t)CLONE_THREAD << 32, 0, 0, false },
		/* A datagram socket, be it from a pair, sends to whatever name it is told. */
		{ SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, false },
		{ SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, false },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("row %u", i);
		CHECK_EQ(tjail_ask(row[i].nr, row[i].a0, row[i].a1, row[i].a2),
			 row[i].ok ? SECCOMP_RET_ALLOW : SECCOMP_RET_TRAP);
	}
}

/* --- the program, installed -------------------------------------------------------------------- */

static int tjail_pipe[2];

static void tjail_report(int nr)
{
	(void)!write(tjail_pipe[1], &nr, sizeof nr);
}

/* Make one system call in a child under the filter. Returns its wait status; *trapped is the number
 * the handler was given, -1 if it did not run. */
static int tjail_try(long nr, long a0, long a1, long a2, long a3, int *trapped)
{
	int status;
	pid_t pid;

	CHECK_EQ(pipe2(tjail_pipe, O_NONBLOCK), 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct err e = { 0 };
		jail_setup_trap(tjail_report);
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		    jail_install_filter(JAIL_MACHINE, &e) < 0)
			syscall(SYS_exit_group, 99);
		syscall(nr, a0, a1, a2, a3, 0, 0);
		syscall(SYS_exit_group, 0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (read(tjail_pipe[0], trapped, sizeof *trapped) != sizeof *trapped)
		*trapped = -1;
	close(tjail_pipe[0]);
	close(tjail_pipe[1]);
	return status;
}

TEST(jail_ends_the_process_at_a_forbidden_call_and_names_it)
{
	static const char path[] = "/dev/null";
	const struct {
		long nr, a0, a1, a2, a3;
	} row[] = {
		{ SYS_open, (long)path, O_RDONLY, 0, 0 },
		{ SYS_openat, AT_FDCWD, (long)path, O_RDONLY, 0 },
		{ SYS_socket, AF_INET, SOCK_STREAM, 0, 0 },
		{ SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0 },
		{ SYS_execve, (long)path, 0, 0, 0 },
		{ SYS_fork, 0, 0, 0, 0 },
		{ SYS_vfork, 0, 0, 0, 0 },
		{ SYS_clone, SIGCHLD, 0, 0, 0 },
		{ SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS },
		{ SYS_ioctl, 0, TIOCSTI, 0, 0 },
		{ SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0 },
		{ SYS_rt_sigaction, SIGSYS, 0, 0, 8 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		int trapped, status = tjail_try(row[i].nr, row[i].a0, row[i].a1, row[i].a2, row[i].a3,
						&trapped);
		test_note("system call %ld", row[i].nr);
		CHECK_EQ(trapped, row[i].nr);
		/* A sanitizer's _exit() makes calls of its own, and ends by the second trap. */
		CHECK(status == W_EXITCODE(128 + SIGSYS, 0) || status == SIGSYS);
	}
}

TEST(jail_lets_allowed_calls_through)
{
	const struct {
		long nr, a0, a1, a2, a3;
	} row[] = {
		{ SYS_read, -1, 0, 0, 0 },
		{ SYS_getpid, 0, 0, 0, 0 },
		{ SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS },
		{ SYS_eventfd2, 0, 0, 0, 0 },
		{ SYS_ioctl, -1, KVM_RUN, 0, 0 },
		{ SYS_ioctl, -1, KVM_SET_USER_MEMORY_REGION, 0, 0 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		int trapped, status = tjail_try(row[i].nr, row[i].a0, row[i].a1, row[i].a2, row[i].a3,
						&trapped);
		test_note("system call %ld", row[i].nr);
		CHECK_EQ(trapped, -1);
		CHECK_EQ(status, 0);
	}
}

TEST(jail_says_why_the_filter_could_not_be_installed)
{
	struct err e = { 0 };
	int status;
	pid_t pid;

	if (getuid() == 0 && setresuid(65534, 65534, 65534) < 0)
		test_fail(__FILE__, __LINE__, "setresuid: %s", strerror(errno));
	fflush(stdout);
	pid = fork();
	if (pid == 0) /* neither CAP_SYS_ADMIN nor no_new_privs: seccomp(2) */
		_exit(jail_install_filter(JAIL_MACHINE, &e) == -EACCES &&
		      strstr(e.msg, "jail: seccomp: ") ? 0 : 1);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}
