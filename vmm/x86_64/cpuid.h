/* cpuid.h - what CPU the guest sees. Intel SDM volume 2A CPUID; AMD APM volume 3 appendix E;
 * Linux Documentation/virt/kvm/x86/cpuid.rst for the 0x4000_0000 leaves.
 *
 * Start from KVM_GET_SUPPORTED_CPUID and take away what a clone cannot carry (nested virtualization,
 * performance counters, async page faults). The table does not depend on how many vCPUs a sandbox
 * uses, only on how many it may ever have, so that one template fits them all. */
#pragma once

#include "vmm/kvm.h"

#define CPUID_MAX 128

struct cpuid_table {
	uint32_t n, pad;
	struct kvm_cpuid_entry2 entry[CPUID_MAX]; /* laid out as struct kvm_cpuid2 wants it */
};

/* The host's offer. */
INTERNAL MUST_USE int cpuid_supported(const struct kvm *k, struct cpuid_table *t, struct err *e);

/* Turn the host's offer into the guest's CPU; max_vcpus is a power of two's worth of APIC ids. */
INTERNAL void cpuid_for_guest(struct cpuid_table *t, const struct kvm *k, unsigned max_vcpus);

/* Write vCPU `index`'s APIC id into the leaves that carry it and load the table. */
INTERNAL MUST_USE int cpuid_load(const struct cpuid_table *t, int vcpu_fd, unsigned index,
				 struct err *e);

/* The table as bytes for a snapshot, and back. What was loaded is saved, not what KVM_GET_CPUID2 reads
 * back: some KVMs answer that with the physical CPU. -EPROTO: not such a table. */
struct buf;
struct cur;
INTERNAL void cpuid_save(const struct cpuid_table *t, struct buf *out);
INTERNAL MUST_USE int cpuid_restore(struct cpuid_table *t, struct cur in, struct err *e);

/* Does the host offer every feature bit a saved guest was shown? -ENOTSUP names the first leaf that
 * it does not. */
INTERNAL MUST_USE int cpuid_check_subset(const struct cpuid_table *guest,
					 const struct cpuid_table *host, struct err *e);
