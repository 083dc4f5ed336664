#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vq_rig.h"

#include <sys/eventfd.h>

/* Just enough RAM to have a second region behind the MMIO hole. Costs only what is touched. */
#define TVQ_TWO_REGIONS (LAYOUT_HOLE_START + MIB(2))

static struct vq_chain tvq_chain; /* 2 KiB; a test is a process, so one is enough */

/* A queue of 8 and one chain made by hand, which is popped. */
static int tvq_pop_after(struct vqr *r, struct vq *q, uint16_t head)
{
	vqr_publish(r, 0, head);
	return vq_pop(q, &tvq_chain);
}

TEST(vq_check_wants_size_alignment_and_rings_inside_ram)
{
	static const struct {
		const char *what;
		gpa_t desc, avail, used;
		uint16_t num;
		int want;
	} row[] = {
		{ "good", 0x1000, 0x2000, 0x3000, 8, 0 },
		{ "largest", 0x1000, 0x2000, 0x3000, VQ_MAX, 0 },
		{ "one entry", 0x1000, 0x2000, 0x3000, 1, 0 },
		{ "no entry", 0x1000, 0x2000, 0x3000, 0, -EINVAL },
		{ "not a power of two", 0x1000, 0x2000, 0x3000, 3, -EINVAL },
		{ "too large", 0x1000, 0x2000, 0x3000, 2 * VQ_MAX, -EINVAL },
		{ "table off by 8", 0x1008, 0x2000, 0x3000, 8, -EINVAL },
		{ "avail off by 1", 0x1000, 0x2001, 0x3000, 8, -EINVAL },
		{ "used off by 2", 0x1000, 0x2000, 0x3002, 8, -EINVAL },
		{ "table up to the end", VQR_RAM - 128, 0x2000, 0x3000, 8, 0 },
		{ "table over the end", VQR_RAM - 112, 0x2000, 0x3000, 8, -EINVAL },
		{ "avail up to the end", 0x1000, VQR_RAM - 22, 0x3000, 8, 0 },
		{ "avail over the end", 0x1000, VQR_RAM - 20, 0x3000, 8, -EINVAL },
		{ "used up to the end", 0x1000, 0x2000, VQR_RAM - 72, 8, 0 },
		{ "used over the end", 0x1000, 0x2000, VQR_RAM - 68, 8, -EINVAL },
		{ "table at the end of the address space", -UINT64_C(16), 0x2000, 0x3000, 8,
		  -EINVAL },
		{ "table in the MMIO hole", LAYOUT_SLOT_BASE, 0x2000, 0x3000, 8, -EINVAL },
	};
	struct vqr r;

	vqr_init(&r, VQR_RAM);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct vq q = { .mem = &r.mem, .desc = row[i].desc, .avail = row[i].avail,
				.used = row[i].used, .num = row[i].num };
		test_note("%s", row[i].what);
		CHECK_EQ(vq_check(&q), row[i].want);
	}
	vqr_fini(&r);
}

TEST(vq_pop_of_an_empty_or_unready_queue_is_nothing)
{
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 0);
	vqr_desc(&r, 0, 0, VQR_DATA, 1, 0, 0);
	q.ready = false;
	CHECK_EQ(tvq_pop_after(&r, &q, 0), 0);
	CHECK_EQ(vq_backlog(&q), 0);
	CHECK(!vq_rearm(&q));
	CHECK_EQ(vq_push(&q, 0, 0), 0);
	CHECK_EQ(vqr_used_idx(&r, 0), 0);
	vqr_fini(&r);
}

TEST(vq_pop_sorts_a_chain_into_readable_and_writable_parts)
{
	const struct vqr_seg seg[] = { { VQR_DATA, 16, false }, { VQR_DATA + 100, 7, false },
				       { VQR_DATA + 200, 512, true }, { VQR_DATA, 1, true } };
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	r.ring[0].free = 6; /* so that the chain wraps around the table */
	CHECK_EQ(vqr_add(&r, 0, seg, 4), 6);
	CHECK_EQ(vq_backlog(&q), 1);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
	CHECK_EQ(vq_backlog(&q), 0);
	CHECK_EQ(tvq_chain.head, 6);
	CHECK_EQ(tvq_chain.nout, 2);
	CHECK_EQ(tvq_chain.nin, 2);
	CHECK_EQ(tvq_chain.out_len, 23);
	CHECK_EQ(tvq_chain.in_len, 513);
	CHECK(tvq_chain.iov[1].iov_base == gmem_span(&r.mem, VQR_DATA + 100, 7));
	CHECK_EQ(tvq_chain.iov[2].iov_len, 512);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 0);
	vqr_fini(&r);
}

/* What a hostile driver can write into one or two descriptors, and what it gets. CVE-2023-5158 is
 * the zero-length rows: harmless, and never a walk without end. */
TEST(vq_pop_refuses_chains_that_break_a_rule)
{
	static const struct {
		const char *what;
		uint16_t head;
		struct {
			gpa_t gpa;
			uint32_t len;
			uint16_t flags, next;
		} d[2];
		int want;
	} row[] = {
		{ "head is no index", 8, { { VQR_DATA, 1, 0, 0 } }, -EINVAL },
		{ "head is the largest number", 65535, { { VQR_DATA, 1, 0, 0 } }, -EINVAL },
		{ "next is no index", 0, { { VQR_DATA, 1, VQR_NEXT, 8 } }, -EINVAL },
		{ "next without the flag is not looked at", 0, { { VQR_DATA, 1, 0, 9 } }, 1 },
		{ "loop of one", 0, { { VQR_DATA, 1, VQR_NEXT, 0 } }, -ELOOP },
		{ "loop of two", 0, { { VQR_DATA, 1, VQR_NEXT, 1 }, { VQR_DATA, 1, VQR_NEXT, 0 } },
		  -ELOOP },
		{ "loop of nothing", 0, { { 0, 0, VQR_NEXT, 1 }, { 0, 0, VQR_NEXT, 0 } }, -ELOOP },
		{ "nothing", 0, { { 0, 0, 0, 0 } }, 1 },
		{ "nothing, at a wild address", 0, { { -UINT64_C(1), 0, VQR_WRITE, 0 } }, 1 },
		{ "indirect", 0, { { VQR_DATA, 16, VQR_INDIRECT, 0 } }, -EINVAL },
		{ "indirect and writable", 0, { { VQR_DATA, 16, VQR_INDIRECT | VQR_WRITE, 0 } },
		  -EINVAL },
		{ "indirect nothing", 0, { { VQR_DATA, 0, VQR_INDIRECT, 0 } }, -EINVAL },
		{ "readable behind writable", 0,
		  { { VQR_DATA, 1, VQR_NEXT | VQR_WRITE, 1 }, { VQR_DATA, 1, 0, 0 } }, -EINVAL },
		{ "last byte of RAM", 0, { { VQR_RAM - 1, 1, 0, 0 } }, 1 },
		{ "one byte over the end", 0, { { VQR_RAM - 1, 2, 0, 0 } }, -EFAULT },
		{ "first byte behind RAM", 0, { { VQR_RAM, 1, 0, 0 } }, -EFAULT },
		{ "longest length", 0, { { VQR_DATA, UINT32_MAX, 0, 0 } }, -EFAULT },
		{ "sum wraps around 2^64", 0, { { -UINT64_C(8), 16, 0, 0 } }, -EFAULT },
		{ "sum is exactly 2^64", 0, { { -UINT64_C(16), 16, 0, 0 } }, -EFAULT },
		{ "in the MMIO hole", 0, { { LAYOUT_SLOT_BASE, 4, VQR_WRITE, 0 } }, -EFAULT },
		{ "second one is bad", 0,
		  { { VQR_DATA, 1, VQR_NEXT, 1 }, { VQR_RAM, 1, VQR_WRITE, 0 } }, -EFAULT },
		{ "unknown flags are ignored", 0, { { VQR_DATA, 1, 0xfff8, 0 } }, 1 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct vqr r;
		struct vq q;

		test_note("%s", row[i].what);
		vqr_init(&r, VQR_RAM);
		q = vqr_queue(&r, 0, 8);
		for (uint16_t k = 0; k < 2; k++)
			vqr_desc(&r, 0, k, row[i].d[k].gpa, row[i].d[k].len, row[i].d[k].flags,
				 row[i].d[k].next);
		CHECK_EQ(tvq_pop_after(&r, &q, row[i].head), row[i].want);
		vqr_fini(&r);
	}
}

TEST(vq_pop_takes_a_chain_that_fills_the_queue)
{
	struct vqr_seg seg[8];
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	for (unsigned i = 0; i < 8; i++)
		seg[i] = (struct vqr_seg){ VQR_DATA + i, 1, i >= 4 };
	vqr_add(&r, 0, seg, 8);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
	CHECK_EQ(tvq_chain.nout + tvq_chain.nin, 8);
	vqr_fini(&r);
}

TEST(vq_pop_takes_no_more_segments_than_a_chain_has_room_for)
{
	static struct vqr_seg seg[VQ_MAX_IOV + 1];
	struct vqr r;
	struct vq q;

	for (unsigned extra = 0; extra < 2; extra++) {
		vqr_init(&r, VQR_RAM);
		q = vqr_queue(&r, 0, VQ_MAX);
		for (unsigned i = 0; i < VQ_MAX_IOV + extra; i++)
			seg[i] = (struct vqr_seg){ VQR_DATA + i, 1, true };
		vqr_add(&r, 0, seg, VQ_MAX_IOV + extra);
		CHECK_EQ(vq_pop(&q, &tvq_chain), extra ? -E2BIG : 1);
		vqr_fini(&r);
	}
}

/* CVE-2023-41051: a range that begins in one region and ends in another, or in the hole between. */
TEST(vq_segments_never_cross_regions)
{
	static const struct {
		gpa_t gpa;
		uint32_t len;
		int want;
	} row[] = {
		{ LAYOUT_HOLE_START - 16, 16, 1 },
		{ LAYOUT_HOLE_START - 16, 17, -EFAULT },
		{ LAYOUT_HOLE_START - 16, 0x40000010, -EFAULT }, /* reaches the second region */
		{ LAYOUT_HOLE_START - 1, 1, 1 },
		{ LAYOUT_HOLE_START, 1, -EFAULT },
		{ LAYOUT_HOLE_END - 1, 2, -EFAULT },
		{ LAYOUT_HOLE_END, 1, 1 },
		{ LAYOUT_HOLE_END, MIB(2), 1 },
		{ LAYOUT_HOLE_END, MIB(2) + 1, -EFAULT },
	};
	struct vqr r;
	struct vq q;

	vqr_init(&r, TVQ_TWO_REGIONS);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("row %u", i);
		q = vqr_queue(&r, 0, 8);
		r.ring[0].published = 0;
		vqr_desc(&r, 0, 0, row[i].gpa, row[i].len, VQR_WRITE, 0);
		CHECK_EQ(tvq_pop_after(&r, &q, 0), row[i].want);
	}
	vqr_fini(&r);
}

TEST(vq_refuses_more_than_4_gib_in_one_direction)
{
	const struct vqr_seg most[] = { { 0, 0x80000000, true }, { 0, 0x7fffffff, true } };
	const struct vqr_seg more[] = { { 0, 0x80000000, true }, { 0, 0x80000000, true } };
	struct vqr r;
	struct vq q;

	vqr_init(&r, TVQ_TWO_REGIONS);
	q = vqr_queue(&r, 0, 8);
	vqr_add(&r, 0, most, 2);
	vqr_add(&r, 0, more, 2);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
	CHECK_EQ(tvq_chain.in_len, UINT32_MAX);
	CHECK_EQ(vq_pop(&q, &tvq_chain), -E2BIG);
	vqr_fini(&r);
}

TEST(vq_pop_refuses_more_entries_than_the_ring_holds)
{
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	vqr_put16(&r, q.avail + 2, 8);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
	vqr_put16(&r, q.avail + 2, 10);
	CHECK_EQ(vq_pop(&q, &tvq_chain), -EINVAL);
	vqr_put16(&r, q.avail + 2, 0); /* backwards */
	CHECK_EQ(vq_pop(&q, &tvq_chain), -EINVAL);
	vqr_fini(&r);
}

TEST(vq_works_on_a_copy_of_the_descriptors)
{
	const struct vqr_seg seg[] = { { VQR_DATA, 16, false }, { VQR_DATA + 16, 4, true } };
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	vqr_add(&r, 0, seg, 2);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
	vqr_fill(&r, q.desc, 0xff, 128);
	CHECK_EQ(tvq_chain.out_len, 16);
	CHECK(tvq_chain.iov[0].iov_base == gmem_span(&r.mem, VQR_DATA, 16));
	CHECK_EQ(vq_push(&q, tvq_chain.head, 4), 0);
	vqr_fini(&r);
}

TEST(vq_unpop_makes_the_chain_come_again)
{
	const struct vqr_seg seg = { VQR_DATA, 4, true };
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	q.next_avail = r.ring[0].published = 65535;
	vqr_put16(&r, q.avail + 2, 65535);
	r.ring[0].free = 3;
	vqr_add(&r, 0, &seg, 1);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
		CHECK_EQ(tvq_chain.head, 3);
		CHECK_EQ(vq_backlog(&q), 0);
		vq_unpop(&q);
		CHECK_EQ(vq_backlog(&q), 1);
	}
	vqr_fini(&r);
}

TEST(vq_indices_wrap_at_65536)
{
	const struct vqr_seg seg = { VQR_DATA, 4, true };
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	q.event_idx = true;
	q.next_avail = q.next_used = q.signalled = 65530;
	r.ring[0].published = 65530;
	for (uint16_t i = 65530; i != 20; i++) {
		uint16_t head = vqr_add(&r, 0, &seg, 1);
		vqr_put16(&r, q.avail + 4 + 16, i); /* used_event: tell me about this very one */
		CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
		CHECK(!vq_rearm(&q));
		CHECK_EQ(vqr_get16(&r, q.used + 4 + 64), (uint16_t)(i + 1)); /* avail_event */
		CHECK_EQ(vq_push(&q, tvq_chain.head, i), 0);
		CHECK_EQ(vqr_used_idx(&r, 0), (uint16_t)(i + 1));
		CHECK_EQ(vqr_used(&r, 0, i).id, head);
		CHECK_EQ(vqr_used(&r, 0, i).len, i);
		CHECK(vq_should_signal(&q));
	}
	vqr_fini(&r);
}

TEST(vq_push_writes_one_element_and_nothing_else)
{
	struct vqr r;
	struct vq q;
	uint32_t word;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	vqr_fill(&r, q.used - 16, 0xee, 128);
	CHECK_EQ(vq_push(&q, 5, 0x01020304), 0);
	vqr_get(&r, q.used - 4, &word, 4);
	CHECK_EQ(word, 0xeeeeeeee);
	CHECK_EQ(vqr_get16(&r, q.used), 0xeeee); /* flags are not ours to touch in push */
	CHECK_EQ(vqr_get16(&r, q.used + 2), 1);
	vqr_get(&r, q.used + 4, &word, 4);
	CHECK_EQ(word, 5);
	vqr_get(&r, q.used + 8, &word, 4);
	CHECK_EQ(word, 0x01020304);
	vqr_get(&r, q.used + 12, &word, 4);
	CHECK_EQ(word, 0xeeeeeeee);
	vqr_fini(&r);
}

/* 2.7.7.2: interrupt if used_event lies in [signalled, now). */
TEST(vq_signals_when_the_used_event_is_passed)
{
	static const struct {
		uint16_t signalled, now, event;
		bool want;
	} row[] = {
		{ 0, 1, 0, true },          { 0, 1, 1, false },        { 0, 1, 65535, false },
		{ 0, 4, 0, true },          { 0, 4, 3, true },         { 0, 4, 4, false },
		{ 3, 4, 2, false },         { 5, 5, 4, false },        { 65534, 1, 65533, false },
		{ 65534, 1, 65534, true },  { 65534, 1, 65535, true }, { 65534, 1, 0, true },
		{ 65534, 1, 1, false },     { 65535, 0, 65535, true }, { 65535, 0, 0, false },
		{ 10, 266, 9, false },      { 10, 266, 10, true },     { 10, 266, 265, true },
		{ 10, 266, 266, false },
	};
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("row %u", i);
		q = vqr_queue(&r, 0, VQ_MAX);
		q.event_idx = true;
		q.signalled = row[i].signalled;
		q.next_used = row[i].now;
		vqr_put16(&r, q.avail + 4 + 2 * VQ_MAX, row[i].event);
		CHECK_EQ(vq_should_signal(&q), row[i].want);
		CHECK(!vq_should_signal(&q)); /* remembered */
	}
	vqr_fini(&r);
}

TEST(vq_without_event_idx_obeys_the_no_interrupt_flag)
{
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	vqr_put16(&r, q.avail + 4 + 16, 1234); /* where used_event would be */
	CHECK_EQ(vq_push(&q, 0, 0), 0);
	CHECK(vq_should_signal(&q));
	vqr_put16(&r, q.avail, 1);
	CHECK_EQ(vq_push(&q, 0, 0), 0);
	CHECK(!vq_should_signal(&q));
	vqr_fini(&r);
}

TEST(vq_rearm_tells_of_what_slipped_in)
{
	const struct vqr_seg seg = { VQR_DATA, 4, true };
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	q.event_idx = true;
	CHECK(!vq_rearm(&q));
	vqr_add(&r, 0, &seg, 1);
	vqr_add(&r, 0, &seg, 1);
	CHECK(vq_rearm(&q));
	CHECK_EQ(vq_backlog(&q), 2);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
	CHECK(vq_rearm(&q));
	CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
	CHECK(!vq_rearm(&q));
	CHECK_EQ(vqr_get16(&r, q.used + 4 + 64), 2);
	vqr_fini(&r);
}

/* Without event_idx the place of avail_event belongs to the driver. */
TEST(vq_rearm_without_event_idx_writes_nothing)
{
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	q.next_avail = 7;
	vqr_put16(&r, q.avail + 2, 7);
	vqr_fill(&r, q.used, 0xee, 128);
	CHECK(!vq_rearm(&q));
	CHECK_EQ(vqr_get16(&r, q.used + 4 + 64), 0xeeee);
	vqr_fini(&r);
}

#define TVQ_ROUNDS 200000

struct tvq_race {
	struct vqr r;
	struct vq q;
	int kick, call;
};

static void tvq_wait(int fd)
{
	uint64_t n;
	ASSERT(read(fd, &n, sizeof n) == sizeof n);
}
static void tvq_post(int fd)
{
	uint64_t one = 1;
	ASSERT(write(fd, &one, sizeof one) == sizeof one);
}

/* The device: serve until empty, rearm, sleep until kicked. */
static void *tvq_device(void *arg)
{
	struct tvq_race *t = arg;
	unsigned done = 0;

	while (done < TVQ_ROUNDS) {
		while (vq_pop(&t->q, &tvq_chain) == 1) {
			ASSERT(vq_push(&t->q, tvq_chain.head, 4) == 0);
			done++;
		}
		if (vq_should_signal(&t->q))
			tvq_post(t->call);
		if (done < TVQ_ROUNDS && !vq_rearm(&t->q))
			tvq_wait(t->kick);
	}
	return NULL;
}

/* Both sides sleep as often as the event indices let them. If either missed a notification, the
 * test would stop here until its deadline. */
TEST(vq_no_notification_is_lost_between_two_threads)
{
	static struct tvq_race t;
	const struct vqr_seg seg = { VQR_DATA, 4, true };
	uint16_t kicked_at = 0, seen = 0;
	pthread_t device;

	vqr_init(&t.r, VQR_RAM);
	t.q = vqr_queue(&t.r, 0, 8);
	t.q.event_idx = true;
	t.kick = eventfd(0, 0);
	t.call = eventfd(0, 0);
	ASSERT(pthread_create(&device, NULL, tvq_device, &t) == 0);
	for (unsigned sent = 0; sent < TVQ_ROUNDS;) {
		uint16_t event, published;

		/* Add one, or a burst; then kick if avail_event was passed (2.7.10). */
		for (unsigned k = 1 + sent % 5; k && sent < TVQ_ROUNDS; k--, sent++) {
			if ((uint16_t)(t.r.ring[0].published - seen) == 8)
				break;
			vqr_add(&t.r, 0, &seg, 1);
		}
		published = t.r.ring[0].published;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		event = vqr_get16(&t.r, t.q.used + 4 + 64);
		if ((uint16_t)(published - event - 1) < (uint16_t)(published - kicked_at))
			tvq_post(t.kick);
		kicked_at = published;
		/* Full: sleep until the next one is back. */
		while ((uint16_t)(published - seen) == 8) {
			vqr_put16(&t.r, t.q.avail + 4 + 16, seen);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			if (vqr_used_idx(&t.r, 0) == seen)
				tvq_wait(t.call);
			seen = vqr_used_idx(&t.r, 0);
		}
	}
	tvq_post(t.kick);
	pthread_join(device, NULL);
	CHECK_EQ(vqr_used_idx(&t.r, 0), (uint16_t)TVQ_ROUNDS);
	vqr_fini(&t.r);
}

TEST(vq_copies_skip_and_stop_where_they_should)
{
	const struct vqr_seg seg[] = { { VQR_DATA, 3, false }, { VQR_DATA + 10, 1, false },
				       { VQR_DATA + 20, 4, false }, { VQR_DATA + 30, 2, true },
				       { VQR_DATA + 40, 3, true } };
	static const struct {
		size_t skip, n;
		const char *out; /* what copy_out yields from "abc" "d" "efgh" */
	} row[] = { { 0, 8, "abcdefgh" }, { 0, 100, "abcdefgh" }, { 0, 3, "abc" }, { 2, 3, "cde" },
		    { 3, 1, "d" }, { 4, 2, "ef" }, { 7, 9, "h" }, { 8, 1, "" }, { 99, 1, "" },
		    { SIZE_MAX, 8, "" }, { 0, 0, "" } };
	struct vqr r;
	struct vq q;
	char got[16];

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	vqr_put(&r, VQR_DATA, "abc", 3);
	vqr_put(&r, VQR_DATA + 10, "d", 1);
	vqr_put(&r, VQR_DATA + 20, "efgh", 4);
	vqr_add(&r, 0, seg, 5);
	CHECK_EQ(vq_pop(&q, &tvq_chain), 1);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("row %u", i);
		memset(got, 0, sizeof got);
		CHECK_EQ(vq_copy_out(&tvq_chain, row[i].skip, got, MIN(row[i].n, sizeof got)),
			 strlen(row[i].out));
		CHECK_STR(got, row[i].out);
	}
	CHECK_EQ(vq_copy_in(&tvq_chain, 1, "WXYZ!", 5), 4);
	vqr_get(&r, VQR_DATA + 30, got, 3);
	CHECK_EQ(got[0], 0);
	CHECK_EQ(got[1], 'W');
	CHECK_EQ(got[2], 0);
	vqr_get(&r, VQR_DATA + 40, got, 4);
	CHECK_MEM(got, "XYZ", 4);
	CHECK_EQ(vq_copy_in(&tvq_chain, 5, "!", 1), 0);
	vqr_fini(&r);
}

TEST(vq_a_chain_of_nothing_copies_nothing)
{
	struct vqr r;
	struct vq q;
	char c = 'x';

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 8);
	vqr_desc(&r, 0, 0, VQR_DATA, 0, VQR_NEXT, 1);
	vqr_desc(&r, 0, 1, VQR_DATA, 0, VQR_WRITE, 0);
	CHECK_EQ(tvq_pop_after(&r, &q, 0), 1);
	CHECK_EQ(tvq_chain.nout + tvq_chain.nin, 0);
	CHECK_EQ(vq_copy_out(&tvq_chain, 0, &c, 1), 0);
	CHECK_EQ(vq_copy_in(&tvq_chain, 0, &c, 1), 0);
	CHECK_EQ(vq_push(&q, tvq_chain.head, 0), 0);
	vqr_fini(&r);
}

TEST(vq_chains_filled_in_advance_come_back_together)
{
	struct vqr r;
	struct vq q;

	vqr_init(&r, VQR_RAM);
	q = vqr_queue(&r, 0, 4);
	q.next_used = 3; /* and across the end of the ring */
	CHECK_EQ(vq_fill(&q, 0, 1, 10), 0);
	CHECK_EQ(vq_fill(&q, 1, 2, 20), 0);
	CHECK_EQ(vqr_used_idx(&r, 0), 0);
	CHECK_EQ(vq_publish(&q, 2), 0);
	CHECK_EQ(vqr_used_idx(&r, 0), 5);
	CHECK_EQ(vqr_used(&r, 0, 3).id, 1);
	CHECK_EQ(vqr_used(&r, 0, 4).len, 20);
	q.ready = false;
	CHECK_EQ(vq_fill(&q, 0, 3, 30), 0);
	CHECK_EQ(vq_publish(&q, 1), 0);
	CHECK_EQ(vqr_used_idx(&r, 0), 5);
	vqr_fini(&r);
}
