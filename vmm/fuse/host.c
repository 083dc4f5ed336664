/* How the host is asked: what libc does not offer, or not for an O_PATH descriptor. */
#include "vmm/fuse/call.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* --- statx(2) --------------------------------------------------------------------------------- */

/* struct statx of linux/stat.h, which not every libc lets one include beside its own. */
struct fsv_statx_time {
	int64_t sec;
	uint32_t nsec;
	int32_t reserved;
};
struct fsv_statx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct fsv_statx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t mnt_id;
	uint64_t spare[13];
};
static_assert(offsetof(struct fsv_statx, mnt_id) == 0x90, "linux/stat.h");
static_assert(sizeof(struct fsv_statx) == 0x100, "linux/stat.h");

#define FSV_STATX_BASIC  0x7ffu
#define FSV_STATX_MNT_ID 0x1000u

int fsv_stat_fd(int fd, struct fsv_stat *st)
{
	struct fsv_statx x;

	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW,
		    FSV_STATX_BASIC | FSV_STATX_MNT_ID, &x) < 0)
		return -errno;
	*st = (struct fsv_stat){
		.mount = x.mask & FSV_STATX_MNT_ID ? x.mnt_id : 0, /* Linux 5.8 */
		.dev = (uint64_t)x.dev_major << 32 | x.dev_minor,
		.ino = x.ino,
		.attr = {
			.ino = x.ino, .size = x.size, .blocks = x.blocks,
			.atime = (uint64_t)x.atime.sec, .atimensec = x.atime.nsec,
			.mtime = (uint64_t)x.mtime.sec, .mtimensec = x.mtime.nsec,
			.ctime = (uint64_t)x.ctime.sec, .ctimensec = x.ctime.nsec,
			.mode = x.mode, .nlink = x.nlink, .uid = x.uid, .gid = x.gid,
			.rdev = fsv_rdev(x.rdev_major, x.rdev_minor), .blksize = x.blksize,
		},
	};
	return 0;
}

/* 12 bits of major between 8 low and 12 high bits of minor: include/linux/kdev_t.h of the guest. */
uint32_t fsv_rdev(uint32_t major, uint32_t minor)
{
	return (minor & 0xff) | major << 8 | (minor & ~UINT32_C(0xff)) << 12;
}

/* --- by number -------------------------------------------------------------------------------- */

struct fsv_path fsv_path_of(int fd)
{
	struct fsv_path p;

	snprintf(p.s, sizeof p.s, "%d", fd);
	return p;
}

static int fsv_why_not_open(uint32_t type, bool dir)
{
	if (type == S_IFLNK)
		return -ELOOP;
	if (dir)
		return -ENOTDIR;
	return type == S_IFDIR ? -EISDIR : -ENXIO;
}

int fsv_reopen(const struct fnode *n, int flags)
{
	bool dir = flags & O_DIRECTORY;
	int fd;

	if (n->type != (dir ? S_IFDIR : S_IFREG))
		return fsv_why_not_open(n->type, dir);
	fd = openat(AT_FDCWD, fsv_path_of(n->fd).s, flags | O_CLOEXEC | O_NOCTTY);
	/* chattr +a: such a file opens for appending alone. */
	if (fd < 0 && errno == EPERM && (flags & O_ACCMODE) != O_RDONLY && !(flags & O_TRUNC))
		fd = openat(AT_FDCWD, fsv_path_of(n->fd).s, flags | O_APPEND | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

/* --- on whose behalf -------------------------------------------------------------------------- */

#define FSV_NOBODY ((uint32_t)-1) /* no user; asks without changing */

int fsv_begin_as_caller(const struct fsv_call *q)
{
	if (q->h.uid == FSV_NOBODY || q->h.gid == FSV_NOBODY)
		return -EINVAL;
	if (q->h.gid)
		syscall(SYS_setfsgid, q->h.gid);
	if (q->h.uid)
		syscall(SYS_setfsuid, q->h.uid);
	/* These two do not say whether they worked; a file must not have the wrong owner. */
	if ((!q->h.gid || (uint32_t)syscall(SYS_setfsgid, FSV_NOBODY) == q->h.gid) &&
	    (!q->h.uid || (uint32_t)syscall(SYS_setfsuid, FSV_NOBODY) == q->h.uid))
		return 0;
	fsv_end_as_caller(q);
	return -EPERM;
}

void fsv_end_as_caller(const struct fsv_call *q)
{
	int saved = errno;

	if (q->h.uid)
		syscall(SYS_setfsuid, 0);
	if (q->h.gid)
		syscall(SYS_setfsgid, 0);
	errno = saved;
}

/* linux/capability.h */
#define FSV_CAP_FSETID 4

void fsv_set_fsetid(bool on)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];
	int saved = errno;

	if (syscall(SYS_capget, &head, caps) == 0) {
		if (on)
			caps[0].effective |= caps[0].permitted & 1u << FSV_CAP_FSETID;
		else
			caps[0].effective &= ~(1u << FSV_CAP_FSETID);
		syscall(SYS_capset, &head, caps);
	}
	errno = saved;
}
