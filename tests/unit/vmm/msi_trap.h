/* msi_trap.h - sees the interrupts that are sent, where there is no KVM.
 *
 * kvm_signal_msi() is an ioctl. From msi_trap_install() on that one request is trapped by seccomp in
 * this process, written down and answered with success; vm_fd may be any number. */
#pragma once

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "tests/unit/test.h"

static struct {
	unsigned n;
	struct kvm_msi msi[64];
} msi_trap;

static void msi_trap_handler(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig, (void)info;
	if (msi_trap.n < ARRAY_LEN(msi_trap.msi))
		msi_trap.msi[msi_trap.n] = *(const struct kvm_msi *)r[REG_RDX];
	msi_trap.n++;
	r[REG_RAX] = 1;
}

static inline void msi_trap_install(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KVM_SIGNAL_MSI, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { ARRAY_LEN(code), code };
	struct sigaction sa = { .sa_sigaction = msi_trap_handler, .sa_flags = SA_SIGINFO };

	CHECK_EQ(sigaction(SIGSYS, &sa, NULL), 0);
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}
