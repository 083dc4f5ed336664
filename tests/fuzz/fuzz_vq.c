/* fuzz_vq.c - a hostile driver against the ring: vmm/virtio/queue.c over gmem.c.
 *
 * Input: u8 log2 of the queue size, u8 flags (1 = event_idx), u16 start index, then steps of an op
 * byte and its operands. Most steps do what a driver does; STEP_POKE is the knob: it writes
 * anything anywhere in the rings. What comes out of vq_pop() must be inside RAM whatever was put
 * in. */
#include "tests/fuzz/fuzz.h"

#include "vmm/gmem.c"
#include "vmm/virtio/queue.c"

#define FVQ_RAM   MIB(2)
#define FVQ_DESC  UINT64_C(0x10000)
#define FVQ_AVAIL UINT64_C(0x12000)
#define FVQ_USED  UINT64_C(0x13000)
#define FVQ_END   UINT64_C(0x14000)

enum fvq_step {
	FVQ_CHAIN, FVQ_POP, FVQ_PUSH, FVQ_SIGNAL, FVQ_REARM, FVQ_POKE, FVQ_COPY, FVQ_STEPS
};

static struct gmem fvq_mem;

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	ASSERT(gmem_init(&fvq_mem, FVQ_RAM, -1, GMEM_PRIVATE, NULL) == 0);
	return 0;
}

static uint8_t fvq_u8(struct cur *in)
{
	uint8_t v;
	cur_copy(in, &v, 1);
	return v;
}
static uint16_t fvq_u16(struct cur *in)
{
	uint16_t v;
	cur_copy(in, &v, 2);
	return v;
}

/* Publish a chain of up to 16 descriptors, each somewhere in RAM. */
static void fvq_chain(struct cur *in, const struct vq *q)
{
	unsigned n = 1 + fvq_u8(in) % 16;
	uint16_t at = fvq_u16(in), idx;

	for (unsigned i = 0; i < n; i++, at++) {
		uint8_t how = fvq_u8(in);
		struct vq_desc d = { .addr = KIB(128) + fvq_u16(in), .len = fvq_u16(in),
				     .flags = (uint16_t)((how & 1 ? VQ_DESC_F_WRITE : 0) |
							 (i + 1 < n ? VQ_DESC_F_NEXT : 0)),
				     .next = (uint16_t)((at + 1) % q->num) };
		if (how == 0xff)
			d.addr = cur_le64(in);
		if (how == 0xfe)
			d.flags = fvq_u16(in);
		(void)!gmem_write(q->mem, q->desc + sizeof d * (at % q->num), &d, sizeof d);
	}
	at = (uint16_t)((at - n) % q->num);
	(void)!gmem_load16(q->mem, vq_avail_idx(q), &idx);
	(void)!gmem_store16(q->mem, vq_avail_ring(q, idx), at);
	(void)!gmem_store16(q->mem, vq_avail_idx(q), (uint16_t)(idx + 1));
}

/* What every chain owes its reader. */
static void fvq_check(const struct vq *q, const struct vq_chain *c)
{
	uint64_t out = 0, in = 0;

	ASSERT(c->head < q->num && c->nout + c->nin <= VQ_MAX_IOV);
	for (unsigned i = 0; i < c->nout + c->nin; i++) {
		const uint8_t *p = c->iov[i].iov_base;
		ASSERT(c->iov[i].iov_len > 0 && p >= fvq_mem.map);
		ASSERT((uint64_t)(p - fvq_mem.map) + c->iov[i].iov_len <= FVQ_RAM);
		*(i < c->nout ? &out : &in) += c->iov[i].iov_len;
	}
	ASSERT(out == c->out_len && in == c->in_len);
}

static void fvq_do(struct cur *in, struct vq *q, struct vq_chain *c)
{
	static uint8_t bounce[4096];
	uint16_t skip, n;

	switch (fvq_u8(in) % FVQ_STEPS) {
	case FVQ_CHAIN:
		fvq_chain(in, q);
		break;
	case FVQ_POP:
		if (vq_pop(q, c) != 1)
			*c = (struct vq_chain){ .head = 0 }; /* nothing a device would look at */
		fvq_check(q, c);
		break;
	case FVQ_PUSH:
		n = q->next_used;
		ASSERT(vq_push(q, c->head, c->in_len) == 0 && q->next_used == (uint16_t)(n + 1));
		break;
	case FVQ_SIGNAL:
		(void)vq_should_signal(q);
		ASSERT(!vq_should_signal(q));
		break;
	case FVQ_REARM:
		ASSERT(vq_rearm(q) == (vq_backlog(q) != 0));
		break;
	case FVQ_POKE:
		skip = (uint16_t)(fvq_u16(in) % (FVQ_END - FVQ_DESC));
		(void)!gmem_store16(q->mem, FVQ_DESC + (skip & ~1u), fvq_u16(in));
		break;
	case FVQ_COPY:
		skip = fvq_u16(in);
		n = fvq_u16(in) % sizeof bounce;
		ASSERT(vq_copy_out(c, skip, bounce, n) ==
		       MIN(n, c->out_len > skip ? c->out_len - skip : 0));
		ASSERT(vq_copy_in(c, skip, bounce, n) ==
		       MIN(n, c->in_len > skip ? c->in_len - skip : 0));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cur in = cur_of(data, len);
	struct vq q = { .mem = &fvq_mem, .desc = FVQ_DESC, .avail = FVQ_AVAIL, .used = FVQ_USED };
	struct vq_chain c = { .head = 0 };

	memset(fvq_mem.map + FVQ_DESC, 0, FVQ_END - FVQ_DESC);
	q.num = (uint16_t)(1u << fvq_u8(&in) % 9);
	q.event_idx = fvq_u8(&in) & 1;
	q.next_avail = q.next_used = q.signalled = fvq_u16(&in);
	(void)!gmem_store16(q.mem, vq_avail_idx(&q), q.next_avail);
	q.ready = vq_check(&q) == 0;
	ASSERT(q.ready);
	for (unsigned steps = 0; cur_left(&in) && steps < 1000; steps++)
		fvq_do(&in, &q, &c);
	return 0;
}
