/* kvm.h - /dev/kvm: capabilities, one VM, its memory slots and event descriptors. KVM api.rst.
 *
 * Order of creation is not a matter of taste. On Linux 6.18 an in-kernel irqchip or an ioeventfd that
 * exists before the first memory slot makes KVM_SET_USER_MEMORY_REGION wait two jiffies (7.6 ms at
 * HZ=250), and an in-kernel PIC, IOAPIC or PIT makes closing the VM take 16 ms. Hence, always:
 *
 *   CREATE_VM -> memory slots -> split irqchip -> vCPUs -> CPUID -> state -> ioeventfds last
 *
 * tests/unit/vmm/test_kvm_order.c watches the system calls of a real clone for exactly that. */
#pragma once

#include <linux/kvm.h>

#include "vmm/gmem.h"

struct kvm {
	int fd;     /* /dev/kvm */
	int vm_fd;
	size_t run_bytes;    /* size of struct kvm_run's mapping */
	size_t xsave_bytes;  /* KVM_GET_XSAVE2 buffer; 4096 where only KVM_GET_XSAVE exists */
	bool has_xcrs, has_xsave2, has_tsc_control, has_deadline;
	bool tracks_writes;  /* for kvm_written(); set before kvm_create_vm() */
};

/* Take an open /dev/kvm and check that this host has what we need; vm_fd is -1 then. The error names
 * what is missing. kvm_fini() closes both. */
INTERNAL MUST_USE int kvm_init(struct kvm *k, int kvm_fd, struct err *e);
INTERNAL void kvm_fini(struct kvm *k);

/* CREATE_VM, memory slots, split irqchip with `pins` IOAPIC pins. windows: LAYOUT_SLOT_PAGES pages which the
 * guest reads at LAYOUT_SLOT_BASE, while what it writes there is MMIO (api.rst 4.35, KVM_MEM_READONLY);
 * NULL: none. */
INTERNAL MUST_USE int kvm_create_vm(struct kvm *k, const struct gmem *mem, void *windows, unsigned pins,
				    struct err *e);

/* Set the bits (one for each page of mem, by page number of the memory file) of the pages that the guest
 * has written since creation, or since the last call (api.rst 4.8, KVM_GET_DIRTY_LOG). */
INTERNAL MUST_USE int kvm_written(const struct kvm *k, const struct gmem *mem, uint64_t *bits,
				  struct err *e);

/* ioctl that retries EINTR; -errno. For KVM_RUN use ioctl(2) itself. */
INTERNAL int kvm_ioctl(int fd, unsigned long request, void *arg);

/* 32-bit guest writes at gpa, whatever their value, become counts on fd (api.rst 4.59). */
INTERNAL MUST_USE int kvm_ioeventfd(const struct kvm *k, gpa_t gpa, int fd, bool assign);

/* Deliver one message-signalled interrupt (api.rst 4.71). Any thread. No routing table is needed for
 * interrupts that we raise ourselves, so a clone does not pay for one. */
INTERNAL void kvm_signal_msi(const struct kvm *k, uint32_t address_lo, uint32_t data);
