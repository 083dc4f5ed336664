#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/fake_dev.h"
#include "tests/unit/vmm/virtio/vq_rig.h"

/* How far a driver has come; the columns of the table below. */
enum tmmio_stage {
	TMMIO_EMPTY,       /* no device in the slot */
	TMMIO_RESET,       /* Status 0 */
	TMMIO_ACK,         /* 1 */
	TMMIO_DRIVER,      /* 3 */
	TMMIO_FEATURES_OK, /* 11 */
	TMMIO_DRIVER_OK,   /* 15 */
	TMMIO_NEEDS_RESET, /* 15 + 64 */
	TMMIO_FAILED,      /* 3 + 128: gave up while negotiating */
	TMMIO_STAGES,
};
static const uint32_t tmmio_status[] = { 0, 0, 1, 3, 11, 15, 15 | 64, 3 | 128 };

#define S(stage)   (1u << TMMIO_##stage)
#define ANY        (S(EMPTY) | PRESENT)
#define PRESENT    (S(RESET) | S(ACK) | S(DRIVER) | LATE)
#define LATE       (S(FEATURES_OK) | S(DRIVER_OK) | S(NEEDS_RESET) | S(FAILED))
#define NEGOTIATE  (S(DRIVER) | S(FAILED))
#define SETUP      S(FEATURES_OK)
#define NEVER      0u

struct tmmio {
	struct vqr r;
	struct fdev dev;
};

static void tmmio_init(struct tmmio *t)
{
	*t = (struct tmmio){ .dev.d.ops = &fdev_ops };
	vqr_init(&t->r, VQR_RAM);
	log_setup(-1, LOG_ERROR);
}

static void tmmio_fini(struct tmmio *t)
{
	vqr_fini(&t->r);
}

static struct slot *tmmio_slot(struct tmmio *t)
{
	return &t->r.slots.slot[0];
}

/* Take the driver to a stage. Queue 0 is described by then if it could be, and enabled from
 * DRIVER_OK on; queue 0 is selected. */
static void tmmio_to(struct tmmio *t, enum tmmio_stage stage)
{
	struct vqr *r = &t->r;

	if (stage == TMMIO_EMPTY)
		return;
	if (!tmmio_slot(t)->dev)
		vqr_attach(r, &t->dev.d);
	vqr_write32(r, 0x070, 0);
	if (stage >= TMMIO_ACK)
		vqr_write32(r, 0x070, 1);
	if (stage >= TMMIO_DRIVER)
		vqr_write32(r, 0x070, 3);
	if (stage == TMMIO_FAILED)
		vqr_write32(r, 0x070, 3 | 128);
	if (stage >= TMMIO_FEATURES_OK && stage != TMMIO_FAILED) {
		vqr_write32(r, 0x024, 1);
		vqr_write32(r, 0x020, 1); /* VERSION_1 */
		vqr_write32(r, 0x070, 11);
		vqr_setup_ring(r, 0);
		if (stage == TMMIO_FEATURES_OK)
			vqr_write32(r, 0x044, 0);
		else
			vqr_write32(r, 0x070, 15);
	}
	if (stage == TMMIO_NEEDS_RESET) {
		vdev_lock(&t->dev.d);
		vdev_broken(&t->dev.d, "test");
		vdev_unlock(&t->dev.d);
	}
	CHECK_EQ(vqr_read32(r, 0x070), tmmio_status[stage]);
}

/* What a driver can change by writing a register, so that a test sees whether it did. */
struct tmmio_image {
	uint32_t status, isr, generation, dsel, fsel, qsel;
	uint64_t features;
	struct vq staged[VDEV_MAX_QUEUES], q[VDEV_MAX_QUEUES];
	uint64_t kicks;
	unsigned reset, activated;
};

static void tmmio_look(struct tmmio *t, struct tmmio_image *out)
{
	struct slot *s = tmmio_slot(t);

	memset(out, 0, sizeof *out);
	out->status = s->status;
	out->isr = s->isr;
	out->generation = s->generation;
	out->dsel = s->dev_features_sel;
	out->fsel = s->drv_features_sel;
	out->qsel = s->queue_sel;
	out->features = s->drv_features;
	memcpy(out->staged, s->staged, sizeof s->staged);
	for (unsigned q = 0; q < VDEV_MAX_QUEUES; q++)
		out->staged[q].mem = NULL; /* set by attempts, too */
	memcpy(out->q, t->dev.d.q, sizeof out->q);
	loop_step(&t->r.loop, 0);
	out->kicks = t->dev.kicks[0] + t->dev.kicks[1];
	out->reset = t->dev.reset;
	out->activated = t->dev.activated;
}

/* virtio 1.2 table 4.1: which registers there are, when reading one gives something, when writing
 * one does something, and a value that shows it. */
static const struct tmmio_reg {
	uint32_t offset;
	const char *name;
	unsigned reads, writes; /* sets of stages */
	uint32_t value, gives;  /* written; read */
} tmmio_regs[] = {
	{ 0x000, "MagicValue", ANY, NEVER, 1, 0x74726976 },
	{ 0x004, "Version", ANY, NEVER, 1, 2 },
	{ 0x008, "DeviceID", PRESENT, NEVER, 9, FDEV_ID }, /* EMPTY: 0, which is an answer */
	{ 0x00c, "VendorID", ANY, NEVER, 1, 0x726f7073 },
	{ 0x010, "DeviceFeatures", PRESENT, NEVER, 1, 1 | 1 << 5 | 1 << 29 },
	{ 0x014, "DeviceFeaturesSel", NEVER, PRESENT, 7, 0 },
	{ 0x020, "DriverFeatures", NEVER, NEGOTIATE, 0x21, 0 },
	{ 0x024, "DriverFeaturesSel", NEVER, NEGOTIATE, 7, 0 },
	{ 0x030, "QueueSel", NEVER, PRESENT, 1, 0 },
	{ 0x034, "QueueNumMax", PRESENT, NEVER, 1, 256 },
	{ 0x038, "QueueNum", NEVER, SETUP, 64, 0 },
	{ 0x044, "QueueReady", S(DRIVER_OK) | S(NEEDS_RESET), SETUP, 1, 1 },
	{ 0x050, "QueueNotify", NEVER, S(DRIVER_OK), 0, 0 },
	{ 0x060, "InterruptStatus", PRESENT, NEVER, 1, 3 },
	{ 0x064, "InterruptACK", NEVER, PRESENT, 1, 0 },
	{ 0x070, "Status", PRESENT, PRESENT, 0, 0 /* the stage's */ },
	{ 0x080, "QueueDescLow", NEVER, SETUP, 0x80, 0 },
	{ 0x084, "QueueDescHigh", NEVER, SETUP, 0x80, 0 },
	{ 0x090, "QueueDriverLow", NEVER, SETUP, 0x80, 0 },
	{ 0x094, "QueueDriverHigh", NEVER, SETUP, 0x80, 0 },
	{ 0x0a0, "QueueDeviceLow", NEVER, SETUP, 0x80, 0 },
	{ 0x0a4, "QueueDeviceHigh", NEVER, SETUP, 0x80, 0 },
	{ 0x0b0, "SHMLenLow", PRESENT, NEVER, 1, ~0u },
	{ 0x0b4, "SHMLenHigh", PRESENT, NEVER, 1, ~0u },
	{ 0x0b8, "SHMBaseLow", PRESENT, NEVER, 1, ~0u },
	{ 0x0bc, "SHMBaseHigh", PRESENT, NEVER, 1, ~0u },
	{ 0x0fc, "ConfigGeneration", PRESENT, NEVER, 1, 1 },
};

/* A register file in `stage` that has never seen anything else. */
static void tmmio_fresh(struct tmmio *t, enum tmmio_stage stage)
{
	tmmio_init(t);
	tmmio_to(t, stage);
	tmmio_slot(t)->isr = stage == TMMIO_EMPTY ? 0 : 3;
	vmmio_show(tmmio_slot(t));
}

TEST(vmmio_every_register_can_be_written_when_the_table_says_and_never_else)
{
	for (unsigned i = 0; i < ARRAY_LEN(tmmio_regs); i++)
		for (enum tmmio_stage stage = 0; stage < TMMIO_STAGES; stage++) {
			const struct tmmio_reg *reg = &tmmio_regs[i];
			struct tmmio_image before, after;
			struct tmmio t;

			test_note("%s at stage %u", reg->name, stage);
			tmmio_fresh(&t, stage);
			tmmio_look(&t, &before);
			vqr_write32(&t.r, reg->offset, reg->value);
			tmmio_look(&t, &after);
			CHECK_EQ(memcmp(&before, &after, sizeof after) != 0,
				 reg->writes >> stage & 1);
			tmmio_fini(&t);
		}
}

TEST(vmmio_every_register_can_be_read_when_the_table_says_and_reads_zero_else)
{
	for (unsigned i = 0; i < ARRAY_LEN(tmmio_regs); i++)
		for (enum tmmio_stage stage = 0; stage < TMMIO_STAGES; stage++) {
			const struct tmmio_reg *reg = &tmmio_regs[i];
			uint32_t gives = reg->offset == 0x070 ? tmmio_status[stage] : reg->gives;
			struct tmmio_image before, after;
			struct tmmio t;

			test_note("%s at stage %u", reg->name, stage);
			tmmio_fresh(&t, stage);
			tmmio_look(&t, &before);
			CHECK_EQ(vqr_read32(&t.r, reg->offset), reg->reads >> stage & 1 ? gives : 0);
			tmmio_look(&t, &after);
			CHECK_MEM(&after, &before, sizeof after); /* reading changes nothing */
			tmmio_fini(&t);
		}
}

static bool tmmio_is_listed(uint32_t offset)
{
	for (unsigned i = 0; i < ARRAY_LEN(tmmio_regs); i++)
		if (tmmio_regs[i].offset == offset)
			return true;
	return false;
}

TEST(vmmio_offsets_without_a_register_read_zero_and_ignore_writes)
{
	for (enum tmmio_stage stage = 0; stage < TMMIO_STAGES; stage++) {
		struct tmmio_image before, after;
		struct tmmio t;

		tmmio_fresh(&t, stage);
		tmmio_look(&t, &before);
		for (uint32_t at = 0; at < 0x100; at++) {
			if (tmmio_is_listed(at))
				continue;
			test_note("offset %#x at stage %u", at, stage);
			vqr_write32(&t.r, at, 1);
			CHECK_EQ(vqr_read32(&t.r, at), 0);
			tmmio_look(&t, &after);
			CHECK_MEM(&after, &before, sizeof after);
		}
		tmmio_fini(&t);
	}
}

TEST(vmmio_registers_are_accessed_32_bits_at_a_time)
{
	static const uint32_t bad[] = { 1, 2, 3, 8 };

	for (enum tmmio_stage stage = 0; stage < TMMIO_STAGES; stage++) {
		struct tmmio_image before, after;
		struct tmmio t;

		tmmio_fresh(&t, stage);
		tmmio_look(&t, &before);
		for (uint32_t at = 0; at < 0x100; at += 4)
			for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
				uint8_t data[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
				test_note("%u bytes at %#x, stage %u", bad[i], at, stage);
				slots_mmio(&t.r.slots, LAYOUT_SLOT_BASE + at, data, bad[i], true);
				slots_mmio(&t.r.slots, LAYOUT_SLOT_BASE + at, data, bad[i], false);
				CHECK_MEM(data, (uint8_t[8]){ 0 }, bad[i]);
				tmmio_look(&t, &after);
				CHECK_MEM(&after, &before, sizeof after);
			}
		tmmio_fini(&t);
	}
}

TEST(vmmio_an_empty_slot_answers_device_id_0_and_ignores_everything)
{
	struct tmmio_image before, after;
	struct tmmio t;

	tmmio_fresh(&t, TMMIO_EMPTY);
	tmmio_look(&t, &before);
	for (uint32_t at = 0; at < LAYOUT_SLOT_BYTES; at += 4) {
		uint32_t want = at == 0 ? 0x74726976 : at == 4 ? 2 : at == 0xc ? 0x726f7073 : 0;
		test_note("offset %#x", at);
		vqr_write32(&t.r, at, ~0u);
		CHECK_EQ(vqr_read32(&t.r, at), want);
	}
	tmmio_look(&t, &after);
	CHECK_MEM(&after, &before, sizeof after);
	tmmio_fini(&t);
}

/* --- Status ----------------------------------------------------------------------------------- */

TEST(vmmio_status_goes_up_one_step_at_a_time)
{
	static const struct {
		enum tmmio_stage from;
		uint32_t write, want;
	} row[] = {
		{ TMMIO_RESET, 1, 1 },
		{ TMMIO_RESET, 3, 3 }, /* two steps in one write are two steps in order */
		{ TMMIO_RESET, 2, 0 }, /* DRIVER without ACKNOWLEDGE */
		{ TMMIO_RESET, 4, 0 },
		{ TMMIO_RESET, 8, 0 },
		{ TMMIO_RESET, 15, 3 }, /* features were not written */
		{ TMMIO_RESET, 16, 0 }, /* bits that do not exist */
		{ TMMIO_RESET, 0xffffff00, 0 },
		{ TMMIO_RESET, 64, 0 }, /* NEEDS_RESET is the device's */
		{ TMMIO_RESET, 128, 128 },
		{ TMMIO_ACK, 3, 3 },
		{ TMMIO_ACK, 2, 1 }, /* would clear ACKNOWLEDGE */
		{ TMMIO_ACK, 1, 1 },
		{ TMMIO_ACK, 1 | 4, 1 },
		{ TMMIO_ACK, 1 | 8, 1 },
		{ TMMIO_DRIVER, 7, 3 }, /* DRIVER_OK without FEATURES_OK */
		{ TMMIO_DRIVER, 11, 3 }, /* VERSION_1 was not accepted */
		{ TMMIO_DRIVER, 3 | 64, 3 },
		{ TMMIO_FEATURES_OK, 15, 15 },
		{ TMMIO_FEATURES_OK, 3, 11 }, /* never back */
		{ TMMIO_FEATURES_OK, 4, 11 },
		{ TMMIO_FEATURES_OK, 15 | 64, 15 },
		{ TMMIO_FEATURES_OK, 11 | 128, 11 | 128 },
		{ TMMIO_FEATURES_OK, 15 | 128, 11 | 128 }, /* giving up wins */
		{ TMMIO_DRIVER_OK, 11, 15 },
		{ TMMIO_DRIVER_OK, 15, 15 },
		{ TMMIO_DRIVER_OK, 15 | 128, 15 | 128 },
		{ TMMIO_NEEDS_RESET, 15, 15 | 64 },
		{ TMMIO_NEEDS_RESET, 15 | 64, 15 | 64 },
		{ TMMIO_NEEDS_RESET, 15 | 128, 15 | 64 | 128 },
		{ TMMIO_FAILED, 3, 3 | 128 },
		{ TMMIO_FAILED, 11 | 128, 3 | 128 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tmmio t;
		test_note("row %u", i);
		tmmio_fresh(&t, row[i].from);
		vqr_write32(&t.r, 0x070, row[i].write);
		CHECK_EQ(vqr_read32(&t.r, 0x070), row[i].want);
		vqr_write32(&t.r, 0x070, 0);
		CHECK_EQ(vqr_read32(&t.r, 0x070), 0);
		tmmio_fini(&t);
	}
}

TEST(vmmio_no_write_to_status_makes_an_impossible_one)
{
	for (enum tmmio_stage stage = TMMIO_RESET; stage < TMMIO_STAGES; stage++)
		for (uint32_t v = 1; v < 256; v++) {
			uint32_t old = tmmio_status[stage], s;
			struct tmmio t;

			test_note("%#x after stage %u", v, stage);
			tmmio_fresh(&t, stage);
			vqr_write32(&t.r, 0x070, v);
			s = vqr_read32(&t.r, 0x070);
			CHECK_EQ(s & old, old);
			CHECK_EQ(s & ~(old | v), 0);
			CHECK_EQ(s & ~old & 64, 0);
			CHECK(!(s & 2) || (s & 1));
			CHECK(!(s & 8) || (s & 2));
			CHECK(!(s & 4) || (s & 8));
			CHECK_EQ(t.dev.activated, !!(s & 4));
			tmmio_fini(&t);
		}
}

TEST(vmmio_reset_forgets_the_driver)
{
	struct tmmio_image before, after;
	struct tmmio t;

	for (enum tmmio_stage stage = TMMIO_RESET; stage < TMMIO_STAGES; stage++) {
		bool active = stage == TMMIO_DRIVER_OK || stage == TMMIO_NEEDS_RESET;
		test_note("stage %u", stage);
		tmmio_init(&t);
		tmmio_to(&t, TMMIO_RESET);
		tmmio_look(&t, &before);
		tmmio_to(&t, stage);
		vqr_write32(&t.r, 0x014, 1);
		vqr_write32(&t.r, 0x030, 1);
		tmmio_slot(&t)->isr = 3;
		vqr_write32(&t.r, 0x070, 0);
		CHECK_EQ(t.dev.reset, active);
		CHECK(!t.dev.d.active);
		for (unsigned q = 0; q < 2; q++)
			CHECK(!t.dev.d.q[q].ready);
		tmmio_look(&t, &after);
		after.reset = before.reset;
		after.activated = before.activated;
		memset(after.q, 0, sizeof after.q);
		CHECK_MEM(&after, &before, sizeof after);
		vqr_write32(&t.r, 0x070, 0);
		CHECK_EQ(t.dev.reset, active); /* nothing to reset any more */
		CHECK_EQ(vqr_drive(&t.r, ~UINT64_C(0)), 15);
		tmmio_fini(&t);
	}
}

TEST(vmmio_a_device_that_cannot_activate_waits_for_a_reset)
{
	struct tmmio t;

	tmmio_init(&t);
	t.dev.activate_result = -EIO;
	tmmio_to(&t, TMMIO_FEATURES_OK);
	vqr_write32(&t.r, 0x070, 15);
	CHECK_EQ(vqr_read32(&t.r, 0x070), 15 | 64);
	vqr_kick(&t.r, 0);
	CHECK_EQ(t.dev.kicks[0], 0);
	vqr_write32(&t.r, 0x070, 0);
	CHECK_EQ(t.dev.reset, 1);
	t.dev.activate_result = 0;
	CHECK_EQ(vqr_drive(&t.r, 0), 15);
	tmmio_fini(&t);
}

/* --- features --------------------------------------------------------------------------------- */

static void tmmio_accept(struct tmmio *t, uint64_t features)
{
	vqr_write32(&t->r, 0x024, 0);
	vqr_write32(&t->r, 0x020, (uint32_t)features);
	vqr_write32(&t->r, 0x024, 1);
	vqr_write32(&t->r, 0x020, (uint32_t)(features >> 32));
}

TEST(vmmio_offers_the_features_of_device_and_transport)
{
	struct tmmio t;

	tmmio_fresh(&t, TMMIO_DRIVER);
	CHECK_EQ(vqr_offered(&t.r), FDEV_FEATURES | UINT64_C(1) << 32 | 1u << 29);
	for (uint32_t sel = 2; sel; sel <<= 1) {
		test_note("DeviceFeaturesSel %#x", sel);
		vqr_write32(&t.r, 0x014, sel);
		CHECK_EQ(vqr_read32(&t.r, 0x010), 0);
	}
	tmmio_fini(&t);
	/* a device that offers none itself */
	tmmio_init(&t);
	t.dev.d.ops = &fdev_bare_ops;
	tmmio_to(&t, TMMIO_DRIVER);
	CHECK_EQ(vqr_offered(&t.r), UINT64_C(1) << 32 | 1u << 29);
	tmmio_fini(&t);
}

TEST(vmmio_accepts_a_subset_of_its_features_with_version_1)
{
	const uint64_t v1 = VIRTIO_F_VERSION_1, ev = VIRTIO_F_RING_EVENT_IDX;
	const struct {
		uint64_t features;
		bool ok;
	} row[] = {
		{ v1, true },
		{ v1 | ev, true },
		{ v1 | 1, true },
		{ v1 | FDEV_FEATURES, true },
		{ v1 | FDEV_FEATURES | ev, true },
		{ 0, false }, /* a legacy driver */
		{ ev, false },
		{ FDEV_FEATURES, false },
		{ v1 | 2, false }, /* not offered */
		{ v1 | UINT64_C(1) << 28, false }, /* indirect descriptors */
		{ v1 | UINT64_C(1) << 33, false },
		{ v1 | UINT64_C(1) << 63, false },
		{ UINT64_MAX, false },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tmmio t;
		test_note("features %#llx", (unsigned long long)row[i].features);
		tmmio_fresh(&t, TMMIO_DRIVER);
		tmmio_accept(&t, row[i].features);
		vqr_write32(&t.r, 0x070, 11);
		CHECK_EQ(vqr_read32(&t.r, 0x070), row[i].ok ? 11 : 3);
		if (!row[i].ok) { /* the driver may think again */
			tmmio_accept(&t, v1);
			vqr_write32(&t.r, 0x070, 11);
			CHECK_EQ(vqr_read32(&t.r, 0x070), 11);
		}
		tmmio_fini(&t);
	}
}

TEST(vmmio_features_are_final_once_they_are_ok)
{
	struct tmmio t;

	for (unsigned event = 0; event < 2; event++) {
		uint64_t f = VIRTIO_F_VERSION_1 | 1 | (event ? VIRTIO_F_RING_EVENT_IDX : 0);
		tmmio_fresh(&t, TMMIO_DRIVER);
		tmmio_accept(&t, f);
		vqr_write32(&t.r, 0x070, 11);
		tmmio_accept(&t, VIRTIO_F_VERSION_1 | FDEV_FEATURES);
		vqr_write32(&t.r, 0x070, 15);
		tmmio_accept(&t, UINT64_MAX);
		CHECK_EQ(t.dev.d.features, f);
		CHECK_EQ(t.dev.d.q[0].event_idx, event);
		CHECK_EQ(t.dev.d.q[1].event_idx, event);
		tmmio_fini(&t);
	}
}

TEST(vmmio_driver_features_beyond_64_bits_do_not_exist)
{
	struct tmmio t;

	tmmio_fresh(&t, TMMIO_DRIVER);
	tmmio_accept(&t, VIRTIO_F_VERSION_1);
	for (uint32_t sel = 2; sel; sel <<= 1) {
		vqr_write32(&t.r, 0x024, sel);
		vqr_write32(&t.r, 0x020, ~0u);
		CHECK_EQ(tmmio_slot(&t)->drv_features, VIRTIO_F_VERSION_1);
	}
	tmmio_fini(&t);
}

/* --- queues ----------------------------------------------------------------------------------- */

/* CVE-2026-5747: a driver that changes a queue while the device uses it. */
TEST(vmmio_queues_are_latched_by_driver_ok)
{
	static const uint32_t reg[] = { 0x038, 0x044, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4 };
	static const uint32_t value[] = { 0, 1, 2, 3, 128, 256, 512, 0x10000, 0xfffffff0, ~0u };
	static const enum tmmio_stage stages[] = { TMMIO_DRIVER_OK, TMMIO_NEEDS_RESET };

	for (unsigned k = 0; k < ARRAY_LEN(stages); k++) {
		struct vq q[VDEV_MAX_QUEUES], staged[VDEV_MAX_QUEUES];
		struct tmmio t;

		tmmio_fresh(&t, stages[k]);
		memcpy(q, t.dev.d.q, sizeof q);
		memcpy(staged, tmmio_slot(&t)->staged, sizeof staged);
		CHECK_EQ(q[0].ready, stages[k] == TMMIO_DRIVER_OK);
		for (uint32_t sel = 0; sel < 4; sel++)
			for (unsigned i = 0; i < ARRAY_LEN(reg); i++)
				for (unsigned v = 0; v < ARRAY_LEN(value); v++) {
					test_note("queue %u register %#x = %#x", sel, reg[i], value[v]);
					vqr_write32(&t.r, 0x030, sel);
					vqr_write32(&t.r, reg[i], value[v]);
					CHECK_MEM(t.dev.d.q, q, sizeof q);
					CHECK_MEM(tmmio_slot(&t)->staged, staged, sizeof staged);
				}
		tmmio_fini(&t);
	}
}

TEST(vmmio_a_ready_queue_does_not_change_until_it_is_taken_back)
{
	static const uint32_t reg[] = { 0x038, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4 };
	struct tmmio t;
	struct vq q;

	tmmio_fresh(&t, TMMIO_FEATURES_OK);
	vqr_write32(&t.r, 0x044, 1);
	CHECK_EQ(vqr_read32(&t.r, 0x044), 1);
	q = tmmio_slot(&t)->staged[0];
	for (unsigned i = 0; i < ARRAY_LEN(reg); i++) {
		vqr_write32(&t.r, reg[i], 0x1230);
		CHECK_MEM(&tmmio_slot(&t)->staged[0], &q, sizeof q);
	}
	vqr_write32(&t.r, 0x044, 0);
	CHECK_EQ(vqr_read32(&t.r, 0x044), 0);
	vqr_write32(&t.r, 0x038, 2);
	CHECK_EQ(tmmio_slot(&t)->staged[0].num, 2);
	tmmio_fini(&t);
}

TEST(vmmio_a_queue_that_cannot_be_is_not_ready)
{
	static const struct {
		uint32_t reg, value;
		const char *why;
	} row[] = {
		{ 0x038, 0, "no entries" },
		{ 0x038, 3, "not a power of two" },
		{ 0x038, 512, "more than QueueNumMax" },
		{ 0x038, 0x10000, "a size that is 0 in 16 bits" },
		{ 0x038, 0x10100, "a size that is 256 in 16 bits" },
		{ 0x080, MIB(1) + 8, "descriptors not at 16" },
		{ 0x090, MIB(1) + 1, "driver ring not at 2" },
		{ 0x0a0, MIB(1) + 2, "device ring not at 4" },
		{ 0x080, VQR_RAM - 256 * 16 + 16, "descriptors past RAM" },
		{ 0x090, VQR_RAM - 256 * 2 - 4, "driver ring past RAM" },
		{ 0x0a0, VQR_RAM - 256 * 8 - 4, "device ring past RAM" },
		{ 0x080, 0xd0000000, "descriptors in the hole" },
		{ 0x084, 1, "descriptors above 4 GiB" },
		{ 0x094, 0xffffffff, "driver ring at the end of all" },
		{ 0x0a4, 0x80000000, "device ring far off" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tmmio t;
		test_note("%s", row[i].why);
		tmmio_fresh(&t, TMMIO_FEATURES_OK);
		vqr_write32(&t.r, row[i].reg, row[i].value);
		vqr_write32(&t.r, 0x044, 1);
		CHECK_EQ(vqr_read32(&t.r, 0x044), 0);
		vqr_write32(&t.r, 0x070, 15);
		CHECK(!t.dev.d.q[0].ready);
		tmmio_fini(&t);
	}
}

TEST(vmmio_a_queue_may_end_where_ram_ends)
{
	static const struct {
		uint32_t reg, value;
	} row[] = {
		{ 0x080, VQR_RAM - 256 * 16 },
		{ 0x090, VQR_RAM - 256 * 2 - 6 },
		{ 0x0a0, VQR_RAM - 256 * 8 - 8 },
		{ 0x038, 1 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tmmio t;
		test_note("row %u", i);
		tmmio_fresh(&t, TMMIO_FEATURES_OK);
		vqr_write32(&t.r, row[i].reg, row[i].value);
		vqr_write32(&t.r, 0x044, 1);
		CHECK_EQ(vqr_read32(&t.r, 0x044), 1);
		tmmio_fini(&t);
	}
}

TEST(vmmio_a_queue_that_does_not_exist_has_no_size_and_is_never_ready)
{
	struct tmmio t;
	static const uint32_t sel[] = { 2, 3, 4, 255, 256, 0x10000, ~0u };

	tmmio_fresh(&t, TMMIO_FEATURES_OK);
	for (unsigned i = 0; i < ARRAY_LEN(sel); i++) {
		struct tmmio_image before, after;
		test_note("QueueSel %#x", sel[i]);
		vqr_write32(&t.r, 0x030, sel[i]);
		tmmio_look(&t, &before);
		CHECK_EQ(vqr_read32(&t.r, 0x034), 0);
		for (uint32_t reg = 0x038; reg < 0x0b0; reg += 4)
			if (reg < 0x050 || reg >= 0x080)
				vqr_write32(&t.r, reg, 1);
		CHECK_EQ(vqr_read32(&t.r, 0x044), 0);
		tmmio_look(&t, &after);
		CHECK_MEM(&after, &before, sizeof after);
	}
	tmmio_fini(&t);
}

/* All queues, as one eventfd serves them; but only if the one it names is there. */
TEST(vmmio_notify_reaches_the_device)
{
	static const uint32_t none[] = { 2, 3, 256, 0x10000, ~0u };
	struct tmmio t;

	tmmio_fresh(&t, TMMIO_DRIVER_OK);
	for (unsigned q = 0; q < 2; q++) {
		vqr_kick(&t.r, q);
		CHECK_EQ(t.dev.kicks[0], q + 1);
		CHECK_EQ(t.dev.kicks[1], q + 1);
	}
	for (unsigned i = 0; i < ARRAY_LEN(none); i++)
		vqr_kick(&t.r, none[i]);
	CHECK_EQ(t.dev.kicks[0], 2);
	CHECK_EQ(t.dev.kicks[1], 2);
	tmmio_fini(&t);
}

TEST(vmmio_kicks_before_driver_ok_and_after_a_broken_rule_are_dropped)
{
	struct tmmio t;

	for (enum tmmio_stage stage = TMMIO_RESET; stage < TMMIO_STAGES; stage++) {
		test_note("stage %u", stage);
		tmmio_fresh(&t, stage);
		vqr_kick(&t.r, 0);
		CHECK_EQ(t.dev.kicks[0], stage == TMMIO_DRIVER_OK);
		tmmio_fini(&t);
	}
}

TEST(vmmio_a_rule_broken_in_a_kick_breaks_the_device)
{
	struct tmmio t;

	tmmio_fresh(&t, TMMIO_DRIVER_OK);
	t.dev.kick_result = -EFAULT;
	tmmio_slot(&t)->isr = 0;
	vqr_kick(&t.r, 0);
	CHECK(vqr_is_broken(&t.r));
	CHECK(!t.dev.d.q[0].ready);
	CHECK_EQ(vqr_read32(&t.r, 0x060), 2); /* a configuration change: 2.1.1 */
	CHECK_EQ(t.r.irqs, 1);
	vdev_lock(&t.dev.d);
	vdev_broken(&t.dev.d, "again");
	vdev_unlock(&t.dev.d);
	CHECK_EQ(t.r.irqs, 1);
	CHECK_EQ(vqr_drive(&t.r, 0), 15);
	tmmio_fini(&t);
}

/* --- interrupts, configuration space ---------------------------------------------------------- */

TEST(vmmio_interrupt_status_keeps_what_is_not_acknowledged)
{
	struct tmmio t;

	tmmio_fresh(&t, TMMIO_DRIVER_OK);
	CHECK_EQ(vqr_read32(&t.r, 0x060), 3);
	vqr_write32(&t.r, 0x064, 4);
	CHECK_EQ(vqr_read32(&t.r, 0x060), 3);
	vqr_write32(&t.r, 0x064, 1);
	CHECK_EQ(vqr_read32(&t.r, 0x060), 2);
	vqr_write32(&t.r, 0x064, ~0u);
	CHECK_EQ(vqr_read32(&t.r, 0x060), 0);
	tmmio_fini(&t);
}

TEST(vmmio_signals_a_queue_that_moved)
{
	struct tmmio t;

	tmmio_fresh(&t, TMMIO_DRIVER_OK);
	tmmio_slot(&t)->isr = 0;
	vdev_lock(&t.dev.d);
	vdev_signal(&t.dev.d, 0);
	CHECK_EQ(t.r.irqs, 0);
	CHECK_EQ(vq_push(&t.dev.d.q[0], 0, 0), 0);
	vdev_signal(&t.dev.d, 0);
	vdev_unlock(&t.dev.d);
	CHECK_EQ(t.r.irqs, 1);
	CHECK_EQ(vqr_read32(&t.r, 0x060), 1);
	tmmio_fini(&t);
}

TEST(vmmio_configuration_generation_moves_with_every_change)
{
	for (enum tmmio_stage stage = TMMIO_RESET; stage < TMMIO_STAGES; stage++) {
		struct tmmio t;
		uint32_t before;
		bool live = stage == TMMIO_DRIVER_OK || stage == TMMIO_NEEDS_RESET;
		unsigned irqs;

		test_note("stage %u", stage);
		tmmio_fresh(&t, stage);
		before = vqr_read32(&t.r, 0x0fc);
		irqs = t.r.irqs;
		tmmio_slot(&t)->isr = 0;
		vdev_lock(&t.dev.d);
		vdev_config_changed(&t.dev.d);
		vdev_unlock(&t.dev.d);
		CHECK(vqr_read32(&t.r, 0x0fc) != before);
		CHECK_EQ(t.r.irqs - irqs, live); /* no driver yet: nobody to tell */
		CHECK_EQ(vqr_read32(&t.r, 0x060), live ? 2 : 0);
		before = vqr_read32(&t.r, 0x0fc);
		vqr_write32(&t.r, 0x070, 0);
		CHECK_EQ(vqr_read32(&t.r, 0x0fc), before); /* a reset is no change */
		tmmio_fini(&t);
	}
}

TEST(vmmio_another_device_in_the_slot_is_another_generation)
{
	struct tmmio t;
	uint32_t before;

	tmmio_fresh(&t, TMMIO_DRIVER_OK);
	before = vqr_read32(&t.r, 0x0fc);
	CHECK_EQ(slots_detach(&t.r.slots, 0, NULL), 0);
	vqr_attach(&t.r, &t.dev.d);
	CHECK(vqr_read32(&t.r, 0x0fc) != before);
	tmmio_fini(&t);
}

TEST(vmmio_configuration_space_takes_any_width_and_offset)
{
	struct tmmio t;

	for (enum tmmio_stage stage = TMMIO_RESET; stage < TMMIO_STAGES; stage++) {
		tmmio_fresh(&t, stage);
		for (unsigned i = 0; i < FDEV_CONFIG; i++)
			t.dev.config[i] = (uint8_t)(0xa0 + i);
		vmmio_show(tmmio_slot(&t));
		for (uint32_t at = 0; at < LAYOUT_SLOT_BYTES - 0x100; at += 7)
			for (unsigned len = 1; len <= 8; len++) {
				uint64_t want = 0;
				test_note("stage %u: %u bytes at %#x", stage, len, at);
				for (unsigned i = 0; i < len && at + i < FDEV_CONFIG; i++)
					want |= (uint64_t)(0xa0 + at + i) << (8 * i);
				CHECK_EQ(vqr_config(&t.r, at, len), want);
				CHECK_EQ(t.dev.last.offset, at);
				CHECK_EQ(t.dev.last.len, len);
			}
		slots_mmio(&t.r.slots, LAYOUT_SLOT_BASE + 0x103, (uint8_t *)"xyz", 2, true);
		CHECK_MEM(t.dev.config, "\xa0\xa1\xa2xy\xa5", 6);
		tmmio_fini(&t);
	}
}

TEST(vmmio_a_device_without_configuration_space_reads_zero)
{
	struct tmmio t;

	tmmio_init(&t);
	t.dev.d.ops = &fdev_bare_ops;
	tmmio_to(&t, TMMIO_DRIVER);
	for (unsigned len = 1; len <= 8; len++) {
		slots_mmio(&t.r.slots, LAYOUT_SLOT_BASE + 0x100, (uint8_t[8]){ 1 }, len, true);
		CHECK_EQ(vqr_config(&t.r, 0, len), 0);
	}
	CHECK_EQ(t.dev.last.n, 0);
	tmmio_fini(&t);
}

#undef S
#undef ANY
#undef PRESENT
#undef LATE
#undef NEGOTIATE
#undef SETUP
#undef NEVER
