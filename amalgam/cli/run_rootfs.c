#include "amalgam/cli/run_rootfs.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/resource/share.h"

#define RUN_ROOTFS_SHARE "rootfs"

/* As open(2), with -1 and errno. One that cannot be written to is taken read-only. */
static int run_rootfs_open(const char *path, bool *read_only)
{
	const int flags = O_CLOEXEC | O_NONBLOCK; /* what is neither file nor device must not wait */
	struct stat st;
	int fd = -1;

	/* A device that is mounted here, or part of something that is, is refused by O_EXCL. */
	if (!*read_only)
		fd = open(path, O_RDWR | flags | (stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? O_EXCL : 0));
	if (!*read_only && fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM)) {
		log_warn("the image cannot be written to and is used read-only", KV("block", path));
		*read_only = true;
	}
	if (*read_only && (fd = share_open_image(path)) < 0) {
		errno = -fd;
		fd = -1;
	}
	return fd;
}

/* Nobody writes to an erofs, so nobody needs to be able to. */
static int run_rootfs_lower(struct run_rootfs *r, const char *name, const char *path, struct err *e)
{
	int fd = share_open_image(path);

	if (fd < 0)
		return err_set(e, fd, "%s: %s", name, strerror(-fd));
	close(r->block_fd);
	r->block_fd = fd;
	return 0;
}

int run_rootfs_block(struct run_rootfs *r, const char *what, const char *path, bool read_only,
		     struct err *e)
{
	AUTO_FREE char *name = mem_printf("%s %s", what, path);
	bool ro = read_only;
	struct stat st;

	r->block_fd = run_rootfs_open(path, &ro);
	if (r->block_fd < 0 && errno == EBUSY)
		return err_set(e, -EBUSY, "%s: in use on this host; unmount it, or give --read-only",
			       name);
	if (r->block_fd < 0 || fstat(r->block_fd, &st) < 0)
		return err_set(e, -errno, "%s: %m; give an image file or a block device", name);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, -EINVAL, "%s: neither a file nor a block device; give one of "
			       "them", name);
	if (S_ISREG(st.st_mode) && st.st_size == 0)
		return err_set(e, -EINVAL, "%s: empty file; make an image with: mke2fs -t ext4 -d "
			       "DIRECTORY IMAGE SIZE", name);
	r->root.fstype = container_detect_fs(r->block_fd, name, e);
	if (!r->root.fstype)
		return e->code;
	r->root.read_only = ro || !strcmp(r->root.fstype, "erofs");
	if (!ro && r->root.read_only && run_rootfs_lower(r, name, path, e) < 0)
		return e->code;
	/* One writer, or many readers: two guests with one ext4 mounted writable destroy it. The lock
	 * belongs to the open file, so it lasts as long as the machine has it. */
	if (flock(r->block_fd, (r->root.read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0)
		return err_set(e, -EBUSY, "%s: in use by another sandbox; use a copy, or "
			       "--read-only for all of them", name);
	return 0;
}

/* What the host has mounted below it is not part of it: "/" is the host's root filesystem without its
 * /proc, /sys and /dev. */
int run_rootfs_dir(struct run_rootfs *r, const char *what, const char *path, bool read_only,
		   struct err *e)
{
	struct stat st;
	int fd;

	if (stat(path, &st) < 0)
		return err_set(e, -errno, "%s %s: %m; give a directory", what, path);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "%s %s: not a directory; an image goes with --block", what,
			       path);
	fd = share_open(AT_FDCWD, path, read_only ? SHARE_READONLY : 0, e);
	if (fd < 0)
		return err_wrap(e, "%s %s", what, path);
	r->root.share = RUN_ROOTFS_SHARE;
	r->root.read_only = read_only;
	/* Who asks for read-only means that nobody writes: the guest may keep what it has read. A writable
	 * tree is one that a person may look after from outside. */
	return binds_add(&r->shares, RUN_ROOTFS_SHARE, fd,
			 read_only ? CTL_F_SHARE_READONLY | CTL_F_SHARE_PRIVATE : 0, e);
}

bool run_rootfs_holds(const struct run_rootfs *r, int fd)
{
	for (unsigned i = 0; i < r->shares.n; i++)
		if (fd == r->shares.share[i].fd)
			return true;
	return fd == r->block_fd;
}
