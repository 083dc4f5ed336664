#include "guest/agent/mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"

enum ga_mount_kind {
	GA_MOUNT_SET,   /* attribute bits on */
	GA_MOUNT_CLEAR, /* attribute bits off */
	GA_MOUNT_ATIME, /* one of the values in the MOUNT_ATTR__ATIME field */
	GA_MOUNT_PROP,  /* propagation */
	GA_MOUNT_SB,    /* property of the filesystem: hand the word on, meaningless for a bind */
	GA_MOUNT_BIND,
	GA_MOUNT_RBIND,
	GA_MOUNT_REMOUNT,
	GA_MOUNT_COPYUP,
	GA_MOUNT_NOFAIL,
	GA_MOUNT_IDMAP,
	GA_MOUNT_RIDMAP,
	GA_MOUNT_NOTHING, /* accepted, without effect on Linux >= 5.12 */
};

/* runtime-spec config.md "Linux mount options", in its order. An "r" in front of an attribute makes
 * it recursive; rec says so. */
static const struct ga_mount_option {
	const char *name;
	enum ga_mount_kind kind;
	bool rec;
	uint64_t bits;
} ga_mount_options[] = {
	{ "async", GA_MOUNT_SB, false, 0 },
	{ "atime", GA_MOUNT_ATIME, false, MOUNT_ATTR_RELATIME },
	{ "bind", GA_MOUNT_BIND, false, 0 },
	{ "defaults", GA_MOUNT_NOTHING, false, 0 },
	{ "dev", GA_MOUNT_CLEAR, false, MOUNT_ATTR_NODEV },
	{ "diratime", GA_MOUNT_CLEAR, false, MOUNT_ATTR_NODIRATIME },
	{ "dirsync", GA_MOUNT_SB, false, 0 },
	{ "exec", GA_MOUNT_CLEAR, false, MOUNT_ATTR_NOEXEC },
	{ "idmap", GA_MOUNT_IDMAP, false, 0 },
	{ "iversion", GA_MOUNT_NOTHING, false, 0 },
	{ "lazytime", GA_MOUNT_SB, false, 0 },
	{ "loud", GA_MOUNT_NOTHING, false, 0 },
	{ "mand", GA_MOUNT_NOTHING, false, 0 },
	{ "noatime", GA_MOUNT_ATIME, false, MOUNT_ATTR_NOATIME },
	{ "nodev", GA_MOUNT_SET, false, MOUNT_ATTR_NODEV },
	{ "nodiratime", GA_MOUNT_SET, false, MOUNT_ATTR_NODIRATIME },
	{ "noexec", GA_MOUNT_SET, false, MOUNT_ATTR_NOEXEC },
	{ "nofail", GA_MOUNT_NOFAIL, false, 0 },
	{ "noiversion", GA_MOUNT_NOTHING, false, 0 },
	{ "nolazytime", GA_MOUNT_SB, false, 0 },
	{ "nomand", GA_MOUNT_NOTHING, false, 0 },
	{ "norelatime", GA_MOUNT_ATIME, false, MOUNT_ATTR_RELATIME },
	{ "nostrictatime", GA_MOUNT_ATIME, false, MOUNT_ATTR_RELATIME },
	{ "nosuid", GA_MOUNT_SET, false, MOUNT_ATTR_NOSUID },
	{ "nosymfollow", GA_MOUNT_SET, false, MOUNT_ATTR_NOSYMFOLLOW },
	{ "private", GA_MOUNT_PROP, false, MS_PRIVATE },
	{ "ratime", GA_MOUNT_ATIME, true, MOUNT_ATTR_RELATIME },
	{ "rbind", GA_MOUNT_RBIND, false, 0 },
	{ "rdev", GA_MOUNT_CLEAR, true, MOUNT_ATTR_NODEV },
	{ "rdiratime", GA_MOUNT_CLEAR, true, MOUNT_ATTR_NODIRATIME },
	{ "relatime", GA_MOUNT_ATIME, false, MOUNT_ATTR_RELATIME },
	{ "remount", GA_MOUNT_REMOUNT, false, 0 },
	{ "rexec", GA_MOUNT_CLEAR, true, MOUNT_ATTR_NOEXEC },
	{ "ridmap", GA_MOUNT_RIDMAP, false, 0 },
	{ "rnoatime", GA_MOUNT_ATIME, true, MOUNT_ATTR_NOATIME },
	{ "rnodev", GA_MOUNT_SET, true, MOUNT_ATTR_NODEV },
	{ "rnodiratime", GA_MOUNT_SET, true, MOUNT_ATTR_NODIRATIME },
	{ "rnoexec", GA_MOUNT_SET, true, MOUNT_ATTR_NOEXEC },
	{ "rnorelatime", GA_MOUNT_ATIME, true, MOUNT_ATTR_RELATIME },
	{ "rnostrictatime", GA_MOUNT_ATIME, true, MOUNT_ATTR_RELATIME },
	{ "rnosuid", GA_MOUNT_SET, true, MOUNT_ATTR_NOSUID },
	{ "rnosymfollow", GA_MOUNT_SET, true, MOUNT_ATTR_NOSYMFOLLOW },
	{ "ro", GA_MOUNT_SET, false, MOUNT_ATTR_RDONLY },
	{ "rprivate", GA_MOUNT_PROP, true, MS_PRIVATE },
	{ "rrelatime", GA_MOUNT_ATIME, true, MOUNT_ATTR_RELATIME },
	{ "rro", GA_MOUNT_SET, true, MOUNT_ATTR_RDONLY },
	{ "rrw", GA_MOUNT_CLEAR, true, MOUNT_ATTR_RDONLY },
	{ "rshared", GA_MOUNT_PROP, true, MS_SHARED },
	{ "rslave", GA_MOUNT_PROP, true, MS_SLAVE },
	{ "rstrictatime", GA_MOUNT_ATIME, true, MOUNT_ATTR_STRICTATIME },
	{ "rsuid", GA_MOUNT_CLEAR, true, MOUNT_ATTR_NOSUID },
	{ "rsymfollow", GA_MOUNT_CLEAR, true, MOUNT_ATTR_NOSYMFOLLOW },
	{ "runbindable", GA_MOUNT_PROP, true, MS_UNBINDABLE },
	{ "rw", GA_MOUNT_CLEAR, false, MOUNT_ATTR_RDONLY },
	{ "shared", GA_MOUNT_PROP, false, MS_SHARED },
	{ "silent", GA_MOUNT_NOTHING, false, 0 },
	{ "slave", GA_MOUNT_PROP, false, MS_SLAVE },
	{ "strictatime", GA_MOUNT_ATIME, false, MOUNT_ATTR_STRICTATIME },
	{ "suid", GA_MOUNT_CLEAR, false, MOUNT_ATTR_NOSUID },
	{ "symfollow", GA_MOUNT_CLEAR, false, MOUNT_ATTR_NOSYMFOLLOW },
	{ "sync", GA_MOUNT_SB, false, 0 },
	{ "tmpcopyup", GA_MOUNT_COPYUP, false, 0 },
	{ "unbindable", GA_MOUNT_PROP, false, MS_UNBINDABLE },
};

static const struct ga_mount_option *ga_mount_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(ga_mount_options); i++)
		if (!strcmp(ga_mount_options[i].name, name))
			return &ga_mount_options[i];
	return NULL;
}

static void ga_mount_attr(struct ga_mount_opts *o, bool rec, uint64_t set, uint64_t clear)
{
	uint64_t *on = rec ? &o->rec_set : &o->set, *off = rec ? &o->rec_clear : &o->clear;

	*on = (*on & ~clear) | set;
	*off = (*off & ~set) | clear;
}

static int ga_mount_apply(struct ga_mount_opts *o, const struct ga_mount_option *opt, struct err *e)
{
	switch (opt->kind) {
	case GA_MOUNT_SET:
		ga_mount_attr(o, opt->rec, opt->bits, 0);
		break;
	case GA_MOUNT_CLEAR:
		ga_mount_attr(o, opt->rec, 0, opt->bits);
		break;
	case GA_MOUNT_ATIME:
		/* A field, not bits: the kernel wants it cleared as a whole before a value is set.
		 */
		ga_mount_attr(o, opt->rec, 0, MOUNT_ATTR__ATIME);
		*(opt->rec ? &o->rec_set : &o->set) |= opt->bits;
		break;
	case GA_MOUNT_PROP:
		if (o->n_propagation == ARRAY_LEN(o->propagation))
			return err_set(e, -EINVAL, "too many propagation options");
		o->propagation[o->n_propagation++] = opt->bits | (opt->rec ? MS_REC : 0);
		break;
	case GA_MOUNT_SB:
		buf_add(&o->data, opt->name, strlen(opt->name) + 1);
		break;
	case GA_MOUNT_BIND:
		o->bind = true;
		break;
	case GA_MOUNT_RBIND:
		o->bind = o->bind_rec = true;
		break;
	case GA_MOUNT_REMOUNT:
		o->remount = true;
		break;
	case GA_MOUNT_COPYUP:
		o->copy_up = true;
		break;
	case GA_MOUNT_NOFAIL:
		o->no_fail = true;
		break;
	case GA_MOUNT_IDMAP:
		o->idmap = true;
		break;
	case GA_MOUNT_RIDMAP:
		o->idmap = o->idmap_rec = true;
		break;
	case GA_MOUNT_NOTHING:
		break;
	}
	return 0;
}

int ga_mount_parse(char *const *options, size_t n, struct ga_mount_opts *o, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		const struct ga_mount_option *opt = ga_mount_find(options[i]);
		if (opt && ga_mount_apply(o, opt, e) < 0)
			return e ? e->code : -EINVAL;
		if (!opt && options[i][0])
			buf_add(&o->data, options[i], strlen(options[i]) + 1);
	}
	return 0;
}

void ga_mount_opts_fini(struct ga_mount_opts *o)
{
	buf_fini(&o->data);
}

void ga_mount_opts_auto_fini(struct ga_mount_opts *o)
{
	ga_mount_opts_fini(o);
}

int ga_mount_setattr(int fd, bool recursive, uint64_t set, uint64_t clear, uint64_t propagation)
{
	struct mount_attr a = { .attr_set = set, .attr_clr = clear, .propagation = propagation };

	if (!set && !clear && !propagation)
		return 0;
	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &a,
		    sizeof a) < 0)
		return -errno;
	return 0;
}

/* The filesystem context keeps the kernel's own words ("e overlay: missing 'lowerdir'"); errno
 * alone is nearly always EINVAL. */
static int ga_mount_fs_error(int fs_fd, const char *type, const char *what, struct err *e)
{
	int code = -errno;
	char words[256];
	ssize_t n = read(fs_fd, words, sizeof words - 1);

	if (n <= 2)
		return err_set(e, code, "%s: %s: %s", type, what, strerror(-code));
	words[n] = '\0';
	words[strcspn(words, "\n")] = '\0';
	return err_set(e, code, "%s: %s: %s (%s)", type, what, words + 2, strerror(-code));
}

/* One "key" or "key=value" of the filesystem's own. */
static int ga_mount_fs_option(int fs_fd, const char *option)
{
	AUTO_FREE char *key = mem_strdup(option);
	char *value = strchr(key, '=');

	if (!value)
		return (int)syscall(SYS_fsconfig, fs_fd, FSCONFIG_SET_FLAG, key, NULL, 0);
	*value++ = '\0';
	return (int)syscall(SYS_fsconfig, fs_fd, FSCONFIG_SET_STRING, key, value, 0);
}

static int ga_mount_fs_options(int fs_fd, const char *type, const struct ga_mount_opts *o,
			       struct err *e)
{
	const char *p = (const char *)o->data.data, *end = p + o->data.len;

	/* For a new filesystem "ro" means both: the superblock may not be written by anyone. */
	if ((o->set | o->rec_set) & MOUNT_ATTR_RDONLY &&
	    syscall(SYS_fsconfig, fs_fd, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0)
		return ga_mount_fs_error(fs_fd, type, "ro", e);
	for (; p < end; p += strlen(p) + 1)
		if (ga_mount_fs_option(fs_fd, p) < 0)
			return ga_mount_fs_error(fs_fd, type, p, e);
	return 0;
}

static int ga_mount_make_fs(const char *type, const char *source, const struct ga_mount_opts *o,
			    struct err *e)
{
	AUTO_CLOSE int fs_fd = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
	int fd;

	if (fs_fd < 0)
		return err_set(e, -errno, "filesystem type \"%s\": %m", type);
	if (source && *source &&
	    syscall(SYS_fsconfig, fs_fd, FSCONFIG_SET_STRING, "source", source, 0) < 0)
		return ga_mount_fs_error(fs_fd, type, source, e);
	if (ga_mount_fs_options(fs_fd, type, o, e) < 0)
		return e ? e->code : -EINVAL;
	if (syscall(SYS_fsconfig, fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return ga_mount_fs_error(fs_fd, type, source ? source : "", e);
	fd = (int)syscall(SYS_fsmount, fs_fd, FSMOUNT_CLOEXEC, (unsigned)(o->set | o->rec_set));
	if (fd < 0)
		return ga_mount_fs_error(fs_fd, type, "mount", e);
	return fd;
}

static int ga_mount_make_bind(const char *source, const struct ga_mount_opts *o, struct err *e)
{
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (o->bind_rec ? AT_RECURSIVE : 0);
	AUTO_CLOSE int fd = (int)syscall(SYS_open_tree, AT_FDCWD, source, flags);
	int r;

	if (fd < 0)
		return err_set(e, -errno, "bind source %s: %m", source);
	r = ga_mount_setattr(fd, false, o->set, o->clear, 0);
	if (r == 0)
		r = ga_mount_setattr(fd, true, o->rec_set, o->rec_clear, 0);
	if (r < 0)
		return err_set(e, r, "attributes of bind mount %s: %s", source, strerror(-r));
	return take_fd(&fd);
}

int ga_mount_make(const char *type, const char *source, const struct ga_mount_opts *o,
		  struct err *e)
{
	if (o->bind)
		return ga_mount_make_bind(source, o, e);
	return ga_mount_make_fs(type, source, o, e);
}

int ga_mount_attach(int mount_fd, int target_fd, const struct ga_mount_opts *o, struct err *e)
{
	if (syscall(SYS_move_mount, mount_fd, "", target_fd, "",
		    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return err_set(e, -errno, "attach: %m");
	for (unsigned i = 0; o && i < o->n_propagation; i++) {
		uint64_t p = o->propagation[i];
		int r = ga_mount_setattr(mount_fd, p & MS_REC, 0, 0, p & ~(uint64_t)MS_REC);
		if (r < 0)
			return err_set(e, r, "propagation: %s", strerror(-r));
	}
	return 0;
}

int ga_mount_at(const char *type, const char *source, const char *target, char *const *options,
		size_t n, struct err *e)
{
	AUTO_MOUNT_OPTS struct ga_mount_opts o = { 0 };
	AUTO_CLOSE int mount_fd = -1, target_fd = open(target, O_PATH | O_CLOEXEC);

	if (target_fd < 0)
		return err_set(e, -errno, "mount point %s: %m", target);
	if (ga_mount_parse(options, n, &o, e) < 0 ||
	    (mount_fd = ga_mount_make(type, source, &o, e)) < 0 ||
	    ga_mount_attach(mount_fd, target_fd, &o, e) < 0)
		return err_wrap(e, "mount %s on %s", source && *source ? source : type, target);
	return 0;
}

int ga_mount_reconfigure(const char *path, char *const *options, size_t n, struct err *e)
{
	AUTO_MOUNT_OPTS struct ga_mount_opts o = { 0 };
	AUTO_CLOSE int fs_fd = -1;

	if (ga_mount_parse(options, n, &o, e) < 0)
		return e->code;
	fs_fd = (int)syscall(SYS_fspick, AT_FDCWD, path, FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW);
	if (fs_fd < 0)
		return err_set(e, -errno, "%s: %m", path);
	if (ga_mount_fs_options(fs_fd, "filesystem", &o, e) < 0)
		return e->code;
	if (syscall(SYS_fsconfig, fs_fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		return ga_mount_fs_error(fs_fd, "filesystem", path, e);
	return 0;
}

#define GA_MOUNT_MAX_LINKS 40 /* as the kernel's own limit, path_resolution(7) */

static int ga_mount_mkdirs(int root_fd, const char *path, unsigned links, struct err *e);

/* `name` in the directory `parent` exists but leads nowhere: a symlink whose target is missing,
 * such as /var/run -> /run in an image without /run. Make the target. */
static int ga_mount_mkdirs_link(int root_fd, const char *parent, const char *name, int parent_fd,
				unsigned links, struct err *e)
{
	char link[PATH_MAX];
	ssize_t n = readlinkat(parent_fd, name, link, sizeof link - 1);
	AUTO_FREE char *target = NULL;

	if (n < 0)
		return err_set(e, -ENOTDIR, "%s/%s: not a directory", parent, name);
	if (links == GA_MOUNT_MAX_LINKS)
		return err_set(e, -ELOOP, "%s/%s: too many symlinks", parent, name);
	link[n] = '\0';
	target = *link == '/' ? mem_strdup(link) : mem_printf("%s/%s", parent, link);
	return ga_mount_mkdirs(root_fd, target, links + 1, e);
}

/* mkdir -p below root_fd, one component at a time; each parent is opened inside the root. */
static int ga_mount_mkdirs(int root_fd, const char *path, unsigned links, struct err *e)
{
	AUTO_FREE char *done = mem_zalloc(strlen(path) + 2);
	const char *p = path;

	for (;;) {
		AUTO_FREE char *name = NULL, *parent = NULL;
		AUTO_CLOSE int parent_fd = -1, fd = -1;

		p += strspn(p, "/");
		if (!*p)
			return 0;
		name = mem_strndup(p, strcspn(p, "/"));
		p += strlen(name);
		parent = mem_printf("/%s", done);
		sprintf(done + strlen(done), "%s%s", *done ? "/" : "", name);
		fd = path_open_in_root(root_fd, done, O_PATH | O_DIRECTORY, 0);
		if (fd >= 0)
			continue;
		if (fd != -ENOENT)
			return err_set(e, fd, "/%s: %s", done, strerror(-fd));
		parent_fd = path_open_in_root(root_fd, parent, O_PATH | O_DIRECTORY, 0);
		if (parent_fd < 0)
			return err_set(e, parent_fd, "%s: %s", parent, strerror(-parent_fd));
		if (mkdirat(parent_fd, name, 0755) == 0)
			continue;
		if (errno != EEXIST)
			return err_set(e, -errno, "mkdir /%s: %m", done);
		if (ga_mount_mkdirs_link(root_fd, parent, name, parent_fd, links, e) < 0)
			return e ? e->code : -EIO;
	}
}

int ga_mount_target(int root_fd, const char *path, bool directory, struct err *e)
{
	AUTO_FREE char *parent = NULL;
	int fd = path_open_in_root(root_fd, path, O_PATH, 0);

	if (fd >= 0)
		return fd;
	if (fd != -ENOENT)
		return err_set(e, fd, "%s: %s", path, strerror(-fd));
	parent = mem_strdup(path);
	if (!directory)
		*(strrchr(parent, '/') ? strrchr(parent, '/') : parent) = '\0';
	if (ga_mount_mkdirs(root_fd, parent, 0, e) < 0)
		return e ? e->code : -EIO;
	if (!directory) {
		AUTO_CLOSE int made = path_open_in_root(root_fd, path, O_WRONLY | O_CREAT, 0644);
		if (made < 0)
			return err_set(e, made, "create %s: %s", path, strerror(-made));
	}
	fd = path_open_in_root(root_fd, path, O_PATH, 0);
	if (fd < 0)
		return err_set(e, fd, "%s: %s", path, strerror(-fd));
	return fd;
}

void ga_mount_undo(const char *path)
{
	while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
}
