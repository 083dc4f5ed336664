/* layout.h - the guest physical map, x86-64.
 *
 *   0x0000_0472  BIOS warm-boot word: how the guest tells a panic from a reboot (vcpu.c)
 *   0x0000_0500  GDT for the 64-bit entry
 *   0x0000_7000  zero page (struct boot_params)
 *   0x0000_9000  PML4, PDPT, PD: 1 GiB identity, 2 MiB pages
 *   0x0002_0000  kernel command line
 *   0x0009_e000  MP table; floating pointer at 0x9_fc00, where Linux looks (not in the e820 map)
 *   0x0100_0000  kernel, where its program headers say
 *   ...          initramfs, as high in low RAM as it fits
 *   0xc000_0000  end of low RAM; the MMIO hole begins
 *   0xd000_0000  virtio-mmio slots, 4 KiB each
 *   0xfec0_0000  IOAPIC      0xfee0_0000  local APIC
 *   0x1_0000_0000  high RAM */
#pragma once

#include "amalgam/base/base.h"

#define LAYOUT_WARM_BOOT  UINT64_C(0x472)
#define LAYOUT_GDT        UINT64_C(0x500)
#define LAYOUT_ZERO_PAGE  UINT64_C(0x7000)
#define LAYOUT_PAGE_TABLE UINT64_C(0x9000)
#define LAYOUT_CMDLINE    UINT64_C(0x20000)
#define LAYOUT_CMDLINE_MAX 2048
#define LAYOUT_MP_TABLE   UINT64_C(0x9e000) /* end of conventional memory as the guest sees it */
#define LAYOUT_MP_FLOAT   UINT64_C(0x9fc00)
#define LAYOUT_HIMEM      UINT64_C(0x100000)
#define LAYOUT_HOLE_START UINT64_C(0xc0000000)
#define LAYOUT_HOLE_END   UINT64_C(0x100000000)
#define LAYOUT_SLOT_BASE  UINT64_C(0xd0000000)
#define LAYOUT_SLOT_BYTES UINT64_C(0x1000)
#define LAYOUT_IOAPIC     UINT64_C(0xfec00000)
#define LAYOUT_LAPIC      UINT64_C(0xfee00000)

#define LAYOUT_SLOTS   32 /* virtio-mmio windows declared on the command line */
#define LAYOUT_SLOT_PAGES 8 /* the first of them are read without leaving the guest (virtio/slots.h) */
#define LAYOUT_SLOT_GSI 16 /* interrupt pin of slot 0; 0-15 stay free of ISA ideas */
#define LAYOUT_COM1_GSI 4
#define LAYOUT_PINS    (LAYOUT_SLOT_GSI + LAYOUT_SLOTS)

#define LAYOUT_MAX_VCPUS 64
#define LAYOUT_MIN_MEM   MIB(64)
#define LAYOUT_MAX_MEM   GIB(64)
#define LAYOUT_TSS        UINT64_C(0xfffbd000) /* 3 pages, Intel without unrestricted guest */
#define LAYOUT_IDENT_MAP  UINT64_C(0xfffbc000)
