#include "vmm/kvm.h"

#include <sys/ioctl.h>

#include "vmm/layout.h"

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int r;

	do
		r = ioctl(fd, (int)request, arg);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static int kvm_check(const struct kvm *k, unsigned long cap)
{
	return kvm_ioctl(k->fd, KVM_CHECK_EXTENSION, (void *)cap);
}

/* What a host must offer; all of it is in every KVM since Linux 4.14 or so. */
static const struct {
	unsigned long cap;
	const char *name;
} kvm_needed[] = {
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP" },
	{ KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI" },
	{ KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
	{ KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
	{ KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
	{ KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
	{ KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK" },
	{ KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ" },
};

int kvm_init(struct kvm *k, int kvm_fd, struct err *e)
{
	int r;

	*k = (struct kvm){ .fd = kvm_fd, .vm_fd = -1 };
	r = kvm_ioctl(kvm_fd, KVM_GET_API_VERSION, NULL);
	if (r != KVM_API_VERSION)
		return err_set(e, -ENODEV, "/dev/kvm: API version %d, need %d", r, KVM_API_VERSION);
	for (unsigned i = 0; i < ARRAY_LEN(kvm_needed); i++)
		if (kvm_check(k, kvm_needed[i].cap) <= 0)
			return err_set(e, -ENODEV, "/dev/kvm: this host lacks %s",
				       kvm_needed[i].name);
	r = kvm_ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r < (int)sizeof(struct kvm_run))
		return err_set(e, -ENODEV, "/dev/kvm: vCPU mapping of %d bytes", r);
	k->run_bytes = (size_t)r;
	k->has_xcrs = kvm_check(k, KVM_CAP_XCRS) > 0;
	k->has_tsc_control = kvm_check(k, KVM_CAP_TSC_CONTROL) > 0;
	k->has_deadline = kvm_check(k, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	r = kvm_check(k, KVM_CAP_XSAVE2);
	k->has_xsave2 = r >= 4096;
	k->xsave_bytes = k->has_xsave2 ? (size_t)r : sizeof(struct kvm_xsave);
	return 0;
}

void kvm_fini(struct kvm *k)
{
	if (k->vm_fd >= 0)
		close(k->vm_fd);
	if (k->fd >= 0)
		close(k->fd);
	k->fd = k->vm_fd = -1;
}

static int kvm_set_region(struct kvm *k, unsigned slot, uint32_t flags, gpa_t gpa, uint64_t bytes, void *hva,
			  struct err *e)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uint64_t)(uintptr_t)hva,
	};
	int err = kvm_ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &r);

	return err < 0 ? err_set(e, err, "KVM_SET_USER_MEMORY_REGION: %s", strerror(-err)) : 0;
}

static int kvm_set_memory(struct kvm *k, const struct gmem *mem, void *windows, struct err *e)
{
	uint32_t flags = k->tracks_writes ? KVM_MEM_LOG_DIRTY_PAGES : 0;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < mem->n; i++)
		r = kvm_set_region(k, i, flags, mem->region[i].gpa, mem->region[i].bytes,
				   mem->region[i].hva, e);
	if (r == 0 && windows)
		r = kvm_set_region(k, mem->n, KVM_MEM_READONLY, LAYOUT_SLOT_BASE,
				   LAYOUT_SLOT_PAGES * LAYOUT_SLOT_BYTES, windows, e);
	return r;
}

int kvm_written(const struct kvm *k, const struct gmem *mem, uint64_t *bits, struct err *e)
{
	for (unsigned i = 0; i < mem->n; i++) {
		struct kvm_dirty_log log = { .slot = i };
		int r;
		/* Regions are multiples of 2 MiB, so each starts with a word of its own. */
		log.dirty_bitmap = bits + mem->region[i].file_at / GMEM_PAGE / 64;
		if ((r = kvm_ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log)) < 0)
			return err_set(e, r, "KVM_GET_DIRTY_LOG: %s", strerror(-r));
	}
	return 0;
}

int kvm_create_vm(struct kvm *k, const struct gmem *mem, void *windows, unsigned pins, struct err *e)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { pins } };
	uint64_t ident = LAYOUT_IDENT_MAP;
	int r;

	k->vm_fd = kvm_ioctl(k->fd, KVM_CREATE_VM, NULL);
	if (k->vm_fd < 0) {
		r = k->vm_fd;
		k->vm_fd = -1;
		return err_set(e, r, "KVM_CREATE_VM: %s", strerror(-r));
	}
	if ((r = kvm_set_memory(k, mem, windows, e)) < 0)
		return r;
	/* Both place pages for Intel CPUs that cannot run real mode; others accept and ignore them. They
	 * may install memory slots, so they stand before the irqchip too. */
	(void)kvm_ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &ident);
	(void)kvm_ioctl(k->vm_fd, KVM_SET_TSS_ADDR, (void *)LAYOUT_TSS);
	r = kvm_ioctl(k->vm_fd, KVM_ENABLE_CAP, &split);
	if (r < 0)
		return err_set(e, r, "KVM_CAP_SPLIT_IRQCHIP: %s", strerror(-r));
	return 0;
}

int kvm_ioeventfd(const struct kvm *k, gpa_t gpa, int fd, bool assign)
{
	struct kvm_ioeventfd io = { .addr = gpa, .len = 4, .fd = fd,
				    .flags = assign ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN };

	return kvm_ioctl(k->vm_fd, KVM_IOEVENTFD, &io);
}

void kvm_signal_msi(const struct kvm *k, uint32_t address_lo, uint32_t data)
{
	struct kvm_msi msi = { .address_lo = address_lo, .data = data };

	/* 0 = the guest blocked it, negative = no such vCPU: the guest's programming, not our error. */
	(void)kvm_ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi);
}
