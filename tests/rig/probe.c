/* probe.c - what the test machine's KVM can do; runs inside it.
 *
 *   probe caps         capabilities and CPUID bits spore builds on, one `name value` per line
 *   probe vm           a VM with a split irqchip and one vCPU executes a few instructions
 *   probe loop N       nanoseconds a loop of N rounds takes in this machine
 *   probe vmloop N     the same in a VM inside it, N at most 65535 thousand */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef KVM_CAP_XSAVE2 /* linux/kvm.h older than 5.17 */
#define KVM_CAP_XSAVE2 208
#endif

#define CAP(name)                     \
	{                             \
#name, KVM_CAP_##name \
	}

static const struct {
	const char *name;
	int cap;
} caps[] = {
	CAP(IRQCHIP),
	CAP(SPLIT_IRQCHIP),
	CAP(SYNC_REGS),
	CAP(IOEVENTFD),
	CAP(IRQFD),
	CAP(IRQFD_RESAMPLE),
	CAP(SIGNAL_MSI),
	CAP(IRQ_ROUTING),
	CAP(XSAVE),
	CAP(XSAVE2),
	CAP(XCRS),
	CAP(READONLY_MEM),
	CAP(TSC_CONTROL),
	CAP(GET_TSC_KHZ),
	CAP(TSC_DEADLINE_TIMER),
	CAP(X2APIC_API),
	CAP(ADJUST_CLOCK),
	CAP(IMMEDIATE_EXIT),
	CAP(MULTI_ADDRESS_SPACE),
	CAP(NR_MEMSLOTS),
	CAP(NR_VCPUS),
	CAP(MAX_VCPUS),
	CAP(MAX_VCPU_ID),
	CAP(VCPU_EVENTS),
	CAP(DEBUGREGS),
	CAP(MP_STATE),
	CAP(KVMCLOCK_CTRL),
	CAP(SET_TSS_ADDR),
	CAP(SET_IDENTITY_MAP_ADDR),
	CAP(MANUAL_DIRTY_LOG_PROTECT2),
	CAP(DIRTY_LOG_RING),
	CAP(X86_DISABLE_EXITS),
	CAP(X86_USER_SPACE_MSR),
	CAP(NESTED_STATE),
	CAP(SYNC_MMU),
	CAP(COALESCED_MMIO),
	CAP(HALT_POLL),
};

static const struct {
	const char *name;
	uint32_t leaf;
	char reg;
	int bit;
} bits[] = {
	{ "tsc_deadline", 1, 'c', 24 },
	{ "x2apic", 1, 'c', 21 },
	{ "xsave", 1, 'c', 26 },
	{ "hypervisor", 1, 'c', 31 },
	{ "rdrand", 1, 'c', 30 },
	{ "smep", 7, 'b', 7 },
	{ "smap", 7, 'b', 20 },
	{ "svm", 0x80000001, 'c', 2 },
	{ "page1gb", 0x80000001, 'd', 26 },
	{ "invariant_tsc", 0x80000007, 'd', 8 },
	{ "kvm_clocksource2", 0x40000001, 'a', 3 },
	{ "kvm_clock_stable", 0x40000001, 'a', 24 },
	{ "kvm_async_pf", 0x40000001, 'a', 4 },
	{ "kvm_pv_eoi", 0x40000001, 'a', 6 },
};

static int kvm;

static int check(int r, const char *what)
{
	if (r < 0) {
		perror(what);
		exit(1);
	}
	return r;
}

static void open_kvm(void)
{
	kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != 12) {
		fprintf(stderr, "KVM_GET_API_VERSION: not 12\n");
		exit(1);
	}
}

static void print_bits(void)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof *c + 256 * sizeof c->entries[0]);
	c->nent = 256;
	check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c), "KVM_GET_SUPPORTED_CPUID");
	for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
		int v = 0;
		for (uint32_t e = 0; e < c->nent; e++) {
			const struct kvm_cpuid_entry2 *x = &c->entries[e];
			if (x->function != bits[i].leaf || x->index)
				continue;
			uint32_t r = bits[i].reg == 'a'   ? x->eax
				     : bits[i].reg == 'b' ? x->ebx
				     : bits[i].reg == 'c' ? x->ecx
							  : x->edx;
			v = r >> bits[i].bit & 1;
		}
		printf("cpuid.%s %d\n", bits[i].name, v);
	}
	free(c);
}

static void print_caps(void)
{
	open_kvm();
	int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	for (size_t i = 0; i < sizeof caps / sizeof caps[0]; i++)
		printf("cap.%s %#x\n", caps[i].name, ioctl(vm, KVM_CHECK_EXTENSION, caps[i].cap));
	print_bits();
	int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	printf("tsc_khz %d\n", ioctl(vcpu, KVM_GET_TSC_KHZ, 0));
	FILE *npt = fopen("/sys/module/kvm_amd/parameters/npt", "r");
	printf("nested_paging %c\n", npt ? fgetc(npt) : '?');
}

/* Real mode: bx times 1000 rounds, then bh and bl of the sum 40 + 2 to port 0x10. */
static const uint8_t code[] = {
	0xb9, 0xe8, 0x03, /* outer: mov cx, 1000 */
	0x49,             /* inner: dec cx       */
	0x75, 0xfd,       /*        jnz inner    */
	0x4b,             /*        dec bx       */
	0x75, 0xf7,       /*        jnz outer    */
	0xb0, 40,         /*        mov al, 40   */
	0x04, 2,          /*        add al, 2    */
	0xe6, 0x10,       /*        out 0x10, al */
	0xeb, 0xfe,       /*        jmp $        */
};

/* The clock's flags are settled by the first KVM_RUN. */
static int run_vm(unsigned thousands, unsigned *clock_flags)
{
	open_kvm();
	int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	uint8_t *ram =
		mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memcpy(ram, code, sizeof code);
	struct kvm_userspace_memory_region slot = {
		.guest_phys_addr = 0x1000,
		.memory_size = 0x1000,
		.userspace_addr = (uintptr_t)ram,
	};
	check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	check(ioctl(vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	int size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	struct kvm_sregs s;
	check(ioctl(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.cs.base = s.cs.selector = 0;
	check(ioctl(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	struct kvm_regs r = { .rip = 0x1000, .rflags = 2, .rbx = thousands };
	check(ioctl(vcpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
	check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0x10 ||
	    ((uint8_t *)run)[run->io.data_offset] != 42) {
		fprintf(stderr, "guest: exit reason %u instead of 42 on port 0x10\n",
			run->exit_reason);
		return 1;
	}
	struct kvm_clock_data clock = { 0 };
	check(ioctl(vm, KVM_GET_CLOCK, &clock), "KVM_GET_CLOCK");
	*clock_flags = clock.flags;
	return 0;
}

static long long now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	unsigned flags;
	unsigned long n = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
	if (!strcmp(what, "caps")) {
		print_caps();
	} else if (!strcmp(what, "vm")) {
		if (run_vm(1, &flags))
			return 1;
		printf("kvm_get_clock.flags %#x\n", flags);
	} else if (!strcmp(what, "loop") && n) {
		long long start = now_ns();
		for (unsigned long i = 0; i < n; i++)
			__asm__ volatile("");
		printf("%lld\n", now_ns() - start);
	} else if (!strcmp(what, "vmloop") && n / 1000 && n / 1000 <= 65535) {
		long long start = now_ns();
		if (run_vm(n / 1000, &flags))
			return 1;
		printf("%lld\n", now_ns() - start);
	} else {
		fprintf(stderr, "usage: probe caps | vm | loop N | vmloop N\n");
		return 2;
	}
	return 0;
}
