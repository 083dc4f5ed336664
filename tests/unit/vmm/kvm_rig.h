/* kvm_rig.h - for tests that need a real /dev/kvm: machines made of nothing but a VM and its vCPUs.
 *
 * Without a usable /dev/kvm a test is skipped. Nothing here runs an operating system. */
#pragma once

#include <fcntl.h>
#include <sys/ioctl.h>

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"
#include "vmm/kvm.h"
#include "vmm/layout.h"
#include "vmm/x86_64/cpuid.h"

/* An open /dev/kvm, or the test is skipped. */
static inline int kvmr_open(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		test_skip("/dev/kvm: %s", strerror(errno));
	return fd;
}

/* One VM with 2 MiB of RAM and one vCPU that has the CPUID of a guest. */
struct kvmr {
	struct kvm k;
	struct gmem m;
	struct cpuid_table *cpu;
	int vcpu;
	struct kvm_run *run;
};

static inline void kvmr_init(struct kvmr *r)
{
	struct err e = { 0 };
	void *p;

	*r = (struct kvmr){ .vcpu = -1, .cpu = mem_zalloc(sizeof *r->cpu) };
	if (kvm_init(&r->k, kvmr_open(), &e) < 0)
		test_skip("%s", e.msg);
	CHECK_EQ(gmem_init(&r->m, MIB(2), -1, GMEM_PRIVATE, NULL), 0);
	if (kvm_create_vm(&r->k, &r->m, NULL, LAYOUT_PINS, &e) < 0)
		test_fail(__FILE__, __LINE__, "%s", e.msg);
	r->vcpu = kvm_ioctl(r->k.vm_fd, KVM_CREATE_VCPU, NULL);
	CHECK(r->vcpu >= 0);
	p = mmap(NULL, r->k.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->vcpu, 0);
	CHECK(p != MAP_FAILED);
	r->run = p;
	CHECK_EQ(cpuid_supported(&r->k, r->cpu, NULL), 0);
	cpuid_for_guest(r->cpu, &r->k, 1);
	CHECK_EQ(cpuid_load(r->cpu, r->vcpu, 0, NULL), 0);
}

static inline void kvmr_fini(struct kvmr *r)
{
	munmap(r->run, r->k.run_bytes);
	close(r->vcpu);
	kvm_fini(&r->k);
	gmem_fini(&r->m);
	free(r->cpu);
}

static inline bool kvmr_has(const struct kvmr *r, unsigned long cap)
{
	return kvm_ioctl(r->k.fd, KVM_CHECK_EXTENSION, (void *)cap) > 0;
}
