#include "guest/agent/dev.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "guest/agent/mount.h"

/* runtime-spec config-linux.md "Default Devices"; console is the pty's, ptmx a link. */
static const struct {
	const char *path;
	unsigned major, minor;
} ga_dev_defaults[] = {
	{ "/dev/null", 1, 3 },   { "/dev/zero", 1, 5 },    { "/dev/full", 1, 7 },
	{ "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 },
};

static const struct {
	const char *path, *target;
} ga_dev_links[] = {
	{ "/dev/fd", "/proc/self/fd" },       { "/dev/stdin", "/proc/self/fd/0" },
	{ "/dev/stdout", "/proc/self/fd/1" }, { "/dev/stderr", "/proc/self/fd/2" },
	{ "/dev/ptmx", "pts/ptmx" },
};

/* Open the directory a path is in, made if missing; *name is its last component. */
static int ga_dev_parent(int root_fd, const char *path, const char **name, struct err *e)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *dir = slash ? mem_strndup(path, (size_t)(slash - path)) : NULL;

	if (!slash || !slash[1] || !strcmp(slash + 1, ".") || !strcmp(slash + 1, ".."))
		return err_set(e, -EINVAL, "device path \"%s\" is not valid", path);
	*name = slash + 1;
	return ga_mount_target(root_fd, *dir ? dir : "/", true, e);
}

/* No mknod in a user namespace: borrow the agent's node. */
static int ga_dev_bind(int root_fd, const char *path, struct err *e)
{
	AUTO_CLOSE int at = ga_mount_target(root_fd, path, false, e), mount_fd = -1;

	if (at < 0)
		return at;
	mount_fd = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (mount_fd < 0)
		return err_set(e, -errno, "%s: %m", path);
	return ga_mount_attach(mount_fd, at, NULL, e);
}

static int ga_dev_make(int root_fd, const char *path, mode_t mode, dev_t dev, uid_t uid, gid_t gid,
		       struct err *e)
{
	const char *name;
	AUTO_CLOSE int dir = ga_dev_parent(root_fd, path, &name, e);
	struct stat st;

	if (dir < 0)
		return dir;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode) &&
	    !((st.st_mode & S_IFMT) == (mode & S_IFMT) && st.st_rdev == dev))
		unlinkat(dir, name, 0); /* left over in the image, and not what was asked for */
	if (mknodat(dir, name, mode, dev) < 0 && errno != EEXIST) {
		if (errno == EPERM)
			return ga_dev_bind(root_fd, path, e);
		return err_set(e, -errno, "mknod %s: %m", path);
	}
	/* Without regard to umask; the node was checked or made above, and nobody else runs here.
	 */
	if (fchmodat(dir, name, mode & 07777, 0) < 0 ||
	    fchownat(dir, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(e, -errno, "owner and mode of %s: %m", path);
	return 0;
}

static int ga_dev_type(const char *type, mode_t *mode)
{
	switch (type[0]) {
	case 'c':
	case 'u':
		*mode = S_IFCHR;
		return 0;
	case 'b':
		*mode = S_IFBLK;
		return 0;
	case 'p':
		*mode = S_IFIFO;
		return 0;
	}
	return -EINVAL;
}

static int ga_dev_make_spec(int root_fd, const Grpc__LinuxDevice *d, struct err *e)
{
	mode_t mode;

	if (ga_dev_type(d->type, &mode) < 0 || d->path[0] != '/' || d->major < 0 || d->minor < 0)
		return err_set(e, -EINVAL, "device \"%s\" of type \"%s\" is not valid", d->path,
			       d->type);
	return ga_dev_make(root_fd, d->path, mode | (d->filemode ? d->filemode & 07777 : 0666),
			   makedev((unsigned)d->major, (unsigned)d->minor), d->uid, d->gid, e);
}

static int ga_dev_link(int root_fd, const char *path, const char *target, struct err *e)
{
	const char *name;
	AUTO_CLOSE int dir = ga_dev_parent(root_fd, path, &name, e);

	if (dir < 0)
		return dir;
	if (symlinkat(target, dir, name) == 0 || errno == EEXIST)
		return 0;
	return err_set(e, -errno, "link %s: %m", path);
}

/* A /dev bound from elsewhere is complete, and not ours to change. */
static bool ga_dev_is_bound(const Grpc__Spec *spec)
{
	for (size_t i = 0; i < spec->n_mounts; i++) {
		const Grpc__Mount *m = spec->mounts[i];
		if (strcmp(m->destination, "/dev") != 0)
			continue;
		for (size_t k = 0; k < m->n_options; k++)
			if (!strcmp(m->options[k], "bind") || !strcmp(m->options[k], "rbind"))
				return true;
	}
	return false;
}

int ga_dev_populate(int root_fd, const Grpc__Spec *spec, struct err *e)
{
	if (ga_dev_is_bound(spec))
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(ga_dev_defaults); i++)
		if (ga_dev_make(root_fd, ga_dev_defaults[i].path, S_IFCHR | 0666,
				makedev(ga_dev_defaults[i].major, ga_dev_defaults[i].minor), 0, 0,
				e) < 0)
			return err_wrap(e, "device");
	for (size_t i = 0; i < spec->linux->n_devices; i++)
		if (ga_dev_make_spec(root_fd, spec->linux->devices[i], e) < 0)
			return err_wrap(e, "device");
	for (size_t i = 0; i < ARRAY_LEN(ga_dev_links); i++)
		if (ga_dev_link(root_fd, ga_dev_links[i].path, ga_dev_links[i].target, e) < 0)
			return err_wrap(e, "device");
	return 0;
}

/* ---- Rules */

struct ga_dev_rule_list {
	Grpc__LinuxDeviceCgroup **rule;
	Grpc__LinuxDeviceCgroup *store;
	size_t n;
};

static char ga_dev_char[] = "c", ga_dev_block[] = "b", ga_dev_mknod[] = "m", ga_dev_use[] = "rwm";

static void ga_dev_rule(struct ga_dev_rule_list *l, char *type, int64_t major, int64_t minor,
			char *access)
{
	Grpc__LinuxDeviceCgroup *r = &l->store[l->n];

	grpc__linux_device_cgroup__init(r);
	r->allow = 1;
	r->type = type;
	r->major = major;
	r->minor = minor;
	r->access = access;
	l->rule[l->n++] = r;
}

size_t ga_dev_rules(const Grpc__LinuxResources *given, Grpc__LinuxDevice *const *devices, size_t n,
		    Grpc__LinuxDeviceCgroup ***out)
{
	size_t ngiven = given ? given->n_devices : 0, max = ngiven + n + 16;
	struct ga_dev_rule_list l = { .n = 0 };

	l.rule = mem_zalloc(max * (sizeof *l.rule + sizeof *l.store));
	l.store = (Grpc__LinuxDeviceCgroup *)(l.rule + max);
	for (size_t i = 0; i < ngiven; i++)
		l.rule[l.n++] = given->devices[i];
	/* A host that says nothing (stock ones drop the list) does not mean "everything": the disks
	 * of this VM are devices too. */
	ga_dev_rule(&l, ga_dev_char, -1, -1, ga_dev_mknod);
	ga_dev_rule(&l, ga_dev_block, -1, -1, ga_dev_mknod);
	for (size_t i = 0; i < ARRAY_LEN(ga_dev_defaults); i++)
		ga_dev_rule(&l, ga_dev_char, ga_dev_defaults[i].major, ga_dev_defaults[i].minor,
			    ga_dev_use);
	ga_dev_rule(&l, ga_dev_char, 136, -1, ga_dev_use); /* pty slaves */
	ga_dev_rule(&l, ga_dev_char, 5, 2, ga_dev_use);    /* ptmx */
	ga_dev_rule(&l, ga_dev_char, 5, 1, ga_dev_use);    /* console */
	for (size_t i = 0; !ngiven && i < n; i++)
		if (devices[i]->type[0] != 'p')
			ga_dev_rule(&l, devices[i]->type[0] == 'b' ? ga_dev_block : ga_dev_char,
				    devices[i]->major, devices[i]->minor, ga_dev_use);
	*out = l.rule;
	return l.n;
}
