/* Operations on names: make, remove, move, link. */
#include "vmm/fuse/call.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* What `r` made is the answer. */
static int fsv_made(struct fsv_call *q, int r)
{
	struct fuse_entry_out out;

	if (r == 0)
		r = fsv_enter_name(q, q->node, q->name, &out, false);
	if (r == 0)
		fsv_reply(q, &out, sizeof out);
	return r;
}

int fsv_do_symlink(struct fsv_call *q)
{
	int r = fsv_begin_as_caller(q);

	if (r < 0)
		return r;
	r = symlinkat(q->name2, q->node->fd, q->name) < 0 ? -errno : 0;
	fsv_end_as_caller(q);
	return fsv_made(q, r);
}

int fsv_do_mknod(struct fsv_call *q)
{
	const struct fuse_mknod_in *in = q->arg;
	uint32_t type = in->mode & S_IFMT;
	int r;

	if (type == S_IFDIR || type == S_IFLNK)
		return -EINVAL;
	if ((r = fsv_begin_as_caller(q)) < 0)
		return r;
	/* The protocol's device numbers are the system call's. */
	r = mknodat(q->node->fd, q->name, type | (in->mode & 07777), in->rdev) < 0 ? -errno : 0;
	fsv_end_as_caller(q);
	return fsv_made(q, r);
}

int fsv_do_mkdir(struct fsv_call *q)
{
	const struct fuse_mkdir_in *in = q->arg;
	int r = fsv_begin_as_caller(q);

	if (r < 0)
		return r;
	r = mkdirat(q->node->fd, q->name, in->mode & 07777) < 0 ? -errno : 0;
	fsv_end_as_caller(q);
	return fsv_made(q, r);
}

int fsv_do_unlink(struct fsv_call *q)
{
	return unlinkat(q->node->fd, q->name, 0) < 0 ? -errno : 0;
}

int fsv_do_rmdir(struct fsv_call *q)
{
	return unlinkat(q->node->fd, q->name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* Take the second node of a request, which must be of the same share. */
static int fsv_take_other(struct fsv_call *q, uint64_t id)
{
	if (id == FUSE_ROOT_ID)
		return -EXDEV;
	q->other = fnode_get(&q->s->nodes, id);
	if (!q->other)
		return -ESTALE;
	return q->other->key.share == q->node->key.share ? 0 : -EXDEV;
}

static int fsv_rename(struct fsv_call *q, uint64_t newdir, uint32_t flags)
{
	int r = fsv_take_other(q, newdir);

	if (r < 0)
		return r;
	return syscall(SYS_renameat2, q->node->fd, q->name, q->other->fd, q->name2, flags) < 0 ? -errno : 0;
}

int fsv_do_rename(struct fsv_call *q)
{
	const struct fuse_rename_in *in = q->arg;

	return fsv_rename(q, in->newdir, 0);
}

int fsv_do_rename2(struct fsv_call *q)
{
	const struct fuse_rename2_in *in = q->arg;

	return fsv_rename(q, in->newdir, in->flags);
}

int fsv_do_link(struct fsv_call *q)
{
	const struct fuse_link_in *in = q->arg;
	int r = fsv_take_other(q, in->oldnodeid);

	if (r < 0)
		return r;
	r = linkat(AT_FDCWD, fsv_path_of(q->other->fd).s, q->node->fd, q->name, AT_SYMLINK_FOLLOW) < 0 ?
		    -errno : 0;
	return fsv_made(q, r);
}
