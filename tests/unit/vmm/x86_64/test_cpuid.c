#include <fcntl.h>
#include <sys/ioctl.h>

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"
#include "vmm/x86_64/cpuid.h"

/* A host that offers everything: each leaf we know of, all bits set, and one we do not. */
static const struct {
	uint32_t function, index;
} tcpu_leaves[] = {
	{ 0, 0 },	   { 1, 0 },	      { 4, 0 },		 { 4, 1 },	    { 4, 2 },
	{ 4, 3 },	   { 4, 4 },	      { 7, 0 },		 { 7, 1 },	    { 0xa, 0 },
	{ 0xb, 0 },	   { 0xb, 1 },	      { 0xb, 2 },	 { 0xd, 0 },	    { 0xd, 1 },
	{ 0x1f, 0 },	   { 0x1f, 1 },	      { 0x40000000, 0 }, { 0x40000001, 0 }, { 0x80000001, 0 },
	{ 0x80000008, 0 }, { 0x8000000a, 0 }, { 0x8000001d, 3 }, { 0x8000001e, 0 }, { 0x80000022, 0 },
	{ 0x80000005, 0 },
};

static struct cpuid_table *tcpu_everything(void)
{
	struct cpuid_table *t = mem_zalloc(sizeof *t);

	for (unsigned i = 0; i < ARRAY_LEN(tcpu_leaves); i++)
		t->entry[t->n++] = (struct kvm_cpuid_entry2){
			.function = tcpu_leaves[i].function, .index = tcpu_leaves[i].index,
			.eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u,
		};
	/* Cache levels: EAX 7:5 level, 4:0 type; subleaf 4 says there are no more. */
	t->entry[2].eax = 0xfc004121;
	t->entry[3].eax = 0xfc004122;
	t->entry[4].eax = 0xfc01c143;
	t->entry[5].eax = 0xfc07c163;
	t->entry[6].eax = 0;
	t->entry[22].eax = 0x0001c163;
	return t;
}

static struct kvm_cpuid_entry2 *tcpu_leaf(struct cpuid_table *t, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < t->n; i++)
		if (t->entry[i].function == function && t->entry[i].index == index)
			return &t->entry[i];
	test_fail(__FILE__, __LINE__, "no leaf %#x.%u", function, index);
}

static void tcpu_all_zero(const struct kvm_cpuid_entry2 *c)
{
	CHECK_EQ(c->eax | c->ebx | c->ecx | c->edx, 0);
}

TEST(cpuid_shows_no_virtualization_and_no_performance_counters)
{
	AUTO_FREE struct cpuid_table *t = tcpu_everything();
	const struct kvm k = { .has_deadline = true };

	cpuid_for_guest(t, &k, 4);
	CHECK_EQ(tcpu_leaf(t, 1, 0)->ecx & 1u << 5, 0);           /* VMX */
	CHECK_EQ(tcpu_leaf(t, 1, 0)->ecx & 1u << 15, 0);          /* PDCM */
	CHECK_EQ(tcpu_leaf(t, 0x80000001, 0)->ecx & 1u << 2, 0);  /* SVM */
	CHECK_EQ(tcpu_leaf(t, 0x80000001, 0)->ecx & 3u << 23, 0); /* PerfCtrExt */
	tcpu_all_zero(tcpu_leaf(t, 0xa, 0));
	tcpu_all_zero(tcpu_leaf(t, 0x8000000a, 0));
	tcpu_all_zero(tcpu_leaf(t, 0x80000022, 0));
}

TEST(cpuid_shows_no_paravirtual_feature_that_a_clone_cannot_carry)
{
	AUTO_FREE struct cpuid_table *t = tcpu_everything();
	const struct kvm k = { 0 };

	cpuid_for_guest(t, &k, 1);
	/* cpuid.rst: 4 ASYNC_PF, 10 ASYNC_PF_VMEXIT, 14 ASYNC_PF_INT, 15 MSI_EXT_DEST_ID, 17 MIGRATION */
	CHECK_EQ(tcpu_leaf(t, 0x40000001, 0)->eax, ~(1u << 4 | 1u << 10 | 1u << 14 | 1u << 15 | 1u << 17));
}

TEST(cpuid_takes_away_nothing_else)
{
	AUTO_FREE struct cpuid_table *t = tcpu_everything();
	const struct kvm k = { .has_deadline = true };

	cpuid_for_guest(t, &k, 4);
	CHECK_EQ(tcpu_leaf(t, 1, 0)->ecx, ~(1u << 5 | 1u << 15));
	CHECK_EQ(tcpu_leaf(t, 1, 0)->edx, ~0u);
	CHECK_EQ(tcpu_leaf(t, 1, 0)->eax, ~0u);
	CHECK_EQ(tcpu_leaf(t, 0x80000001, 0)->ecx, ~(1u << 2 | 3u << 23));
	CHECK_EQ(tcpu_leaf(t, 0x80000001, 0)->edx, ~0u);
	CHECK_EQ(tcpu_leaf(t, 7, 0)->ebx, ~0u);
	CHECK_EQ(tcpu_leaf(t, 0xd, 1)->eax, ~0u);
	CHECK_EQ(tcpu_leaf(t, 0x80000005, 0)->eax, ~0u);
	CHECK_EQ(tcpu_leaf(t, 0x40000000, 0)->ebx, ~0u);
}

TEST(cpuid_says_that_there_is_a_hypervisor)
{
	for (unsigned deadline = 0; deadline < 2; deadline++) {
		AUTO_FREE struct cpuid_table *t = mem_zalloc(sizeof *t);
		const struct kvm k = { .has_deadline = deadline };

		*t = (struct cpuid_table){ .n = 1, .entry = { { .function = 1 } } };
		cpuid_for_guest(t, &k, 1);
		CHECK_EQ(t->entry[0].ecx, 1u << 31 | deadline << 24);
	}
}

TEST(cpuid_topology_is_one_package_of_single_threaded_cores)
{
	static const struct {
		unsigned cpus, bits;
	} row[] = { { 1, 0 }, { 2, 1 }, { 3, 2 }, { 4, 2 }, { 5, 3 }, { 8, 3 }, { 33, 6 }, { 64, 6 } };

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		AUTO_FREE struct cpuid_table *t = tcpu_everything();
		const struct kvm k = { 0 };
		unsigned n = row[i].cpus, bits = row[i].bits;
		struct kvm_cpuid_entry2 *c;

		test_note("%u CPUs", n);
		cpuid_for_guest(t, &k, n);
		c = tcpu_leaf(t, 1, 0);
		CHECK_EQ(c->ebx >> 16 & 0xff, 1u << bits);
		CHECK_EQ(c->ebx & 0xffff, 0xffff);
		CHECK_EQ(c->edx >> 28 & 1, n > 1); /* HTT: more than one logical processor */
		for (uint32_t leaf = 0xb; leaf; leaf = leaf == 0xb ? 0x1f : 0) {
			c = tcpu_leaf(t, leaf, 0);
			CHECK_EQ(c->eax, 0);
			CHECK_EQ(c->ebx, 1);
			CHECK_EQ(c->ecx, 0x100); /* level 0: SMT */
			c = tcpu_leaf(t, leaf, 1);
			CHECK_EQ(c->eax, bits);
			CHECK_EQ(c->ebx, n);
			CHECK_EQ(c->ecx, 0x201); /* level 1: core */
		}
		c = tcpu_leaf(t, 0xb, 2);
		CHECK_EQ(c->eax | c->ebx, 0);
		CHECK_EQ(c->ecx, 2); /* level type 0: no more */
		c = tcpu_leaf(t, 0x80000008, 0);
		CHECK_EQ(c->ecx & 0xff, n - 1);
		CHECK_EQ(c->ecx >> 12 & 0xf, bits);
		c = tcpu_leaf(t, 0x8000001e, 0);
		CHECK_EQ(c->ebx | c->ecx, 0);
	}
}

TEST(cpuid_caches_are_private_but_the_last_level)
{
	AUTO_FREE struct cpuid_table *t = tcpu_everything();
	const struct kvm k = { 0 };

	cpuid_for_guest(t, &k, 8);
	for (unsigned i = 0; i < 3; i++) { /* L1 data, L1 code, L2 */
		CHECK_EQ(tcpu_leaf(t, 4, i)->eax >> 14 & 0xfff, 0);
		CHECK_EQ(tcpu_leaf(t, 4, i)->eax >> 26, 7);
	}
	CHECK_EQ(tcpu_leaf(t, 4, 3)->eax >> 14 & 0xfff, 7);
	CHECK_EQ(tcpu_leaf(t, 4, 3)->eax & 0x3fff, 0x163 & 0x3fff);
	CHECK_EQ(tcpu_leaf(t, 4, 4)->eax, 0); /* no cache: nothing to share */
	CHECK_EQ(tcpu_leaf(t, 0x8000001d, 3)->eax >> 14, 7);
}

TEST(cpuid_does_not_depend_on_how_many_cpus_a_sandbox_uses)
{
	AUTO_FREE struct cpuid_table *a = tcpu_everything(), *b = tcpu_everything();
	const struct kvm k = { .has_deadline = true };

	cpuid_for_guest(a, &k, 8);
	cpuid_for_guest(b, &k, 8);
	CHECK_MEM(a, b, sizeof *a);
	cpuid_for_guest(b, &k, 8); /* and doing it twice is doing it once */
	CHECK_MEM(a, b, sizeof *a);
}

/* --- what a snapshot demands of a host -------------------------------------------------------- */

TEST(cpuid_names_the_leaf_that_a_host_lacks)
{
	static const struct {
		uint32_t function, index;
		char reg;
		uint32_t bit;
	} row[] = {
		{ 1, 0, 'c', 0 },  { 1, 0, 'c', 21 },	{ 1, 0, 'd', 26 },	   { 7, 0, 'b', 5 },
		{ 7, 0, 'c', 22 }, { 7, 0, 'd', 29 },	{ 7, 1, 'a', 4 },	   { 0xd, 0, 'a', 5 },
		{ 0xd, 1, 'a', 3 }, { 0x40000001, 0, 'a', 3 }, { 0x80000001, 0, 'c', 5 },
		{ 0x80000001, 0, 'd', 26 }, { 0x80000008, 0, 'b', 12 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		AUTO_FREE struct cpuid_table *guest = tcpu_everything(), *host = tcpu_everything();
		struct kvm_cpuid_entry2 *c = tcpu_leaf(host, row[i].function, row[i].index);
		struct err e = { 0 };
		char want[64];

		snprintf(want, sizeof want, "this CPU lacks features of leaf 0x%x", row[i].function);
		test_note("%s", want);
		CHECK_EQ(cpuid_check_subset(guest, host, &e), 0);
		*(row[i].reg == 'a' ? &c->eax : row[i].reg == 'b' ? &c->ebx :
		  row[i].reg == 'c' ? &c->ecx : &c->edx) &= ~(1u << row[i].bit);
		CHECK_EQ(cpuid_check_subset(guest, host, &e), -ENOTSUP);
		CHECK_STR(e.msg, want);
		CHECK_EQ(cpuid_check_subset(host, guest, &e), 0); /* a host may have more */
	}
}

TEST(cpuid_a_leaf_the_host_does_not_have_offers_nothing)
{
	AUTO_FREE struct cpuid_table *guest = tcpu_everything(), *host = tcpu_everything();
	struct err e = { 0 };

	tcpu_leaf(host, 7, 0)->function = 0x12345;
	CHECK_EQ(cpuid_check_subset(guest, host, &e), -ENOTSUP);
	CHECK_STR(e.msg, "this CPU lacks features of leaf 0x7");
	tcpu_leaf(guest, 7, 0)->function = 0x12345;
	CHECK_EQ(cpuid_check_subset(guest, host, &e), 0);
}

/* KVM changes these in what it gives back as the guest runs, or we set them without asking. */
TEST(cpuid_does_not_compare_what_a_running_guest_changes)
{
	AUTO_FREE struct cpuid_table *guest = tcpu_everything(), *host = tcpu_everything();
	struct err e = { 0 };

	tcpu_leaf(host, 1, 0)->ecx &= ~(1u << 24 | 1u << 27 | 1u << 31); /* deadline, OSXSAVE, hypervisor */
	tcpu_leaf(host, 1, 0)->edx &= ~(1u << 28);                       /* HTT */
	tcpu_leaf(host, 1, 0)->ebx = 0;                                  /* APIC id */
	tcpu_leaf(host, 7, 0)->ecx &= ~(1u << 4);                        /* OSPKE */
	tcpu_leaf(host, 0xd, 0)->ebx = 0;                                /* size for this XCR0 */
	CHECK_EQ(cpuid_check_subset(guest, host, &e), 0);
}

TEST(cpuid_refuses_another_vendor)
{
	for (unsigned reg = 0; reg < 4; reg++) {
		AUTO_FREE struct cpuid_table *guest = tcpu_everything(), *host = tcpu_everything();
		struct kvm_cpuid_entry2 *c = tcpu_leaf(host, 0, 0);
		struct err e = { 0 };

		if (reg == 0)
			c->eax = 5; /* highest leaf: no part of the name */
		else
			*(reg == 1 ? &c->ebx : reg == 2 ? &c->ecx : &c->edx) = 0x756e6547;
		CHECK_EQ(cpuid_check_subset(guest, host, &e), reg ? -ENOTSUP : 0);
		if (reg)
			CHECK_STR(e.msg, "made on a CPU of another vendor");
		tcpu_leaf(guest, 0, 0)->function = 0x12345;
		CHECK_EQ(cpuid_check_subset(guest, host, &e), -ENOTSUP);
	}
}
