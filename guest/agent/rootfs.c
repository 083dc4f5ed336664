#include "guest/agent/rootfs.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "guest/agent/copyup.h"
#include "guest/agent/dev.h"
#include "guest/agent/idmap.h"
#include "guest/agent/mount.h"

/* ---- The root */

/* runtime-spec config-linux.md "Rootfs Mount Propagation". */
static const struct {
	const char *name;
	unsigned long flags;
} ga_rootfs_propagation[] = {
	{ "", MS_SLAVE | MS_REC },
	{ "shared", MS_SHARED },
	{ "rshared", MS_SHARED | MS_REC },
	{ "slave", MS_SLAVE },
	{ "rslave", MS_SLAVE | MS_REC },
	{ "private", MS_PRIVATE },
	{ "rprivate", MS_PRIVATE | MS_REC },
	{ "unbindable", MS_UNBINDABLE },
	{ "runbindable", MS_UNBINDABLE | MS_REC },
};

static int ga_rootfs_flags(const char *name, unsigned long *flags, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(ga_rootfs_propagation); i++) {
		if (strcmp(ga_rootfs_propagation[i].name, name) != 0)
			continue;
		*flags = ga_rootfs_propagation[i].flags;
		return 0;
	}
	return err_set(e, -EINVAL, "rootfsPropagation \"%s\" is not valid", name);
}

static int ga_rootfs_open(struct ga_rootfs *r, struct err *e)
{
	struct ga_mount_opts opts = { .bind = true, .bind_rec = true };
	const char *path = r->spec->root->path;
	AUTO_CLOSE int at = -1;
	unsigned long flags;

	if (ga_rootfs_flags(r->spec->linux->rootfspropagation, &flags, e) < 0)
		return e->code;
	/* Whatever the container is to have at the end, nothing of its own may reach the agent now,
	 * and pivot_root(2) refuses shared parents. */
	if (mount(NULL, "/", NULL, MS_REC | (flags & MS_PRIVATE ? MS_PRIVATE : MS_SLAVE), NULL) < 0)
		return err_set(e, -errno, "propagation of /: %m");
	at = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return err_set(e, -errno, "rootfs %s: %m", path);
	r->fd = ga_mount_make(NULL, path, &opts, e);
	if (r->fd < 0 || ga_mount_attach(r->fd, at, NULL, e) < 0)
		return err_wrap(e, "rootfs %s", path);
	return 0;
}

/* ---- Mounts */

/* Files of /proc a specification may cover: what lxcfs and its like provide. Anything else there
 * could fool the container's own tools, or ours. */
static bool ga_rootfs_may_cover_proc(const char *dest)
{
	static const char *const files[] = {
		"/proc/cpuinfo",
		"/proc/diskstats",
		"/proc/meminfo",
		"/proc/stat",
		"/proc/swaps",
		"/proc/uptime",
		"/proc/loadavg",
		"/proc/slabinfo",
		"/proc/net/dev",
		"/proc/sys/kernel/ns_last_pid",
		"/proc/sys/crypto/fips_enabled",
	};
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		if (!strcmp(files[i], dest))
			return true;
	return false;
}

static int ga_rootfs_check_target(int target, const Grpc__Mount *m, struct err *e)
{
	struct statfs fs;

	if (fstatfs(target, &fs) < 0)
		return err_set(e, -errno, "%s: %m", m->destination);
	if (fs.f_type == PROC_SUPER_MAGIC && strcmp(m->type, "proc") != 0 &&
	    !ga_rootfs_may_cover_proc(m->destination))
		return err_set(e, -EPERM, "\"%s\" cannot be mounted because it is inside /proc",
			       m->destination);
	return 0;
}

/* proc and sysfs decide what a container may do to the kernel: an image that makes /proc a symlink
 * to somewhere of its own choice would get them unmasked (CVE-2019-19921). */
static int ga_rootfs_check_symlink(const struct ga_rootfs *r, const Grpc__Mount *m, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	struct stat st;

	if (strcmp(m->type, "proc") != 0 && strcmp(m->type, "sysfs") != 0)
		return 0;
	fd = path_open_in_root(r->fd, m->destination, O_PATH | O_NOFOLLOW, 0);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISLNK(st.st_mode))
		return err_set(e, -ENOTDIR, "%s must not be a symlink", m->destination);
	return 0;
}

/* "cgroup" means the second version here: with a namespace a mount of its own, else a bind of the
 * container's part of the agent's. */
static int ga_rootfs_make(const struct ga_rootfs *r, const Grpc__Mount *m,
			  struct ga_mount_opts *opts, struct err *e)
{
	int fd;

	if (strcmp(m->type, "cgroup") != 0 && strcmp(m->type, "cgroup2") != 0) {
		fd = ga_mount_make(m->type, m->source, opts, e);
		if (fd != -EPERM || opts->bind || strcmp(m->type, "sysfs") != 0)
			return fd;
		/* A user namespace that does not own its network may not mount a sysfs: the agent's
		 * will do, it shows the same network. All of it, since its parts are locked. */
		opts->bind = opts->bind_rec = true;
		return ga_mount_make(NULL, "/sys", opts, e);
	}
	buf_fini(&opts->data);
	if (r->has_cgroup_ns)
		return ga_mount_make("cgroup2", "cgroup", opts, e);
	opts->bind = true;
	return ga_mount_make(NULL, r->cgroup_path, opts, e);
}

static int ga_rootfs_remount(const struct ga_rootfs *r, const Grpc__Mount *m,
			     const struct ga_mount_opts *opts, struct err *e)
{
	AUTO_CLOSE int fd = path_open_in_root(r->fd, m->destination, O_PATH, 0);
	int rc;

	if (fd < 0)
		return err_set(e, fd, "%s: %s", m->destination, strerror(-fd));
	rc = ga_mount_setattr(fd, false, opts->set, opts->clear, 0);
	if (rc == 0)
		rc = ga_mount_setattr(fd, true, opts->rec_set, opts->rec_clear, 0);
	return rc < 0 ? err_set(e, rc, "remount: %s", strerror(-rc)) : 0;
}

static int ga_rootfs_mount_one(const struct ga_rootfs *r, const Grpc__Mount *m, struct err *e)
{
	AUTO_MOUNT_OPTS struct ga_mount_opts opts = { 0 };
	AUTO_CLOSE int mount_fd = -1, target = -1;
	struct stat st;

	if (ga_mount_parse(m->options, m->n_options, &opts, e) < 0)
		return e->code;
	if (opts.remount)
		return ga_rootfs_remount(r, m, &opts, e);
	/* "bind" may come as the type, too. */
	if (!strcmp(m->type, "bind"))
		opts.bind = true;
	if (ga_rootfs_check_symlink(r, m, e) < 0)
		return e->code;
	mount_fd = ga_rootfs_make(r, m, &opts, e);
	if (mount_fd < 0)
		return mount_fd;
	if (fstat(mount_fd, &st) < 0)
		return err_set(e, -errno, "%s: %m", m->source);
	if ((opts.idmap || m->n_uid_mappings || m->n_gid_mappings) &&
	    ga_idmap_apply(mount_fd, opts.idmap_rec, m, r->spec->linux, e) < 0)
		return e->code;
	target = ga_mount_target(r->fd, m->destination, S_ISDIR(st.st_mode), e);
	if (target == -EROFS && opts.no_fail)
		return 0;
	if (target < 0 || ga_rootfs_check_target(target, m, e) < 0)
		return e->code;
	if (opts.copy_up && !opts.bind && ga_copyup(r->fd, m->destination, mount_fd, e) < 0)
		return e->code;
	return ga_mount_attach(mount_fd, target, &opts, e);
}

static int ga_rootfs_mounts(const struct ga_rootfs *r, struct err *e)
{
	for (size_t i = 0; i < r->spec->n_mounts; i++) {
		const Grpc__Mount *m = r->spec->mounts[i];
		if (!m->destination[0] || m->destination[strspn(m->destination, "/.")] == '\0')
			return err_set(e, -EINVAL, "mount destination \"%s\" is not allowed",
				       m->destination);
		if (ga_rootfs_mount_one(r, m, e) < 0)
			return err_wrap(e, "mount %s on %s", *m->source ? m->source : m->type,
					m->destination);
	}
	return 0;
}

/* ---- Masked and read-only paths: absent ones are not there to be hidden */

static int ga_rootfs_clone(const char *source, int at, bool recursive, struct err *e)
{
	int fd = (int)syscall(SYS_open_tree, source ? AT_FDCWD : at, source ? source : "",
			      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (source ? 0 : AT_EMPTY_PATH) |
				      (recursive ? AT_RECURSIVE : 0));

	return fd < 0 ? err_set(e, -errno, "open_tree: %m") : fd;
}

/* One empty read-only tmpfs serves for all directories: mounted on the first, cloned for the others
 * (a mount can be cloned only once it is attached somewhere). */
static int ga_rootfs_empty(int *empty, struct err *e)
{
	static char size[] = "size=0k", ro[] = "ro";
	char *options[] = { ro, size };
	AUTO_MOUNT_OPTS struct ga_mount_opts opts = { 0 };

	if (*empty >= 0)
		return ga_rootfs_clone(NULL, *empty, false, e);
	if (ga_mount_parse(options, ARRAY_LEN(options), &opts, e) < 0 ||
	    (*empty = ga_mount_make("tmpfs", "tmpfs", &opts, e)) < 0)
		return e->code;
	return fcntl(*empty, F_DUPFD_CLOEXEC, 3);
}

static int ga_rootfs_mask(const struct ga_rootfs *r, const char *path, int *empty, struct err *e)
{
	AUTO_CLOSE int at = path_open_in_root(r->fd, path, O_PATH, 0), mount_fd = -1;
	struct stat st;

	if (at == -ENOENT || at == -ENOTDIR)
		return 0;
	if (at < 0 || fstat(at, &st) < 0)
		return err_set(e, at < 0 ? at : -errno, "%s", strerror(at < 0 ? -at : errno));
	mount_fd = S_ISDIR(st.st_mode) ? ga_rootfs_empty(empty, e)
				       : ga_rootfs_clone("/dev/null", -1, false, e);
	return mount_fd < 0 ? mount_fd : ga_mount_attach(mount_fd, at, NULL, e);
}

static int ga_rootfs_protect(const struct ga_rootfs *r, const char *path, struct err *e)
{
	AUTO_CLOSE int at = path_open_in_root(r->fd, path, O_PATH, 0), mount_fd = -1;
	int rc;

	if (at == -ENOENT || at == -ENOTDIR)
		return 0;
	if (at < 0)
		return err_set(e, at, "%s", strerror(-at));
	mount_fd = ga_rootfs_clone(NULL, at, true, e);
	if (mount_fd < 0)
		return mount_fd;
	rc = ga_mount_setattr(mount_fd, false, MOUNT_ATTR_RDONLY, 0, 0);
	if (rc < 0)
		return err_set(e, rc, "read-only: %s", strerror(-rc));
	return ga_mount_attach(mount_fd, at, NULL, e);
}

static int ga_rootfs_paths(const struct ga_rootfs *r, struct err *e)
{
	const Grpc__Linux *l = r->spec->linux;
	AUTO_CLOSE int empty = -1;

	for (size_t i = 0; i < l->n_readonlypaths; i++)
		if (ga_rootfs_protect(r, l->readonlypaths[i], e) < 0)
			return err_wrap(e, "read-only path %s", l->readonlypaths[i]);
	for (size_t i = 0; i < l->n_maskedpaths; i++)
		if (ga_rootfs_mask(r, l->maskedpaths[i], &empty, e) < 0)
			return err_wrap(e, "masked path %s", l->maskedpaths[i]);
	return 0;
}

/* ---- All together */

int ga_rootfs_build(struct ga_rootfs *r, struct err *e)
{
	if (ga_rootfs_open(r, e) < 0 || ga_rootfs_mounts(r, e) < 0 ||
	    ga_dev_populate(r->fd, r->spec, e) < 0 || ga_rootfs_paths(r, e) < 0)
		return e->code;
	return 0;
}

int ga_rootfs_console(const struct ga_rootfs *r, int slave, struct err *e)
{
	AUTO_CLOSE int at = ga_mount_target(r->fd, "/dev/console", false, e), mount_fd = -1;

	if (at < 0)
		return err_wrap(e, "console");
	mount_fd = ga_rootfs_clone(NULL, slave, false, e);
	if (mount_fd < 0 || ga_mount_attach(mount_fd, at, NULL, e) < 0)
		return err_wrap(e, "console");
	return 0;
}

int ga_rootfs_enter(struct ga_rootfs *r, struct err *e)
{
	unsigned long flags = 0;
	int rc;

	if (r->spec->root->readonly) {
		rc = ga_mount_setattr(r->fd, false, MOUNT_ATTR_RDONLY, 0, 0);
		if (rc < 0)
			return err_set(e, rc, "read-only root: %s", strerror(-rc));
	}
	/* The new root lands on top of the old one at the same place (pivot_root(2),
	 * "pivot_root(".",
	 * ".")"), and what "." names below it is the old one, to be thrown away. */
	if (fchdir(r->fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return err_set(e, -errno, "pivot_root: %m");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return err_set(e, -errno, "leave the old root: %m");
	close(take_fd(&r->fd));
	if (ga_rootfs_flags(r->spec->linux->rootfspropagation, &flags, e) < 0)
		return e->code;
	if (*r->spec->linux->rootfspropagation && mount(NULL, "/", NULL, flags, NULL) < 0)
		return err_set(e, -errno, "propagation of the root: %m");
	return 0;
}
