#include "vmm/x86_64/mptable.h"

#include "amalgam/base/buf.h"
#include "vmm/layout.h"

/* Section 4.1, MP floating pointer structure. */
struct PACKED mptable_float {
	char signature[4];
	uint32_t table;
	uint8_t length, spec_rev, checksum, features[5];
};

/* Section 4.2, configuration table header. */
struct PACKED mptable_header {
	char signature[4];
	uint16_t length;
	uint8_t spec_rev, checksum;
	char oem_id[8], product_id[12];
	uint32_t oem_table;
	uint16_t oem_table_size, entry_count;
	uint32_t lapic;
	uint16_t ext_length;
	uint8_t ext_checksum, reserved;
};

/* Sections 4.3.1 to 4.3.5, entries. */
struct PACKED mptable_cpu {
	uint8_t type, apic_id, apic_version, flags;
	uint32_t signature, features, reserved[2];
};
struct PACKED mptable_bus {
	uint8_t type, bus_id;
	char bus_type[6];
};
struct PACKED mptable_ioapic {
	uint8_t type, id, version, flags;
	uint32_t address;
};
struct PACKED mptable_int {
	uint8_t type, int_type;
	uint16_t flags;
	uint8_t src_bus, src_irq, dst_apic, dst_pin;
};

enum { MPTABLE_CPU, MPTABLE_BUS, MPTABLE_IOAPIC, MPTABLE_IOINT, MPTABLE_LINT };

#define MPTABLE_CPU_ENABLED  1
#define MPTABLE_CPU_BSP      2
#define MPTABLE_INT          0 /* vectored */
#define MPTABLE_NMI          1
#define MPTABLE_EXTINT       3
#define MPTABLE_EDGE_HIGH    0x05 /* polarity active high, trigger edge: table 4-10 */
#define MPTABLE_LAPIC_VERSION 0x14

static uint8_t mptable_checksum(const void *p, size_t n)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += ((const uint8_t *)p)[i];
	return (uint8_t)-sum;
}

static unsigned mptable_add_cpus(struct buf *b, unsigned max_vcpus)
{
	for (unsigned i = 0; i < max_vcpus; i++) {
		struct mptable_cpu cpu = {
			.type = MPTABLE_CPU,
			.apic_id = (uint8_t)i,
			.apic_version = MPTABLE_LAPIC_VERSION,
			.flags = MPTABLE_CPU_ENABLED | (i == 0 ? MPTABLE_CPU_BSP : 0),
			.signature = 0x600,
			.features = 0x201, /* FPU, APIC */
		};
		buf_add(b, &cpu, sizeof cpu);
	}
	return max_vcpus;
}

static unsigned mptable_add_interrupts(struct buf *b, uint8_t ioapic_id)
{
	struct mptable_int lint[] = {
		{ MPTABLE_LINT, MPTABLE_EXTINT, 0, 0, 0, 0, 0 },
		{ MPTABLE_LINT, MPTABLE_NMI, 0, 0, 0, 0xff, 1 },
	};
	unsigned n = 0;

	for (unsigned pin = 0; pin < LAYOUT_PINS; pin++) {
		struct mptable_int in = { MPTABLE_IOINT, MPTABLE_INT, MPTABLE_EDGE_HIGH, 0,
					  (uint8_t)pin, ioapic_id, (uint8_t)pin };
		if (pin != LAYOUT_COM1_GSI && pin < LAYOUT_SLOT_GSI)
			continue;
		buf_add(b, &in, sizeof in);
		n++;
	}
	buf_add(b, lint, sizeof lint);
	return n + ARRAY_LEN(lint);
}

int mptable_write(const struct gmem *m, unsigned max_vcpus)
{
	const uint8_t ioapic_id = (uint8_t)max_vcpus;
	AUTO_BUF struct buf b = { 0 };
	struct mptable_header h = {
		.signature = "PCMP", .spec_rev = 4, .oem_id = "SPORE   ",
		.product_id = { 'M', 'I', 'C', 'R', 'O', 'V', 'M', ' ', ' ', ' ', ' ', ' ' },
		.lapic = LAYOUT_LAPIC,
	};
	struct mptable_bus bus = { MPTABLE_BUS, 0, "ISA   " };
	struct mptable_ioapic io = { MPTABLE_IOAPIC, ioapic_id, 0x11, 1, LAYOUT_IOAPIC };
	struct mptable_float f = { .signature = "_MP_", .table = LAYOUT_MP_TABLE, .length = 1,
				   .spec_rev = 4 };
	unsigned n;

	buf_add(&b, &h, sizeof h);
	n = mptable_add_cpus(&b, max_vcpus);
	buf_add(&b, &bus, sizeof bus);
	buf_add(&b, &io, sizeof io);
	n += 2 + mptable_add_interrupts(&b, ioapic_id);
	if (LAYOUT_MP_TABLE + b.len > LAYOUT_MP_FLOAT)
		return -E2BIG;
	h.length = (uint16_t)b.len;
	h.entry_count = (uint16_t)n;
	memcpy(b.data, &h, sizeof h);
	h.checksum = mptable_checksum(b.data, b.len);
	memcpy(b.data, &h, sizeof h);
	f.checksum = mptable_checksum(&f, sizeof f);
	if (gmem_write(m, LAYOUT_MP_TABLE, b.data, b.len) < 0)
		return -EFAULT;
	return gmem_write(m, LAYOUT_MP_FLOAT, &f, sizeof f);
}
