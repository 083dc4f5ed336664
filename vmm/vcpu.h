/* vcpu.h - virtual CPUs: one thread each, the KVM_RUN loop, parking.
 *
 * A vCPU thread runs the guest until its machine wants it parked or the guest is over. Parking uses
 * immediate_exit: it is set before the kick signal, so a thread between its check and KVM_RUN comes
 * straight back out (api.rst 5, "immediate_exit"). KVM_RUN with immediate_exit set also completes the
 * I/O of the last exit, so a parked vCPU's registers are final and may be saved. */
#pragma once

#include <pthread.h>

#include "vmm/kvm.h"

struct vmm;

struct vcpu {
	struct vmm *vmm;
	unsigned index; /* = APIC id */
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool started;
	bool parked; /* under vmm->gate */
};

/* Create vCPU `index` in KVM; no thread yet. */
INTERNAL MUST_USE int vcpu_init(struct vcpu *v, struct vmm *vmm, unsigned index, struct err *e);
/* Start its thread, which lives as long as the process; it parks at once if the machine is not running. */
INTERNAL MUST_USE int vcpu_start(struct vcpu *v, struct err *e);
/* Make KVM_RUN return soon. */
INTERNAL void vcpu_kick(struct vcpu *v);

/* Process-wide: the signal that interrupts KVM_RUN gets a handler that does nothing. */
INTERNAL void vcpu_setup_signals(void);
