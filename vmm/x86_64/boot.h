/* boot.h - put a kernel into guest memory and a CPU at its door.
 *
 * Linux 64-bit boot protocol (Documentation/x86/boot.rst section 1.15): long mode, paging on with an
 * identity map, RSI = zero page. No firmware, no ACPI, no PCI; CPUs and the IOAPIC are described by an
 * MP table (Intel MultiProcessor Specification 1.4). Writes guest memory directly: no vCPU runs yet. */
#pragma once

#include "vmm/ctl.h"
#include "vmm/kvm.h"

struct boot_entry {
	uint64_t rip;
};

/* Load kernel, initramfs, command line, zero page, MP table for max_vcpus CPUs, page tables, GDT.
 * -EPROTO: not a packed kernel; -ENOMEM: does not fit; -E2BIG: command line too long. */
INTERNAL MUST_USE int boot_load(const struct gmem *m, const struct ctl_image *img,
				const char *cmdline, unsigned max_vcpus, struct boot_entry *out,
				struct err *e);

/* Registers of the first CPU at the 64-bit entry point. */
INTERNAL MUST_USE int boot_set_registers(int vcpu_fd,
					 const struct boot_entry *entry, struct err *e);
