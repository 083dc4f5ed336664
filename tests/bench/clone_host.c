/* clone_host.c - what a clone costs its host, without a Linux in it: runs on a /dev/kvm that cannot
 * carry one, at the machine's own speed.
 *
 *   clone_host make DIR           a template of the tiny guest (guest.S), made by our own code
 *   clone_host inprocess DIR N    N rounds of: the floor, ours, and now and then the usual order
 *   clone_host profile DIR N      the same, ioctl by ioctl
 *   clone_host exec DIR N         N rounds from exec of a static binary to the clone's first byte
 *   clone_host memory DIR N       N idle clones at once: what they take from the machine
 *
 * Prints "NAME VALUE" lines, one per sample, times in microseconds.
 *
 * The floor is what no VMM can do without, as bare calls: VM, template mapped copy-on-write, memory
 * slot, split irqchip, vCPU, every register class, first KVM_RUN to the guest's first port write. Its
 * state is that of the same template. "Ours" is vmm_create() as the machine process calls it, then
 * the same KVM_RUN; only pthread_create() is held back, so that the loop can run the vCPU itself and
 * do it again. From exec, nothing is held back: supervisor, fork, jail, control socket, threads. */
#define main spore_main /* the whole program is part of this one */
#include "amalgam/spore.c"
#undef main

#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define BENCH_MEM     MIB(128)
#define BENCH_FLAG    0x101000 /* guest.S waits for it */
#define BENCH_USUAL   10       /* one round in so many also measures the usual order, which is slow */
#define BENCH_LIFE_US 25000    /* between clone and teardown: nobody's container is over sooner, and what
				* creation left to do later in the kernel is done */
#define BENCH_BATCH   10       /* clones between two looks at MemFree */

static const char *bench_self;

static NORETURN void bench_die(const char *what, int r)
{
	fprintf(stderr, "clone_host: %s: %s\n", what, strerror(r < 0 ? -r : r));
	exit(1);
}

static int bench_must(const char *what, int r)
{
	if (r < 0)
		bench_die(what, r == -1 ? errno : r);
	return r;
}

static NORETURN void bench_err(const struct err *e)
{
	fprintf(stderr, "clone_host: %s\n", e->msg);
	exit(1);
}

static void bench_sample(const char *name, uint64_t from, uint64_t to)
{
	printf("%s %.1f\n", name, (double)(to - from) / 1000);
}

static int bench_open(const char *dir, const char *name, int flags)
{
	AUTO_FREE char *path = mem_printf("%s/%s", dir, name);
	return bench_must(path, open(path, flags | O_CLOEXEC, 0600));
}

static int bench_open_kvm(void)
{
	return bench_must("/dev/kvm", open("/dev/kvm", O_RDWR | O_CLOEXEC));
}

/* --- what the linker's --wrap lets us see ------------------------------------------------------ */

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int __real_ioctl(int fd, int request, ...);
int __wrap_ioctl(int fd, int request, ...);

static bool bench_no_threads;

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
	return bench_no_threads ? 0 : __real_pthread_create(t, a, fn, arg);
}

/* Time spent in each ioctl of one clone, while bench_profile points somewhere. */
struct profile {
	struct {
		unsigned request;
		uint64_t ns;
	} row[64];
	unsigned n;
};
static struct profile *bench_profile;

static void profile_add(struct profile *p, unsigned request, uint64_t ns)
{
	unsigned i = 0;

	while (i < p->n && p->row[i].request != request)
		i++;
	ASSERT(i < ARRAY_LEN(p->row));
	if (i == p->n)
		p->row[p->n++] = (__typeof__(p->row[0])){ .request = request };
	p->row[i].ns += ns;
}

static void profile_print(struct profile *p, const char *who, uint64_t total_ns)
{
	for (unsigned i = 0; i < p->n; i++) {
		printf("%s.ioctl-0x%02x %.1f\n", who, p->row[i].request & 0xff,
		       (double)p->row[i].ns / 1000);
		total_ns -= p->row[i].ns;
	}
	printf("%s.outside-ioctls %.1f\n", who, (double)total_ns / 1000);
}

int __wrap_ioctl(int fd, int request, ...)
{
	uint64_t t;
	va_list ap;
	void *arg;
	int r;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!bench_profile)
		return __real_ioctl(fd, request, arg);
	t = clock_mono_ns();
	r = __real_ioctl(fd, request, arg);
	profile_add(bench_profile, (unsigned)request, clock_mono_ns() - t);
	return r;
}

/* --- the template --------------------------------------------------------------------------------- */

static struct ctl_create bench_spec(void)
{
	return (struct ctl_create){ .mem_bytes = BENCH_MEM, .vcpus = 1, .max_vcpus = 8, .seed = 1,
				    .fingerprint = "host and build, vouched for" };
}

static void bench_wait_line(int fd)
{
	char c = 0;

	while (c != '\n')
		if (read(fd, &c, 1) != 1)
			bench_die("the guest said nothing", EPIPE);
}

static void bench_make(const char *dir)
{
	int memory = bench_open(dir, "memory", O_RDWR | O_CREAT | O_TRUNC);
	int state = bench_open(dir, "state", O_RDWR | O_CREAT | O_TRUNC);
	struct ctl_create create = bench_spec();
	struct hv_spec spec = { .create = &create, .kvm_fd = bench_open_kvm(), .memory_fd = memory,
				.shared = true, .state_fd = -1, .warm_fd = -1, .run = true };
	uint32_t flag = 1;
	struct hv_vm vm;
	struct err e = { 0 };
	int console[2];

	bench_must("pipe", pipe2(console, O_CLOEXEC));
	bench_must("memory file", ftruncate(memory, (off_t)BENCH_MEM));
	spec.console_fd = console[1];
	if (hv_spawn(&vm, NULL, &e) < 0 || hv_create(&vm, &spec, &e) < 0)
		bench_err(&e);
	bench_wait_line(console[0]);
	if (hv_pause(&vm, &e) < 0)
		bench_err(&e);
	/* before it is saved: what is data and what a hole is written down then */
	bench_must("flag", fd_pwrite_full(memory, &flag, sizeof flag, BENCH_FLAG));
	if (hv_save(&vm, state, -1, &e) < 0)
		bench_err(&e);
	hv_stop(&vm);
}

/* --- the floor --------------------------------------------------------------------------------------- */

struct floor {
	int kvm, memory;
	size_t run_bytes;
	uint64_t clock;
	uint32_t tsc_khz;
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	uint8_t xsave[16384];
	struct cpuid_table cpuid;
	struct vstate_msrs msrs;
};

struct floor_vm {
	int vm, vcpu;
	void *mem;
	struct kvm_run *run;
};

static void floor_part(struct cur in, enum vstate_class cls, void *to, size_t max)
{
	struct cur part = vstate_part(in, cls);
	size_t n = cur_left(&part);

	if (!part.bad && n <= max)
		cur_copy(&part, to, n);
	else if (cls != VSTATE_XCRS)
		bench_die("state file lacks a register class", EPROTO);
}

/* Everything that a floor clone loads, out of the template's state file. */
static void floor_init(struct floor *f, const char *dir)
{
	AUTO_FREE char *path = mem_printf("%s/state", dir);
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };
	struct snap s;
	struct cur in;

	*f = (struct floor){ .kvm = bench_open_kvm(), .memory = bench_open(dir, "memory", O_RDONLY) };
	f->run_bytes = (size_t)bench_must("vCPU size", ioctl(f->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	if (path_read(path, SNAP_MAX_BYTES, &b, &e) < 0 || snap_parse(&s, b.data, b.len, NULL, &e) < 0)
		bench_err(&e);
	if (!snap_find(&s, SNAP_CPUID, 0, &in) || cpuid_restore(&f->cpuid, in, &e) < 0)
		bench_die("state file: CPUID", EPROTO);
	if (!snap_find(&s, SNAP_CLOCK, 0, &in))
		bench_die("state file", EPROTO);
	f->clock = cur_le64(&in);
	if (!snap_find(&s, SNAP_VCPU, 0, &in))
		bench_die("state file", EPROTO);
	floor_part(in, VSTATE_TSC_KHZ, &f->tsc_khz, sizeof f->tsc_khz);
	floor_part(in, VSTATE_MP, &f->mp, sizeof f->mp);
	floor_part(in, VSTATE_REGS, &f->regs, sizeof f->regs);
	floor_part(in, VSTATE_SREGS, &f->sregs, sizeof f->sregs);
	floor_part(in, VSTATE_XCRS, &f->xcrs, sizeof f->xcrs);
	floor_part(in, VSTATE_XSAVE, f->xsave, sizeof f->xsave);
	floor_part(in, VSTATE_DEBUG, &f->debug, sizeof f->debug);
	floor_part(in, VSTATE_LAPIC, &f->lapic, sizeof f->lapic);
	floor_part(in, VSTATE_EVENTS, &f->events, sizeof f->events);
	floor_part(in, VSTATE_MSRS, f->msrs.e, sizeof f->msrs.e);
	in = vstate_part(in, VSTATE_MSRS);
	f->msrs.n = (uint32_t)(cur_left(&in) / sizeof f->msrs.e[0]);
}

/* In the order of state.c. */
static void floor_load_vcpu(struct floor *f, int vcpu)
{
	ioctl(vcpu, KVM_SET_TSC_KHZ, (unsigned long)f->tsc_khz); /* no scaling: refused, costs the same */
	bench_must("SET_CPUID2", ioctl(vcpu, KVM_SET_CPUID2, &f->cpuid));
	bench_must("SET_MP_STATE", ioctl(vcpu, KVM_SET_MP_STATE, &f->mp));
	bench_must("SET_REGS", ioctl(vcpu, KVM_SET_REGS, &f->regs));
	bench_must("SET_SREGS", ioctl(vcpu, KVM_SET_SREGS, &f->sregs));
	if (f->xcrs.nr_xcrs)
		bench_must("SET_XCRS", ioctl(vcpu, KVM_SET_XCRS, &f->xcrs));
	bench_must("SET_XSAVE", ioctl(vcpu, KVM_SET_XSAVE, f->xsave));
	bench_must("SET_DEBUGREGS", ioctl(vcpu, KVM_SET_DEBUGREGS, &f->debug));
	bench_must("SET_LAPIC", ioctl(vcpu, KVM_SET_LAPIC, &f->lapic));
	if (ioctl(vcpu, KVM_SET_MSRS, &f->msrs) != (int)f->msrs.n)
		bench_die("SET_MSRS", EIO);
	bench_must("SET_VCPU_EVENTS", ioctl(vcpu, KVM_SET_VCPU_EVENTS, &f->events));
	ioctl(vcpu, KVM_KVMCLOCK_CTRL, 0);
}

static void floor_map(struct floor *f, struct floor_vm *v)
{
	struct kvm_userspace_memory_region r = { .memory_size = BENCH_MEM };

	v->mem = mmap(NULL, BENCH_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, f->memory, 0);
	if (v->mem == MAP_FAILED)
		bench_die("map the template", errno);
	r.userspace_addr = (uintptr_t)v->mem;
	bench_must("SET_USER_MEMORY_REGION", ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &r));
}

/* usual: in-kernel interrupt controllers and timer before the memory slot, as most VMMs do it. */
static void floor_clone(struct floor *f, struct floor_vm *v, bool usual)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_pit_config pit = { 0 };
	struct kvm_clock_data clock = { .clock = f->clock };

	v->vm = bench_must("CREATE_VM", ioctl(f->kvm, KVM_CREATE_VM, 0));
	if (usual) {
		bench_must("SET_TSS_ADDR", ioctl(v->vm, KVM_SET_TSS_ADDR, LAYOUT_TSS));
		bench_must("CREATE_IRQCHIP", ioctl(v->vm, KVM_CREATE_IRQCHIP, 0));
		bench_must("CREATE_PIT2", ioctl(v->vm, KVM_CREATE_PIT2, &pit));
	}
	floor_map(f, v);
	if (!usual)
		bench_must("SPLIT_IRQCHIP", ioctl(v->vm, KVM_ENABLE_CAP, &split));
	v->vcpu = bench_must("CREATE_VCPU", ioctl(v->vm, KVM_CREATE_VCPU, 0));
	v->run = mmap(NULL, f->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->vcpu, 0);
	if (v->run == MAP_FAILED)
		bench_die("map a vCPU", errno);
	floor_load_vcpu(f, v->vcpu);
	bench_must("SET_CLOCK", ioctl(v->vm, KVM_SET_CLOCK, &clock));
}

static void bench_first_out(int vcpu, const struct kvm_run *run)
{
	bench_must("KVM_RUN", ioctl(vcpu, KVM_RUN, 0));
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != UART_BASE)
		bench_die("the guest did something else than its first port write", EIO);
}

static void floor_end(const struct floor *f, const struct floor_vm *v)
{
	munmap(v->run, f->run_bytes);
	close(v->vcpu);
	close(v->vm);
	munmap(v->mem, BENCH_MEM);
}

/* --- ours, in this process ------------------------------------------------------------------------- */

struct ours {
	struct vmm vmm;
	const char *dir;
	int kvm, null;
	int ctl[2]; /* the supervisor's end stays silent */
	struct ctl_request rq;
};

static void ours_init(struct ours *o, const char *dir, int kvm)
{
	*o = (struct ours){ .dir = dir, .kvm = kvm, .null = open("/dev/null", O_RDWR | O_CLOEXEC) };
	o->rq = (struct ctl_request){ .op = CTL_CREATE, .create = bench_spec(),
				      .flags = CTL_F_MEMORY | CTL_F_RESTORE | CTL_F_RUN };
}

/* What the machine process has ready before the request arrives, and the descriptors that come with
 * the request. */
static void ours_prepare(struct ours *o, int fds[4])
{
	bench_must("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, o->ctl));
	bench_must("machine", vmm_init(&o->vmm, o->ctl[1], NULL));
	fds[0] = dup(o->kvm);
	fds[1] = dup(o->null);
	fds[2] = bench_open(o->dir, "memory", O_RDONLY);
	fds[3] = bench_open(o->dir, "state", O_RDONLY);
}

static void ours_clone(struct ours *o, int fds[4])
{
	struct err e = { 0 };

	if (vmm_create(&o->vmm, &o->rq, fds, 4, &e) < 0)
		bench_err(&e);
	o->vmm.vcpu[0].run->immediate_exit = 0; /* what the vCPU's thread does when the gate opens */
}

/* What the end of the process does in the kernel. */
static void ours_end(struct ours *o)
{
	munmap(o->vmm.vcpu[0].run, o->vmm.kvm.run_bytes);
	close(o->vmm.vcpu[0].fd);
	kvm_fini(&o->vmm.kvm);
	gmem_fini(&o->vmm.mem);
}

/* What only this program needs, because it goes on. */
static void ours_clear(struct ours *o)
{
	slots_fini(&o->vmm.slots);
	watch_stop(&o->vmm.ctl);
	watch_stop(&o->vmm.exited);
	loop_fini(&o->vmm.loop);
	close(o->vmm.exit_fd);
	close(o->vmm.console_fd);
	close(o->ctl[0]);
	close(o->ctl[1]);
}

/* --- in one process, interleaved -------------------------------------------------------------------- */

static void round_floor(struct floor *f, bool usual, bool profile)
{
	struct profile p = { 0 };
	struct floor_vm v;
	uint64_t t[4];

	bench_profile = profile ? &p : NULL;
	t[0] = clock_mono_ns();
	floor_clone(f, &v, usual);
	bench_first_out(v.vcpu, v.run);
	t[1] = clock_mono_ns();
	bench_profile = NULL;
	usleep(BENCH_LIFE_US);
	t[2] = clock_mono_ns();
	floor_end(f, &v);
	t[3] = clock_mono_ns();
	if (profile)
		profile_print(&p, "floor", t[1] - t[0]);
	bench_sample(usual ? "usual.clone" : "floor.clone", t[0], t[1]);
	bench_sample(usual ? "usual.teardown" : "floor.teardown", t[2], t[3]);
}

static void round_ours(struct ours *o, bool profile)
{
	struct profile p = { 0 };
	uint64_t t[4];
	int fds[4];

	ours_prepare(o, fds);
	bench_profile = profile ? &p : NULL;
	t[0] = clock_mono_ns();
	ours_clone(o, fds);
	bench_first_out(o->vmm.vcpu[0].fd, o->vmm.vcpu[0].run);
	t[1] = clock_mono_ns();
	bench_profile = NULL;
	usleep(BENCH_LIFE_US);
	t[2] = clock_mono_ns();
	ours_end(o);
	t[3] = clock_mono_ns();
	ours_clear(o);
	if (profile)
		profile_print(&p, "ours", t[1] - t[0]);
	bench_sample("ours.clone", t[0], t[1]);
	bench_sample("ours.teardown", t[2], t[3]);
}

static void bench_inprocess(const char *dir, unsigned rounds, bool profile)
{
	static struct ours o; /* struct vmm is too large for a stack */
	static struct floor f;

	bench_no_threads = true;
	floor_init(&f, dir);
	ours_init(&o, dir, f.kvm);
	for (unsigned i = 0; i < rounds; i++) {
		round_floor(&f, false, profile);
		round_ours(&o, profile);
		if (i % BENCH_USUAL == 0)
			round_floor(&f, true, false);
	}
}

/* --- from exec ------------------------------------------------------------------------------------------ */

struct child {
	pid_t pid;
	int ready, stop; /* it writes a line when it is there, and ends when `stop` closes */
};

static void child_start(struct child *c, const char *mode, const char *dir)
{
	char *argv[] = { (char *)(uintptr_t)bench_self, (char *)(uintptr_t)mode,
			 (char *)(uintptr_t)dir, NULL };
	posix_spawn_file_actions_t fa;
	int out[2], in[2];

	bench_must("pipe", pipe2(out, O_CLOEXEC));
	bench_must("pipe", pipe2(in, O_CLOEXEC));
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, in[0], 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	bench_must(bench_self, -posix_spawn(&c->pid, bench_self, &fa, NULL, argv, environ));
	posix_spawn_file_actions_destroy(&fa);
	close(out[1]);
	close(in[0]);
	c->ready = out[0];
	c->stop = in[1];
	bench_wait_line(c->ready);
}

static void child_end(const struct child *c)
{
	close(c->stop);
	waitpid(c->pid, NULL, 0);
	close(c->ready);
}

static void child_wait_stop(void)
{
	char c;

	while (read(0, &c, 1) > 0)
		;
}

static void child_floor(const char *dir)
{
	static struct floor f;
	struct floor_vm v;

	floor_init(&f, dir);
	floor_clone(&f, &v, false);
	bench_first_out(v.vcpu, v.run);
	bench_must("pipe", fd_write_full(1, "\n", 1));
	child_wait_stop();
	_exit(0);
}

static void clone_start(struct hv_vm *vm, const char *dir, int console)
{
	struct ctl_create create = bench_spec();
	struct hv_spec spec = { .create = &create, .kvm_fd = bench_open_kvm(), .console_fd = console,
				.memory_fd = bench_open(dir, "memory", O_RDONLY),
				.state_fd = bench_open(dir, "state", O_RDONLY), .warm_fd = -1,
				.run = true };
	struct err e = { 0 };

	if (hv_spawn(vm, NULL, &e) < 0 || hv_create(vm, &spec, &e) < 0)
		bench_err(&e);
	close(spec.kvm_fd);
	close(spec.memory_fd);
	close(spec.state_fd);
}

static void child_clone(const char *dir)
{
	struct hv_vm vm;

	clone_start(&vm, dir, 1);
	child_wait_stop();
	hv_stop(&vm);
	_exit(0);
}

static void round_exec(const char *mode, const char *dir)
{
	AUTO_FREE char *end = mem_printf("%s.end", mode);
	struct child c;
	uint64_t t[4];

	t[0] = clock_mono_ns();
	child_start(&c, mode, dir);
	t[1] = clock_mono_ns();
	usleep(BENCH_LIFE_US);
	t[2] = clock_mono_ns();
	child_end(&c);
	t[3] = clock_mono_ns();
	bench_sample(mode, t[0], t[1]);
	bench_sample(end, t[2], t[3]);
}

static void bench_exec(const char *dir, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		round_exec("exec-nothing", dir);
		round_exec("exec-floor", dir);
		round_exec("exec-clone", dir);
	}
}

/* --- memory ----------------------------------------------------------------------------------------------- */

static double bench_mem_free_kib(void)
{
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };
	const char *at;

	if (path_read("/proc/meminfo", 65536, &b, &e) < 0)
		bench_err(&e);
	at = strstr(buf_cstr(&b), "MemFree:");
	return at ? strtod(at + 8, NULL) : 0;
}

/* Private memory of a process in KiB, guest RAM apart. The guest's is `bytes` from where a file named
 * "memory" would be mapped from its start; freed pieces of it may be anonymous by now. */
static void bench_smaps(pid_t pid, uint64_t bytes, const char *prefix)
{
	AUTO_FREE char *path = mem_printf("/proc/%d/smaps", pid);
	FILE *f = fopen(path, "re");
	unsigned long start = 0, end, off, base = 0, own = 0, guest = 0, n;
	bool is_guest = false;
	char line[512];

	if (!f)
		bench_die(path, errno);
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &off) == 3) {
			if (strstr(line, "/memory\n") || strstr(line, "/memory (deleted)"))
				base = base ? base : start - off;
			is_guest = base && start >= base && start < base + bytes;
		} else if (sscanf(line, "Private_Dirty: %lu", &n) == 1 ||
			   sscanf(line, "Private_Clean: %lu", &n) == 1) {
			*(is_guest ? &guest : &own) += is_guest && line[8] == 'C' ? 0 : n;
		}
	}
	fclose(f);
	printf("%s.private_kib %lu\n%s.guest_kib %lu\n", prefix, own, prefix, guest);
}

static void bench_slope(const char *name, double *last, unsigned n)
{
	double now = bench_mem_free_kib();

	printf("%s %.1f\n", name, (*last - now) / n);
	*last = now;
}

static void bench_memory(const char *dir, unsigned clones)
{
	struct hv_vm *vm = mem_calloc(clones, sizeof *vm);
	struct child *c = mem_calloc(clones, sizeof *c);
	double last;
	int console[2];

	bench_must("pipe", pipe2(console, O_CLOEXEC));
	last = bench_mem_free_kib();
	for (unsigned i = 0; i < clones; i++) {
		clone_start(&vm[i], dir, console[1]);
		bench_wait_line(console[0]);
		if (i % BENCH_BATCH == BENCH_BATCH - 1)
			bench_slope("memory.vmm_kib", &last, BENCH_BATCH);
	}
	for (unsigned i = 0; i < clones; i += BENCH_BATCH)
		bench_smaps(vm[i].pid, BENCH_MEM, "tiny");
	for (unsigned i = 0; i < clones; i++)
		hv_stop(&vm[i]);
	sleep(1); /* the kernel frees some of it later */
	last = bench_mem_free_kib();
	for (unsigned i = 0; i < clones; i++) {
		child_start(&c[i], "exec-clone", dir);
		if (i % BENCH_BATCH == BENCH_BATCH - 1)
			bench_slope("memory.with_supervisor_kib", &last, BENCH_BATCH);
	}
	for (unsigned i = 0; i < clones; i++)
		child_end(&c[i]);
	free(vm);
	free(c);
}

int main(int argc, char **argv)
{
	const char *mode = argc >= 3 ? argv[1] : "", *dir = argc >= 3 ? argv[2] : "";
	unsigned n = argc >= 4 ? (unsigned)atoi(argv[3]) : 0;

	bench_self = argv[0];
	if (!strcmp(mode, "make"))
		bench_make(dir);
	else if (!strcmp(mode, "exec-nothing"))
		bench_must("pipe", fd_write_full(1, "\n", 1));
	else if (!strcmp(mode, "exec-floor"))
		child_floor(dir);
	else if (!strcmp(mode, "exec-clone"))
		child_clone(dir);
	else if (!strcmp(mode, "smaps") && n)
		bench_smaps((pid_t)atoi(dir), MIB(n), argc > 4 ? argv[4] : "clone");
	else if (!strcmp(mode, "inprocess") && n)
		bench_inprocess(dir, n, false);
	else if (!strcmp(mode, "profile") && n)
		bench_inprocess(dir, n, true);
	else if (!strcmp(mode, "exec") && n)
		bench_exec(dir, n);
	else if (!strcmp(mode, "memory") && n)
		bench_memory(dir, n);
	else {
		fputs("usage: clone_host make|inprocess|profile|exec|memory DIR [N]\n"
		      "       clone_host smaps PID MIB NAME\n", stderr);
		return 2;
	}
	return 0;
}
