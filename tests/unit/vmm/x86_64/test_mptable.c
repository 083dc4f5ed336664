#include "tests/unit/test.h"
#include "vmm/layout.h"
#include "vmm/x86_64/mptable.h"

/* MultiProcessor Specification 1.4, table 4-3: bytes of each entry type. */
static const unsigned tmpt_bytes[] = { 20, 8, 8, 8, 8 };
enum { TMPT_CPU, TMPT_BUS, TMPT_IOAPIC, TMPT_IOINT, TMPT_LINT, TMPT_TYPES };

#define TMPT_HEADER 44

/* A table as a kernel would find it. */
struct tmpt {
	struct gmem m;
	const uint8_t *fp, *table;
	unsigned length, count;       /* as the header says */
	unsigned n[TMPT_TYPES];       /* entries by type */
	const uint8_t *e[256];        /* every entry */
};

static unsigned tmpt_u16(const uint8_t *p)
{
	return p[0] | (unsigned)p[1] << 8;
}
static uint32_t tmpt_u32(const uint8_t *p)
{
	return tmpt_u16(p) | (uint32_t)tmpt_u16(p + 2) << 16;
}

static uint8_t tmpt_sum(const uint8_t *p, unsigned n)
{
	uint8_t sum = 0;

	while (n--)
		sum = (uint8_t)(sum + *p++);
	return sum;
}

static void tmpt_make(struct tmpt *t, unsigned cpus)
{
	const uint8_t *p;

	*t = (struct tmpt){ 0 };
	CHECK_EQ(gmem_init(&t->m, MIB(2), -1, GMEM_PRIVATE, NULL), 0);
	CHECK_EQ(mptable_write(&t->m, cpus), 0);
	/* Linux looks at the last KiB of the first 640 (4, "System Base Memory") */
	t->fp = gmem_span(&t->m, 0x9fc00, 16);
	t->table = gmem_span(&t->m, tmpt_u32(t->fp + 4), TMPT_HEADER);
	CHECK(t->table);
	t->length = tmpt_u16(t->table + 4);
	t->count = tmpt_u16(t->table + 34);
	p = t->table + TMPT_HEADER;
	for (unsigned i = 0; i < t->count; i++) {
		CHECK(*p < TMPT_TYPES);
		t->n[*p]++;
		t->e[i] = p;
		p += tmpt_bytes[*p];
	}
	CHECK_EQ(p - t->table, t->length);
}

TEST(mptable_adds_up_for_every_number_of_cpus)
{
	for (unsigned cpus = 1; cpus <= LAYOUT_MAX_VCPUS; cpus++) {
		struct tmpt t;
		unsigned seen = 0;

		test_note("%u CPUs", cpus);
		tmpt_make(&t, cpus);
		CHECK_MEM(t.fp, "_MP_", 4);
		CHECK_EQ(tmpt_u32(t.fp + 4), LAYOUT_MP_TABLE);
		CHECK_EQ(t.fp[8], 1); /* 16 bytes */
		CHECK_EQ(t.fp[9], 4); /* specification 1.4 */
		CHECK_EQ(t.fp[11], 0); /* a table is there, no default configuration */
		CHECK_EQ(tmpt_sum(t.fp, 16), 0);
		CHECK_MEM(t.table, "PCMP", 4);
		CHECK_EQ(t.table[6], 4);
		CHECK_EQ(tmpt_sum(t.table, t.length), 0);
		CHECK_EQ(tmpt_u32(t.table + 36), 0xfee00000);
		CHECK(LAYOUT_MP_TABLE + t.length <= LAYOUT_MP_FLOAT);
		CHECK_EQ(t.n[TMPT_CPU], cpus);
		CHECK_EQ(t.n[TMPT_BUS], 1);
		CHECK_EQ(t.n[TMPT_IOAPIC], 1);
		CHECK_EQ(t.n[TMPT_IOINT], LAYOUT_SLOTS + 1);
		CHECK_EQ(t.n[TMPT_LINT], 2);
		for (unsigned i = 0; i < cpus; i++) {
			const uint8_t *e = t.e[i];
			CHECK_EQ(e[0], TMPT_CPU); /* CPUs come first: 4.3 */
			CHECK_EQ(e[1], i);
			CHECK_EQ(e[2], 0x14);
			CHECK_EQ(e[3], i == 0 ? 3 : 1); /* enabled; the first is the boot CPU */
			seen++;
		}
		CHECK_EQ(seen, cpus);
		gmem_fini(&t.m);
	}
}

TEST(mptable_entries_stand_in_ascending_order_of_type)
{
	struct tmpt t;

	tmpt_make(&t, 3);
	for (unsigned i = 1; i < t.count; i++)
		CHECK(t.e[i][0] >= t.e[i - 1][0]);
	gmem_fini(&t.m);
}

TEST(mptable_names_one_isa_bus_and_our_ioapic)
{
	struct tmpt t;

	tmpt_make(&t, 2);
	for (unsigned i = 0; i < t.count; i++) {
		const uint8_t *e = t.e[i];
		if (e[0] == TMPT_BUS) {
			CHECK_EQ(e[1], 0);
			CHECK_MEM(e + 2, "ISA   ", 6);
		}
		if (e[0] == TMPT_IOAPIC) {
			CHECK(e[1] >= 2); /* not a CPU's id */
			CHECK_EQ(e[2], 0x11);
			CHECK_EQ(e[3], 1);
			CHECK_EQ(tmpt_u32(e + 4), 0xfec00000);
		}
	}
	gmem_fini(&t.m);
}

TEST(mptable_routes_com1_and_every_slot_edge_triggered)
{
	struct tmpt t;
	unsigned pins[256] = { 0 }, ioapic = 0;

	tmpt_make(&t, 4);
	for (unsigned i = 0; i < t.count; i++)
		if (t.e[i][0] == TMPT_IOAPIC)
			ioapic = t.e[i][1];
	for (unsigned i = 0; i < t.count; i++) {
		const uint8_t *e = t.e[i];
		if (e[0] != TMPT_IOINT)
			continue;
		CHECK_EQ(e[1], 0);               /* vectored */
		CHECK_EQ(tmpt_u16(e + 2), 0x05); /* active high, edge: the IOAPIC has no EOI */
		CHECK_EQ(e[4], 0);
		CHECK_EQ(e[5], e[7]); /* bus interrupt n is pin n */
		CHECK_EQ(e[6], ioapic);
		pins[e[7]]++;
	}
	for (unsigned pin = 0; pin < ARRAY_LEN(pins); pin++) {
		test_note("pin %u", pin);
		CHECK_EQ(pins[pin], pin == LAYOUT_COM1_GSI ||
					    (pin >= LAYOUT_SLOT_GSI && pin < LAYOUT_PINS));
	}
	gmem_fini(&t.m);
}

TEST(mptable_does_not_write_past_what_it_says)
{
	struct gmem m;
	const uint8_t *p;
	unsigned length;

	CHECK_EQ(gmem_init(&m, MIB(2), -1, GMEM_PRIVATE, NULL), 0);
	memset(m.map, 0xee, MIB(2));
	CHECK_EQ(mptable_write(&m, LAYOUT_MAX_VCPUS), 0);
	p = m.map;
	length = tmpt_u16(p + LAYOUT_MP_TABLE + 4);
	for (uint64_t at = 0; at < MIB(2); at++)
		if ((at < LAYOUT_MP_TABLE || at >= LAYOUT_MP_TABLE + length) &&
		    (at < LAYOUT_MP_FLOAT || at >= LAYOUT_MP_FLOAT + 16))
			CHECK_EQ(p[at], 0xee);
	gmem_fini(&m);
}

TEST(mptable_refuses_more_cpus_than_there_is_room_for)
{
	struct gmem m;

	CHECK_EQ(gmem_init(&m, MIB(2), -1, GMEM_PRIVATE, NULL), 0);
	CHECK_EQ(mptable_write(&m, 400), -E2BIG);
	for (uint64_t at = LAYOUT_MP_TABLE; at < MIB(1); at++)
		CHECK_EQ(m.map[at], 0);
	gmem_fini(&m);
}
