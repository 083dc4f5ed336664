#include "vmm/ioapic.h"

/* Memory-mapped registers (section 3.1) and indirect registers (section 3.2). */
#define IOAPIC_IOREGSEL 0x00
#define IOAPIC_IOWIN    0x10
#define IOAPIC_REG_ID   0x00
#define IOAPIC_REG_VER  0x01
#define IOAPIC_REG_ARB  0x02
#define IOAPIC_REG_TBL  0x10 /* two per pin, low half first */

/* Redirection entry bits (3.2.4). Delivery status (12) and remote IRR (14) are read-only. */
#define IOAPIC_VECTOR(e)    ((uint32_t)(e) & 0xff)
#define IOAPIC_DELIVERY(e)  (((uint32_t)(e) >> 8) & 7)
#define IOAPIC_LOGICAL(e)   (((uint32_t)(e) >> 11) & 1)
#define IOAPIC_MASKED       (UINT64_C(1) << 16)
#define IOAPIC_DEST(e)      ((uint32_t)((e) >> 56))
#define IOAPIC_WRITABLE     (UINT64_C(0xff0000000001afff))

void ioapic_init(struct ioapic *a, const struct kvm *kvm)
{
	*a = (struct ioapic){ .kvm = kvm };
	pthread_mutex_init(&a->lock, NULL);
	for (unsigned i = 0; i < LAYOUT_PINS; i++)
		a->redir[i] = IOAPIC_MASKED;
}

/* Message format: Intel SDM volume 3, section 11.11. */
static void ioapic_send(struct ioapic *a, uint64_t entry)
{
	uint32_t address = 0xfee00000 | IOAPIC_DEST(entry) << 12 | IOAPIC_LOGICAL(entry) << 2;
	uint32_t data = IOAPIC_DELIVERY(entry) << 8 | IOAPIC_VECTOR(entry);

	kvm_signal_msi(a->kvm, address, data);
}

void ioapic_raise(struct ioapic *a, unsigned pin)
{
	ASSERT(pin < LAYOUT_PINS);
	pthread_mutex_lock(&a->lock);
	if (a->redir[pin] & IOAPIC_MASKED)
		a->pending[pin] = true;
	else
		ioapic_send(a, a->redir[pin]);
	pthread_mutex_unlock(&a->lock);
}

static uint32_t ioapic_read(const struct ioapic *a)
{
	uint32_t pin = (a->select - IOAPIC_REG_TBL) / 2;

	if (a->select == IOAPIC_REG_ID || a->select == IOAPIC_REG_ARB)
		return a->id;
	if (a->select == IOAPIC_REG_VER)
		return (LAYOUT_PINS - 1) << 16 | 0x11;
	if (a->select >= IOAPIC_REG_TBL && pin < LAYOUT_PINS)
		return (uint32_t)(a->redir[pin] >> (a->select & 1 ? 32 : 0));
	return 0;
}

static void ioapic_write_entry(struct ioapic *a, uint32_t pin, bool high, uint32_t v)
{
	uint64_t e = a->redir[pin];

	e = high ? (e & UINT32_MAX) | (uint64_t)v << 32 : (e & ~(uint64_t)UINT32_MAX) | v;
	a->redir[pin] = e & IOAPIC_WRITABLE;
	if (a->pending[pin] && !(e & IOAPIC_MASKED)) {
		a->pending[pin] = false;
		ioapic_send(a, a->redir[pin]);
	}
}

static void ioapic_write(struct ioapic *a, uint32_t v)
{
	uint32_t pin = (a->select - IOAPIC_REG_TBL) / 2;

	if (a->select == IOAPIC_REG_ID)
		a->id = v & 0x0f000000;
	else if (a->select >= IOAPIC_REG_TBL && pin < LAYOUT_PINS)
		ioapic_write_entry(a, pin, a->select & 1, v);
}

void ioapic_mmio(struct ioapic *a, uint32_t offset, uint8_t *data, uint32_t len, bool write)
{
	uint32_t v = 0;

	pthread_mutex_lock(&a->lock);
	if (write) {
		memcpy(&v, data, MIN(len, sizeof v));
		if (offset == IOAPIC_IOREGSEL)
			a->select = v & 0xff;
		else if (offset == IOAPIC_IOWIN)
			ioapic_write(a, v);
	} else {
		if (offset == IOAPIC_IOREGSEL)
			v = a->select;
		else if (offset == IOAPIC_IOWIN)
			v = ioapic_read(a);
		memset(data, 0, len);
		memcpy(data, &v, MIN(len, sizeof v));
	}
	pthread_mutex_unlock(&a->lock);
}

void ioapic_save(struct ioapic *a, struct buf *out)
{
	pthread_mutex_lock(&a->lock);
	buf_le32(out, a->select);
	buf_le32(out, a->id);
	for (unsigned i = 0; i < LAYOUT_PINS; i++) {
		buf_le64(out, a->redir[i]);
		buf_le32(out, a->pending[i]);
	}
	pthread_mutex_unlock(&a->lock);
}

int ioapic_restore(struct ioapic *a, struct cur *in)
{
	pthread_mutex_lock(&a->lock);
	a->select = cur_le32(in) & 0xff;
	a->id = cur_le32(in) & 0x0f000000;
	for (unsigned i = 0; i < LAYOUT_PINS; i++) {
		a->redir[i] = cur_le64(in) & IOAPIC_WRITABLE;
		a->pending[i] = cur_le32(in) != 0;
	}
	pthread_mutex_unlock(&a->lock);
	return in->bad ? -EPROTO : 0;
}
