#include "vmm/x86_64/cpuid.h"

#include "amalgam/base/buf.h"

/* Feature bits by leaf and register that we change. */
#define CPUID_1_ECX_VMX          (1u << 5)
#define CPUID_1_ECX_PDCM         (1u << 15)
#define CPUID_1_ECX_TSC_DEADLINE (1u << 24)
#define CPUID_1_ECX_HYPERVISOR   (1u << 31)
#define CPUID_1_EDX_HTT          (1u << 28)
#define CPUID_80000001_ECX_SVM   (1u << 2)
#define CPUID_80000001_ECX_PERFCTR (1u << 23 | 1u << 24)

/* Paravirtual features (cpuid.rst) a clone must not have: async page faults lose their pending tokens
 * across a snapshot; migration control and extended MSI destinations serve nothing here. */
#define CPUID_KVM_ASYNC_PF      (1u << 4 | 1u << 10 | 1u << 14)
#define CPUID_KVM_MSI_EXT_DEST  (1u << 15)
#define CPUID_KVM_MIGRATION     (1u << 17)

int cpuid_supported(const struct kvm *k, struct cpuid_table *t, struct err *e)
{
	int r;

	_Static_assert(offsetof(struct cpuid_table, entry) == sizeof(struct kvm_cpuid2),
		       "struct cpuid_table is a kvm_cpuid2 with its array");
	t->n = CPUID_MAX;
	t->pad = 0;
	r = kvm_ioctl(k->fd, KVM_GET_SUPPORTED_CPUID, t);
	if (r < 0)
		return err_set(e, r, "KVM_GET_SUPPORTED_CPUID: %s", strerror(-r));
	return 0;
}

static unsigned cpuid_log2_up(unsigned n)
{
	unsigned bits = 0;
	while ((1u << bits) < n)
		bits++;
	return bits;
}

/* Intel 4 and AMD 0x8000001d: a cache level. Every vCPU is a core of its own; the last level is
 * shared by all of them. EAX 31:26 cores - 1 (Intel only), 25:14 sharers - 1, 7:5 level. */
static void cpuid_fix_cache(struct kvm_cpuid_entry2 *c, unsigned cores)
{
	unsigned level = (c->eax >> 5) & 7, sharers = level >= 3 ? cores : 1;

	if ((c->eax & 0x1f) == 0)
		return;
	c->eax &= ~(0xfffu << 14);
	c->eax |= (sharers - 1) << 14;
	if (c->function == 4) {
		c->eax &= ~(0x3fu << 26);
		c->eax |= (MIN(cores, 64u) - 1) << 26;
	}
}

/* Extended topology (0xb, 0x1f): subleaf 0 threads (one), subleaf 1 cores. EDX is set per vCPU. */
static void cpuid_fix_topology(struct kvm_cpuid_entry2 *c, unsigned cores)
{
	uint32_t index = c->index;

	c->eax = c->ebx = c->ecx = 0;
	if (index == 0) {
		c->ebx = 1;
		c->ecx = 1u << 8;
	} else if (index == 1) {
		c->eax = cpuid_log2_up(cores);
		c->ebx = cores;
		c->ecx = 1 | 2u << 8;
	} else {
		c->ecx = index;
	}
}

static void cpuid_fix(struct kvm_cpuid_entry2 *c, const struct kvm *k, unsigned cores)
{
	switch (c->function) {
	case 0x1:
		c->ecx &= ~(CPUID_1_ECX_VMX | CPUID_1_ECX_PDCM);
		c->ecx |= CPUID_1_ECX_HYPERVISOR;
		if (k->has_deadline)
			c->ecx |= CPUID_1_ECX_TSC_DEADLINE;
		c->ebx = (c->ebx & 0x0000ffff) | (1u << cpuid_log2_up(cores)) << 16;
		c->edx = cores > 1 ? c->edx | CPUID_1_EDX_HTT : c->edx & ~CPUID_1_EDX_HTT;
		break;
	case 0x4:
	case 0x8000001d:
		cpuid_fix_cache(c, cores);
		break;
	case 0xa: /* performance counters */
		c->eax = c->ebx = c->ecx = c->edx = 0;
		break;
	case 0xb:
	case 0x1f:
		cpuid_fix_topology(c, cores);
		break;
	case 0x40000001:
		c->eax &= ~(CPUID_KVM_ASYNC_PF | CPUID_KVM_MSI_EXT_DEST | CPUID_KVM_MIGRATION);
		break;
	case 0x80000001:
		c->ecx &= ~(CPUID_80000001_ECX_SVM | CPUID_80000001_ECX_PERFCTR);
		break;
	case 0x80000008: /* ECX 15:12 APIC id bits, 7:0 cores - 1 */
		c->ecx = (c->ecx & 0xffff0f00) | cpuid_log2_up(cores) << 12 | (cores - 1);
		break;
	case 0x8000000a: /* SVM */
	case 0x80000022: /* AMD performance monitoring v2 */
		c->eax = c->ebx = c->ecx = c->edx = 0;
		break;
	case 0x8000001e: /* one thread per core, one node */
		c->eax = c->ebx = c->ecx = 0;
		break;
	}
}

void cpuid_for_guest(struct cpuid_table *t, const struct kvm *k, unsigned max_vcpus)
{
	for (uint32_t i = 0; i < t->n; i++)
		cpuid_fix(&t->entry[i], k, max_vcpus);
}

int cpuid_load(const struct cpuid_table *t, int vcpu_fd, unsigned index, struct err *e)
{
	struct cpuid_table own = *t;
	int r;

	for (uint32_t i = 0; i < own.n; i++) {
		struct kvm_cpuid_entry2 *c = &own.entry[i];
		switch (c->function) {
		case 0x1:
			c->ebx = (c->ebx & 0x00ffffff) | index << 24;
			break;
		case 0xb:
		case 0x1f:
			c->edx = index;
			break;
		case 0x8000001e:
			c->eax = index;
			c->ebx = index;
			break;
		}
	}
	r = kvm_ioctl(vcpu_fd, KVM_SET_CPUID2, &own);
	return r < 0 ? err_set(e, r, "KVM_SET_CPUID2: %s", strerror(-r)) : 0;
}

void cpuid_save(const struct cpuid_table *t, struct buf *out)
{
	buf_add(out, t->entry, t->n * sizeof t->entry[0]);
}

int cpuid_restore(struct cpuid_table *t, struct cur in, struct err *e)
{
	size_t bytes = cur_left(&in);

	if (bytes == 0 || bytes % sizeof t->entry[0] || bytes > sizeof t->entry)
		return err_set(e, -EPROTO, "state file: CPUID is malformed");
	t->n = (uint32_t)(bytes / sizeof t->entry[0]);
	t->pad = 0;
	cur_copy(&in, t->entry, bytes);
	return 0;
}

/* Leaves whose registers are sets of features: a bit the guest saw must be in the host's offer. */
static const struct {
	uint32_t function, index;
	uint32_t eax, ebx, ecx, edx; /* bits to compare */
} cpuid_feature_leaves[] = {
	{ 0x00000001, 0, 0, 0, ~(CPUID_1_ECX_TSC_DEADLINE | CPUID_1_ECX_HYPERVISOR | 1u << 27),
	  ~CPUID_1_EDX_HTT },
	{ 0x00000007, 0, 0, ~0u, ~(1u << 4), ~0u },
	{ 0x00000007, 1, ~0u, 0, 0, ~0u },
	{ 0x0000000d, 0, ~0u, 0, 0, ~0u },
	{ 0x0000000d, 1, ~0u, 0, ~0u, ~0u },
	{ 0x40000001, 0, ~0u, 0, 0, 0 },
	{ 0x80000001, 0, 0, 0, ~0u, ~0u },
	{ 0x80000008, 0, 0, ~0u, 0, 0 },
};

static const struct kvm_cpuid_entry2 *cpuid_find(const struct cpuid_table *t, uint32_t function,
						 uint32_t index)
{
	for (uint32_t i = 0; i < t->n; i++)
		if (t->entry[i].function == function && t->entry[i].index == index)
			return &t->entry[i];
	return NULL;
}

int cpuid_check_subset(const struct cpuid_table *guest, const struct cpuid_table *host,
		       struct err *e)
{
	const struct kvm_cpuid_entry2 *g = cpuid_find(guest, 0, 0), *h = cpuid_find(host, 0, 0);

	if (!g || !h || g->ebx != h->ebx || g->ecx != h->ecx || g->edx != h->edx)
		return err_set(e, -ENOTSUP, "made on a CPU of another vendor");
	for (unsigned i = 0; i < ARRAY_LEN(cpuid_feature_leaves); i++) {
		__typeof__(cpuid_feature_leaves[0]) row = cpuid_feature_leaves[i];
		struct kvm_cpuid_entry2 none = { 0 };

		g = cpuid_find(guest, row.function, row.index);
		h = cpuid_find(host, row.function, row.index);
		if (!g)
			continue;
		if (!h)
			h = &none;
		if ((g->eax & ~h->eax & row.eax) || (g->ebx & ~h->ebx & row.ebx) ||
		    (g->ecx & ~h->ecx & row.ecx) || (g->edx & ~h->edx & row.edx))
			return err_set(e, -ENOTSUP, "this CPU lacks features of leaf 0x%x", row.function);
	}
	return 0;
}
