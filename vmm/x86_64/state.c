#include "vmm/x86_64/state.h"

#include "amalgam/base/mem.h"

/* Register classes. The number is the tag in the file: never reuse one. */
enum vstate_class {
	VSTATE_MP = 1,
	VSTATE_REGS = 2,
	VSTATE_SREGS = 3,
	VSTATE_XSAVE = 4,
	VSTATE_XCRS = 5,
	VSTATE_DEBUG = 6,
	VSTATE_LAPIC = 7,
	VSTATE_TSC_KHZ = 8,
	/* 9 was CPUID, which is the machine's now: SNAP_CPUID */
	VSTATE_MSRS = 10,
	VSTATE_EVENTS = 11,
};

#define VSTATE_MAX_MSRS 512
#define VSTATE_MAX_PART 65536

/* Classes that are one ioctl with one fixed struct. */
struct vstate_plain {
	enum vstate_class cls;
	const char *name;
	unsigned long get, set;
	size_t bytes;
};
static const struct vstate_plain vstate_plain[] = {
	{ VSTATE_MP, "MP_STATE", KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state) },
	{ VSTATE_REGS, "REGS", KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs) },
	{ VSTATE_SREGS, "SREGS", KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs) },
	{ VSTATE_XCRS, "XCRS", KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs) },
	{ VSTATE_DEBUG, "DEBUGREGS", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS,
	  sizeof(struct kvm_debugregs) },
	{ VSTATE_LAPIC, "LAPIC", KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state) },
	{ VSTATE_EVENTS, "VCPU_EVENTS", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
	  sizeof(struct kvm_vcpu_events) },
};

static const enum vstate_class vstate_save_order[] = {
	VSTATE_MP,      /* first: reading it lets KVM act on a pending INIT or SIPI, changing the rest */
	VSTATE_REGS, VSTATE_SREGS, VSTATE_XSAVE, VSTATE_XCRS, VSTATE_DEBUG, VSTATE_LAPIC,
	VSTATE_TSC_KHZ, VSTATE_MSRS,
	VSTATE_EVENTS,  /* last: any of the above may queue an event */
};

static const enum vstate_class vstate_restore_order[] = {
	VSTATE_TSC_KHZ, /* before any TSC value, which is scaled by it */
	VSTATE_MP,
	VSTATE_REGS,    /* clears a pending exception: before EVENTS */
	VSTATE_SREGS,   /* APIC base (x2APIC mode): before LAPIC */
	VSTATE_XCRS,    /* says which parts of XSAVE exist */
	VSTATE_XSAVE,
	VSTATE_DEBUG,
	VSTATE_LAPIC,   /* timer mode: before the TSC deadline, which is 0 for other modes */
	VSTATE_MSRS,    /* in the file's order: TSC, the rest, kvmclock, the deadline last */
	VSTATE_EVENTS,  /* last architectural state: pending exception, NMI, interrupt shadow */
};

#define VSTATE_MSR_TSC          0x10
#define VSTATE_MSR_TSC_DEADLINE 0x6e0
#define VSTATE_MSR_KVM_FIRST    0x4b564d00
#define VSTATE_MSR_KVM_LAST     0x4b564dff

struct vstate_msrs {
	uint32_t n, pad;
	struct kvm_msr_entry e[VSTATE_MAX_MSRS]; /* laid out as struct kvm_msrs wants it */
};

static const struct vstate_plain *vstate_find_plain(enum vstate_class cls)
{
	for (unsigned i = 0; i < ARRAY_LEN(vstate_plain); i++)
		if (vstate_plain[i].cls == cls)
			return &vstate_plain[i];
	return NULL;
}

static int vstate_fail(struct err *e, int r, const char *what)
{
	return err_set(e, r, "%s: %s", what, strerror(-r));
}

/* --- save ------------------------------------------------------------------------------------ */

static void vstate_put(struct buf *out, enum vstate_class cls, const void *p, size_t n)
{
	buf_le32(out, cls);
	buf_le32(out, (uint32_t)n);
	buf_add(out, p, n);
}

static int vstate_save_plain(int fd, const struct vstate_plain *p, struct buf *out, struct err *e)
{
	uint8_t raw[sizeof(struct kvm_lapic_state)] = { 0 };
	int r;

	ASSERT(p->bytes <= sizeof raw);
	r = kvm_ioctl(fd, p->get, raw);
	if (r < 0)
		return vstate_fail(e, r, p->name);
	vstate_put(out, p->cls, raw, p->bytes);
	return 0;
}

static int vstate_save_xsave(const struct kvm *k, int fd, struct buf *out, struct err *e)
{
	AUTO_FREE uint8_t *raw = mem_zalloc(k->xsave_bytes);
	int r = kvm_ioctl(fd, k->has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, raw);

	if (r < 0)
		return vstate_fail(e, r, "XSAVE");
	vstate_put(out, VSTATE_XSAVE, raw, k->xsave_bytes);
	return 0;
}

static int vstate_save_tsc_khz(int fd, struct buf *out, struct err *e)
{
	int r = kvm_ioctl(fd, KVM_GET_TSC_KHZ, NULL);
	uint32_t khz = (uint32_t)r;

	if (r < 0)
		return vstate_fail(e, r, "TSC_KHZ");
	vstate_put(out, VSTATE_TSC_KHZ, &khz, sizeof khz);
	return 0;
}

/* Restore order of MSRs: TSC first (kvmclock and the deadline are relative to it), kvmclock after
 * the ordinary ones, the deadline last. */
static int vstate_msr_rank(uint32_t index)
{
	if (index == VSTATE_MSR_TSC)
		return 0;
	if (index == VSTATE_MSR_TSC_DEADLINE)
		return 3;
	return index >= VSTATE_MSR_KVM_FIRST && index <= VSTATE_MSR_KVM_LAST ? 2 : 1;
}

static int vstate_msr_compare(const void *a, const void *b)
{
	const struct kvm_msr_entry *x = a, *y = b;
	int rx = vstate_msr_rank(x->index), ry = vstate_msr_rank(y->index);

	if (rx != ry)
		return rx - ry;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* Read what KVM lists. It stops at the first MSR that this vCPU does not have: drop that one, go on. */
static int vstate_read_msrs(const struct kvm *k, int fd, struct vstate_msrs *m, struct err *e)
{
	struct {
		uint32_t n;
		uint32_t index[VSTATE_MAX_MSRS];
	} list = { .n = VSTATE_MAX_MSRS };
	AUTO_FREE struct vstate_msrs *ask = mem_zalloc(sizeof *ask);
	int r = kvm_ioctl(k->fd, KVM_GET_MSR_INDEX_LIST, &list);

	if (r < 0)
		return vstate_fail(e, r, "KVM_GET_MSR_INDEX_LIST");
	for (uint32_t i = 0; i < list.n;) {
		ask->n = MIN(list.n - i, 256u);
		for (uint32_t j = 0; j < ask->n; j++)
			ask->e[j] = (struct kvm_msr_entry){ .index = list.index[i + j] };
		r = kvm_ioctl(fd, KVM_GET_MSRS, ask);
		if (r < 0)
			return vstate_fail(e, r, "KVM_GET_MSRS");
		memcpy(m->e + m->n, ask->e, (size_t)r * sizeof ask->e[0]);
		m->n += (uint32_t)r;
		i += (uint32_t)r + ((uint32_t)r < ask->n);
	}
	return 0;
}

static int vstate_save_msrs(const struct kvm *k, int fd, struct buf *out, struct err *e)
{
	AUTO_FREE struct vstate_msrs *m = mem_zalloc(sizeof *m);
	uint64_t tsc = 0;
	int r = vstate_read_msrs(k, fd, m, e);

	if (r < 0)
		return r;
	qsort(m->e, m->n, sizeof m->e[0], vstate_msr_compare);
	for (uint32_t i = 0; i < m->n; i++) {
		if (m->e[i].index == VSTATE_MSR_TSC)
			tsc = m->e[i].data;
		/* A deadline that fired while its interrupt is still on the way reads as 0: let it fire
		 * again at once instead of never. */
		if (m->e[i].index == VSTATE_MSR_TSC_DEADLINE && m->e[i].data == 0)
			m->e[i].data = tsc;
	}
	vstate_put(out, VSTATE_MSRS, m->e, m->n * sizeof m->e[0]);
	return 0;
}

static int vstate_save_class(const struct kvm *k, int fd, enum vstate_class cls, struct buf *out,
			     struct err *e)
{
	const struct vstate_plain *p = vstate_find_plain(cls);

	if (cls == VSTATE_XCRS && !k->has_xcrs)
		return 0;
	if (p)
		return vstate_save_plain(fd, p, out, e);
	switch (cls) {
	case VSTATE_XSAVE:
		return vstate_save_xsave(k, fd, out, e);
	case VSTATE_TSC_KHZ:
		return vstate_save_tsc_khz(fd, out, e);
	default:
		return vstate_save_msrs(k, fd, out, e);
	}
}

int vstate_save(const struct kvm *k, int vcpu_fd, struct buf *out, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_LEN(vstate_save_order); i++) {
		int r = vstate_save_class(k, vcpu_fd, vstate_save_order[i], out, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- restore --------------------------------------------------------------------------------- */

/* The part of `in` that holds cls: empty cursor with bad set when there is none. */
static struct cur vstate_part(struct cur in, enum vstate_class cls)
{
	while (!in.bad && cur_left(&in)) {
		uint32_t tag = cur_le32(&in), n = cur_le32(&in);
		const uint8_t *p = n <= VSTATE_MAX_PART ? cur_bytes(&in, n) : NULL;
		if (!p)
			break;
		if (tag == cls)
			return cur_of(p, n);
	}
	return (struct cur){ .bad = true };
}

static int vstate_bad(struct err *e, const char *what)
{
	return err_set(e, -EPROTO, "vCPU state: %s is missing or malformed", what);
}

/* KVM says EINVAL to a value this CPU cannot have: a refusal of the snapshot, not a failure of ours. */
static int vstate_refused(struct err *e, int r, const char *what)
{
	if (r != -EINVAL)
		return vstate_fail(e, r, what);
	return err_set(e, -ENOTSUP, "this host refuses the saved %s", what);
}

/* The bytes go to KVM as they lie in the file. */
static int vstate_set(int fd, unsigned long request, const char *name, const void *bytes, struct err *e)
{
	int r = kvm_ioctl(fd, request, (void *)(uintptr_t)bytes);
	return r < 0 ? vstate_refused(e, r, name) : 0;
}

/* Is this how vCPU `index` is born? Then loading it would say nothing, and a call to a vCPU costs
 * microseconds where this host is a guest itself. Asked of the classes that an idle CPU may have so:
 * SDM volume 3, table 11-1, and no event, whatever of that this KVM calls valid. */
static bool vstate_is_fresh(enum vstate_class cls, unsigned index, const void *bytes)
{
	static const struct kvm_debugregs debug = { .dr6 = 0xffff0ff0, .dr7 = 0x400 };
	static const struct kvm_vcpu_events none;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;

	switch (cls) {
	case VSTATE_MP: /* the others wait for their startup IPI */
		memcpy(&mp, bytes, sizeof mp);
		return index == 0 && mp.mp_state == KVM_MP_STATE_RUNNABLE;
	case VSTATE_DEBUG:
		return !memcmp(bytes, &debug, sizeof debug);
	case VSTATE_EVENTS:
		memcpy(&events, bytes, sizeof events);
		events.flags = 0;
		return !memcmp(&events, &none, sizeof none);
	default:
		return false;
	}
}

static int vstate_restore_plain(int fd, const struct vstate_plain *p, unsigned index, struct cur part,
				struct err *e)
{
	if (part.bad || cur_left(&part) != p->bytes)
		return vstate_bad(e, p->name);
	return vstate_is_fresh(p->cls, index, part.p) ? 0 : vstate_set(fd, p->set, p->name, part.p, e);
}

static int vstate_restore_xsave(const struct kvm *k, int fd, struct cur part, struct err *e)
{
	/* Same host CPU, same size; anything else came from another one. */
	if (part.bad || cur_left(&part) != k->xsave_bytes)
		return vstate_bad(e, "XSAVE");
	return vstate_set(fd, KVM_SET_XSAVE, "XSAVE", part.p, e);
}

static int vstate_restore_tsc_khz(const struct kvm *k, int fd, struct cur part, struct err *e)
{
	uint32_t khz = cur_le32(&part);
	int host = kvm_ioctl(k->vm_fd, KVM_GET_TSC_KHZ, NULL), r;
	uint64_t slack;

	if (host < 0) /* before Linux 5.16 only a vCPU knew, and asking one costs more */
		host = kvm_ioctl(fd, KVM_GET_TSC_KHZ, NULL);
	if (part.bad || khz == 0 || cur_left(&part))
		return vstate_bad(e, "TSC_KHZ");
	if (host < 0)
		return vstate_fail(e, host, "KVM_GET_TSC_KHZ");
	slack = (uint64_t)khz * 250 / 1000000; /* 250 ppm, what NTP could slew */
	if ((uint64_t)llabs((long long)host - (long long)khz) <= slack)
		return 0;
	if (!k->has_tsc_control)
		return err_set(e, -ENOTSUP, "made at %u kHz TSC, this CPU has %d and cannot scale", khz,
			       host);
	r = kvm_ioctl(fd, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz);
	return r < 0 ? vstate_fail(e, r, "KVM_SET_TSC_KHZ") : 0;
}

static int vstate_set_msrs(int fd, struct vstate_msrs *m, struct err *e)
{
	int r;

	_Static_assert(offsetof(struct vstate_msrs, e) == sizeof(struct kvm_msrs),
		       "struct vstate_msrs is a kvm_msrs with its array");
	r = kvm_ioctl(fd, KVM_SET_MSRS, m);
	if (r < 0)
		return vstate_fail(e, r, "KVM_SET_MSRS");
	/* The count is how far KVM got; it reports no error of its own (api.rst 4.19). */
	if ((uint32_t)r != m->n)
		return err_set(e, -ENOTSUP, "this host refuses MSR 0x%x", m->e[r].index);
	return 0;
}

/* KVM takes a TSC that is within a second of what it expects for an attempt to synchronise CPUs, and
 * then does not store it: a guest saved in its first second would find its counter back near zero and
 * its armed deadline far away. A write from far off first makes the real one count; the CPUs after
 * the first write the same value and are meant to be synchronised. (kvm_synchronize_tsc(), x86.c) */
#define VSTATE_TSC_FAR_OFF (UINT64_C(1) << 40)

static int vstate_restore_msrs(int fd, unsigned index, struct cur part, struct err *e)
{
	struct vstate_msrs m; /* on the stack and not cleared: the heap would fault in fresh pages for it */
	size_t bytes = cur_left(&part);

	if (part.bad || bytes % sizeof m.e[0] || bytes > sizeof m.e - sizeof m.e[0])
		return vstate_bad(e, "MSRS");
	m.n = (uint32_t)(bytes / sizeof m.e[0]) + 1;
	m.pad = 0;
	cur_copy(&part, m.e + 1, bytes);
	if (m.n < 2 || m.e[1].index != VSTATE_MSR_TSC)
		return vstate_bad(e, "TSC");
	m.e[0] = m.e[1];
	if (index == 0)
		m.e[0].data += VSTATE_TSC_FAR_OFF;
	return vstate_set_msrs(fd, &m, e);
}

static int vstate_restore_class(const struct kvm *k, int fd, unsigned index, enum vstate_class cls,
				struct cur in, struct err *e)
{
	const struct vstate_plain *p = vstate_find_plain(cls);
	struct cur part = vstate_part(in, cls);

	if (cls == VSTATE_XCRS && !k->has_xcrs)
		return 0;
	if (p)
		return vstate_restore_plain(fd, p, index, part, e);
	switch (cls) {
	case VSTATE_XSAVE:
		return vstate_restore_xsave(k, fd, part, e);
	case VSTATE_TSC_KHZ:
		return vstate_restore_tsc_khz(k, fd, part, e);
	default:
		return vstate_restore_msrs(fd, index, part, e);
	}
}

int vstate_restore(const struct kvm *k, int vcpu_fd, unsigned index, struct cur in, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_LEN(vstate_restore_order); i++) {
		int r = vstate_restore_class(k, vcpu_fd, index, vstate_restore_order[i], in, e);
		if (r < 0)
			return r;
	}
	/* Tell the guest's watchdog that it was stopped; EINVAL = it never enabled kvmclock. */
	(void)kvm_ioctl(vcpu_fd, KVM_KVMCLOCK_CTRL, NULL);
	return 0;
}

int vstate_restore_parked(const struct kvm *k, int vcpu_fd, struct cur in, struct err *e)
{
	struct cur part = vstate_part(in, VSTATE_MSRS);
	struct vstate_msrs m;
	int r;

	if ((r = vstate_restore_tsc_khz(k, vcpu_fd, vstate_part(in, VSTATE_TSC_KHZ), e)) < 0)
		return r;
	if (part.bad || cur_left(&part) < sizeof m.e[0])
		return vstate_bad(e, "MSRS");
	/* The TSC stands first. KVM gives writes of one value within a second one offset, so this CPU's
	 * counter agrees with vCPU 0's. */
	m.n = 1;
	m.pad = 0;
	cur_copy(&part, m.e, sizeof m.e[0]);
	if (m.e[0].index != VSTATE_MSR_TSC)
		return vstate_bad(e, "TSC");
	return vstate_set_msrs(vcpu_fd, &m, e);
}
