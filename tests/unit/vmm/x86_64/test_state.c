#include "tests/unit/test.h"
#include "tests/unit/vmm/kvm_rig.h"
#include "vmm/x86_64/state.h"

/* Everything of a vCPU, read with ioctls of our own. */
struct tvst {
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	uint8_t xsave[16384];
};

/* MSRs that a guest has set; 0x10 and 0x6e0 have tests of their own. */
static const struct kvm_msr_entry tvst_msrs[] = {
	{ .index = 0x277, .data = UINT64_C(0x0001040506070004) },      /* PAT */
	{ .index = 0xc0000081, .data = UINT64_C(0x0023001000000000) }, /* STAR */
	{ .index = 0xc0000082, .data = UINT64_C(0xffffffff81000000) }, /* LSTAR */
	{ .index = 0xc0000083, .data = UINT64_C(0xffffffff81000100) }, /* CSTAR */
	{ .index = 0xc0000084, .data = 0x47700 },                      /* SFMASK */
	{ .index = 0xc0000102, .data = UINT64_C(0xffff888000001000) }, /* KERNEL_GS_BASE */
	{ .index = 0x174, .data = 0x10 },                              /* SYSENTER CS, ESP, EIP */
	{ .index = 0x175, .data = 0xc9002000 }, /* AMD keeps 32 bits */
	{ .index = 0x176, .data = 0x81000200 },
	{ .index = 0x4b564d00, .data = 0x5000 },     /* kvmclock: wall clock page */
	{ .index = 0x4b564d01, .data = 0x6000 | 1 }, /* system time page, on */
};

#define TVST_LAPIC_TPR  0x080
#define TVST_LAPIC_SVR  0x0f0
#define TVST_LAPIC_IRR  0x200
#define TVST_LAPIC_LVTT 0x320
#define TVST_LAPIC_LVT0 0x350
#define TVST_LAPIC_TICR 0x380
#define TVST_LAPIC_TCCR 0x390 /* counts by itself */
#define TVST_LAPIC_TDCR 0x3e0
#define TVST_LVTT_PERIODIC (1u << 17)
#define TVST_LVTT_DEADLINE (2u << 17)

static void tvst_get(const struct kvmr *r, struct tvst *s)
{
	memset(s, 0, sizeof *s);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_MP_STATE, &s->mp), 0);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_REGS, &s->regs), 0);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_SREGS, &s->sregs), 0);
	if (r->k.has_xcrs)
		CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_XCRS, &s->xcrs), 0);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_DEBUGREGS, &s->debug), 0);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_LAPIC, &s->lapic), 0);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_VCPU_EVENTS, &s->events), 0);
	CHECK(r->k.xsave_bytes <= sizeof s->xsave);
	CHECK_EQ(kvm_ioctl(r->vcpu, r->k.has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, s->xsave), 0);
}

static uint32_t tvst_lapic(const struct kvm_lapic_state *l, unsigned reg)
{
	uint32_t v;
	memcpy(&v, l->regs + reg, sizeof v);
	return v;
}
static void tvst_set_lapic(struct kvm_lapic_state *l, unsigned reg, uint32_t v)
{
	memcpy(l->regs + reg, &v, sizeof v);
}

static bool tvst_try_msr(const struct kvmr *r, uint32_t index, uint64_t v)
{
	struct vstate_msrs m = { .n = 1, .e = { { .index = index, .data = v } } };
	return kvm_ioctl(r->vcpu, KVM_SET_MSRS, &m) == 1;
}
static void tvst_set_msr(const struct kvmr *r, uint32_t index, uint64_t v)
{
	test_note("MSR %#x", index);
	CHECK(tvst_try_msr(r, index, v));
}
static uint64_t tvst_get_msr(const struct kvmr *r, uint32_t index)
{
	struct vstate_msrs m = { .n = 1, .e = { { .index = index } } };
	test_note("MSR %#x", index);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_MSRS, &m), 1);
	return m.e[0].data;
}

/* --- values no vCPU starts with --------------------------------------------------------------- */

static void tvst_fill_sregs(struct kvmr *r)
{
	struct kvm_segment code = { .limit = 0xffffffff, .selector = 0x10, .type = 0xb, .present = 1,
				    .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = 0xffffffff, .selector = 0x18, .type = 0x3, .present = 1,
				    .s = 1, .db = 1, .g = 1 };
	struct kvm_sregs s;

	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_SREGS, &s), 0);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.fs.base = UINT64_C(0x00007f1234560000);
	s.gs.base = UINT64_C(0xffff888012340000);
	s.tr = (struct kvm_segment){ .base = 0x3000, .limit = 0x206f, .selector = 0x40, .type = 0xb,
				     .present = 1 };
	s.ldt = (struct kvm_segment){ .base = 0x4000, .limit = 0xf, .selector = 0x50, .type = 2,
				      .present = 1 };
	s.gdt = (struct kvm_dtable){ .base = 0x7000, .limit = 0x7f };
	s.idt = (struct kvm_dtable){ .base = 0x8000, .limit = 0xfff };
	s.cr0 = 0x80050033;
	s.cr2 = UINT64_C(0xffffdeadbeef0000);
	s.cr3 = 0x9000;
	s.cr4 = 0x6a0; /* PAE, PGE, OSFXSR, OSXMMEXCPT */
	s.cr8 = 5;
	s.efer = 0xd01; /* SCE, LME, LMA, NXE */
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_SET_SREGS, &s), 0);
}

static void tvst_fill_regs(struct kvmr *r)
{
	struct kvm_regs regs;

	for (unsigned i = 0; i < sizeof regs / 8; i++)
		((uint64_t *)&regs)[i] = UINT64_C(0x1111111111111111) * (i % 15 + 1) ^ i;
	regs.rip = 0x1234;
	regs.rflags = 0xad7 & ~UINT64_C(0x100); /* CF PF AF ZF SF IF OF, no TF */
	regs.rflags |= 2;
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_SET_REGS, &regs), 0);
}

/* SDM volume 1, 13.4: legacy area, XMM at 160, header at 512. */
static void tvst_fill_xsave(struct kvmr *r)
{
	AUTO_FREE uint8_t *x = mem_zalloc(r->k.xsave_bytes);
	uint64_t parts = 3; /* x87, SSE */

	CHECK_EQ(kvm_ioctl(r->vcpu, r->k.has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, x), 0);
	x[0] = 0x7f; /* FCW: double precision */
	x[1] = 0x02;
	for (unsigned i = 0; i < 8; i++) /* ST0-7, 10 bytes each */
		memset(x + 32 + 16 * i, (int)(0x10 + i), 10);
	for (unsigned i = 0; i < 256; i++)
		x[160 + i] = (uint8_t)(0x80 ^ i);
	x[24] = 0x80; /* MXCSR 0x3f80: round up... */
	x[25] = 0x3f;
	memcpy(x + 512, &parts, sizeof parts);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_SET_XSAVE, x), 0);
}

static void tvst_fill_debug(struct kvmr *r)
{
	struct kvm_debugregs d = { .db = { 0x1001, 0x2002, UINT64_C(0xffffffff81003000), 0x4004 },
				   .dr6 = 0xffff4ff1, .dr7 = 0x01550455 };
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_SET_DEBUGREGS, &d), 0);
}

static void tvst_fill_lapic(struct kvmr *r, uint32_t lvtt)
{
	struct kvm_lapic_state l;

	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_LAPIC, &l), 0);
	tvst_set_lapic(&l, TVST_LAPIC_TPR, 0x50); /* CR8 is its upper half */
	tvst_set_lapic(&l, TVST_LAPIC_SVR, 0x1ff);
	tvst_set_lapic(&l, TVST_LAPIC_LVTT, lvtt | 0xec);
	tvst_set_lapic(&l, TVST_LAPIC_LVT0, 0x10700);
	tvst_set_lapic(&l, TVST_LAPIC_TDCR, 0xb);
	if (lvtt != TVST_LVTT_DEADLINE)
		tvst_set_lapic(&l, TVST_LAPIC_TICR, 0x7fffffff);
	tvst_set_lapic(&l, TVST_LAPIC_IRR + 0x10 * (0x31 / 32), 1u << 0x31 % 32); /* waits */
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_SET_LAPIC, &l), 0);
}

static void tvst_fill_events(struct kvmr *r)
{
	struct kvm_vcpu_events ev;

	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_GET_VCPU_EVENTS, &ev), 0);
	ev.exception.injected = 1;
	ev.exception.nr = 14;
	ev.exception.has_error_code = 1;
	ev.exception.error_code = 0x6;
	ev.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	ev.nmi.pending = 1;
	ev.nmi.masked = 1;
	ev.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_SET_VCPU_EVENTS, &ev), 0);
}

/* A vCPU in the middle of things. The order is of no matter here, but that REGS would take away an
 * exception. */
static void tvst_fill(struct kvmr *r, uint32_t lvtt)
{
	struct kvm_mp_state mp = { KVM_MP_STATE_HALTED };
	struct kvm_xcrs x = { .nr_xcrs = 1 };

	tvst_fill_regs(r);
	tvst_fill_sregs(r);
	if (r->k.has_xcrs && kvm_ioctl(r->vcpu, KVM_GET_XCRS, &x) == 0) {
		x.xcrs[0].value = 3; /* refused where the guest has no XSAVE */
		(void)kvm_ioctl(r->vcpu, KVM_SET_XCRS, &x);
	}
	tvst_fill_xsave(r);
	tvst_fill_debug(r);
	tvst_fill_lapic(r, lvtt);
	for (unsigned i = 0; i < ARRAY_LEN(tvst_msrs); i++)
		tvst_set_msr(r, tvst_msrs[i].index, tvst_msrs[i].data);
	tvst_fill_events(r);
	CHECK_EQ(kvm_ioctl(r->vcpu, KVM_SET_MP_STATE, &mp), 0);
}

static void tvst_save(const struct kvmr *r, struct buf *out)
{
	struct err e = { 0 };

	if (vstate_save(&r->k, r->vcpu, out, &e) < 0)
		test_fail(__FILE__, __LINE__, "%s", e.msg);
}

static void tvst_restore(const struct kvmr *r, const struct buf *b)
{
	struct err e = { 0 };

	if (vstate_restore(&r->k, r->vcpu, 0, cur_of(b->data, b->len), &e) < 0)
		test_fail(__FILE__, __LINE__, "%s", e.msg);
}

/* Class by class, so that a difference has a name. */
static void tvst_compare(const struct tvst *got, const struct tvst *want)
{
	struct kvm_lapic_state l = got->lapic;

	tvst_set_lapic(&l, TVST_LAPIC_TCCR, tvst_lapic(&want->lapic, TVST_LAPIC_TCCR));
	CHECK_EQ(got->mp.mp_state, want->mp.mp_state);
	CHECK_MEM(&got->regs, &want->regs, sizeof got->regs);
	CHECK_MEM(&got->sregs, &want->sregs, sizeof got->sregs);
	CHECK_MEM(&got->xcrs, &want->xcrs, sizeof got->xcrs);
	CHECK_MEM(&got->debug, &want->debug, sizeof got->debug);
	CHECK_MEM(&l, &want->lapic, sizeof l);
	CHECK_MEM(&got->events, &want->events, sizeof got->events);
	CHECK_MEM(got->xsave, want->xsave, sizeof got->xsave);
}

TEST(vstate_brings_every_register_class_back)
{
	static const uint32_t lvtt[] = { TVST_LVTT_PERIODIC, TVST_LVTT_DEADLINE, 0 /* one-shot */ };

	for (unsigned i = 0; i < ARRAY_LEN(lvtt); i++) {
		AUTO_BUF struct buf b = { 0 };
		struct kvmr a, c;
		struct tvst want, fresh, got;

		kvmr_init(&a);
		kvmr_init(&c);
		if (lvtt[i] == TVST_LVTT_DEADLINE && !a.k.has_deadline) {
			kvmr_fini(&a);
			kvmr_fini(&c);
			continue;
		}
		tvst_fill(&a, lvtt[i]);
		tvst_save(&a, &b);
		tvst_get(&a, &want);
		tvst_get(&c, &fresh);
		/* otherwise the test shows nothing */
		CHECK(memcmp(&want.regs, &fresh.regs, sizeof want.regs));
		CHECK(memcmp(&want.sregs, &fresh.sregs, sizeof want.sregs));
		CHECK(memcmp(&want.debug, &fresh.debug, sizeof want.debug));
		CHECK(memcmp(&want.lapic, &fresh.lapic, sizeof want.lapic));
		CHECK(memcmp(&want.events, &fresh.events, sizeof want.events));
		CHECK(memcmp(want.xsave, fresh.xsave, sizeof want.xsave));
		CHECK(want.mp.mp_state != fresh.mp.mp_state);
		tvst_restore(&c, &b);
		tvst_get(&c, &got);
		test_note("LVTT %#x", lvtt[i]);
		tvst_compare(&got, &want);
		for (unsigned k = 0; k < ARRAY_LEN(tvst_msrs); k++)
			CHECK_EQ(tvst_get_msr(&c, tvst_msrs[k].index), tvst_msrs[k].data);
		kvmr_fini(&a);
		kvmr_fini(&c);
	}
}

/* What vstate_is_fresh() takes for granted, and what is left out for it. */
TEST(vstate_knows_how_a_vcpu_is_born)
{
	static const enum vstate_class cls[] = { VSTATE_MP, VSTATE_DEBUG, VSTATE_EVENTS };
	AUTO_BUF struct buf b = { 0 }, second = { 0 };
	struct kvmr a, c;
	struct tvst want, got;
	struct cur part;
	int other;

	kvmr_init(&a);
	kvmr_init(&c);
	tvst_save(&a, &b);
	for (unsigned i = 0; i < ARRAY_LEN(cls); i++) {
		test_note("class %u", cls[i]);
		CHECK(vstate_is_fresh(cls[i], 0, vstate_part(cur_of(b.data, b.len), cls[i]).p));
	}
	tvst_get(&a, &want);
	tvst_restore(&c, &b);
	tvst_get(&c, &got);
	tvst_compare(&got, &want);
	/* the second CPU waits, and is told to run */
	other = kvm_ioctl(a.k.vm_fd, KVM_CREATE_VCPU, (void *)1);
	CHECK(other >= 0);
	CHECK_EQ(vstate_save(&a.k, other, &second, NULL), 0);
	CHECK(!vstate_is_fresh(VSTATE_MP, 1, vstate_part(cur_of(b.data, b.len), VSTATE_MP).p));
	part = vstate_part(cur_of(second.data, second.len), VSTATE_MP);
	CHECK(!vstate_is_fresh(VSTATE_MP, 0, part.p));
	close(other);
	kvmr_fini(&a);
	kvmr_fini(&c);
}

TEST(vstate_brings_every_listed_msr_back)
{
	AUTO_BUF struct buf b = { 0 }, again = { 0 };
	struct kvmr a, c;
	struct cur x, y;

	kvmr_init(&a);
	kvmr_init(&c);
	tvst_fill(&a, 0);
	tvst_save(&a, &b);
	tvst_restore(&c, &b);
	tvst_save(&c, &again);
	CHECK_EQ(again.len, b.len);
	x = vstate_part(cur_of(b.data, b.len), VSTATE_MSRS);
	y = vstate_part(cur_of(again.data, again.len), VSTATE_MSRS);
	CHECK(!x.bad && cur_left(&x) == cur_left(&y));
	CHECK(cur_left(&x) >= 16 * ARRAY_LEN(tvst_msrs));
	while (cur_left(&x)) {
		uint64_t index = cur_le64(&x), want = cur_le64(&x);
		CHECK_EQ(cur_le64(&y), index);
		test_note("MSR %#llx", (unsigned long long)index);
		/* The TSC goes on, and no deadline is saved as "now"; Hyper-V has two counters. */
		if (index == 0x10 || index == 0x6e0 || index == 0x40000010 || index == 0x40000020)
			cur_le64(&y);
		else
			CHECK_EQ(cur_le64(&y), want);
	}
	kvmr_fini(&a);
	kvmr_fini(&c);
}

TEST(vstate_brings_x2apic_mode_back)
{
	AUTO_BUF struct buf b = { 0 };
	struct kvmr a, c;
	struct kvm_sregs s;
	struct tvst want, got;

	kvmr_init(&a);
	kvmr_init(&c);
	CHECK_EQ(kvm_ioctl(a.vcpu, KVM_GET_SREGS, &s), 0);
	s.apic_base |= 0xc00; /* enabled, x2APIC */
	if (kvm_ioctl(a.vcpu, KVM_SET_SREGS, &s) < 0)
		test_skip("this KVM has no x2APIC");
	tvst_fill(&a, TVST_LVTT_PERIODIC);
	tvst_save(&a, &b);
	tvst_get(&a, &want);
	CHECK_EQ(want.sregs.apic_base & 0xc00, 0xc00);
	tvst_restore(&c, &b);
	tvst_get(&c, &got);
	tvst_compare(&got, &want);
	kvmr_fini(&a);
	kvmr_fini(&c);
}

TEST(vstate_brings_an_interrupt_being_injected_back)
{
	AUTO_BUF struct buf b = { 0 };
	struct kvmr a, c;
	struct kvm_vcpu_events ev, got;

	kvmr_init(&a);
	kvmr_init(&c);
	CHECK_EQ(kvm_ioctl(a.vcpu, KVM_GET_VCPU_EVENTS, &ev), 0);
	ev.interrupt.injected = 1;
	ev.interrupt.nr = 0x55;
	ev.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	ev.flags |= KVM_VCPUEVENT_VALID_SHADOW;
	CHECK_EQ(kvm_ioctl(a.vcpu, KVM_SET_VCPU_EVENTS, &ev), 0);
	CHECK_EQ(kvm_ioctl(a.vcpu, KVM_GET_VCPU_EVENTS, &ev), 0);
	CHECK(ev.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS); /* AMD: both kinds are one bit */
	tvst_save(&a, &b);
	tvst_restore(&c, &b);
	CHECK_EQ(kvm_ioctl(c.vcpu, KVM_GET_VCPU_EVENTS, &got), 0);
	CHECK_EQ(got.interrupt.injected, 1);
	CHECK_EQ(got.interrupt.nr, 0x55);
	CHECK_EQ(got.interrupt.shadow, ev.interrupt.shadow);
	kvmr_fini(&a);
	kvmr_fini(&c);
}

/* --- time ------------------------------------------------------------------------------------- */

/* An hour from now: it does not fire while we look. */
static uint64_t tvst_arm(struct kvmr *r)
{
	uint64_t deadline = tvst_get_msr(r, 0x10) + UINT64_C(3600) * 3000000000u;

	if (!r->k.has_deadline)
		test_skip("this KVM has no TSC deadline timer");
	tvst_fill_lapic(r, TVST_LVTT_DEADLINE);
	tvst_set_msr(r, 0x6e0, deadline);
	CHECK_EQ(tvst_get_msr(r, 0x6e0), deadline);
	return deadline;
}

TEST(vstate_keeps_an_armed_deadline)
{
	AUTO_BUF struct buf b = { 0 };
	struct kvmr a, c;
	uint64_t deadline;

	kvmr_init(&a);
	kvmr_init(&c);
	deadline = tvst_arm(&a);
	tvst_save(&a, &b);
	tvst_restore(&c, &b);
	CHECK_EQ(tvst_get_msr(&c, 0x6e0), deadline);
	kvmr_fini(&a);
	kvmr_fini(&c);
}

/* Why the LAPIC comes before the MSRs: the other way round the deadline is gone. */
TEST(vstate_would_lose_the_deadline_in_the_other_order)
{
	AUTO_BUF struct buf b = { 0 };
	struct kvmr a, c;
	struct cur in;
	struct err e;

	kvmr_init(&a);
	kvmr_init(&c);
	CHECK(tvst_arm(&a) != 0);
	tvst_save(&a, &b);
	in = cur_of(b.data, b.len);
	CHECK_EQ(vstate_restore_class(&c.k, c.vcpu, 0, VSTATE_SREGS, in, &e), 0);
	CHECK_EQ(vstate_restore_class(&c.k, c.vcpu, 0, VSTATE_MSRS, in, &e), 0);
	CHECK_EQ(vstate_restore_class(&c.k, c.vcpu, 0, VSTATE_LAPIC, in, &e), 0);
	CHECK_EQ(tvst_get_msr(&c, 0x6e0), 0);
	kvmr_fini(&a);
	kvmr_fini(&c);
}

TEST(vstate_lets_a_deadline_that_fired_unseen_fire_again)
{
	AUTO_BUF struct buf b = { 0 };
	struct kvmr a;
	struct cur in;
	uint64_t tsc = 0, deadline = 0;

	kvmr_init(&a);
	CHECK(tvst_arm(&a) != 0);
	tvst_set_msr(&a, 0x6e0, 0); /* how one that has fired reads */
	tvst_save(&a, &b);
	in = vstate_part(cur_of(b.data, b.len), VSTATE_MSRS);
	while (cur_left(&in)) {
		uint64_t index = cur_le64(&in), v = cur_le64(&in);
		if (index == 0x10)
			tsc = v;
		if (index == 0x6e0)
			deadline = v;
	}
	CHECK(tsc != 0);
	CHECK_EQ(deadline, tsc);
	kvmr_fini(&a);
}

TEST(vstate_saves_the_tsc_first_and_the_deadline_last)
{
	AUTO_BUF struct buf b = { 0 };
	struct kvmr a;
	struct cur in;
	unsigned rank = 0, n = 0;

	kvmr_init(&a);
	tvst_save(&a, &b);
	in = vstate_part(cur_of(b.data, b.len), VSTATE_MSRS);
	while (cur_left(&in)) {
		uint64_t index = cur_le64(&in);
		unsigned now = index == 0x10 ? 0 : index == 0x6e0 ? 3 : index >> 8 == 0x4b564d ? 2 : 1;
		cur_le64(&in);
		CHECK(now >= rank);
		CHECK(now != 0 || n == 0);
		rank = now;
		n++;
	}
	CHECK(n > 10);
	kvmr_fini(&a);
}

/* A guest saved in its first second: KVM must not mistake its counter for one to be synchronised. */
TEST(vstate_a_young_guests_counter_goes_on_where_it_was)
{
	static const uint64_t age[] = { 1000000, UINT64_C(1) << 30, UINT64_C(1) << 45 };

	for (unsigned i = 0; i < ARRAY_LEN(age); i++) {
		AUTO_BUF struct buf b = { 0 };
		struct kvmr a, c;
		uint64_t now, second;

		kvmr_init(&a);
		second = (uint64_t)kvm_ioctl(a.vcpu, KVM_GET_TSC_KHZ, NULL) * 1000;
		tvst_set_msr(&a, 0x10, age[i] + (UINT64_C(1) << 50));
		tvst_set_msr(&a, 0x10, age[i]);
		now = tvst_get_msr(&a, 0x10);
		if (now < age[i] || now > age[i] + 10 * second)
			test_skip("this KVM does not give a guest a TSC of its own");
		tvst_save(&a, &b);
		kvmr_init(&c);
		tvst_restore(&c, &b);
		now = tvst_get_msr(&c, 0x10);
		test_note("age %llu, restored as %llu", (unsigned long long)age[i],
			  (unsigned long long)now);
		CHECK(now >= age[i] && now < age[i] + 20 * second);
		kvmr_fini(&a);
		kvmr_fini(&c);
	}
}

TEST(vstate_a_parked_cpu_shares_the_counter_of_the_first)
{
	AUTO_BUF struct buf b = { 0 };
	struct kvmr a, c;
	int second_cpu;
	uint64_t t0, t1;
	struct err e = { 0 };
	struct kvm_mp_state mp;
	struct kvmr other;

	kvmr_init(&a);
	tvst_set_msr(&a, 0x10, UINT64_C(1) << 50);
	tvst_set_msr(&a, 0x10, UINT64_C(1) << 40);
	if (tvst_get_msr(&a, 0x10) >> 41)
		test_skip("this KVM does not give a guest a TSC of its own");
	tvst_save(&a, &b);
	kvmr_init(&c);
	second_cpu = kvm_ioctl(c.k.vm_fd, KVM_CREATE_VCPU, (void *)1);
	CHECK(second_cpu >= 0);
	CHECK_EQ(cpuid_load(c.cpu, second_cpu, 1, NULL), 0);
	tvst_restore(&c, &b);
	CHECK_EQ(vstate_restore_parked(&c.k, second_cpu, cur_of(b.data, b.len), &e), 0);
	other = c;
	other.vcpu = second_cpu;
	t0 = tvst_get_msr(&c, 0x10);
	t1 = tvst_get_msr(&other, 0x10);
	CHECK(t1 >= t0 && t1 - t0 < 1000000000);
	CHECK_EQ(kvm_ioctl(second_cpu, KVM_GET_MP_STATE, &mp), 0);
	CHECK_EQ(mp.mp_state, KVM_MP_STATE_UNINITIALIZED); /* waits for the startup IPI */
	close(second_cpu);
	kvmr_fini(&a);
	kvmr_fini(&c);
}

/* --- hostile bytes ---------------------------------------------------------------------------- */

/* A vCPU state to damage, and where its parts are. */
struct tvst_file {
	struct buf b;
	size_t at[16], bytes[16]; /* of a class's payload; 0 = not there */
};

static void tvst_file(struct tvst_file *f)
{
	struct kvmr a;
	struct cur in;

	*f = (struct tvst_file){ 0 };
	kvmr_init(&a);
	tvst_fill(&a, 0);
	tvst_save(&a, &f->b);
	in = cur_of(f->b.data, f->b.len);
	while (cur_left(&in)) {
		uint32_t tag = cur_le32(&in), n = cur_le32(&in);
		CHECK(tag < ARRAY_LEN(f->at) && !f->at[tag]);
		f->at[tag] = (size_t)(in.p - f->b.data);
		f->bytes[tag] = n;
		CHECK(cur_bytes(&in, n));
	}
	kvmr_fini(&a);
}

TEST(vstate_refuses_a_state_cut_short_anywhere)
{
	struct tvst_file f;
	struct kvmr c;

	tvst_file(&f);
	kvmr_init(&c);
	for (size_t n = 0; n < f.b.len; n++) {
		struct err e = { 0 };
		uint8_t *p;
		int r;

		/* the large parts end in the same check wherever they are cut */
		if (n % 97 && f.b.len - n > 200 && n > 100)
			continue;
		p = test_guard(f.b.data, n);
		test_note("%zu of %zu bytes", n, f.b.len);
		r = vstate_restore(&c.k, c.vcpu, 0, cur_of(p, n), &e);
		CHECK_EQ(r, -EPROTO);
		CHECK_HAS(e.msg, "is missing or malformed");
	}
	buf_fini(&f.b);
	kvmr_fini(&c);
}

static const struct {
	enum vstate_class cls;
	const char *name;
} tvst_names[] = {
	{ VSTATE_MP, "MP_STATE" },   { VSTATE_REGS, "REGS" },	      { VSTATE_SREGS, "SREGS" },
	{ VSTATE_XSAVE, "XSAVE" },   { VSTATE_XCRS, "XCRS" },	      { VSTATE_DEBUG, "DEBUGREGS" },
	{ VSTATE_LAPIC, "LAPIC" },   { VSTATE_TSC_KHZ, "TSC_KHZ" },   { VSTATE_MSRS, "MSRS" },
	{ VSTATE_EVENTS, "VCPU_EVENTS" },
};

/* The state with one class's payload replaced by n bytes (from the old one, then zeros); without the
 * class altogether when n is SIZE_MAX. */
static void tvst_resize(const struct tvst_file *f, enum vstate_class cls, size_t n, struct buf *out)
{
	for (unsigned i = 0; i < ARRAY_LEN(f->at); i++) {
		size_t bytes = i == cls ? n : f->bytes[i];
		if (!f->at[i] || bytes == SIZE_MAX)
			continue;
		buf_le32(out, i);
		buf_le32(out, (uint32_t)bytes);
		buf_add(out, f->b.data + f->at[i], MIN(bytes, f->bytes[i]));
		for (size_t k = f->bytes[i]; k < bytes; k++)
			buf_add(out, "", 1);
	}
}

TEST(vstate_refuses_every_class_of_a_wrong_size)
{
	struct tvst_file f;
	struct kvmr c;

	tvst_file(&f);
	kvmr_init(&c);
	for (unsigned i = 0; i < ARRAY_LEN(tvst_names); i++) {
		enum vstate_class cls = tvst_names[i].cls;
		const size_t size[] = { SIZE_MAX, 0, f.bytes[cls] - 1, f.bytes[cls] + 1, f.bytes[cls] + 4,
					65536 };
		if (!f.at[cls])
			continue;
		for (unsigned k = 0; k < ARRAY_LEN(size); k++) {
			AUTO_BUF struct buf b = { 0 };
			struct err e = { 0 };

			test_note("%s of %zu bytes, not %zu", tvst_names[i].name, size[k], f.bytes[cls]);
			tvst_resize(&f, cls, size[k], &b);
			CHECK_EQ(vstate_restore(&c.k, c.vcpu, 0,
						cur_of(test_guard(b.data, b.len), b.len), &e), -EPROTO);
			CHECK_HAS(e.msg, cls == VSTATE_MSRS && size[k] == 0 ? "TSC" : tvst_names[i].name);
			CHECK_HAS(e.msg, "is missing or malformed");
		}
	}
	buf_fini(&f.b);
	kvmr_fini(&c);
}

TEST(vstate_refusals_are_eproto_or_enotsup)
{
	static const struct {
		enum vstate_class cls;
		size_t at;
		uint64_t value;
	} row[] = {
		{ VSTATE_MP, 0, 99 },
		{ VSTATE_SREGS, offsetof(struct kvm_sregs, cr0), 0x80000000 }, /* paging without protection */
		{ VSTATE_SREGS, offsetof(struct kvm_sregs, cr4), ~UINT64_C(0) },
		{ VSTATE_DEBUG, offsetof(struct kvm_debugregs, dr7), ~UINT64_C(0) },
		{ VSTATE_EVENTS, offsetof(struct kvm_vcpu_events, exception), 0xff01 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tvst_file f;
		struct kvmr c;
		struct err e = { 0 };
		int r;

		tvst_file(&f);
		kvmr_init(&c);
		test_note("row %u", i);
		memcpy(f.b.data + f.at[row[i].cls] + row[i].at, &row[i].value,
		       row[i].cls == VSTATE_MP || row[i].cls == VSTATE_EVENTS ? 4 : 8);
		r = vstate_restore(&c.k, c.vcpu, 0, cur_of(f.b.data, f.b.len), &e);
		CHECK(r == 0 || r == -EPROTO || r == -ENOTSUP);
		CHECK(i > 1 || r < 0);
		buf_fini(&f.b);
		kvmr_fini(&c);
	}
}

/* CVE-2023-50711: counts and lengths in the file are not believed. */
TEST(vstate_refuses_lengths_that_lie)
{
	static const uint32_t lie[] = { 0x7fffffff, 0x80000000, 0xffffffff, 65537, 0xfffffff8 };
	struct tvst_file f;
	struct kvmr c;

	tvst_file(&f);
	kvmr_init(&c);
	for (unsigned i = 0; i < ARRAY_LEN(f.at); i++)
		for (unsigned k = 0; f.at[i] && k < ARRAY_LEN(lie); k++) {
			struct err e = { 0 };
			uint8_t *len = f.b.data + f.at[i] - 4, keep[4];

			test_note("class %u says %#x bytes", i, lie[k]);
			memcpy(keep, len, 4);
			memcpy(len, &lie[k], 4);
			CHECK_EQ(vstate_restore(&c.k, c.vcpu, 0,
						cur_of(test_guard(f.b.data, f.b.len), f.b.len), &e),
				 -EPROTO);
			memcpy(len, keep, 4);
		}
	buf_fini(&f.b);
	kvmr_fini(&c);
}

TEST(vstate_names_an_msr_that_the_host_refuses)
{
	struct tvst_file f;
	struct kvmr c;
	struct err e = { 0 };
	uint32_t none = 0xdead;

	tvst_file(&f);
	kvmr_init(&c);
	memcpy(f.b.data + f.at[VSTATE_MSRS] + 16, &none, 4);
	CHECK_EQ(vstate_restore(&c.k, c.vcpu, 0, cur_of(f.b.data, f.b.len), &e), -ENOTSUP);
	CHECK_STR(e.msg, "this host refuses MSR 0xdead");
	buf_fini(&f.b);
	kvmr_fini(&c);
}

TEST(vstate_refuses_msrs_that_do_not_begin_with_the_tsc)
{
	struct tvst_file f;
	struct kvmr c;
	struct err e = { 0 };
	uint32_t other = 0x277;

	tvst_file(&f);
	kvmr_init(&c);
	memcpy(f.b.data + f.at[VSTATE_MSRS], &other, 4);
	CHECK_EQ(vstate_restore(&c.k, c.vcpu, 0, cur_of(f.b.data, f.b.len), &e), -EPROTO);
	CHECK_STR(e.msg, "vCPU state: TSC is missing or malformed");
	CHECK_EQ(vstate_restore_parked(&c.k, c.vcpu, cur_of(f.b.data, f.b.len), &e), -EPROTO);
	buf_fini(&f.b);
	kvmr_fini(&c);
}

TEST(vstate_refuses_a_tsc_frequency_that_the_host_cannot_scale_to)
{
	struct tvst_file f;
	struct kvmr c;
	struct err e = { 0 };
	int host, r;
	uint32_t khz;

	tvst_file(&f);
	kvmr_init(&c);
	host = kvm_ioctl(c.vcpu, KVM_GET_TSC_KHZ, NULL);
	khz = (uint32_t)host + (uint32_t)host / 8000; /* 125 ppm: the same */
	memcpy(f.b.data + f.at[VSTATE_TSC_KHZ], &khz, 4);
	CHECK_EQ(vstate_restore(&c.k, c.vcpu, 0, cur_of(f.b.data, f.b.len), &e), 0);
	khz = (uint32_t)host + (uint32_t)host / 1000;
	memcpy(f.b.data + f.at[VSTATE_TSC_KHZ], &khz, 4);
	r = vstate_restore(&c.k, c.vcpu, 0, cur_of(f.b.data, f.b.len), &e);
	if (c.k.has_tsc_control) {
		CHECK_EQ(r, 0);
	} else {
		char want[100];
		snprintf(want, sizeof want, "made at %u kHz TSC, this CPU has %d and cannot scale", khz, host);
		CHECK_EQ(r, -ENOTSUP);
		CHECK_STR(e.msg, want);
	}
	khz = 0;
	memcpy(f.b.data + f.at[VSTATE_TSC_KHZ], &khz, 4);
	CHECK_EQ(vstate_restore(&c.k, c.vcpu, 0, cur_of(f.b.data, f.b.len), &e), -EPROTO);
	buf_fini(&f.b);
	kvmr_fini(&c);
}

TEST(vstate_survives_every_flipped_bit)
{
	struct tvst_file f;
	unsigned refused = 0;
	struct kvmr c;

	tvst_file(&f);
	kvmr_init(&c);
	for (size_t at = 0; at < f.b.len; at++) {
		struct err e = { 0 };
		/* all of the small classes, samples of the large ones */
		bool large = (at >= f.at[VSTATE_XSAVE] && at < f.at[VSTATE_XSAVE] + f.bytes[VSTATE_XSAVE]) ||
			     (at >= f.at[VSTATE_LAPIC] && at < f.at[VSTATE_LAPIC] + 1024);
		if (at % (large ? 61 : 3))
			continue;
		f.b.data[at] ^= (uint8_t)(1 << at % 8);
		refused += vstate_restore(&c.k, c.vcpu, 0, cur_of(f.b.data, f.b.len), &e) < 0;
		f.b.data[at] ^= (uint8_t)(1 << at % 8);
	}
	CHECK(refused > 20);
	tvst_restore(&c, &f.b); /* still good */
	buf_fini(&f.b);
	kvmr_fini(&c);
}
