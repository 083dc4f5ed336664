/* slot.h - virtio-mmio windows the machine fills while we run: bind, find the device, unbind.
 *
 * Windows are declared on the kernel command line and numbered from 0. Writing "virtio-mmio.K" to
 * the driver's bind file makes the kernel probe window K now, in that write(2); PROTOCOL.agent
 * section 6. Source: drivers/virtio/virtio_mmio.c, drivers/base/bus.c. */
#pragma once

#include "amalgam/base/err.h"

#define GA_SLOT_MAX 255

/* "slot:K" or "virtio-mmio.K" -> K; -1 if it is neither. */
INTERNAL int ga_slot_parse(const char *name);

/* Success also when it is bound already. *was_bound tells. */
INTERNAL MUST_USE int ga_slot_bind(unsigned slot, bool *was_bound, struct err *e);
INTERNAL void ga_slot_unbind(unsigned slot);

/* Name of the slot's device of a class ("block" -> "vda", "net" -> "eth0"), or -EAGAIN while there
 * is none. */
INTERNAL MUST_USE int ga_slot_device(unsigned slot, const char *class, char *name, size_t size);
