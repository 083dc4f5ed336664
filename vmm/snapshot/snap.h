/* snap.h - the state file: what a machine is, besides its memory.
 *
 *   header    magic "SPORESNP", u32 version, u32 arch, u64 file length, u32 CRC-32C of everything
 *             from the fingerprint on, u32 number of sections, fingerprint[32]
 *   section   u32 tag, u32 instance, u64 length, payload, zero padding to 8 bytes
 *
 * Everything little-endian. A reader refuses another magic, version or architecture, a length that
 * is not the file's, a wrong sum and a foreign fingerprint, each with its own words; the sum guards
 * against damage, not against malice, so what is inside is checked again by whoever uses it. Any
 * change of a payload's layout raises SNAP_VERSION: templates are rebuilt, not converted. */
#pragma once

#include "amalgam/base/buf.h"
#include "amalgam/base/err.h"

#define SNAP_VERSION     4u
#define SNAP_ARCH_X86_64 0x3eu /* ELF's number for it */
#define SNAP_FINGERPRINT 32
#define SNAP_MAX_BYTES   MIB(16)
#define SNAP_MAX_SECTIONS 128 /* a vCPU and a slot each, and a handful */

enum snap_tag {
	SNAP_MACHINE = 1, /* u64 memory bytes, u32 vCPUs, u32 max vCPUs */
	SNAP_CLOCK = 2,   /* struct kvm_clock_data */
	SNAP_VCPU = 3,    /* instance = index; x86_64/state.c */
	SNAP_IOAPIC = 4,
	SNAP_CPUID = 6,   /* what the guest's CPUs are; x86_64/cpuid.c */
	SNAP_SLOT = 5,    /* instance = slot; u32 device id, then slots_save_one() */
	SNAP_MEMORY = 7,  /* which pages of the memory file are data: snapmem_list() */
};

/* Writing: begin, any number of sections, finish. */
struct snap_writer {
	struct buf *out;
	uint32_t sections;
	size_t open_at; /* where the open section's header is */
};
INTERNAL void snap_begin(struct snap_writer *w, struct buf *out,
			 const uint8_t fingerprint[SNAP_FINGERPRINT]);
INTERNAL void snap_open(struct snap_writer *w, enum snap_tag tag, uint32_t instance);
INTERNAL void snap_close(struct snap_writer *w);
INTERNAL void snap_finish(struct snap_writer *w);

/* Reading: borrows the bytes. want may be NULL: any fingerprint will do. */
struct snap {
	const uint8_t *body, *end;
	uint32_t sections;
};
INTERNAL MUST_USE int snap_parse(struct snap *s, const void *bytes, size_t n,
				 const uint8_t *want, struct err *e);
/* A section's payload; false when there is none. */
INTERNAL bool snap_find(const struct snap *s, enum snap_tag tag, uint32_t instance,
			struct cur *out);
