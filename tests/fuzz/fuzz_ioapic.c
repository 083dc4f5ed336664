/* fuzz_ioapic.c - a hostile guest at the IOAPIC's registers, and hostile saved states.
 *
 * Input: steps of u8 what, then its operands. What the redirection table holds is only ever what a
 * guest can have written, and an entry reads back as it was written. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/base/log.c"
#include "vmm/gmem.c"
#include "vmm/kvm.c"
#include "vmm/ioapic.c"

enum fioa_step { FIOA_WRITE, FIOA_READ, FIOA_RAISE, FIOA_ENTRY, FIOA_RESTORE, FIOA_SAVE, FIOA_STEPS };

static const struct kvm fioa_kvm = { .fd = -1, .vm_fd = -1 }; /* interrupts go nowhere */

static uint8_t fioa_u8(struct cur *in)
{
	uint8_t v;
	cur_copy(in, &v, 1);
	return v;
}

/* Mostly one of the two registers, whole. */
static void fioa_access(struct cur *in, struct ioapic *a, bool write)
{
	uint8_t data[8], how = fioa_u8(in);
	uint32_t offset = how & 1 ? 0x10 : 0, len = 4;

	if (how > 0xe0) {
		offset = cur_le32(in) % GMEM_PAGE;
		len = 1 + fioa_u8(in) % 8;
	}
	cur_copy(in, data, sizeof data);
	ioapic_mmio(a, offset, data, len, write);
	if (!write)
		for (uint32_t i = 4; i < len; i++)
			ASSERT(data[i] == 0);
}

static uint32_t fioa_register(struct ioapic *a, uint32_t reg, const uint32_t *set)
{
	uint32_t v = set ? *set : 0;

	ioapic_mmio(a, 0, (uint8_t *)&reg, 4, true);
	ioapic_mmio(a, 0x10, (uint8_t *)&v, 4, set != NULL);
	return v;
}

static void fioa_entry(struct cur *in, struct ioapic *a)
{
	uint32_t pin = fioa_u8(in) % LAYOUT_PINS, low = cur_le32(in), high = cur_le32(in);

	fioa_register(a, 0x11 + 2 * pin, &high);
	fioa_register(a, 0x10 + 2 * pin, &low);
	ASSERT(fioa_register(a, 0x11 + 2 * pin, NULL) == (high & 0xff000000));
	ASSERT(fioa_register(a, 0x10 + 2 * pin, NULL) == (low & 0x1afff));
	ASSERT((low & IOAPIC_MASKED) || !a->pending[pin]);
}

/* Saving and restoring changes nothing. */
static void fioa_save(struct ioapic *a)
{
	AUTO_BUF struct buf b = { 0 };
	struct ioapic c;
	struct cur in;

	ioapic_save(a, &b);
	ioapic_init(&c, &fioa_kvm);
	in = cur_of(b.data, b.len);
	ASSERT(ioapic_restore(&c, &in) == 0 && cur_left(&in) == 0);
	ASSERT(c.select == a->select && c.id == a->id);
	ASSERT(!memcmp(c.redir, a->redir, sizeof c.redir));
	ASSERT(!memcmp(c.pending, a->pending, sizeof c.pending));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur in = cur_of(data, size);
	struct ioapic a;

	ioapic_init(&a, &fioa_kvm);
	while (cur_left(&in) && !in.bad) {
		uint8_t step = fioa_u8(&in);

		switch (step % FIOA_STEPS) {
		case FIOA_WRITE:
		case FIOA_READ:
			fioa_access(&in, &a, step % FIOA_STEPS == FIOA_WRITE);
			break;
		case FIOA_RAISE:
			ioapic_raise(&a, fioa_u8(&in) % LAYOUT_PINS);
			break;
		case FIOA_ENTRY:
			fioa_entry(&in, &a);
			break;
		case FIOA_RESTORE:
			(void)!ioapic_restore(&a, &in);
			break;
		case FIOA_SAVE:
			fioa_save(&a);
			break;
		}
		ASSERT(a.select <= 0xff && !(a.id & ~0x0f000000u));
		for (unsigned pin = 0; pin < LAYOUT_PINS; pin++)
			ASSERT(!(a.redir[pin] & ~IOAPIC_WRITABLE));
	}
	return 0;
}
