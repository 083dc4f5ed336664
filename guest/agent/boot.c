#include "guest/agent/boot.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "guest/agent/cgroup.h"
#include "guest/agent/net.h"

/* ---- Settings */

void ga_boot_defaults(struct ga_config *c)
{
	*c = (struct ga_config){
		.log_level = LOG_INFO,
		.rpc_port = 1024,
		.stream_port = 1027,
		.log_port = 1025,
		.hotplug_timeout_ms = 3000,
		.launch_timeout_ms = 6000,
	};
}

static int ga_boot_set_log(struct ga_config *c, const char *v)
{
	static const struct {
		const char *name;
		enum log_level level;
	} rows[] = {
		{ "critical", LOG_ERROR }, { "error", LOG_ERROR }, { "warn", LOG_WARN },
		{ "warning", LOG_WARN },   { "info", LOG_INFO },   { "debug", LOG_DEBUG },
		{ "trace", LOG_DEBUG },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (!strcmp(rows[i].name, v)) {
			c->log_level = rows[i].level;
			return 0;
		}
	}
	return -EINVAL;
}

static int ga_boot_set_addr(struct ga_config *c, const char *v)
{
	uint64_t port;

	if (str_starts(v, "unix://") && strlen(v + 7) + sizeof ".65535" <= sizeof c->listen) {
		snprintf(c->listen, sizeof c->listen, "%s", v + 7);
		return 0;
	}
	if (str_starts(v, "vsock://-1:") && str_u64(v + 11, 1, UINT32_MAX - 1, &port) == 0) {
		c->rpc_port = (uint32_t)port;
		return 0;
	}
	return -EINVAL;
}

/* reference: the stock agent's kernel parameters that mean something without its extras. */
static const struct ga_boot_param {
	const char *name;
	int (*set)(struct ga_config *c, const char *value); /* or: */
	size_t offset;                                      /* of a uint32_t */
	uint64_t min, max, scale;
} ga_boot_params[] = {
	{ "agent.log", ga_boot_set_log, 0, 0, 0, 0 },
	{ "agent.server_addr", ga_boot_set_addr, 0, 0, 0, 0 },
	{ "agent.log_vport", NULL, offsetof(struct ga_config, log_port), 0, UINT32_MAX - 1, 1 },
	{ "agent.passfd_listener_port", NULL, offsetof(struct ga_config, stream_port), 1,
	  UINT32_MAX - 1, 1 },
	{ "agent.container_pipe_size", NULL, offsetof(struct ga_config, pipe_size), 0, 1 << 20, 1 },
	{ "agent.hotplug_timeout", NULL, offsetof(struct ga_config, hotplug_timeout_ms), 1, 3600,
	  1000 },
	{ "agent.launch_process_timeout", NULL, offsetof(struct ga_config, launch_timeout_ms), 1,
	  3600, 1000 },
};

static int ga_boot_set(struct ga_config *c, const struct ga_boot_param *p, const char *value)
{
	uint64_t v;

	if (p->set)
		return p->set(c, value);
	if (str_u64(value, p->min, p->max, &v) < 0)
		return -EINVAL;
	*(uint32_t *)((char *)c + p->offset) = (uint32_t)(v * p->scale);
	return 0;
}

void ga_boot_cmdline(struct ga_config *c, char *line)
{
	char *save = NULL;

	for (char *w = strtok_r(line, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
		char *value = strchr(w, '=');
		if (!str_starts(w, "agent.") || !value)
			continue;
		*value++ = '\0';
		for (size_t i = 0; i < ARRAY_LEN(ga_boot_params); i++)
			if (!strcmp(ga_boot_params[i].name, w) &&
			    ga_boot_set(c, &ga_boot_params[i], value) < 0)
				log_warn("kernel parameter ignored", KV("name", w),
					 KV("value", value));
	}
}

/* ---- Mounts */

static const struct ga_boot_mount {
	const char *target, *type;
	unsigned long flags;
	const char *data;
	mode_t mode; /* of the mount point */
} ga_boot_mounts[] = {
	{ "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0555 },
	{ "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0555 },
	{ "/dev", "devtmpfs", MS_NOSUID, "mode=0755", 0755 },
	{ "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666", 0755 },
	{ "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", 01777 },
	{ "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755", 0755 },
	{ GA_CGROUP_ROOT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC,
	  "nsdelegate,memory_recursiveprot", 0755 },
};

/* pivot_root(2) cannot leave the root of an initramfs, which has no parent mount. So the agent's
 * root becomes a bind mount of it, moved on top: that one has a parent, and containers start from
 * it. */
static int ga_boot_reroot(struct err *e)
{
	if (mkdir("/run", 0755) < 0 && errno != EEXIST)
		return err_set(e, -errno, "mkdir /run: %m");
	if (mount("/", "/run", NULL, MS_BIND, NULL) < 0)
		return err_set(e, -errno, "bind / on /run: %m");
	if (chdir("/run") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0)
		return err_set(e, -errno, "move the new root: %m");
	if (chroot(".") < 0 || chdir("/") < 0)
		return err_set(e, -errno, "chroot: %m");
	return 0;
}

/* Files that something may later be mounted on; the root itself becomes read-only. */
static int ga_boot_etc(struct err *e)
{
	static const char *const files[] = { "/etc/resolv.conf", "/etc/machine-id" };

	if (mkdir("/etc", 0755) < 0 && errno != EEXIST)
		return err_set(e, -errno, "mkdir /etc: %m");
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		int fd = open(files[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			return err_set(e, -errno, "%s: %m", files[i]);
		close(fd);
	}
	return 0;
}

static int ga_boot_mount_all(struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(ga_boot_mounts); i++) {
		const struct ga_boot_mount *m = &ga_boot_mounts[i];
		mkdir(m->target, m->mode);
		if (mount(m->type, m->target, m->type, m->flags, m->data) < 0 && errno != EBUSY)
			return err_set(e, -errno, "mount %s on %s: %m", m->type, m->target);
	}
	return 0;
}

/* Free memory goes back to the host in blocks of 2^4 pages and more. Left alone the kernel reports none
 * below a pageblock (4 MiB in a small guest), and keeps a fifth of what was freed. It settles on that when
 * the balloon registers, whatever the command line says, so the word comes after that. A kernel without
 * page reporting has no such file. */
static void ga_boot_reporting(void)
{
	(void)!path_put("/sys/module/page_reporting/parameters/page_reporting_order", "4");
}

/* What the host shares. Here, so that a template has the mount already and a clone pays nothing for it.
 * A machine without the device goes without, and so does who asks it for a share. Device nodes and
 * setuid programs of an image count, as on any other root. */
static void ga_boot_share(void)
{
	if (path_mkdirs(GA_SHARE_DIR, 0700, NULL) == 0 &&
	    mount(GA_SHARE_TAG, GA_SHARE_DIR, "virtiofs", 0, NULL) < 0 && errno != EINVAL)
		log_warn("shared files cannot be mounted", KV("reason", strerror(errno)));
}

static void ga_boot_limits(void)
{
	/* A dozen descriptors per container; what containers get is decided in limits.c. */
	struct rlimit files = { 65536, 1 << 20 };

	setrlimit(RLIMIT_NOFILE, &files);
	/* A container may have uids from 0 to anything; ping without CAP_NET_RAW, ports from 0 are
	 * settings a container asks for by sysctl, not ours to make. */
	umask(0022);
}

int ga_boot_system(struct err *e)
{
	if (ga_boot_reroot(e) < 0 || ga_boot_etc(e) < 0 || ga_boot_mount_all(e) < 0)
		return e->code;
	/* Nothing may rewrite /init through /proc/<pid>/exe of a process on its way into a
	 * container: the whole superblock refuses writes from here on. */
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		return err_set(e, -errno, "remount / read-only: %m");
	ga_boot_share();
	ga_boot_limits();
	ga_boot_reporting();
	if (setsid() < 0 && errno != EPERM)
		return err_set(e, -errno, "setsid: %m");
	return ga_cgroup_init_root(e) < 0 || ga_net_loopback_up(e) < 0 ? e->code : 0;
}

void ga_boot_off(const struct ga_config *c)
{
	sync();
	if (!c->is_init)
		_exit(0);
	/* There is no ACPI to switch off with: a restart by triple fault (reboot=t) is what the
	 * machine monitor takes for the end. */
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
