#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/fake_dev.h"
#include "vmm/virtio/mmio.h"
#include "vmm/virtio/slots.h"

#define TSLOT_RAM MIB(4)

/* A row of slots whose machine writes down what it is asked for. */
struct tslot {
	struct gmem mem;
	struct loop loop;
	struct slots slots;
	struct fdev dev;
	unsigned irqs[64]; /* by pin */
	unsigned n;        /* ioeventfd calls */
	struct {
		gpa_t gpa;
		int fd;
		bool assign;
	} io[16];
	unsigned io_fails_at; /* this call; 0 = none */
};

static void tslot_irq(void *arg, unsigned pin)
{
	struct tslot *t = arg;
	CHECK(pin < ARRAY_LEN(t->irqs));
	t->irqs[pin]++;
}

static int tslot_ioeventfd(void *arg, gpa_t gpa, int fd, bool assign)
{
	struct tslot *t = arg;

	CHECK(t->n < ARRAY_LEN(t->io));
	t->io[t->n].gpa = gpa;
	t->io[t->n].fd = fd;
	t->io[t->n].assign = assign;
	return ++t->n == t->io_fails_at ? -ENOSPC : 0;
}

static void tslot_init(struct tslot *t)
{
	const struct slots_host host = { .arg = t, .irq = tslot_irq, .ioeventfd = tslot_ioeventfd };

	*t = (struct tslot){ .dev.d.ops = &fdev_ops };
	log_setup(-1, LOG_ERROR);
	CHECK_EQ(gmem_init(&t->mem, TSLOT_RAM, -1, GMEM_PRIVATE, NULL), 0);
	CHECK_EQ(loop_init(&t->loop), 0);
	slots_init(&t->slots, &t->mem, &t->loop, &host);
}

static void tslot_fini(struct tslot *t)
{
	slots_fini(&t->slots);
	loop_fini(&t->loop);
	gmem_fini(&t->mem);
}

static uint32_t tslot_read(struct tslot *t, unsigned i, uint32_t reg)
{
	uint32_t v = 0;
	slots_mmio(&t->slots, LAYOUT_SLOT_BASE + i * LAYOUT_SLOT_BYTES + reg, (uint8_t *)&v, 4,
		   false);
	return v;
}

static void tslot_write(struct tslot *t, unsigned i, uint32_t reg, uint32_t v)
{
	slots_mmio(&t->slots, LAYOUT_SLOT_BASE + i * LAYOUT_SLOT_BYTES + reg, (uint8_t *)&v, 4, true);
}

/* Queue q of slot i: rings somewhere in RAM, ready. */
static void tslot_queue(struct tslot *t, unsigned i, unsigned q)
{
	tslot_write(t, i, 0x030, q);
	tslot_write(t, i, 0x038, 64);
	tslot_write(t, i, 0x080, (uint32_t)MIB(1) + q * 0x10000);
	tslot_write(t, i, 0x090, (uint32_t)MIB(1) + q * 0x10000 + 0x4000);
	tslot_write(t, i, 0x0a0, (uint32_t)MIB(1) + q * 0x10000 + 0x8000);
	tslot_write(t, i, 0x044, 1);
}

/* A driver in slot i up to `status`; both queues ready from FEATURES_OK on. */
static void tslot_drive(struct tslot *t, unsigned i, uint32_t status)
{
	tslot_write(t, i, 0x070, status & 3);
	tslot_write(t, i, 0x024, 1);
	tslot_write(t, i, 0x020, 1);
	tslot_write(t, i, 0x024, 0);
	tslot_write(t, i, 0x020, 1 | 1 << 29);
	tslot_write(t, i, 0x070, status & 11);
	tslot_queue(t, i, 0);
	tslot_queue(t, i, 1);
	tslot_write(t, i, 0x070, status);
	CHECK_EQ(tslot_read(t, i, 0x070), status);
}

TEST(slots_asleep_have_no_eventfd_and_hear_of_kicks_all_the_same)
{
	struct tslot t;

	tslot_init(&t);
	CHECK_EQ(slots_attach_asleep(&t.slots, 5, &t.dev.d, NULL), 0);
	tslot_drive(&t, 5, 15);
	CHECK_EQ(t.n, 0);
	CHECK_EQ(t.slots.slot[5].kick_fd, -1);
	tslot_write(&t, 5, 0x050, 1);
	CHECK_EQ(t.dev.kicks[1], 1);
	CHECK_EQ(slots_wake(&t.slots, 5, -1, NULL), 0);
	CHECK_EQ(t.n, 1);
	CHECK_EQ(t.io[0].gpa, 0xd0005050);
	CHECK(t.io[0].assign);
	CHECK_EQ(t.dev.kicks[0], 1); /* what was kicked meanwhile */
	CHECK_EQ(slots_wake(&t.slots, 5, -1, NULL), 0);
	CHECK_EQ(t.n, 1);
	CHECK_EQ(slots_detach(&t.slots, 5, NULL), 0);
	CHECK_EQ(t.n, 2);
	CHECK(!t.io[1].assign);
	tslot_fini(&t);
}

TEST(slots_can_be_woken_with_an_eventfd_of_the_device)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	struct tslot t;

	tslot_init(&t);
	CHECK_EQ(slots_attach_asleep(&t.slots, 5, &t.dev.d, NULL), 0);
	tslot_drive(&t, 5, 15);
	CHECK_EQ(slots_wake(&t.slots, 5, fd, NULL), 0);
	CHECK_EQ(t.n, 1);
	CHECK(t.io[0].assign);
	CHECK_EQ(t.dev.kicks[0], 1); /* to look */
	tslot_write(&t, 5, 0x050, 1); /* as a guest would whose write is not routed */
	loop_step(&t.loop, 0);
	CHECK_EQ(t.dev.kicks[0], 1);
	CHECK_EQ(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0), 1);
	CHECK_EQ(slots_detach(&t.slots, 5, NULL), 0);
	CHECK(!t.io[1].assign);
	CHECK_EQ(close(fd), 0); /* it stayed ours */
	tslot_fini(&t);
}

TEST(slots_that_cannot_be_woken_stay_asleep)
{
	struct tslot t;
	struct err e = { 0 };

	tslot_init(&t);
	t.io_fails_at = 1;
	CHECK_EQ(slots_attach_asleep(&t.slots, 5, &t.dev.d, &e), 0);
	CHECK_EQ(slots_wake(&t.slots, 5, -1, &e), -ENOSPC);
	CHECK_HAS(e.msg, "ioeventfd");
	CHECK_EQ(t.slots.slot[5].kick_fd, -1);
	CHECK(!t.dev.destroyed);
	CHECK_EQ(slots_wake(&t.slots, 5, -1, &e), 0);
	tslot_fini(&t);
}

TEST(slots_route_all_queues_of_a_device_to_one_eventfd)
{
	static const unsigned slot[] = { 0, 1, 17, LAYOUT_SLOTS - 1 };

	for (unsigned k = 0; k < ARRAY_LEN(slot); k++) {
		struct tslot t;
		tslot_init(&t);
		test_note("slot %u", slot[k]);
		CHECK_EQ(slots_attach(&t.slots, slot[k], &t.dev.d, NULL), 0);
		CHECK_EQ(t.n, 1);
		CHECK_EQ(t.io[0].gpa, 0xd0000050 + slot[k] * 0x1000);
		CHECK(t.io[0].assign);
		CHECK_EQ(t.io[0].fd, t.slots.slot[slot[k]].kick_fd);
		/* and what arrives there is a kick of each queue, once they run */
		tslot_drive(&t, slot[k], 11);
		CHECK_EQ(write(t.io[0].fd, &(uint64_t){ 1 }, 8), 8);
		loop_step(&t.loop, 0);
		CHECK_EQ(t.dev.kicks[0] + t.dev.kicks[1], 0);
		tslot_write(&t, slot[k], 0x070, 15);
		CHECK_EQ(write(t.io[0].fd, &(uint64_t){ 3 }, 8), 8);
		loop_step(&t.loop, 0);
		CHECK_EQ(t.dev.kicks[0], 1);
		CHECK_EQ(t.dev.kicks[1], 1);
		CHECK_EQ(slots_detach(&t.slots, slot[k], NULL), 0);
		CHECK_EQ(t.n, 2);
		CHECK_EQ(t.io[1].gpa, t.io[0].gpa);
		CHECK_EQ(t.io[1].fd, t.io[0].fd);
		CHECK(!t.io[1].assign);
		CHECK(fcntl(t.io[0].fd, F_GETFD) < 0);
		tslot_fini(&t);
	}
}

TEST(slots_refuse_a_second_device_and_destroy_it)
{
	struct tslot t;
	struct fdev other = { .d.ops = &fdev_ops };
	struct err e = { 0 };

	tslot_init(&t);
	CHECK_EQ(slots_attach(&t.slots, 3, &t.dev.d, &e), 0);
	CHECK_EQ(slots_attach(&t.slots, 3, &other.d, &e), -EBUSY);
	CHECK_STR(e.msg, "slot 3 is taken");
	CHECK_EQ(other.destroyed, 1);
	CHECK_EQ(t.dev.destroyed, 0);
	CHECK_EQ(tslot_read(&t, 3, 0x008), FDEV_ID);
	CHECK_EQ(t.n, 1);
	tslot_fini(&t);
	CHECK_EQ(t.dev.destroyed, 1);
}

TEST(slots_refuse_a_slot_that_does_not_exist)
{
	static const unsigned slot[] = { LAYOUT_SLOTS, LAYOUT_SLOTS + 1, UINT_MAX };
	struct tslot t;

	tslot_init(&t);
	for (unsigned i = 0; i < ARRAY_LEN(slot); i++) {
		struct fdev d = { .d.ops = &fdev_ops };
		struct err e = { 0 };
		char want[32];
		snprintf(want, sizeof want, "no slot %u", slot[i]);
		CHECK_EQ(slots_attach(&t.slots, slot[i], &d.d, &e), -EINVAL);
		CHECK_STR(e.msg, want);
		CHECK_EQ(d.destroyed, 1);
		CHECK_EQ(slots_detach(&t.slots, slot[i], &e), -ENOENT);
	}
	CHECK_EQ(t.n, 0);
	tslot_fini(&t);
}

TEST(slots_undo_an_attach_that_fails_half_way)
{
	struct tslot t;
	struct err e = { 0 };

	tslot_init(&t);
	t.io_fails_at = 1;
	CHECK_EQ(slots_attach(&t.slots, 5, &t.dev.d, &e), -ENOSPC);
	CHECK_HAS(e.msg, "ioeventfd: ");
	CHECK_EQ(t.dev.destroyed, 1);
	CHECK_EQ(tslot_read(&t, 5, 0x008), 0);
	CHECK(!t.io[1].assign);
	CHECK(fcntl(t.io[0].fd, F_GETFD) < 0);
	/* the slot is as good as new */
	t.dev = (struct fdev){ .d.ops = &fdev_ops };
	CHECK_EQ(slots_attach(&t.slots, 5, &t.dev.d, &e), 0);
	tslot_drive(&t, 5, 15);
	tslot_fini(&t);
}

TEST(slots_say_that_there_is_nothing_to_detach)
{
	struct tslot t;
	struct err e = { 0 };

	tslot_init(&t);
	CHECK_EQ(slots_detach(&t.slots, 7, &e), -ENOENT);
	CHECK_STR(e.msg, "slot 7 is empty");
	CHECK_EQ(slots_attach(&t.slots, 7, &t.dev.d, &e), 0);
	CHECK_EQ(slots_detach(&t.slots, 7, &e), 0);
	CHECK_EQ(slots_detach(&t.slots, 7, &e), -ENOENT);
	CHECK_EQ(t.dev.destroyed, 1);
	tslot_fini(&t);
}

TEST(slots_a_driver_that_is_still_there_sees_a_dead_device)
{
	struct tslot t;

	tslot_init(&t);
	CHECK_EQ(slots_attach(&t.slots, 2, &t.dev.d, NULL), 0);
	tslot_drive(&t, 2, 15);
	CHECK_EQ(write(t.slots.slot[2].kick_fd, &(uint64_t){ 1 }, 8), 8);
	CHECK_EQ(slots_detach(&t.slots, 2, NULL), 0);
	CHECK_EQ(t.dev.reset, 1);
	CHECK_EQ(t.dev.destroyed, 1);
	loop_step(&t.loop, 0); /* the kick under way goes nowhere */
	CHECK_EQ(t.dev.kicks[0], 0);
	tslot_write(&t, 2, 0x050, 0);
	tslot_write(&t, 2, 0x070, 15);
	CHECK_EQ(tslot_read(&t, 2, 0x008), 0);
	CHECK_EQ(tslot_read(&t, 2, 0x070), 0);
	tslot_fini(&t);
}

TEST(slots_windows_are_apart)
{
	struct tslot t;

	tslot_init(&t);
	CHECK_EQ(slots_attach(&t.slots, 1, &t.dev.d, NULL), 0);
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++) {
		test_note("slot %u", i);
		CHECK_EQ(tslot_read(&t, i, 0), 0x74726976);
		CHECK_EQ(tslot_read(&t, i, 8), i == 1 ? FDEV_ID : 0);
		if (i != 1)
			tslot_write(&t, i, 0x070, 1);
	}
	CHECK_EQ(tslot_read(&t, 1, 0x070), 0);
	tslot_fini(&t);
}

TEST(slots_accesses_outside_all_windows_do_nothing)
{
	static const gpa_t gpa[] = { 0, LAYOUT_SLOT_BASE - 1, LAYOUT_SLOT_BASE - 4,
				     LAYOUT_SLOT_BASE + LAYOUT_SLOTS * LAYOUT_SLOT_BYTES,
				     LAYOUT_IOAPIC, UINT64_MAX };
	struct tslot t;

	tslot_init(&t);
	for (unsigned i = 0; i < ARRAY_LEN(gpa); i++) {
		uint32_t v = 0;
		slots_mmio(&t.slots, gpa[i], (uint8_t *)&v, 4, true);
		slots_mmio(&t.slots, gpa[i], (uint8_t *)&v, 4, false);
		CHECK_EQ(v, 0);
	}
	tslot_fini(&t);
}

TEST(slots_quiesce_and_resume_every_device)
{
	struct tslot t;
	struct fdev more = { .d.ops = &fdev_ops }, bare = { .d.ops = &fdev_bare_ops };
	struct err e = { 0 };

	tslot_init(&t);
	CHECK_EQ(slots_attach(&t.slots, 0, &t.dev.d, &e), 0);
	CHECK_EQ(slots_attach(&t.slots, 9, &more.d, &e), 0);
	CHECK_EQ(slots_attach(&t.slots, 10, &bare.d, &e), 0); /* has neither */
	CHECK_EQ(slots_quiesce(&t.slots, &e), 0);
	slots_resume(&t.slots);
	CHECK_EQ(t.dev.quiesced * 10 + t.dev.resumed, 11);
	CHECK_EQ(more.quiesced * 10 + more.resumed, 11);
	more.quiesce_result = -EBUSY;
	CHECK_EQ(slots_quiesce(&t.slots, &e), -EBUSY);
	CHECK_HAS(e.msg, "fake in slot 9 does not come to rest: ");
	tslot_fini(&t);
}

/* --- save and restore ------------------------------------------------------------------------- */

/* Offsets in a saved slot: registers, features, queues of 40 bytes, the device's own. */
enum { TSLOT_STATUS = 0, TSLOT_ISR = 4, TSLOT_FEATURES = 24, TSLOT_QUEUE = 32, TSLOT_OWN = 112,
       TSLOT_BYTES = 116 };

/* What a driver at `status` leaves in a snapshot. */
static void tslot_state(uint32_t status, struct buf *out)
{
	struct tslot t;

	tslot_init(&t);
	CHECK_EQ(slots_attach(&t.slots, 4, &t.dev.d, NULL), 0);
	tslot_drive(&t, 4, status);
	t.dev.state = 777;
	if (status == 15) {
		t.slots.slot[4].isr = 1;
		t.dev.d.q[0].next_avail = 0xfffe;
		t.dev.d.q[0].next_used = 5;
		t.dev.d.q[1].next_avail = t.dev.d.q[1].next_used = 9;
	}
	tslot_write(&t, 4, 0x014, 1);
	slots_save_one(&t.slots, 4, out);
	CHECK_EQ(out->len, TSLOT_BYTES);
	tslot_fini(&t);
}

/* Load bytes into a fresh machine that runs a device in slot 4. */
static int tslot_load(struct tslot *t, const void *p, size_t n, struct err *e)
{
	struct cur in = cur_of(p, n);
	int r;

	tslot_init(t);
	CHECK_EQ(slots_attach(&t->slots, 4, &t->dev.d, NULL), 0);
	r = slots_restore_one(&t->slots, 4, &in, e);
	CHECK(r < 0 || cur_left(&in) == 0);
	return r;
}

TEST(slots_a_snapshot_brings_a_running_device_back)
{
	AUTO_BUF struct buf b = { 0 };
	struct tslot t;
	const struct vq *q = t.dev.d.q;

	tslot_state(15, &b);
	CHECK_EQ(tslot_load(&t, b.data, b.len, NULL), 0);
	CHECK_EQ(tslot_read(&t, 4, 0x070), 15);
	CHECK_EQ(t.dev.activated, 1);
	CHECK(t.dev.d.active);
	CHECK_EQ(t.dev.d.features, VIRTIO_F_VERSION_1 | VIRTIO_F_RING_EVENT_IDX | 1);
	CHECK_EQ(t.dev.state, 777);
	for (unsigned i = 0; i < 2; i++) {
		test_note("queue %u", i);
		CHECK(q[i].ready && q[i].event_idx && q[i].mem == &t.mem);
		CHECK_EQ(q[i].num, 64);
		CHECK_EQ(q[i].desc, MIB(1) + i * 0x10000);
		CHECK_EQ(q[i].avail, MIB(1) + i * 0x10000 + 0x4000);
		CHECK_EQ(q[i].used, MIB(1) + i * 0x10000 + 0x8000);
		CHECK_EQ(q[i].signalled, q[i].next_used);
	}
	CHECK_EQ(q[0].next_avail, 0xfffe);
	CHECK_EQ(q[0].next_used, 5);
	CHECK_EQ(q[1].next_avail, 9);
	/* a kick and an interrupt that were under way are not lost */
	CHECK_EQ(t.irqs[LAYOUT_SLOT_GSI + 4], 1);
	CHECK_EQ(tslot_read(&t, 4, 0x060), 1);
	loop_step(&t.loop, 0);
	CHECK_EQ(t.dev.kicks[0], 1);
	CHECK_EQ(t.dev.kicks[1], 1);
	tslot_fini(&t);
}

TEST(slots_a_snapshot_continues_where_the_driver_was)
{
	static const uint32_t status[] = { 0, 1, 3, 11, 15, 3 | 128 };

	for (unsigned i = 0; i < ARRAY_LEN(status); i++) {
		AUTO_BUF struct buf b = { 0 }, again = { 0 };
		struct tslot t;

		test_note("Status %#x", status[i]);
		tslot_state(status[i], &b);
		CHECK_EQ(tslot_load(&t, b.data, b.len, NULL), 0);
		CHECK_EQ(tslot_read(&t, 4, 0x070), status[i]);
		CHECK_EQ(t.dev.activated, status[i] == 15);
		CHECK_EQ(t.dev.d.active, status[i] == 15);
		CHECK_EQ(t.irqs[LAYOUT_SLOT_GSI + 4], status[i] == 15);
		slots_save_one(&t.slots, 4, &again);
		CHECK_EQ(again.len, b.len);
		CHECK_MEM(again.data, b.data, b.len);
		if (status[i] == 11) {
			tslot_write(&t, 4, 0x070, 15);
			CHECK(t.dev.d.active && t.dev.d.q[0].ready && t.dev.d.q[1].ready);
		}
		tslot_fini(&t);
	}
}

TEST(slots_a_snapshot_keeps_a_broken_device_broken)
{
	AUTO_BUF struct buf b = { 0 };
	struct tslot t;

	tslot_state(15, &b);
	b.data[TSLOT_STATUS] = 15 | 64;
	CHECK_EQ(tslot_load(&t, b.data, b.len, NULL), 0);
	CHECK_EQ(t.dev.activated, 0);
	CHECK(!t.dev.d.active && !t.dev.d.q[0].ready);
	loop_step(&t.loop, 0);
	CHECK_EQ(t.dev.kicks[0], 0);
	tslot_write(&t, 4, 0x070, 0);
	tslot_drive(&t, 4, 15);
	CHECK(t.dev.d.active);
	tslot_fini(&t);
}

TEST(slots_refuse_a_state_cut_short_anywhere)
{
	static const uint32_t status[] = { 0, 11, 15 };

	for (unsigned i = 0; i < ARRAY_LEN(status); i++) {
		AUTO_BUF struct buf b = { 0 };
		tslot_state(status[i], &b);
		for (size_t n = 0; n < b.len; n++) {
			struct err e = { 0 };
			struct tslot t;
			test_note("Status %u, %zu of %zu bytes", status[i], n, b.len);
			CHECK_EQ(tslot_load(&t, test_guard(b.data, n), n, &e), -EINVAL);
			CHECK_HAS(e.msg, n < TSLOT_QUEUE ? "slot 4: bad registers" :
					 n < TSLOT_OWN	 ? "slot 4: bad queue" :
							   "slot 4: bad fake state");
			CHECK(!t.dev.d.active);
			tslot_fini(&t);
		}
	}
}

TEST(slots_refuse_registers_that_the_transport_would_not_have)
{
	static const struct {
		unsigned at;
		uint32_t value;
		const char *words;
	} row[] = {
		{ TSLOT_STATUS, 0x100, "slot 4: bad registers" },
		{ TSLOT_STATUS, 15 | 16, "slot 4: bad registers" },
		{ TSLOT_STATUS, 15 | 32, "slot 4: bad registers" },
		{ TSLOT_STATUS, 7, "slot 4: bad registers" },
		{ TSLOT_FEATURES, 2, "slot 4: features the device does not have" },
		{ TSLOT_FEATURES + 4, 3, "slot 4: features the device does not have" },
		{ TSLOT_QUEUE + 24, 257, "slot 4: bad queue 0" },
		{ TSLOT_QUEUE + 24, 0x10040, "slot 4: bad queue 0" },
		{ TSLOT_QUEUE + 28, 2, "slot 4: bad queue 0" },
		{ TSLOT_QUEUE + 28, 0x101, "slot 4: bad queue 0" },
		{ TSLOT_QUEUE + 24, 0, "slot 4: queue 0 is outside memory" },
		{ TSLOT_QUEUE + 24, 63, "slot 4: queue 0 is outside memory" },
		{ TSLOT_QUEUE + 4, 1, "slot 4: queue 0 is outside memory" },
		{ TSLOT_QUEUE, 8, "slot 4: queue 0 is outside memory" }, /* not aligned */
		{ TSLOT_QUEUE + 8, (uint32_t)TSLOT_RAM - 64, "slot 4: queue 0 is outside memory" },
		{ TSLOT_QUEUE + 20, ~0u, "slot 4: queue 0 is outside memory" },
		{ TSLOT_QUEUE + 40 + 16, (uint32_t)TSLOT_RAM, "slot 4: queue 1 is outside memory" },
		{ TSLOT_OWN, 1001, "slot 4: bad fake state" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		AUTO_BUF struct buf b = { 0 };
		struct err e = { 0 };
		struct tslot t;

		test_note("row %u", i);
		tslot_state(15, &b);
		memcpy(b.data + row[i].at, &row[i].value, 4);
		CHECK_EQ(tslot_load(&t, b.data, b.len, &e), -EINVAL);
		CHECK_STR(e.msg, row[i].words);
		CHECK(!t.dev.d.active);
		CHECK_EQ(t.dev.activated, 0);
		tslot_fini(&t);
	}
}

TEST(slots_refuse_a_status_that_no_driver_reaches)
{
	static const uint32_t status[] = { 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14 };

	for (unsigned i = 0; i < ARRAY_LEN(status); i++) {
		AUTO_BUF struct buf b = { 0 };
		struct err e = { 0 };
		struct tslot t;

		test_note("Status %#x", status[i]);
		tslot_state(15, &b);
		memcpy(b.data + TSLOT_STATUS, &status[i], 4);
		CHECK_EQ(tslot_load(&t, b.data, b.len, &e), -EINVAL);
		CHECK_STR(e.msg, "slot 4: bad registers");
		tslot_fini(&t);
	}
}

TEST(slots_refuse_a_driver_without_version_1)
{
	AUTO_BUF struct buf b = { 0 };
	struct tslot t;

	tslot_state(15, &b);
	b.data[TSLOT_FEATURES + 4] = 0;
	CHECK_EQ(tslot_load(&t, b.data, b.len, NULL), -EINVAL);
	tslot_fini(&t);
}

TEST(slots_refuse_ring_indices_of_more_than_16_bits)
{
	for (unsigned at = 32; at <= 36; at += 4) {
		AUTO_BUF struct buf b = { 0 };
		struct err e = { 0 };
		struct tslot t;

		tslot_state(15, &b);
		b.data[TSLOT_QUEUE + at + 2] = 1;
		CHECK_EQ(tslot_load(&t, b.data, b.len, &e), -EINVAL);
		CHECK_STR(e.msg, "slot 4: bad queue 0");
		tslot_fini(&t);
	}
}

TEST(slots_refuse_a_ready_queue_before_features_are_ok)
{
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };
	struct tslot t;

	tslot_state(3, &b);
	memset(b.data + TSLOT_QUEUE, 0, TSLOT_OWN - TSLOT_QUEUE);
	CHECK_EQ(tslot_load(&t, b.data, b.len, &e), 0);
	tslot_fini(&t);
	b.data[TSLOT_QUEUE + 2] = 0x10; /* at 1 MiB */
	b.data[TSLOT_QUEUE + 10] = 0x11;
	b.data[TSLOT_QUEUE + 18] = 0x12;
	b.data[TSLOT_QUEUE + 24] = 64;
	b.data[TSLOT_QUEUE + 28] = 1;
	CHECK_EQ(tslot_load(&t, b.data, b.len, &e), -EINVAL);
	CHECK_STR(e.msg, "slot 4: bad queue 0");
	tslot_fini(&t);
}

TEST(slots_drop_interrupt_bits_that_do_not_exist)
{
	AUTO_BUF struct buf b = { 0 };
	struct tslot t;

	tslot_state(15, &b);
	memset(b.data + TSLOT_ISR, 0xff, 4);
	CHECK_EQ(tslot_load(&t, b.data, b.len, NULL), 0);
	CHECK_EQ(tslot_read(&t, 4, 0x060), 3);
	tslot_fini(&t);
	memset(b.data + TSLOT_ISR, 0xfc, 1);
	CHECK_EQ(tslot_load(&t, b.data, b.len, NULL), 0);
	CHECK_EQ(t.irqs[LAYOUT_SLOT_GSI + 4], 0);
	tslot_fini(&t);
}

TEST(slots_a_device_that_cannot_go_on_refuses_the_snapshot)
{
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };
	struct tslot t;
	struct cur in;

	tslot_state(15, &b);
	tslot_init(&t);
	t.dev.activate_result = -EIO;
	CHECK_EQ(slots_attach(&t.slots, 4, &t.dev.d, NULL), 0);
	in = cur_of(b.data, b.len);
	CHECK_EQ(slots_restore_one(&t.slots, 4, &in, &e), -EIO);
	CHECK_STR(e.msg, "slot 4: cannot activate fake");
	tslot_fini(&t);
}

/* Whatever one wrong bit makes of a snapshot: it is refused, or what came out is a device whose
 * queues lie in RAM and which the next driver can use. */
TEST(slots_no_flipped_bit_does_harm)
{
	AUTO_BUF struct buf b = { 0 };
	unsigned refused = 0;

	tslot_state(15, &b);
	for (unsigned bit = 0; bit < b.len * 8; bit++) {
		struct tslot t;
		int r;

		test_note("bit %u of byte %u", bit % 8, bit / 8);
		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		r = tslot_load(&t, b.data, b.len, NULL);
		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		refused += r < 0;
		for (unsigned q = 0; q < 2; q++)
			CHECK(!t.dev.d.q[q].ready || vq_check(&t.dev.d.q[q]) == 0);
		CHECK(t.dev.d.active || t.dev.kicks[0] == 0);
		loop_step(&t.loop, 0);
		tslot_write(&t, 4, 0x070, 0);
		tslot_drive(&t, 4, 15);
		tslot_fini(&t);
	}
	CHECK(refused > 200);
}
