/* selftest.c - see vmm_selftest() in vmm/ctl.h.
 *
 * The guest is one page of code under an identity map. Ring 3 executes SYSCALL; KVM must take it to
 * LSTAR in ring 0, where a port write says so. An emulated KVM that stays in ring 3 faults instead,
 * and with no IDT that is a triple fault. */
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "vmm/ctl.h"
#include "amalgam/base/buf.h"
#include "vmm/x86_64/cpuid.h"

extern const uint8_t selftest_user[], selftest_entry[], selftest_end[];

#define SELFTEST_CODE   0x1000
#define SELFTEST_TABLES 0x2000
#define SELFTEST_PORT   0x99
#define SELFTEST_MS     500
#define SELFTEST_CS0    0x08
#define SELFTEST_CS3    0x23 /* SYSRET base 0x10 + 16, RPL 3 */

#define SELFTEST_MSR_STAR  0xc0000081
#define SELFTEST_MSR_LSTAR 0xc0000082

static void selftest_fill_memory(const struct gmem *m)
{
	uint64_t *t = gmem_span(m, SELFTEST_TABLES, 3 * GMEM_PAGE);
	size_t n = (size_t)(selftest_end - selftest_user);

	/* PML4, PDPT, PD: one 2 MiB page, present, writable, for ring 3 too. */
	t[0] = (SELFTEST_TABLES + 0x1000) | 7;
	t[512] = (SELFTEST_TABLES + 0x2000) | 7;
	t[1024] = 0x87;
	memcpy(gmem_span(m, SELFTEST_CODE, n), selftest_user, n);
}

static int selftest_set_registers(int vcpu)
{
	struct kvm_segment code = { .limit = 0xffffffff, .selector = SELFTEST_CS3, .type = 0xb,
				    .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = 0xffffffff, .selector = SELFTEST_CS3 - 8, .type = 0x3,
				    .present = 1, .dpl = 3, .s = 1, .db = 1, .g = 1 };
	struct kvm_regs regs = { .rip = SELFTEST_CODE, .rflags = 2, .rsp = SELFTEST_TABLES };
	struct { /* laid out as struct kvm_msrs wants it */
		uint32_t n, pad;
		struct kvm_msr_entry e[2];
	} msrs = {
		.n = 2,
		.e = { { .index = SELFTEST_MSR_STAR,
			 .data = (uint64_t)(SELFTEST_CS3 - 16) << 48 | (uint64_t)SELFTEST_CS0 << 32 },
		       { .index = SELFTEST_MSR_LSTAR,
			 .data = SELFTEST_CODE + (uint64_t)(selftest_entry - selftest_user) } },
	};
	struct kvm_sregs s;
	int r = kvm_ioctl(vcpu, KVM_GET_SREGS, &s);

	if (r < 0)
		return r;
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.idt.limit = 0;
	s.cr0 = 0x80000033;
	s.cr3 = SELFTEST_TABLES;
	s.cr4 = 0x20;
	s.efer = 0x501; /* LMA, LME, SCE */
	if ((r = kvm_ioctl(vcpu, KVM_SET_SREGS, &s)) < 0 ||
	    (r = kvm_ioctl(vcpu, KVM_SET_REGS, &regs)) < 0)
		return r;
	r = kvm_ioctl(vcpu, KVM_SET_MSRS, &msrs);
	return r < 0 ? r : r == 2 ? 0 : -EINVAL;
}

static void selftest_on_alarm(int sig)
{
	(void)sig; /* makes KVM_RUN return */
}

/* One KVM_RUN that cannot last for ever. */
static int selftest_run(int vcpu)
{
	struct itimerval limit = { .it_value.tv_usec = SELFTEST_MS * 1000 }, off = { 0 };
	struct sigaction sa = { .sa_handler = selftest_on_alarm }, before;
	int r;

	sigaction(SIGALRM, &sa, &before);
	setitimer(ITIMER_REAL, &limit, NULL);
	r = ioctl(vcpu, KVM_RUN, NULL) < 0 ? -errno : 0;
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &before, NULL);
	return r;
}

static bool selftest_passed(const struct kvm_run *run)
{
	const uint8_t *al = (const uint8_t *)run + run->io.data_offset;

	return run->exit_reason == KVM_EXIT_IO && run->io.port == SELFTEST_PORT &&
	       *al == SELFTEST_CS0;
}

static int selftest_guest(struct kvm *k, int vcpu, struct err *e)
{
	struct cpuid_table cpu;
	struct kvm_run *run;
	int r;

	run = mmap(NULL, k->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return err_set(e, -errno, "/dev/kvm: map a vCPU: %m");
	if ((r = cpuid_supported(k, &cpu, e)) == 0 && (r = cpuid_load(&cpu, vcpu, 0, e)) == 0) {
		r = selftest_set_registers(vcpu);
		if (r == 0)
			r = selftest_run(vcpu);
		if (r < 0 || !selftest_passed(run))
			r = err_set(e, -ENODEV, "/dev/kvm cannot run an operating system here: a "
				    "guest's system call does not reach its kernel (emulated KVM?)");
	}
	munmap(run, k->run_bytes);
	return r;
}

int vmm_selftest(int kvm_fd, struct err *e)
{
	struct kvm k = { .fd = -1, .vm_fd = -1 };
	struct gmem m = { .fd = -1 };
	int vcpu = -1, r, fd = dup(kvm_fd);

	if (fd < 0)
		return err_set(e, -errno, "/dev/kvm: %m");
	if ((r = kvm_init(&k, fd, e)) == 0 && (r = gmem_init(&m, MIB(2), -1, GMEM_PRIVATE, e)) == 0 &&
	    (r = kvm_create_vm(&k, &m, NULL, 24, e)) == 0) {
		selftest_fill_memory(&m);
		vcpu = kvm_ioctl(k.vm_fd, KVM_CREATE_VCPU, NULL);
		r = vcpu < 0 ? err_set(e, vcpu, "KVM_CREATE_VCPU: %s", strerror(-vcpu)) :
			       selftest_guest(&k, vcpu, e);
	}
	if (vcpu >= 0)
		close(vcpu);
	kvm_fini(&k);
	gmem_fini(&m);
	return r;
}

int vmm_host_identity(int kvm_fd, struct buf *out, struct err *e)
{
	struct kvm k = { .fd = kvm_fd, .vm_fd = -1 };
	struct cpuid_table cpu;
	int r = cpuid_supported(&k, &cpu, e);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < cpu.n; i++) {
		struct kvm_cpuid_entry2 *c = &cpu.entry[i];
		/* What differs between two calls on one host: the APIC id of whichever CPU we run on. */
		if (c->function == 0xb || c->function == 0x1f || c->function == 0x8000001e)
			continue;
		if (c->function == 1)
			c->ebx &= 0x00ffffff;
		if (c->eax || c->ebx || c->ecx || c->edx)
			buf_add(out, c, offsetof(struct kvm_cpuid_entry2, padding));
	}
	return 0;
}
