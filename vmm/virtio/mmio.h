/* mmio.h - the virtio-mmio register file of one slot. virtio 1.2 section 4.2.2, version 2.
 *
 * Every register has a row in vmmio_regs saying who may touch it when; what the row does not allow
 * is ignored (a write) or reads 0. Queue registers act only between FEATURES_OK and DRIVER_OK and
 * are latched when the driver sets QueueReady (what went wrong in CVE-2026-5747). */
#pragma once

#include "vmm/virtio/slots.h"

/* Device status bits, section 2.1. */
#define VMMIO_S_ACKNOWLEDGE UINT32_C(1)
#define VMMIO_S_DRIVER      UINT32_C(2)
#define VMMIO_S_DRIVER_OK   UINT32_C(4)
#define VMMIO_S_FEATURES_OK UINT32_C(8)
#define VMMIO_S_NEEDS_RESET UINT32_C(64)
#define VMMIO_S_FAILED      UINT32_C(128)

/* InterruptStatus bits, section 4.2.2. */
#define VMMIO_INT_VRING  UINT32_C(1)
#define VMMIO_INT_CONFIG UINT32_C(2)

#define VMMIO_REG_NOTIFY UINT32_C(0x050)

/* One access at `offset` of slot s's window; the caller holds s->lock. Reads fill data. */
INTERNAL void vmmio_access(struct slot *s, uint32_t offset, uint8_t *data, uint32_t len, bool write);

/* Bring the page that the guest reads (slots.h) up to date, after any change of what registers or
 * configuration space say. Lock held. */
INTERNAL void vmmio_show(struct slot *s);

/* Driver reset (Status = 0): also used when the slot is emptied. Lock held. */
INTERNAL void vmmio_reset(struct slot *s);

/* All features of the device in s, transport's included. */
INTERNAL uint64_t vmmio_features(struct slot *s);

/* May the driver have FEATURES_OK with what it asked for? */
INTERNAL bool vmmio_features_ok(struct slot *s);

/* Process one queue notification; loop thread, lock held. */
INTERNAL void vmmio_kick(struct slot *s, unsigned q);
