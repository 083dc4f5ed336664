#include "amalgam/runtime/default_spec.h"

#include "amalgam/base/mem.h"

/* The tables Docker and containerd start from (their default profiles, in the words of the runtime
 * specification). */
static const char *const default_spec_caps[] = {
	"CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FSETID",  "CAP_FOWNER",	"CAP_MKNOD",
	"CAP_NET_RAW", "CAP_SETGID",	  "CAP_SETUID",	 "CAP_SETFCAP", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
};
static const char *const default_spec_namespaces[] = { "pid", "ipc", "uts", "mount", "cgroup" };
static const char *const default_spec_masked[] = {
	"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
	"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
};
static const char *const default_spec_readonly[] = {
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};
static const struct {
	const char *destination, *type, *source;
	const char *options[7];
} default_spec_mounts[] = {
	{ "/proc", "proc", "proc", { "nosuid", "noexec", "nodev" } },
	{ "/dev", "tmpfs", "tmpfs", { "nosuid", "strictatime", "mode=755", "size=65536k" } },
	{ "/dev/pts", "devpts", "devpts",
	  { "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5" } },
	{ "/sys", "sysfs", "sysfs", { "nosuid", "noexec", "nodev", "ro" } },
	{ "/sys/fs/cgroup", "cgroup", "cgroup", { "nosuid", "noexec", "nodev", "relatime", "ro" } },
	{ "/dev/mqueue", "mqueue", "mqueue", { "nosuid", "noexec", "nodev" } },
	{ "/dev/shm", "tmpfs", "shm", { "nosuid", "noexec", "nodev", "mode=1777", "size=65536k" } },
	/* the last one: only for who has a network */
	{ "/etc/resolv.conf", "bind", "/etc/resolv.conf", { "bind", "nosuid", "noexec", "nodev", "nofail" } },
};

/* A heap copy of n strings, as protobuf-c keeps repeated ones. */
static char **default_spec_list(const char *const *from, size_t n)
{
	char **list = n ? mem_calloc(n, sizeof *list) : NULL;

	for (size_t i = 0; i < n; i++)
		list[i] = mem_strdup(from[i]);
	return list;
}

static size_t default_spec_count(char *const *list)
{
	size_t n = 0;

	while (list[n])
		n++;
	return n;
}

/* A message on the heap in its initial state. */
#define DEFAULT_SPEC_NEW(type, init) memcpy(mem_zalloc(sizeof(type)), &(type)init, sizeof(type))
#define DEFAULT_SPEC_SET(m, field, from, n) \
	((m)->field = default_spec_list((from), (n)), (m)->n_##field = (n))

static Grpc__Process *default_spec_process(const struct default_spec *d)
{
	Grpc__Process *p = DEFAULT_SPEC_NEW(Grpc__Process, GRPC__PROCESS__INIT);
	const size_t ncaps = ARRAY_LEN(default_spec_caps);

	p->terminal = d->terminal;
	p->cwd = mem_strdup(d->cwd ? d->cwd : "/");
	DEFAULT_SPEC_SET(p, args, (const char *const *)d->args, default_spec_count(d->args));
	DEFAULT_SPEC_SET(p, env, (const char *const *)d->env, default_spec_count(d->env));
	p->user = DEFAULT_SPEC_NEW(Grpc__User, GRPC__USER__INIT);
	p->capabilities = DEFAULT_SPEC_NEW(Grpc__LinuxCapabilities, GRPC__LINUX_CAPABILITIES__INIT);
	DEFAULT_SPEC_SET(p->capabilities, bounding, default_spec_caps, ncaps);
	DEFAULT_SPEC_SET(p->capabilities, effective, default_spec_caps, ncaps);
	DEFAULT_SPEC_SET(p->capabilities, permitted, default_spec_caps, ncaps);
	return p;
}

static Grpc__Mount *default_spec_mount(unsigned i)
{
	Grpc__Mount *m = DEFAULT_SPEC_NEW(Grpc__Mount, GRPC__MOUNT__INIT);
	const char *const *options = default_spec_mounts[i].options;
	size_t n = 0;

	m->destination = mem_strdup(default_spec_mounts[i].destination);
	m->type = mem_strdup(default_spec_mounts[i].type);
	m->source = mem_strdup(default_spec_mounts[i].source);
	while (n < ARRAY_LEN(default_spec_mounts[i].options) && options[n])
		n++;
	DEFAULT_SPEC_SET(m, options, options, n);
	return m;
}

static Grpc__Linux *default_spec_linux(void)
{
	Grpc__Linux *l = DEFAULT_SPEC_NEW(Grpc__Linux, GRPC__LINUX__INIT);

	l->n_namespaces = ARRAY_LEN(default_spec_namespaces);
	l->namespaces = mem_calloc(l->n_namespaces, sizeof *l->namespaces);
	for (size_t i = 0; i < l->n_namespaces; i++) {
		l->namespaces[i] = DEFAULT_SPEC_NEW(Grpc__LinuxNamespace, GRPC__LINUX_NAMESPACE__INIT);
		l->namespaces[i]->type = mem_strdup(default_spec_namespaces[i]);
	}
	DEFAULT_SPEC_SET(l, maskedpaths, default_spec_masked, ARRAY_LEN(default_spec_masked));
	DEFAULT_SPEC_SET(l, readonlypaths, default_spec_readonly, ARRAY_LEN(default_spec_readonly));
	return l;
}

Grpc__Spec *default_spec_make(const struct default_spec *d)
{
	Grpc__Spec *s = DEFAULT_SPEC_NEW(Grpc__Spec, GRPC__SPEC__INIT);

	s->version = mem_strdup("1.0.2");
	s->hostname = mem_strdup(d->hostname);
	s->process = default_spec_process(d);
	s->root = DEFAULT_SPEC_NEW(Grpc__Root, GRPC__ROOT__INIT);
	s->root->path = mem_strdup("rootfs");
	s->root->readonly = d->read_only;
	s->n_mounts = ARRAY_LEN(default_spec_mounts) - !d->resolv_conf;
	s->mounts = mem_calloc(s->n_mounts, sizeof *s->mounts);
	for (unsigned i = 0; i < s->n_mounts; i++)
		s->mounts[i] = default_spec_mount(i);
	s->linux = default_spec_linux();
	return s;
}
#undef DEFAULT_SPEC_NEW
#undef DEFAULT_SPEC_SET
