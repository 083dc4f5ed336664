#include "vmm/vcpu.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "amalgam/base/log.h"
#include "vmm/vmm.h"

#define VCPU_KICK_SIGNAL SIGUSR1
#define VCPU_STACK       (64 * 1024)

/* Keyboard controller, the reset line Linux pulls with reboot=k. */
#define VCPU_PORT_KBD       0x64
#define VCPU_KBD_RESET      0xfe
#define VCPU_WARM_BOOT_WORD 0x1234 /* reboot=panic_warm leaves it at LAYOUT_WARM_BOOT */

static void vcpu_on_kick(int sig)
{
	(void)sig; /* its only work is to make KVM_RUN return EINTR */
}

void vcpu_setup_signals(void)
{
	struct sigaction sa = { .sa_handler = vcpu_on_kick }; /* no SA_RESTART */
	sigaction(VCPU_KICK_SIGNAL, &sa, NULL);
}

int vcpu_init(struct vcpu *v, struct vmm *vmm, unsigned index, struct err *e)
{
	void *p;

	*v = (struct vcpu){ .vmm = vmm, .index = index };
	v->fd = kvm_ioctl(vmm->kvm.vm_fd, KVM_CREATE_VCPU, (void *)(uintptr_t)index);
	if (v->fd < 0)
		return err_set(e, v->fd, "KVM_CREATE_VCPU %u: %s", index, strerror(-v->fd));
	p = mmap(NULL, vmm->kvm.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (p == MAP_FAILED)
		return err_set(e, -errno, "map vCPU %u: %m", index);
	v->run = p;
	v->run->immediate_exit = 1; /* park first; the gate lets it in */
	return 0;
}

void vcpu_kick(struct vcpu *v)
{
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (v->started)
		pthread_kill(v->thread, VCPU_KICK_SIGNAL);
}

/* --- exits ------------------------------------------------------------------------------------ */

/* A panic and an orderly reboot end in the same register write; the word that Linux leaves for the
 * BIOS tells them apart (boot parameter reboot=panic_warm). */
static void vcpu_kbd_reset(struct vcpu *v)
{
	uint16_t word = 0;

	if (gmem_read(&v->vmm->mem, LAYOUT_WARM_BOOT, &word, sizeof word) == 0 &&
	    word == VCPU_WARM_BOOT_WORD)
		vmm_guest_over(v->vmm, CTL_EXIT_PANIC, "guest kernel panic");
	else
		vmm_guest_over(v->vmm, CTL_EXIT_SHUTDOWN, "guest shut down");
}

static void vcpu_port_out(struct vcpu *v, uint16_t port, uint8_t value)
{
	if (port >= UART_BASE && port < UART_BASE + UART_PORTS)
		uart_write(&v->vmm->uart, port - UART_BASE, value);
	else if (port == VCPU_PORT_KBD && value == VCPU_KBD_RESET)
		vcpu_kbd_reset(v);
}

static uint8_t vcpu_port_in(struct vcpu *v, uint16_t port)
{
	if (port >= UART_BASE && port < UART_BASE + UART_PORTS)
		return uart_read(&v->vmm->uart, port - UART_BASE);
	return port == VCPU_PORT_KBD ? 0 : 0xff; /* ready for a command; nobody there */
}

/* KVM_EXIT_IO: `count` accesses of `size` bytes at data_offset in the shared page. A wide access to
 * our byte-wide devices reaches the first port only, as on a bus that nobody else listens to. */
static void vcpu_exit_io(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			vcpu_port_out(v, run->io.port, data[0]);
		} else {
			memset(data, 0xff, run->io.size);
			data[0] = vcpu_port_in(v, run->io.port);
		}
	}
}

static void vcpu_exit_mmio(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	gpa_t gpa = run->mmio.phys_addr;
	uint32_t len = MIN(run->mmio.len, (uint32_t)sizeof run->mmio.data);

	if (gpa >= LAYOUT_SLOT_BASE && gpa < LAYOUT_SLOT_BASE + LAYOUT_SLOTS * LAYOUT_SLOT_BYTES)
		slots_mmio(&v->vmm->slots, gpa, run->mmio.data, len, run->mmio.is_write);
	else if (gpa >= LAYOUT_IOAPIC && gpa < LAYOUT_IOAPIC + GMEM_PAGE)
		ioapic_mmio(&v->vmm->ioapic, (uint32_t)(gpa - LAYOUT_IOAPIC), run->mmio.data, len,
			    run->mmio.is_write);
	else if (!run->mmio.is_write)
		memset(run->mmio.data, 0xff, sizeof run->mmio.data);
}

/* Where the guest stood when it ended badly, for whoever reads the console log. */
static void vcpu_dump(struct vcpu *v)
{
	struct kvm_regs r;
	struct kvm_sregs s;
	int fd = v->vmm->console_fd;

	uart_flush(&v->vmm->uart);
	if (fd < 0 || kvm_ioctl(v->fd, KVM_GET_REGS, &r) < 0 ||
	    kvm_ioctl(v->fd, KVM_GET_SREGS, &s) < 0)
		return;
	dprintf(fd,
		"\nspore: vCPU %u stopped\n"
		"  rip %016llx rflags %08llx rsp %016llx rbp %016llx\n"
		"  rax %016llx rbx %016llx rcx %016llx rdx %016llx\n"
		"  rsi %016llx rdi %016llx r8  %016llx r9  %016llx\n"
		"  r10 %016llx r11 %016llx r12 %016llx r13 %016llx\n"
		"  r14 %016llx r15 %016llx\n"
		"  cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx efer %04llx\n"
		"  cs %04x base %016llx ss %04x gs base %016llx idt %016llx\n",
		v->index, r.rip, r.rflags, r.rsp, r.rbp, r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.r8,
		r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, s.cr0, s.cr2, s.cr3, s.cr4, s.efer,
		s.cs.selector, s.cs.base, s.ss.selector, s.gs.base, s.idt.base);
}

static void vcpu_exit_odd(struct vcpu *v)
{
	const struct kvm_run *run = v->run;

	vcpu_dump(v);
	switch (run->exit_reason) {
	case KVM_EXIT_SHUTDOWN:
		vmm_guest_over(v->vmm, CTL_EXIT_FAULT, "guest stopped by a triple fault");
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		vmm_guest_over(v->vmm, CTL_EXIT_INTERNAL, "KVM internal error, suberror %u",
			       run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		vmm_guest_over(v->vmm, CTL_EXIT_INTERNAL, "KVM cannot enter the guest, reason 0x%llx",
			       (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		vmm_guest_over(v->vmm, CTL_EXIT_INTERNAL, "unexpected KVM exit %u", run->exit_reason);
	}
}

static void vcpu_handle_exit(struct vcpu *v)
{
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		vcpu_exit_io(v);
		break;
	case KVM_EXIT_MMIO:
		vcpu_exit_mmio(v);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_IOAPIC_EOI: /* edge only: nothing waits for it */
		break;
	default:
		vcpu_exit_odd(v);
	}
}

/* --- the thread ------------------------------------------------------------------------------- */

/* Wait until the machine runs. */
static void vcpu_wait_gate(struct vcpu *v)
{
	struct vmm_gate *g = &v->vmm->gate;

	pthread_mutex_lock(&g->lock);
	while (!g->run) {
		if (!v->parked) {
			v->parked = true;
			g->parked++;
			pthread_cond_broadcast(&g->changed);
		}
		pthread_cond_wait(&g->changed, &g->lock);
	}
	if (v->parked) {
		v->parked = false;
		g->parked--;
	}
	/* Cleared under the lock: whoever closes the gate sets it again afterwards. */
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&g->lock);
}

/* Lives as long as the process: a machine is taken down by ending it. */
static NORETURN void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;

	for (;;) {
		int r = ioctl(v->fd, KVM_RUN, NULL);
		if (r == 0) {
			vcpu_handle_exit(v);
		} else if (errno == EINTR || errno == EAGAIN) {
			vcpu_wait_gate(v); /* kicked, or a CPU that has just got its startup IPI */
		} else {
			vcpu_dump(v);
			vmm_guest_over(v->vmm, CTL_EXIT_INTERNAL, "KVM_RUN: %s", strerror(errno));
			vcpu_wait_gate(v);
		}
	}
}

int vcpu_start(struct vcpu *v, struct err *e)
{
	pthread_attr_t attr;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, VCPU_STACK);
	r = pthread_create(&v->thread, &attr, vcpu_thread, v);
	pthread_attr_destroy(&attr);
	if (r)
		return err_set(e, -r, "vCPU thread: %s", strerror(r));
	v->started = true;
	return 0;
}
