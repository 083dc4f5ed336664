#include "vmm/vmm.h"

#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "vmm/snapshot/memory.h"
#include "vmm/snapshot/snap.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/fs.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/vsock.h"
#include "vmm/virtio/vsock_mux.h"
#include "vmm/x86_64/state.h"

void vmm_guest_over(struct vmm *m, enum ctl_exit how, const char *fmt, ...)
{
	struct vmm_gate *g = &m->gate;
	uint64_t one = 1;
	va_list ap;

	pthread_mutex_lock(&g->lock);
	if (!g->exit) {
		va_start(ap, fmt);
		vsnprintf(g->why, sizeof g->why, fmt, ap);
		va_end(ap);
		g->exit = how;
		if (write(m->exit_fd, &one, sizeof one) < 0) {
			/* EAGAIN: told already */
		}
	}
	g->run = false;
	pthread_mutex_unlock(&g->lock);
	for (unsigned i = 0; i < m->nvcpus; i++)
		vcpu_kick(&m->vcpu[i]);
}

/* --- parts of creation, in the order kvm.h demands -------------------------------------------- */

static void vmm_irq_com1(void *arg)
{
	struct vmm *m = arg;
	ioapic_raise(&m->ioapic, LAYOUT_COM1_GSI);
}

static void vmm_irq_slot(void *arg, unsigned pin)
{
	struct vmm *m = arg;
	ioapic_raise(&m->ioapic, pin);
}

static int vmm_host_ioeventfd(void *arg, gpa_t notify, int fd, bool assign)
{
	struct vmm *m = arg;
	return kvm_ioeventfd(&m->kvm, notify, fd, assign);
}

static int vmm_create_vcpus(struct vmm *m, struct err *e)
{
	for (unsigned i = 0; i < m->spec.vcpus; i++) {
		int r = vcpu_init(&m->vcpu[i], m, i, e);
		m->nvcpus = i + 1;
		if (r < 0)
			return r;
	}
	return 0;
}

static int vmm_load_cpuid(struct vmm *m, struct err *e)
{
	for (unsigned i = 0; i < m->nvcpus; i++) {
		int r = cpuid_load(&m->cpu, m->vcpu[i].fd, i, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int vmm_boot(struct vmm *m, struct err *e)
{
	struct boot_entry entry = { 0 };
	int r;

	if ((r = cpuid_supported(&m->kvm, &m->cpu, e)) < 0)
		return r;
	cpuid_for_guest(&m->cpu, &m->kvm, m->spec.max_vcpus);
	if ((r = vmm_load_cpuid(m, e)) < 0)
		return r;
	if ((r = boot_load(&m->mem, m->image, m->spec.cmdline, m->spec.max_vcpus, &entry, e)) < 0)
		return r;
	return boot_set_registers(m->vcpu[0].fd, &entry, e);
}

static int vmm_restore_vcpus(struct vmm *m, const struct snap *s, struct err *e)
{
	for (unsigned i = 0; i < m->nvcpus; i++) {
		struct cur in;
		int r;

		if (snap_find(s, SNAP_VCPU, i, &in))
			r = vstate_restore(&m->kvm, m->vcpu[i].fd, i, in, e);
		else if (i > 0 && snap_find(s, SNAP_VCPU, 0, &in))
			r = vstate_restore_parked(&m->kvm, m->vcpu[i].fd, in, e);
		else
			r = err_set(e, -EPROTO, "state file: no vCPU in it");
		if (r < 0)
			return r;
	}
	return 0;
}

static int vmm_restore_clock(struct vmm *m, const struct snap *s, struct err *e)
{
	struct kvm_clock_data clock = { 0 };
	struct cur in;
	int r;

	if (!snap_find(s, SNAP_CLOCK, 0, &in))
		return err_set(e, -EPROTO, "state file: no clock in it");
	/* Flags 0: the guest's monotonic clock goes on where it stopped; wall time is the agent's. */
	clock.clock = cur_le64(&in);
	r = in.bad ? -EPROTO : kvm_ioctl(m->kvm.vm_fd, KVM_SET_CLOCK, &clock);
	return r < 0 ? err_set(e, r, "restore clock: %s", strerror(-r)) : 0;
}

static int vmm_attach_fixed(struct vmm *m, struct err *e)
{
	struct vsk_config vsock = { .port_seed = (uint32_t)m->spec.seed };
	int r;

	if ((r = vsk_new(&m->loop, &vsock, &m->vsock, e)) < 0 ||
	    (r = slots_attach(&m->slots, CTL_SLOT_VSOCK, m->vsock, e)) < 0)
		return r;
	r = slots_attach(&m->slots, CTL_SLOT_RNG, vrng_new(&m->loop, &m->mem), e);
	if (r < 0)
		return r;
	m->balloon = vbal_new(&m->loop, &m->mem);
	if ((r = slots_attach(&m->slots, CTL_SLOT_BALLOON, m->balloon, e)) < 0)
		return r;
	r = slots_attach(&m->slots, CTL_SLOT_DRIVE, vblk_new_empty(false, &m->loop, &m->mem), e);
	if (r < 0)
		return r;
	r = slots_attach(&m->slots, CTL_SLOT_DRIVE_RO, vblk_new_empty(true, &m->loop, &m->mem), e);
	if (r < 0)
		return r;
	m->share = vfs_new(&m->loop, &m->mem, m->files);
	return slots_attach_asleep(&m->slots, CTL_SLOT_SHARE, m->share, e);
}

/* Every slot the snapshot has must be one of the fixed ones: a template is saved with the others
 * empty, so that it is good for any sandbox. */
static int vmm_restore_slots(struct vmm *m, const struct snap *s, struct err *e)
{
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++) {
		struct cur in;
		int r;

		if (!snap_find(s, SNAP_SLOT, i, &in))
			continue;
		if (!m->slots.slot[i].dev || cur_le32(&in) != m->slots.slot[i].dev->ops->id)
			return err_set(e, -EPROTO, "state file: slot %u holds another device", i);
		if ((r = slots_restore_one(&m->slots, i, &in, e)) < 0)
			return r;
	}
	return 0;
}

static int vmm_check_machine(const struct vmm *m, const struct snap *s, struct err *e)
{
	struct cur in;
	uint64_t mem;
	uint32_t saved, max;

	if (!snap_find(s, SNAP_MACHINE, 0, &in))
		return err_set(e, -EPROTO, "state file: no machine in it");
	mem = cur_le64(&in);
	saved = cur_le32(&in);
	max = cur_le32(&in);
	if (in.bad || mem != m->spec.mem_bytes || max != m->spec.max_vcpus || saved == 0 ||
	    saved > m->spec.vcpus)
		return err_set(e, -EPROTO, "state file: made for another machine shape");
	return 0;
}

/* Without a fingerprint to vouch for the host, its CPU is compared with the guest's. */
static bool vmm_any_fingerprint(const struct vmm *m)
{
	static const uint8_t none[CTL_FINGERPRINT];
	return !memcmp(m->spec.fingerprint, none, sizeof none);
}

static int vmm_restore_cpuid(struct vmm *m, const struct snap *s, struct err *e)
{
	struct cur in;
	int r;

	if (!snap_find(s, SNAP_CPUID, 0, &in))
		return err_set(e, -EPROTO, "state file: no CPUID in it");
	if ((r = cpuid_restore(&m->cpu, in, e)) < 0)
		return r;
	if (vmm_any_fingerprint(m)) {
		AUTO_FREE struct cpuid_table *host = mem_zalloc(sizeof *host);
		if ((r = cpuid_supported(&m->kvm, host, e)) < 0 ||
		    (r = cpuid_check_subset(&m->cpu, host, e)) < 0)
			return r;
	}
	return vmm_load_cpuid(m, e);
}

static int vmm_read_file(int fd, struct buf *b, struct err *e)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "state file: %m");
	if (st.st_size <= 0 || (uint64_t)st.st_size > SNAP_MAX_BYTES)
		return err_set(e, -EPROTO, "state file: %lld bytes", (long long)st.st_size);
	r = fd_pread_full(fd, buf_reserve(b, (size_t)st.st_size), (size_t)st.st_size, 0);
	if (r < 0)
		return err_set(e, r, "state file: %s", strerror(-r));
	b->len = (size_t)st.st_size;
	return 0;
}

static int vmm_restore(struct vmm *m, const struct snap *s, struct err *e)
{
	struct cur in;
	int r;

	if ((r = vmm_restore_cpuid(m, s, e)) < 0 || (r = vmm_restore_vcpus(m, s, e)) < 0 ||
	    (r = vmm_restore_clock(m, s, e)) < 0)
		return r;
	if (!snap_find(s, SNAP_IOAPIC, 0, &in) || ioapic_restore(&m->ioapic, &in) < 0)
		return err_set(e, -EPROTO, "state file: bad IOAPIC");
	if ((r = vmm_attach_fixed(m, e)) < 0)
		return r;
	return vmm_restore_slots(m, s, e);
}

/* Descriptors of CTL_CREATE, in their order. */
struct vmm_create_fds {
	int kvm, console, memory, state, warm;
};

static int vmm_take_fds(const struct ctl_request *rq, int *fds, size_t n, struct vmm_create_fds *out)
{
	size_t i = 2, want = 2 + !!(rq->flags & CTL_F_MEMORY) + !!(rq->flags & CTL_F_RESTORE) +
			    !!(rq->flags & CTL_F_WARM);

	if (n != want)
		return -EPROTO;
	out->kvm = take_fd(&fds[0]);
	out->console = take_fd(&fds[1]);
	out->memory = rq->flags & CTL_F_MEMORY ? take_fd(&fds[i++]) : -1;
	out->state = rq->flags & CTL_F_RESTORE ? take_fd(&fds[i++]) : -1;
	out->warm = rq->flags & CTL_F_WARM ? take_fd(&fds[i++]) : -1;
	return 0;
}

static int vmm_open_state(struct vmm *m, int fd, struct buf *state, struct snap *snap, struct err *e)
{
	int r;

	if ((r = vmm_read_file(fd, state, e)) < 0 ||
	    (r = snap_parse(snap, state->data, state->len,
			    vmm_any_fingerprint(m) ? NULL : m->spec.fingerprint, e)) < 0)
		return r;
	return vmm_check_machine(m, snap, e);
}

/* snap: restore this, with the memory of the file; NULL: boot, in the file or in fresh memory. */
static int vmm_make_memory(struct vmm *m, const struct snap *snap, int fd, bool shared, struct err *e)
{
	struct cur in;
	int r;

	if (snap && !snap_find(snap, SNAP_MEMORY, 0, &in)) {
		close(fd);
		return err_set(e, -EPROTO, "state file: no list of memory in it");
	}
	r = gmem_init(&m->mem, m->spec.mem_bytes, fd, shared ? GMEM_SHARED : GMEM_PRIVATE, e);
	return r < 0 || !snap ? r : snapmem_map(&m->mem, in, e);
}

/* The fast order (kvm.h). */
static int vmm_build(struct vmm *m, const struct snap *snap, struct err *e)
{
	void *windows = mmap(NULL, LAYOUT_SLOT_PAGES * LAYOUT_SLOT_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* for the life of the process */
	const struct slots_host host = { m, vmm_irq_slot, vmm_host_ioeventfd, windows };
	int r;

	if (windows == MAP_FAILED)
		return err_set(e, -errno, "pages for devices' registers: %m");
	if ((r = kvm_create_vm(&m->kvm, &m->mem, windows, LAYOUT_PINS, e)) < 0)
		return r;
	ioapic_init(&m->ioapic, &m->kvm);
	uart_init(&m->uart, m->console_fd, vmm_irq_com1, m);
	slots_init(&m->slots, &m->mem, &m->loop, &host);
	if ((r = vmm_create_vcpus(m, e)) < 0)
		return r;
	if (snap)
		r = vmm_restore(m, snap, e);
	else if ((r = vmm_boot(m, e)) == 0)
		r = vmm_attach_fixed(m, e);
	for (unsigned i = 0; r == 0 && i < m->nvcpus; i++)
		r = vcpu_start(&m->vcpu[i], e);
	return r;
}

/* Pages that every clone of this template writes at once: taking them in one go costs a tenth of the
 * faults they would be. Only a hint, so a damaged list is not an error. */
static void vmm_warm(struct vmm *m, int fd)
{
	AUTO_BUF struct buf b = { 0 };

	if (vmm_read_file(fd, &b, NULL) == 0)
		snapmem_warm(&m->mem, cur_of(b.data, b.len));
}

static int vmm_check_create(const struct ctl_request *rq, struct err *e)
{
	const struct ctl_create *c = &rq->create;

	if (c->vcpus < 1 || c->max_vcpus < c->vcpus || c->max_vcpus > LAYOUT_MAX_VCPUS)
		return err_set(e, -EINVAL, "%u vCPUs of %u", c->vcpus, c->max_vcpus);
	if (c->mem_bytes < LAYOUT_MIN_MEM || c->mem_bytes > LAYOUT_MAX_MEM)
		return err_set(e, -EINVAL, "%llu bytes of memory", (unsigned long long)c->mem_bytes);
	if (rq->flags & CTL_F_RESTORE && (rq->flags & (CTL_F_MEMORY | CTL_F_SHARED)) != CTL_F_MEMORY)
		return err_set(e, -EINVAL, "a machine is restored over a private memory file");
	return 0;
}

/* Everything that can be refused is refused before the VM exists. */
static int vmm_make(struct vmm *m, const struct ctl_request *rq, struct vmm_create_fds *f, struct err *e)
{
	bool restore = rq->flags & CTL_F_RESTORE;
	AUTO_BUF struct buf state = { 0 };
	struct snap snap;
	int r;

	if ((r = kvm_init(&m->kvm, take_fd(&f->kvm), e)) < 0 ||
	    (restore && (r = vmm_open_state(m, f->state, &state, &snap, e)) < 0))
		return r;
	m->kvm.tracks_writes = rq->flags & CTL_F_TRACK;
	r = vmm_make_memory(m, restore ? &snap : NULL, take_fd(&f->memory), rq->flags & CTL_F_SHARED, e);
	if (r < 0 || (r = vmm_build(m, restore ? &snap : NULL, e)) < 0)
		return r;
	if (f->warm >= 0)
		vmm_warm(m, f->warm);
	if (m->files && !m->mem.shared && !m->kvm.tracks_writes)
		gmem_forget_file(&m->mem);
	return 0;
}

int vmm_create(struct vmm *m, const struct ctl_request *rq, int *fds, size_t nfds, struct err *e)
{
	struct vmm_create_fds f;
	int *rest[] = { &f.kvm, &f.memory, &f.state, &f.warm }; /* what was not taken */
	int r;

	if (m->created)
		return err_set(e, -EBUSY, "this process has a machine already");
	if ((r = vmm_check_create(rq, e)) < 0)
		return r;
	if (vmm_take_fds(rq, fds, nfds, &f) < 0)
		return err_set(e, -EPROTO, "wrong number of descriptors");
	m->created = true;
	m->spec = rq->create;
	m->spec.cmdline[sizeof m->spec.cmdline - 1] = '\0';
	m->console_fd = f.console;
	log_setup(f.console, LOG_WARN); /* between the guest's own lines */
	r = vmm_make(m, rq, &f, e);
	for (unsigned i = 0; i < ARRAY_LEN(rest); i++)
		if (*rest[i] >= 0)
			close(*rest[i]);
	m->ready = r == 0;
	if (r == 0 && (rq->flags & CTL_F_RUN))
		vmm_run(m);
	return r;
}

void vmm_run(struct vmm *m)
{
	if (m->paused)
		slots_resume(&m->slots);
	m->paused = false;
	pthread_mutex_lock(&m->gate.lock);
	m->gate.run = !m->gate.exit;
	pthread_cond_broadcast(&m->gate.changed);
	pthread_mutex_unlock(&m->gate.lock);
}

int vmm_pause(struct vmm *m, struct err *e)
{
	struct vmm_gate *g = &m->gate;
	int r;

	pthread_mutex_lock(&g->lock);
	g->run = false;
	pthread_mutex_unlock(&g->lock);
	for (unsigned i = 0; i < m->nvcpus; i++)
		vcpu_kick(&m->vcpu[i]);
	pthread_mutex_lock(&g->lock);
	while (g->parked < m->nvcpus)
		pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
	m->paused = true;
	/* Now, not when it is saved: the time a machine spends paused does not exist for its guest. */
	r = kvm_ioctl(m->kvm.vm_fd, KVM_GET_CLOCK, &m->clock);
	if (r < 0)
		err_set(e, r, "KVM_GET_CLOCK: %s", strerror(-r));
	else
		r = slots_quiesce(&m->slots, e);
	if (r < 0)
		vmm_run(m);
	return r;
}

/* --- save -------------------------------------------------------------------------------------- */

/* vCPUs that still wait for the guest's startup IPI are as after power-on: a restore makes them anew. */
static bool vmm_vcpu_is_parked(const struct vcpu *v)
{
	struct kvm_mp_state mp;
	return kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp) == 0 &&
	       mp.mp_state == KVM_MP_STATE_UNINITIALIZED;
}

static int vmm_save_vcpus(struct vmm *m, struct snap_writer *w, struct err *e)
{
	for (unsigned i = 0; i < m->nvcpus; i++) {
		int r;
		if (vmm_vcpu_is_parked(&m->vcpu[i]))
			continue;
		snap_open(w, SNAP_VCPU, i);
		if ((r = vstate_save(&m->kvm, m->vcpu[i].fd, w->out, e)) < 0)
			return err_wrap(e, "vCPU %u", i);
		snap_close(w);
	}
	return 0;
}

static void vmm_save_machine(struct vmm *m, struct snap_writer *w)
{
	snap_open(w, SNAP_MACHINE, 0);
	buf_le64(w->out, m->spec.mem_bytes);
	buf_le32(w->out, m->nvcpus);
	buf_le32(w->out, m->spec.max_vcpus);
	snap_close(w);
	snap_open(w, SNAP_CPUID, 0);
	cpuid_save(&m->cpu, w->out);
	snap_close(w);
	snap_open(w, SNAP_CLOCK, 0);
	buf_le64(w->out, m->clock.clock);
	snap_close(w);
	snap_open(w, SNAP_IOAPIC, 0);
	ioapic_save(&m->ioapic, w->out);
	snap_close(w);
}

static void vmm_save_slots(struct vmm *m, struct snap_writer *w)
{
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++) {
		if (!m->slots.slot[i].dev)
			continue;
		snap_open(w, SNAP_SLOT, i);
		buf_le32(w->out, m->slots.slot[i].dev->ops->id);
		slots_save_one(&m->slots, i, w->out);
		snap_close(w);
	}
}

int vmm_save(struct vmm *m, int state_fd, int memory_fd, struct err *e)
{
	AUTO_BUF struct buf state = { 0 };
	struct snap_writer w;
	int r;

	if (!m->paused)
		return err_set(e, -EBUSY, "pause the machine before saving it");
	/* Devices first: finishing their work may raise interrupts, which belong into the LAPICs that
	 * are saved after them. */
	snap_begin(&w, &state, m->spec.fingerprint);
	vmm_save_slots(m, &w);
	if ((r = vmm_save_vcpus(m, &w, e)) < 0)
		return r;
	vmm_save_machine(m, &w);
	r = memory_fd >= 0 ? snapmem_write(&m->mem, memory_fd, e) : snapmem_punch(&m->mem, e);
	if (r < 0)
		return r;
	snap_open(&w, SNAP_MEMORY, 0);
	r = snapmem_list(memory_fd >= 0 ? memory_fd : m->mem.fd, m->mem.bytes, &state, e);
	if (r < 0)
		return r;
	snap_close(&w);
	snap_finish(&w);
	r = fd_write_full(state_fd, state.data, state.len);
	return r < 0 ? err_set(e, r, "state file: %s", strerror(-r)) : 0;
}

int vmm_changed(struct vmm *m, int fd, struct err *e)
{
	AUTO_BUF struct buf b = { 0 };
	AUTO_FREE uint64_t *written = NULL;
	int r;

	if (!m->paused || m->mem.fd < 0 || m->mem.shared || !m->kvm.tracks_writes)
		return err_set(e, -EINVAL, "only a paused clone that was to track it can tell what it wrote");
	written = mem_zalloc(m->mem.bytes / GMEM_PAGE / 8);
	if ((r = kvm_written(&m->kvm, &m->mem, written, e)) < 0 ||
	    (r = snapmem_changed(&m->mem, written, &b, e)) < 0)
		return r;
	r = fd_write_full(fd, b.data, b.len);
	return r < 0 ? err_set(e, r, "warm file: %s", strerror(-r)) : 0;
}
