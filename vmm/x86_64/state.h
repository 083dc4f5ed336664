/* state.h - everything a vCPU is, out of KVM and back in. KVM api.rst section 4.
 *
 * One table lists the register classes; saving walks it in one order, restoring in another, because
 * setting some of them disturbs others. The reasons stand beside the rows of vstate_restore_order. */
#pragma once

#include "amalgam/base/buf.h"
#include "vmm/x86_64/cpuid.h"

/* The vCPU is not running and finished its last exit (immediate_exit; api.rst 5). Appends to out. */
INTERNAL MUST_USE int vstate_save(const struct kvm *k, int vcpu_fd, struct buf *out, struct err *e);

/* `in` is what vstate_save() wrote; hostile. CPUID is checked against the host and loaded with APIC id
 * `index`. Refusals are -EPROTO (malformed) or -ENOTSUP (this host cannot). */
INTERNAL MUST_USE int vstate_restore(const struct kvm *k, int vcpu_fd, unsigned index,
				     struct cur in, struct err *e);

/* Only the parts a freshly brought-up secondary CPU shares with vCPU 0: CPUID and the TSC. It waits
 * for the guest's startup IPI as after power-on. */
INTERNAL MUST_USE int vstate_restore_parked(const struct kvm *k, int vcpu_fd, unsigned index,
					    struct cur in, struct err *e);
