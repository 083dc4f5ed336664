/* state.h - everything a vCPU is, out of KVM and back in. KVM api.rst section 4.
 *
 * One table lists the register classes; saving walks it in one order, restoring in another, because
 * setting some of them disturbs others. The reasons stand beside the rows of vstate_restore_order. */
#pragma once

#include "amalgam/base/buf.h"
#include "vmm/kvm.h"

/* The vCPU is not running and finished its last exit (immediate_exit; api.rst 5). Appends to out. */
INTERNAL MUST_USE int vstate_save(const struct kvm *k, int vcpu_fd, struct buf *out, struct err *e);

/* `in` is what vstate_save() wrote; hostile. CPUID has been loaded (it decides which MSRs, XCR0 bits and
 * LAPIC features are legal). Refusals are -EPROTO (malformed) or -ENOTSUP (this host cannot). */
INTERNAL MUST_USE int vstate_restore(const struct kvm *k, int vcpu_fd, unsigned index,
				     struct cur in, struct err *e);

/* Only what a freshly brought-up secondary CPU shares with vCPU 0: the TSC. It waits for the guest's
 * startup IPI as after power-on. */
INTERNAL MUST_USE int vstate_restore_parked(const struct kvm *k, int vcpu_fd, struct cur in,
					    struct err *e);
