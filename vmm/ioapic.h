/* ioapic.h - a small edge-only IOAPIC of ours. Intel 82093AA data sheet, sections 3.1 and 3.2.
 *
 * With the split irqchip KVM has the local APICs and we have this: a redirection table that turns a
 * pin into a message (KVM_SIGNAL_MSI). Only edge interrupts exist on this machine (virtio-mmio and the
 * UART; the MP table says so), therefore no EOI has to come back and level programming is treated as
 * edge. A pin raised while masked is remembered once and delivered when it is unmasked.
 *
 * Any thread; one lock inside. */
#pragma once

#include <pthread.h>

#include "amalgam/base/buf.h"
#include "vmm/kvm.h"
#include "vmm/layout.h"

struct ioapic {
	pthread_mutex_t lock;
	const struct kvm *kvm;
	uint32_t select;                /* IOREGSEL */
	uint32_t id;                    /* IOAPICID, bits 27:24 */
	uint64_t redir[LAYOUT_PINS];    /* IOREDTBL, writable bits only */
	bool pending[LAYOUT_PINS];      /* raised while masked */
};

INTERNAL void ioapic_init(struct ioapic *a, const struct kvm *kvm);
INTERNAL void ioapic_raise(struct ioapic *a, unsigned pin);
/* Guest access to the 4 KiB page at LAYOUT_IOAPIC. */
INTERNAL void ioapic_mmio(struct ioapic *a, uint32_t offset, uint8_t *data, uint32_t len, bool write);

INTERNAL void ioapic_save(struct ioapic *a, struct buf *out);
/* 0 or -EPROTO. The bytes are hostile; bits a guest could not have set are dropped. */
INTERNAL MUST_USE int ioapic_restore(struct ioapic *a, struct cur *in);
