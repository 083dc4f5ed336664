/* Attributes of files and of file systems. */
#include "vmm/fuse/call.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

static int fsv_reply_attr(struct fsv_call *q)
{
	struct fuse_attr_out out = { 0 };
	struct fsv_stat st;
	int r;

	if (!q->node) { /* the root: for no time, as its entries */
		out.attr = (struct fuse_attr){ .ino = FUSE_ROOT_ID, .mode = S_IFDIR | 0755, .nlink = 2,
					       .blksize = 4096 };
		fsv_reply(q, &out, sizeof out);
		return 0;
	}
	if ((r = fsv_stat_fd(q->node->fd, &st)) < 0)
		return r;
	out.attr_valid = fsv_attr_seconds(q->node);
	fsv_fill_attr(q->node, &st, &out.attr);
	fsv_reply(q, &out, sizeof out);
	return 0;
}

int fsv_do_getattr(struct fsv_call *q)
{
	return fsv_reply_attr(q);
}

static int fsv_chown(const struct fsv_call *q, const struct fuse_setattr_in *in)
{
	uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
	gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;

	if (!(in->valid & (FATTR_UID | FATTR_GID)))
		return 0;
	return fchownat(q->node->fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int fsv_chmod(const struct fsv_call *q, const struct fuse_setattr_in *in)
{
	if (!(in->valid & FATTR_MODE))
		return 0;
	if (q->node->type == S_IFLNK) /* no mode of its own; not all hosts' kernels see that */
		return -EOPNOTSUPP;
	return fchmodat(AT_FDCWD, fsv_path_of(q->node->fd).s, in->mode & 07777, 0) < 0 ? -errno : 0;
}

/* A descriptor to truncate by: the handle's, or *own, to be closed. */
static int fsv_truncatable(struct fsv_call *q, const struct fuse_setattr_in *in, int *own)
{
	if ((in->valid & FATTR_FH) && fsv_hand(q, in->fh, FHAND_FILE) == 0 && q->hand->writable)
		return q->hand->fd;
	*own = fsv_reopen(q->node, O_WRONLY);
	return *own;
}

static int fsv_truncate(struct fsv_call *q, const struct fuse_setattr_in *in)
{
	int own = -1, fd, r;

	if (!(in->valid & FATTR_SIZE))
		return 0;
	if (in->size > INT64_MAX)
		return -EINVAL;
	fd = fsv_truncatable(q, in, &own);
	if (fd < 0)
		return fd;
	if (in->valid & FATTR_KILL_SUIDGID)
		fsv_set_fsetid(false);
	r = ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
	if (in->valid & FATTR_KILL_SUIDGID)
		fsv_set_fsetid(true);
	if (own >= 0)
		close(own);
	return r;
}

static struct timespec fsv_time(bool valid, bool now, uint64_t sec, uint32_t nsec)
{
	return (struct timespec){ .tv_sec = (time_t)sec,
				  .tv_nsec = !valid ? UTIME_OMIT : now ? UTIME_NOW : (long)nsec };
}

static int fsv_utimes(const struct fsv_call *q, const struct fuse_setattr_in *in)
{
	struct timespec t[2] = {
		fsv_time(in->valid & FATTR_ATIME, in->valid & FATTR_ATIME_NOW, in->atime, in->atimensec),
		fsv_time(in->valid & FATTR_MTIME, in->valid & FATTR_MTIME_NOW, in->mtime, in->mtimensec),
	};

	if (!(in->valid & (FATTR_ATIME | FATTR_MTIME)))
		return 0;
	if (((in->valid & FATTR_ATIME) && in->atimensec >= 1000000000) ||
	    ((in->valid & FATTR_MTIME) && in->mtimensec >= 1000000000))
		return -EINVAL; /* UTIME_NOW and UTIME_OMIT among others */
	return utimensat(AT_FDCWD, fsv_path_of(q->node->fd).s, t, 0) < 0 ? -errno : 0;
}

/* chown(2) takes set-user-ID away, so the mode comes after the owner. */
int fsv_do_setattr(struct fsv_call *q)
{
	const struct fuse_setattr_in *in = q->arg;
	int r;

	if ((r = fsv_chown(q, in)) < 0 || (r = fsv_chmod(q, in)) < 0 || (r = fsv_truncate(q, in)) < 0 ||
	    (r = fsv_utimes(q, in)) < 0)
		return r;
	return fsv_reply_attr(q);
}

int fsv_do_statfs(struct fsv_call *q)
{
	struct fuse_statfs_out out = { .st = { .bsize = 4096, .frsize = 4096, .namelen = NAME_MAX } };
	struct statfs f;

	if (q->node && fstatfs(q->node->fd, &f) < 0)
		return -errno;
	if (q->node)
		out.st = (struct fuse_kstatfs){
			.blocks = f.f_blocks, .bfree = f.f_bfree, .bavail = f.f_bavail,
			.files = f.f_files, .ffree = f.f_ffree, .bsize = (uint32_t)f.f_bsize,
			.namelen = (uint32_t)f.f_namelen,
			.frsize = (uint32_t)(f.f_frsize ? f.f_frsize : f.f_bsize),
		};
	fsv_reply(q, &out, sizeof out);
	return 0;
}
