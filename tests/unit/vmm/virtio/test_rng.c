#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/virtio/rng.h"

static void trng_start(struct vqr *r)
{
	vqr_init(r, VQR_RAM);
	vqr_attach(r, vrng_new(&r->loop, &r->mem));
	CHECK_EQ(vqr_drive(r, 0), 15); /* no EVENT_IDX: an interrupt per kick */
}

/* Ask for bytes at VQR_DATA; returns how many came. */
static uint32_t trng_ask(struct vqr *r, uint32_t bytes)
{
	const struct vqr_seg seg = { VQR_DATA, bytes, true };
	uint16_t before = vqr_used_idx(r, 0);

	vqr_fill(r, VQR_DATA, 0, MIB(1));
	vqr_add(r, 0, &seg, 1);
	vqr_kick(r, 0);
	CHECK(vqr_wait(r, 0, (uint16_t)(before + 1)));
	return vqr_used(r, 0, before).len;
}

static unsigned trng_zeros(struct vqr *r, uint32_t at, uint32_t n)
{
	unsigned zeros = 0;

	for (uint32_t i = 0; i < n; i++)
		zeros += vqr_get8(r, VQR_DATA + at + i) == 0;
	return zeros;
}

TEST(rng_fills_what_was_asked_for_and_no_more)
{
	static const uint32_t bytes[] = { 1, 2, 64, 255, 256, 257, 511, 4095, 4096 };
	struct vqr r;

	trng_start(&r);
	for (unsigned i = 0; i < ARRAY_LEN(bytes); i++) {
		test_note("%u bytes", bytes[i]);
		CHECK_EQ(trng_ask(&r, bytes[i]), bytes[i]);
		CHECK_EQ(trng_zeros(&r, bytes[i], 512), 512);
		if (bytes[i] >= 64) /* one in 256 is zero by chance */
			CHECK(trng_zeros(&r, bytes[i] - 64, 64) < 16);
	}
	CHECK_EQ(r.irqs, ARRAY_LEN(bytes));
	vqr_fini(&r);
}

TEST(rng_bounds_a_large_request)
{
	struct vqr r;

	trng_start(&r);
	CHECK_EQ(trng_ask(&r, (uint32_t)MIB(1)), VRNG_MAX);
	CHECK_EQ(trng_zeros(&r, VRNG_MAX, 4096), 4096);
	vqr_fini(&r);
}

TEST(rng_never_says_the_same_twice)
{
	struct vqr r;
	uint8_t a[32], b[32];

	trng_start(&r);
	trng_ask(&r, sizeof a);
	vqr_get(&r, VQR_DATA, a, sizeof a);
	trng_ask(&r, sizeof b);
	vqr_get(&r, VQR_DATA, b, sizeof b);
	CHECK(memcmp(a, b, sizeof a) != 0);
	vqr_fini(&r);
}

TEST(rng_fills_a_request_of_many_pieces)
{
	const struct vqr_seg seg[] = { { VQR_DATA, 100, true }, { VQR_DATA + 200, 0, true },
				       { VQR_DATA + 300, 300, true } };
	struct vqr r;

	trng_start(&r);
	vqr_add(&r, 0, seg, 3);
	vqr_kick(&r, 0);
	CHECK(vqr_wait(&r, 0, 1));
	CHECK_EQ(vqr_used(&r, 0, 0).len, 400);
	CHECK(trng_zeros(&r, 0, 100) < 20);
	CHECK_EQ(trng_zeros(&r, 100, 200), 200);
	CHECK(trng_zeros(&r, 300, 300) < 40);
	CHECK_EQ(trng_zeros(&r, 600, 200), 200);
	vqr_fini(&r);
}

TEST(rng_breaks_on_buffers_it_cannot_fill)
{
	static const struct {
		unsigned n;
		struct vqr_seg seg[2];
	} row[] = {
		{ 1, { { VQR_DATA, 64, false } } },
		{ 2, { { VQR_DATA, 64, false }, { VQR_DATA, 64, true } } },
		{ 1, { { VQR_DATA, 0, true } } },
		{ 1, { { VQR_RAM, 64, true } } },
	};
	struct vqr r;

	log_setup(-1, LOG_ERROR);
	trng_start(&r);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("row %u", i);
		vqr_add(&r, 0, row[i].seg, row[i].n);
		vqr_kick(&r, 0);
		CHECK(vqr_is_broken(&r));
		CHECK_EQ(vqr_used_idx(&r, 0), 0);
		CHECK_EQ(vqr_drive(&r, 0), 15);
	}
	CHECK_EQ(trng_ask(&r, 16), 16);
	vqr_fini(&r);
}

/* One guest that always asks must not keep the event loop to itself. */
TEST(rng_serves_a_full_queue_in_several_goes)
{
	const struct vqr_seg seg = { VQR_DATA, 4096, true };
	struct vqr r;

	trng_start(&r);
	for (unsigned i = 0; i < VQ_MAX; i++)
		vqr_add(&r, 0, &seg, 1);
	vqr_kick(&r, 0);
	CHECK(vqr_used_idx(&r, 0) < VQ_MAX);
	CHECK(vqr_wait(&r, 0, VQ_MAX));
	vqr_fini(&r);
}

TEST(rng_forgets_the_rest_on_reset_and_when_it_goes)
{
	const struct vqr_seg seg = { VQR_DATA, 4096, true };
	struct vqr r;

	trng_start(&r);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 64; i++)
			vqr_add(&r, 0, &seg, 1);
		vqr_kick(&r, 0);
		if (round == 0) {
			vqr_write32(&r, 0x070, 0);
			usleep(2000);
			loop_step(&r.loop, 0);
			CHECK(vqr_used_idx(&r, 0) < 64);
			CHECK_EQ(vqr_drive(&r, 0), 15);
		}
	}
	vqr_fini(&r); /* with the timer still running */
}
