#include "amalgam/resource/share.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"

static int share_clone(int dir_fd, const char *path, unsigned how)
{
	int fd = (int)syscall(SYS_open_tree, dir_fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | how);

	return fd < 0 ? -errno : fd;
}

/* Before 5.14 there is no MOUNT_ATTR_NOSYMFOLLOW: the server alone then sees to it. */
static int share_restrict(int fd, unsigned flags)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOSYMFOLLOW |
			    (flags & SHARE_READONLY ? MOUNT_ATTR_RDONLY : 0),
		.propagation = MS_PRIVATE, /* what the host mounts later is not for the guest */
	};
	unsigned how = AT_EMPTY_PATH | (flags & SHARE_RECURSIVE ? AT_RECURSIVE : 0);

	if (syscall(SYS_mount_setattr, fd, "", how, &attr, sizeof attr) == 0)
		return 0;
	attr.attr_set &= ~(uint64_t)MOUNT_ATTR_NOSYMFOLLOW;
	if (errno == EINVAL && syscall(SYS_mount_setattr, fd, "", how, &attr, sizeof attr) == 0)
		return 0;
	return -errno;
}

int share_open(int dir_fd, const char *path, unsigned flags, struct err *e)
{
	AUTO_CLOSE int fd = share_clone(dir_fd, path, flags & SHARE_RECURSIVE ? AT_RECURSIVE : 0);
	struct stat st;
	int r;

	if (fd < 0)
		return err_set(e, fd, "%s", fd == -ENOSYS ? "this host's Linux is older than 5.12" :
							    strerror(-fd));
	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "%m");
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "neither a directory nor a file");
	if ((r = share_restrict(fd, flags)) < 0)
		return err_set(e, r, "mount attributes: %s", strerror(-r));
	return take_fd(&fd);
}

int share_open_image(const char *path)
{
	const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
	AUTO_CLOSE int tree = share_clone(AT_FDCWD, path, 0);
	AUTO_CLOSE int fd = -1;
	char at[32];
	int r;

	if (tree == -ENOSYS) {
		fd = open(path, flags);
		return fd < 0 ? -errno : take_fd(&fd);
	}
	if (tree < 0)
		return tree;
	snprintf(at, sizeof at, "/proc/self/fd/%d", tree);
	fd = open(at, flags);
	if (fd < 0)
		return -errno;
	/* Only now: nodev would have kept us, too, from opening a device. The mount stays with fd. */
	r = share_restrict(tree, SHARE_READONLY);
	return r < 0 ? r : take_fd(&fd);
}
