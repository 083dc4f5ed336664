/* Regular files: open and what is done to an open one. Data goes between the host's file and the guest's
 * own pages, without a copy in between. */
#include "vmm/fuse/call.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "amalgam/base/mem.h"

/* Of a copy between two files, in one request: a machine that is paused waits for it. */
#define FSV_COPY_MAX MIB(16)

/* Of the guest's flags, the host's: how it will be used and what becomes of the content. What else there is
 * is told with each request (O_APPEND, O_SYNC) or is the guest's own business. */
#define FSV_OPEN_FLAGS (O_ACCMODE | O_TRUNC)

/* --- open and close --------------------------------------------------------------------------- */

int fsv_hand(struct fsv_call *q, uint64_t fh, enum fhand_kind kind)
{
	q->hand = fhand_get(&q->s->hands, fh, q->h.nodeid, kind);
	return q->hand ? 0 : -EBADF;
}

/* What the guest may do with its cache of the file. FLUSH exists to tell a close of late errors; a file
 * that only this guest writes, or that it does not write, has none to tell. */
static uint32_t fsv_open_answer(const struct fnode *n, bool writable, enum fhand_kind kind)
{
	uint32_t flags = 0;

	if (n->flags & FSV_PRIVATE)
		flags |= FOPEN_KEEP_CACHE | (kind == FHAND_DIR ? FOPEN_CACHE_DIR : FOPEN_NOFLUSH);
	if (kind == FHAND_FILE && !writable)
		flags |= FOPEN_NOFLUSH;
	return flags;
}

int fsv_open_handle(struct fsv_call *q, const struct fnode *n, int fd, uint32_t open_flags,
		    enum fhand_kind kind, struct fuse_open_out *out)
{
	bool writable = kind == FHAND_FILE && (open_flags & O_ACCMODE) != O_RDONLY;
	struct fhand h = { .nodeid = n->id, .share = n->key.share, .kind = kind, .writable = writable,
			   .fd = fd };
	int r;

	*out = (struct fuse_open_out){ .open_flags = fsv_open_answer(n, writable, kind) };
	r = fhand_open(&q->s->hands, &h, &out->fh);
	/* A share that goes closes its nodes, then its handles. So either it has seen this one, or we see
	 * that the node is gone. */
	if (r == 0 && fnode_is_stale(&q->s->nodes, n)) {
		fhand_close(&q->s->hands, out->fh, n->id);
		r = -ESTALE;
	}
	return r;
}

static bool fsv_bad_access(uint32_t flags)
{
	return (flags & O_ACCMODE) == O_ACCMODE;
}
static bool fsv_opens_for_change(uint32_t flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

/* Open a node that exists, as the guest's flags say. */
static int fsv_open_existing(const struct fnode *n, uint32_t flags, uint32_t fuse_flags)
{
	bool kill = (flags & O_TRUNC) && (fuse_flags & FUSE_OPEN_KILL_SUIDGID);
	int fd;

	if (kill)
		fsv_set_fsetid(false);
	fd = fsv_reopen(n, (int)flags & FSV_OPEN_FLAGS);
	if (kill)
		fsv_set_fsetid(true);
	return fd;
}

int fsv_do_open(struct fsv_call *q)
{
	const struct fuse_open_in *in = q->arg;
	struct fuse_open_out out;
	int fd, r;

	if (fsv_bad_access(in->flags))
		return -EINVAL;
	if ((q->node->flags & FSV_READONLY) && fsv_opens_for_change(in->flags))
		return -EROFS;
	fd = fsv_open_existing(q->node, in->flags, in->open_flags);
	if (fd < 0)
		return fd;
	r = fsv_open_handle(q, q->node, fd, in->flags, FHAND_FILE, &out);
	if (r == 0)
		fsv_reply(q, &out, sizeof out);
	return r;
}

int fsv_do_release(struct fsv_call *q)
{
	const struct fuse_release_in *in = q->arg;

	return fhand_close(&q->s->hands, in->fh, q->h.nodeid);
}

/* --- create ----------------------------------------------------------------------------------- */

/* A new file that nobody else opens first, or -EEXIST. */
static int fsv_create_new(const struct fsv_call *q, const char *name, int flags, uint32_t mode)
{
	int fd, r = fsv_begin_as_caller(q);

	if (r < 0)
		return r;
	fd = openat(q->node->fd, name, flags | O_CLOEXEC | O_NOFOLLOW, mode & 07777);
	r = fd < 0 ? -errno : fd;
	fsv_end_as_caller(q);
	return r;
}

/* The node of a file just made: found by its descriptor, whatever its name is by now. */
static int fsv_enter_created(struct fsv_call *q, int fd, struct fuse_entry_out *out)
{
	int path_fd = openat(AT_FDCWD, fsv_path_of(fd).s, O_PATH | O_CLOEXEC);

	*out = (struct fuse_entry_out){ 0 };
	return path_fd < 0 ? -errno : fsv_enter(q, q->node, path_fd, out, true);
}

/* The guest will not hear of the lookup of q->other. */
static void fsv_unenter(struct fsv_call *q)
{
	if (q->other)
		fnode_forget(&q->s->nodes, q->other->id, 1);
	fnode_put(&q->s->nodes, take_ptr(&q->other));
}

/* Without O_EXCL the file may be there. It is opened as a node is, for it could be a FIFO. */
static int fsv_create_or_open(struct fsv_call *q, const struct fuse_create_in *in,
			      struct fuse_entry_out *entry)
{
	int fd = fsv_create_new(q, q->name, (int)(in->flags & O_ACCMODE) | O_CREAT | O_EXCL, in->mode), r;

	if (fd == -EEXIST && !(in->flags & O_EXCL)) {
		r = fsv_enter_name(q, q->node, q->name, entry, true);
		if (r == 0)
			r = fsv_open_existing(q->other, in->flags, in->open_flags);
		if (r < 0)
			fsv_unenter(q);
		return r;
	}
	if (fd < 0)
		return fd;
	r = fsv_enter_created(q, fd, entry);
	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

/* Answer with q->other, just entered, and fd, just opened. */
static int fsv_answer_created(struct fsv_call *q, uint32_t flags, int fd, const struct fuse_entry_out *entry)
{
	struct fuse_open_out open;
	int r = fsv_open_handle(q, q->other, fd, flags, FHAND_FILE, &open);

	if (r < 0) {
		fsv_unenter(q);
		return r;
	}
	fsv_reply(q, entry, sizeof *entry);
	fsv_reply(q, &open, sizeof open);
	return 0;
}

int fsv_do_create(struct fsv_call *q)
{
	const struct fuse_create_in *in = q->arg;
	struct fuse_entry_out entry;
	int fd = -ENOENT;

	if (fsv_bad_access(in->flags))
		return -EINVAL;
	/* Somebody may remove what was there between our two looks. */
	for (unsigned tries = 0; tries < 3 && fd == -ENOENT; tries++)
		fd = fsv_create_or_open(q, in, &entry);
	return fd < 0 ? fd : fsv_answer_created(q, in->flags, fd, &entry);
}

int fsv_do_tmpfile(struct fsv_call *q)
{
	const struct fuse_create_in *in = q->arg;
	struct fuse_entry_out entry;
	int fd, r;

	if (fsv_bad_access(in->flags))
		return -EINVAL;
	fd = fsv_create_new(q, ".", (int)(in->flags & (O_ACCMODE | O_EXCL)) | O_TMPFILE, in->mode);
	if (fd < 0)
		return fd;
	r = fsv_enter_created(q, fd, &entry);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fsv_answer_created(q, in->flags, fd, &entry);
}

/* --- data ------------------------------------------------------------------------------------- */

/* The part [skip, skip + len) of n buffers, into q->iov; returns how many. */
static unsigned fsv_window(struct fsv_call *q, const struct iovec *iov, unsigned n, size_t skip, size_t len)
{
	unsigned k = 0;

	for (; n && len; n--, iov++) {
		size_t at = MIN(skip, iov->iov_len), take = MIN(len, iov->iov_len - at);
		skip -= at;
		len -= take;
		if (take)
			q->iov[k++] = (struct iovec){ (uint8_t *)iov->iov_base + at, take };
	}
	return k;
}

int fsv_do_read(struct fsv_call *q)
{
	const struct fuse_read_in *in = q->arg;
	size_t room = q->c.in_len - sizeof(struct fuse_out_header);
	unsigned n;
	ssize_t k;
	int r = fsv_hand(q, in->fh, FHAND_FILE);

	if (r < 0)
		return r;
	if (in->size > room || in->offset > INT64_MAX)
		return -EINVAL;
	n = fsv_window(q, q->c.iov + q->c.nout, q->c.nin, sizeof(struct fuse_out_header), in->size);
	do
		k = preadv(q->hand->fd, q->iov, (int)n, (off_t)in->offset);
	while (k < 0 && errno == EINTR);
	if (k < 0)
		return -errno;
	q->bulk = (uint32_t)k;
	return 0;
}

/* What the guest's descriptor asks of each write. Its flags may change while it is open, and a page that is
 * written back carries none, which is why ours is not opened with them. */
static int fsv_write_flags(const struct fuse_write_in *in)
{
	int flags = 0;

	if (in->write_flags & FUSE_WRITE_CACHE)
		return 0;
	if (in->flags & O_APPEND)
		flags |= RWF_APPEND;
	if ((in->flags & O_SYNC) == O_SYNC)
		flags |= RWF_SYNC;
	else if (in->flags & O_DSYNC)
		flags |= RWF_DSYNC;
	return flags;
}

int fsv_do_write(struct fsv_call *q)
{
	const struct fuse_write_in *in = q->arg;
	const size_t skip = sizeof(struct fuse_in_header) + sizeof *in;
	bool kill = in->write_flags & FUSE_WRITE_KILL_SUIDGID;
	struct fuse_write_out out = { 0 };
	unsigned n;
	ssize_t k;
	int r = fsv_hand(q, in->fh, FHAND_FILE);

	if (r < 0)
		return r;
	if (q->h.len < skip || in->size > q->h.len - skip || in->offset > INT64_MAX)
		return -EINVAL;
	n = fsv_window(q, q->c.iov, q->c.nout, skip, in->size);
	if (kill)
		fsv_set_fsetid(false);
	do
		k = syscall(SYS_pwritev2, q->hand->fd, q->iov, (unsigned long)n, (unsigned long)in->offset, 0ul,
			    fsv_write_flags(in));
	while (k < 0 && errno == EINTR);
	if (kill)
		fsv_set_fsetid(true);
	if (k < 0)
		return -errno;
	out.size = (uint32_t)k;
	fsv_reply(q, &out, sizeof out);
	return 0;
}

/* --- the rest --------------------------------------------------------------------------------- */

/* What a close would say on this host, without closing the guest's. */
int fsv_do_flush(struct fsv_call *q)
{
	const struct fuse_flush_in *in = q->arg;
	int fd, r = fsv_hand(q, in->fh, FHAND_FILE);

	if (r < 0)
		return r;
	fd = fcntl(q->hand->fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 || close(fd) < 0 ? -errno : 0;
}

int fsv_do_fsync(struct fsv_call *q)
{
	const struct fuse_fsync_in *in = q->arg;
	int r = fsv_hand(q, in->fh, FHAND_FILE);

	if (r < 0)
		return r;
	r = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(q->hand->fd) : fsync(q->hand->fd);
	return r < 0 ? -errno : 0;
}

/* The protocol does not say who asks, so set-user-ID goes as if a user did. */
int fsv_do_fallocate(struct fsv_call *q)
{
	const struct fuse_fallocate_in *in = q->arg;
	int r = fsv_hand(q, in->fh, FHAND_FILE);

	if (r < 0)
		return r;
	if (in->offset > INT64_MAX || in->length > INT64_MAX)
		return -EINVAL;
	fsv_set_fsetid(false);
	do
		r = fallocate(q->hand->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length);
	while (r < 0 && errno == EINTR);
	fsv_set_fsetid(true);
	return r < 0 ? -errno : 0;
}

int fsv_do_lseek(struct fsv_call *q)
{
	const struct fuse_lseek_in *in = q->arg;
	struct fuse_lseek_out out;
	off_t at;
	int r = fsv_hand(q, in->fh, FHAND_FILE);

	if (r < 0)
		return r;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE) /* the guest knows the others itself */
		return -EINVAL;
	at = lseek(q->hand->fd, (off_t)in->offset, (int)in->whence);
	if (at < 0)
		return -errno;
	out.offset = (uint64_t)at;
	fsv_reply(q, &out, sizeof out);
	return 0;
}

int fsv_do_copy(struct fsv_call *q)
{
	const struct fuse_copy_file_range_in *in = q->arg;
	off_t from = (off_t)in->off_in, to = (off_t)in->off_out;
	struct fuse_write_out out = { 0 };
	ssize_t n;
	int r = fsv_hand(q, in->fh_in, FHAND_FILE);

	if (r < 0)
		return r;
	q->other_hand = fhand_get(&q->s->hands, in->fh_out, in->nodeid_out, FHAND_FILE);
	if (!q->other_hand)
		return -EBADF;
	if (in->flags || from < 0 || to < 0)
		return -EINVAL;
	fsv_set_fsetid(false); /* as for fallocate */
	n = copy_file_range(q->hand->fd, &from, q->other_hand->fd, &to, MIN(in->len, FSV_COPY_MAX), 0);
	r = n < 0 ? -errno : 0;
	fsv_set_fsetid(true);
	out.size = (uint32_t)n;
	fsv_reply(q, &out, sizeof out);
	return r;
}
