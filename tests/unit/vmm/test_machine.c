#include "tests/unit/test.h"
#include "tests/unit/vmm/machine_rig.h"
#include "vmm/snapshot/snap.h"

static void tmach_refused(struct mrig *r, int code, const char *words)
{
	struct err e;

	CHECK_EQ(mrig_create(r, &e), code);
	CHECK_STR(e.msg, words);
}

TEST(vmm_refuses_a_machine_that_cannot_be)
{
	static const struct {
		uint32_t vcpus, max;
		uint64_t mem;
		const char *words;
	} row[] = {
		{ 0, 1, MIB(64), "0 vCPUs of 1" },
		{ 2, 1, MIB(64), "2 vCPUs of 1" },
		{ 1, 65, MIB(64), "1 vCPUs of 65" },
		{ ~0u, ~0u, MIB(64), "4294967295 vCPUs of 4294967295" },
		{ 1, 1, MIB(62), "65011712 bytes of memory" },
		{ 1, 1, 0, "0 bytes of memory" },
		{ 1, 1, LAYOUT_MAX_MEM + MIB(2), "68721573888 bytes of memory" },
		{ 1, 1, UINT64_MAX, "18446744073709551615 bytes of memory" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct mrig r;
		test_note("row %u", i);
		mrig_boot(&r, row[i].vcpus, row[i].max);
		r.rq.create.mem_bytes = row[i].mem;
		tmach_refused(&r, -EINVAL, row[i].words);
		CHECK(r.fds[0] >= 0 && r.m->kvm.vm_fd == -1);
	}
	mrig_end();
}

TEST(vmm_refuses_the_wrong_number_of_descriptors)
{
	static const uint32_t flags[] = { 0, CTL_F_MEMORY, CTL_F_MEMORY | CTL_F_RESTORE,
					  CTL_F_MEMORY | CTL_F_RESTORE | CTL_F_WARM };

	for (unsigned f = 0; f < ARRAY_LEN(flags); f++)
		for (size_t n = 2; n <= 6; n++) {
			struct mrig r;
			if (n == 2 + f)
				continue;
			mrig_boot(&r, 1, 1);
			r.rq.flags = flags[f];
			r.nfds = n;
			tmach_refused(&r, -EPROTO, "wrong number of descriptors");
		}
	mrig_end();
}

TEST(vmm_makes_one_machine_per_process)
{
	struct mrig r;

	mrig_boot(&r, 1, 1);
	mrig_must_create(&r);
	tmach_refused(&r, -EBUSY, "this process has a machine already");
	mrig_end();
}

TEST(vmm_saves_only_a_machine_that_is_paused)
{
	struct mrig r;
	struct err e = { 0 };

	mrig_boot(&r, 1, 1);
	mrig_must_create(&r);
	CHECK_EQ(vmm_save(r.m, -1, -1, &e), -EBUSY);
	CHECK_STR(e.msg, "pause the machine before saving it");
	mrig_end();
}

TEST(vmm_says_which_kvm_it_was_given)
{
	struct mrig r;
	struct err e;

	mrig_boot(&r, 1, 1);
	close(r.fds[0]);
	r.fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
	CHECK_EQ(mrig_create(&r, &e), -ENODEV);
	CHECK_HAS(e.msg, "/dev/kvm: API version ");
	mrig_end();
}

/* --- damaged states ---------------------------------------------------------------------------- */

/* A saved machine, and a copy of its state that a test may change. */
struct tmach {
	struct mrig a;
	struct buf state;
};

static void tmach_save(struct tmach *t)
{
	*t = (struct tmach){ 0 };
	mrig_boot(&t->a, 1, 2);
	mrig_must_create(&t->a);
	mrig_save(&t->a, &t->state);
}

/* The payload of a section, inside t->state. */
static uint8_t *tmach_section(struct tmach *t, uint32_t tag, uint32_t instance, size_t *n)
{
	struct snap s;
	struct cur in;

	CHECK_EQ(snap_parse(&s, t->state.data, t->state.len, NULL, NULL), 0);
	if (!snap_find(&s, tag, instance, &in))
		test_fail(__FILE__, __LINE__, "no section %u.%u", tag, instance);
	if (n)
		*n = cur_left(&in);
	return t->state.data + (in.p - t->state.data);
}

/* Restore the state with its sum made good. */
static int tmach_restore(struct tmach *t, struct mrig *b, struct err *e)
{
	snap_patch32(&t->state, SNAP_OFF_CRC,
		     snap_crc32c(t->state.data + SNAP_OFF_SUMMED, t->state.len - SNAP_OFF_SUMMED));
	mrig_clone(b, &t->a, &t->state);
	return mrig_create(b, e);
}

TEST(vmm_a_clone_is_the_machine_that_was_saved)
{
	struct tmach t;
	struct mrig b;
	struct buf again = { 0 };
	struct err e;
	static const struct {
		uint32_t tag, instance;
	} same[] = { { SNAP_MACHINE, 0 }, { SNAP_CPUID, 0 }, { SNAP_IOAPIC, 0 }, { SNAP_SLOT, 0 },
		     { SNAP_SLOT, 1 }, { SNAP_SLOT, 2 }, { SNAP_SLOT, 3 }, { SNAP_SLOT, 4 } };

	tmach_save(&t);
	CHECK_EQ(tmach_restore(&t, &b, &e), 0);
	mrig_save(&b, &again);
	CHECK_EQ(again.len, t.state.len);
	for (unsigned i = 0; i < ARRAY_LEN(same); i++) {
		struct tmach c = { .state = again };
		size_t n, m;
		uint8_t *x = tmach_section(&t, same[i].tag, same[i].instance, &n);
		uint8_t *y = tmach_section(&c, same[i].tag, same[i].instance, &m);
		test_note("section %u.%u", same[i].tag, same[i].instance);
		CHECK_EQ(m, n);
		CHECK_MEM(y, x, n);
	}
	mrig_end();
}

TEST(vmm_refuses_a_state_of_another_shape)
{
	static const struct {
		size_t at;
		uint8_t flip;
	} row[] = { { 4, 0x10 }, { 3, 0x10 }, { 8, 2 }, { 8, 1 }, { 12, 1 } };

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tmach t;
		struct mrig b;
		struct err e;
		test_note("row %u", i);
		tmach_save(&t);
		tmach_section(&t, SNAP_MACHINE, 0, NULL)[row[i].at] ^= row[i].flip;
		CHECK_EQ(tmach_restore(&t, &b, &e), -EPROTO);
		CHECK_STR(e.msg, "state file: made for another machine shape");
		CHECK_EQ(b.m->kvm.vm_fd, -1); /* before anything was made */
	}
	mrig_end();
}

/* A section that is there under another name is not there. */
TEST(vmm_names_the_section_that_a_state_lacks)
{
	static const struct {
		uint32_t tag;
		const char *words;
	} row[] = {
		{ SNAP_MACHINE, "state file: no machine in it" },
		{ SNAP_CPUID, "state file: no CPUID in it" },
		{ SNAP_VCPU, "state file: no vCPU in it" },
		{ SNAP_CLOCK, "state file: no clock in it" },
		{ SNAP_IOAPIC, "state file: bad IOAPIC" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tmach t;
		struct mrig b;
		struct err e;
		test_note("%s", row[i].words);
		tmach_save(&t);
		tmach_section(&t, row[i].tag, 0, NULL)[-16] = 99;
		CHECK_EQ(tmach_restore(&t, &b, &e), -EPROTO);
		CHECK_STR(e.msg, row[i].words);
	}
	mrig_end();
}

TEST(vmm_refuses_a_slot_that_holds_another_device)
{
	struct tmach t;
	struct mrig b;
	struct err e;

	tmach_save(&t);
	tmach_section(&t, SNAP_SLOT, 1, NULL)[0] ^= 1;
	CHECK_EQ(tmach_restore(&t, &b, &e), -EPROTO);
	CHECK_STR(e.msg, "state file: slot 1 holds another device");
	tmach_save(&t);
	tmach_section(&t, SNAP_SLOT, 1, NULL)[-12] = 30; /* a device where this machine has none */
	CHECK_EQ(tmach_restore(&t, &b, &e), -EPROTO);
	CHECK_STR(e.msg, "state file: slot 30 holds another device");
	mrig_end();
}

/* A state without a fingerprint to vouch for the host: its CPU is compared. */
TEST(vmm_names_the_cpuid_leaf_that_this_host_lacks)
{
	struct tmach t;
	struct mrig b;
	struct err e;
	struct cpuid_table *host = mem_zalloc(sizeof *host);
	struct kvm_cpuid_entry2 *c;
	size_t n;
	uint32_t missing = 0;

	tmach_save(&t);
	CHECK_EQ(cpuid_supported(&t.a.m->kvm, host, NULL), 0);
	for (uint32_t i = 0; i < host->n; i++)
		if (host->entry[i].function == 0x80000001)
			missing = ~host->entry[i].edx & -(~host->entry[i].edx); /* its lowest bit */
	CHECK(missing);
	c = (void *)tmach_section(&t, SNAP_CPUID, 0, &n);
	for (size_t i = 0; i < n / sizeof *c; i++) {
		struct kvm_cpuid_entry2 one;
		memcpy(&one, c + i, sizeof one);
		if (one.function == 0x80000001)
			one.edx |= missing;
		memcpy(c + i, &one, sizeof one);
	}
	CHECK_EQ(tmach_restore(&t, &b, &e), -ENOTSUP);
	CHECK_STR(e.msg, "this CPU lacks features of leaf 0x80000001");
	mrig_end();
}

TEST(vmm_refuses_a_fingerprint_that_is_not_its_own)
{
	struct tmach t;
	struct mrig b;
	struct err e;

	tmach_save(&t);
	mrig_clone(&b, &t.a, &t.state);
	memset(b.rq.create.fingerprint, 7, CTL_FINGERPRINT);
	CHECK_EQ(mrig_create(&b, &e), -ESTALE);
	CHECK_STR(e.msg, "state file: made by another build, kernel or CPU");
	mrig_end();
}

TEST(vmm_refuses_a_state_file_that_is_empty_or_too_large)
{
	static const off_t bytes[] = { 0, (off_t)SNAP_MAX_BYTES + 1 };

	for (unsigned i = 0; i < ARRAY_LEN(bytes); i++) {
		struct tmach t = { 0 };
		struct mrig b;
		struct err e;
		char want[64];
		mrig_boot(&t.a, 1, 1);
		mrig_clone(&b, &t.a, &t.state);
		CHECK_EQ(ftruncate(b.fds[3], bytes[i]), 0);
		snprintf(want, sizeof want, "state file: %lld bytes", (long long)bytes[i]);
		CHECK_EQ(mrig_create(&b, &e), -EPROTO);
		CHECK_STR(e.msg, want);
	}
	mrig_end();
}

/* A machine that could not be made is no machine: the supervisor's next request is refused, not waited
 * for and not a crash. */
TEST(vmm_a_machine_that_could_not_be_made_refuses_everything_else)
{
	static const uint32_t op[] = { CTL_RUN, CTL_BALLOON, CTL_PAUSE };
	struct tmach t;
	struct mrig b;
	struct err e;
	uint64_t value;

	tmach_save(&t);
	tmach_section(&t, SNAP_IOAPIC, 0, NULL)[-16] = 99;
	CHECK_EQ(tmach_restore(&t, &b, &e), -EPROTO);
	for (unsigned i = 0; i < ARRAY_LEN(op); i++) {
		struct ctl_request rq = { .op = op[i] };
		test_note("request %u", op[i]);
		CHECK_EQ(vmm_serve(b.m, &rq, NULL, 0, &value, &e), -EINVAL);
	}
	mrig_end();
}

/* A DETACH that leaves the device is 1. */
static int tmach_disk(struct mrig *r, uint32_t op, unsigned slot, unsigned flags, int fd, struct err *e)
{
	struct ctl_request rq = { .op = op, .slot = slot, .flags = flags };
	int fds[FD_PASS_MAX] = { fd };
	uint64_t value = 0;
	int code;

	*e = (struct err){ 0 };
	code = vmm_serve(r->m, &rq, fds, fd < 0 ? 0 : 1, &value, e);
	CHECK(fd < 0 || code < 0 || fds[0] == -1);
	return code < 0 ? code : (int)value;
}

static bool tmach_is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

TEST(vmm_closes_a_disk_that_is_taken_out_and_takes_another_in_its_slot)
{
	static const unsigned slots[] = { CTL_SLOT_DRIVE, CTL_SLOT_DRIVE_RO, CTL_SLOT_FREE, LAYOUT_SLOTS - 1 };
	struct mrig r;
	struct err e;

	mrig_boot(&r, 1, 1);
	mrig_must_create(&r);
	for (unsigned i = 0; i < 2 * ARRAY_LEN(slots); i++) {
		unsigned k = slots[i / 2], flags = k == CTL_SLOT_DRIVE_RO ? CTL_F_READONLY : 0;
		int fd = mrig_memory(MIB(1));

		test_note("slot %u, disk %u", k, i % 2);
		CHECK_EQ(tmach_disk(&r, CTL_ATTACH_BLK, k, flags, fd, &e), 0);
		CHECK_EQ(tmach_disk(&r, CTL_ATTACH_BLK, k, flags, mrig_memory(MIB(1)), &e), -EBUSY);
		CHECK(tmach_is_open(fd));
		CHECK_EQ(tmach_disk(&r, CTL_DETACH, k, 0, -1, &e), 0);
		CHECK(!tmach_is_open(fd));
		CHECK(!r.m->slots.slot[k].dev);
	}
	mrig_end();
}

TEST(vmm_leaves_a_driver_its_device_when_the_disk_is_taken_out)
{
	static const unsigned slots[] = { CTL_SLOT_DRIVE, CTL_SLOT_FREE };
	struct mrig r;
	struct err e;

	mrig_boot(&r, 1, 1);
	mrig_must_create(&r);
	for (unsigned i = 0; i < 2 * ARRAY_LEN(slots); i++) {
		unsigned k = slots[i / 2];
		uint32_t driver = 3, generation;
		int fd = mrig_memory(MIB(1));

		test_note("slot %u, disk %u", k, i % 2);
		CHECK_EQ(tmach_disk(&r, CTL_ATTACH_BLK, k, 0, fd, &e), 0);
		slots_mmio(&r.m->slots, LAYOUT_SLOT_BASE + k * LAYOUT_SLOT_BYTES + 0x70,
			   (uint8_t *)&driver, 4, true);
		generation = r.m->slots.slot[k].generation;
		CHECK_EQ(tmach_disk(&r, CTL_DETACH, k, 0, -1, &e), 1);
		CHECK(!tmach_is_open(fd));
		CHECK(r.m->slots.slot[k].dev && vblk_is_empty(r.m->slots.slot[k].dev));
		CHECK(r.m->slots.slot[k].generation != generation);
		CHECK_EQ(tmach_disk(&r, CTL_DETACH, k, 0, -1, &e), -ENOENT);
	}
	mrig_end();
}

TEST(vmm_takes_nothing_out_of_a_slot_but_a_disk)
{
	static const unsigned slots[] = { CTL_SLOT_VSOCK, CTL_SLOT_RNG, CTL_SLOT_BALLOON, CTL_SLOT_DRIVE,
					  CTL_SLOT_SHARE, CTL_SLOT_FREE, LAYOUT_SLOTS, UINT_MAX };
	struct mrig r;
	struct err e;

	mrig_boot(&r, 1, 1);
	mrig_must_create(&r);
	for (unsigned i = 0; i < ARRAY_LEN(slots); i++) {
		char want[32];

		snprintf(want, sizeof want, "slot %u has no disk", slots[i]);
		CHECK_EQ(tmach_disk(&r, CTL_DETACH, slots[i], 0, -1, &e), -ENOENT);
		CHECK_STR(e.msg, want);
	}
	CHECK(r.m->slots.slot[CTL_SLOT_VSOCK].dev);
	mrig_end();
}
