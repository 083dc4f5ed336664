/* Directories as lists. An offset is the host's d_off, so a guest may go back to where it was. One that
 * reads on continues where the host's list is, as handle.h explains. */
#include "vmm/fuse/call.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* What getdents64(2) fills in. */
struct fsv_dirent {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* One entry on its way to the guest. */
struct fsv_entry {
	uint64_t ino, next; /* next: the offset behind it */
	uint32_t type;
	const char *name;
	size_t len;
};

int fsv_do_opendir(struct fsv_call *q)
{
	struct fuse_open_out out = { 0 };
	struct fhand root = { .nodeid = FUSE_ROOT_ID, .kind = FHAND_ROOT, .fd = -1 };
	int fd, r;

	if (!q->node) {
		r = fhand_open(&q->s->hands, &root, &out.fh);
	} else {
		fd = fsv_reopen(q->node, O_RDONLY | O_DIRECTORY);
		r = fd < 0 ? fd : fsv_open_handle(q, q->node, fd, O_RDONLY, FHAND_DIR, &out);
	}
	if (r == 0)
		fsv_reply(q, &out, sizeof out);
	return r;
}

int fsv_do_fsyncdir(struct fsv_call *q)
{
	const struct fuse_fsync_in *in = q->arg;
	int r;

	if (!q->node)
		return 0;
	if ((r = fsv_hand(q, in->fh, FHAND_DIR)) < 0)
		return r;
	r = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(q->hand->fd) : fsync(q->hand->fd);
	return r < 0 ? -errno : 0;
}

/* --- writing entries -------------------------------------------------------------------------- */

static bool fsv_is_dots(const struct fsv_entry *e)
{
	return e->name[0] == '.' && (e->len == 1 || (e->len == 2 && e->name[1] == '.'));
}

/* What the guest would learn by a LOOKUP. An entry that is gone again, or cannot be had, is told without:
 * node id 0 says so. */
static void fsv_plus(struct fsv_call *q, const struct fsv_entry *e, struct fuse_entry_out *out)
{
	int r = -ENOENT;

	if (!fsv_is_dots(e))
		r = q->node ? fsv_enter_name(q, q->node, e->name, out, false) :
			      fsv_enter_share(q, e->name, out);
	if (r < 0)
		*out = (struct fuse_entry_out){ 0 };
}

/* Append one entry; false when it does not fit. Nothing is looked up that is not told. */
static bool fsv_put_entry(struct fsv_call *q, const struct fsv_entry *e, uint32_t size, bool plus)
{
	static const uint8_t zeros[8];
	struct fuse_dirent d = { .ino = e->ino, .off = e->next, .namelen = (uint32_t)e->len,
				 .type = e->type };
	struct fuse_entry_out entry;
	size_t head = (plus ? sizeof entry : 0) + FUSE_NAME_OFFSET;
	size_t bytes = FUSE_REC_ALIGN(head + e->len);

	if (bytes > size - q->out_len)
		return false;
	if (plus) {
		fsv_plus(q, e, &entry);
		if (entry.nodeid)
			d.ino = entry.attr.ino; /* a mount's, where one is */
		fsv_reply(q, &entry, sizeof entry);
	}
	fsv_reply(q, &d, FUSE_NAME_OFFSET);
	fsv_reply(q, e->name, e->len);
	fsv_reply(q, zeros, bytes - head - e->len);
	return true;
}

/* --- the root --------------------------------------------------------------------------------- */

/* The entry at `offset` of the root: ".", "..", then the shares by slot. False: there is none at or behind
 * it. */
static bool fsv_root_entry(struct fsv *s, uint64_t offset, struct fsv_entry *e, char name[NAME_MAX + 1])
{
	bool found = false;

	if (offset < 2) {
		*e = (struct fsv_entry){ FUSE_ROOT_ID, offset + 1, S_IFDIR >> 12, "..", offset + 1 };
		return true;
	}
	pthread_mutex_lock(&s->lock);
	for (; offset - 2 < FNODE_SHARES && !found; offset++) {
		const struct fsv_share *sh = &s->share[offset - 2];
		if (!sh->id)
			continue;
		memcpy(name, sh->name, sizeof sh->name);
		*e = (struct fsv_entry){ offset, offset + 1, 0, name, strlen(name) };
		found = true;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

static int fsv_read_root(struct fsv_call *q, const struct fuse_read_in *in, uint32_t size, bool plus)
{
	uint64_t offset = in->offset;
	char name[NAME_MAX + 1];
	struct fsv_entry e;
	int r = fsv_hand(q, in->fh, FHAND_ROOT);

	while (r == 0 && fsv_root_entry(q->s, offset, &e, name)) {
		if (!fsv_put_entry(q, &e, size, plus))
			return q->out_len ? 0 : -EINVAL;
		offset = e.next;
	}
	return r;
}

/* --- a host's directory ----------------------------------------------------------------------- */

/* Go to `offset`, if we are not there. To begin anew is always to look anew (rewinddir(3)). */
static int fsv_seek_dir(const struct fsv_call *q, struct fhand_dir *dir, uint64_t offset)
{
	if (offset == dir->next && offset != 0)
		return 0;
	dir->at = dir->end = 0;
	if (lseek(q->hand->fd, (off_t)offset, SEEK_SET) < 0)
		return -errno;
	dir->next = offset;
	return 0;
}

/* Have entries; 0: there are no more. */
static int fsv_fill_dir(const struct fsv_call *q, struct fhand_dir *dir)
{
	long n;

	if (dir->at < dir->end)
		return 1;
	n = syscall(SYS_getdents64, q->hand->fd, dir->entries, sizeof dir->entries);
	if (n < 0)
		return -errno;
	dir->at = 0;
	dir->end = (uint32_t)n;
	return n > 0;
}

/* Append what is kept as far as it fits; false when something did not. */
static bool fsv_put_entries(struct fsv_call *q, struct fhand_dir *dir, uint32_t size, bool plus)
{
	while (dir->at < dir->end) {
		const struct fsv_dirent *d = (const void *)(dir->entries + dir->at);
		struct fsv_entry e = { fnode_show_ino(q->node, d->ino), (uint64_t)d->off, d->type, d->name,
				       strlen(d->name) };
		if (!fsv_put_entry(q, &e, size, plus))
			return false;
		dir->at += d->reclen;
		dir->next = e.next;
	}
	return true;
}

static int fsv_read_on(struct fsv_call *q, struct fhand_dir *dir, uint32_t size, bool plus)
{
	int r;

	while ((r = fsv_fill_dir(q, dir)) > 0 && fsv_put_entries(q, dir, size, plus))
		;
	if (q->out_len)
		return 0;
	/* Nothing at all means the end, so an answer too small for the first entry must not look like it. */
	return r > 0 ? -EINVAL : r;
}

static int fsv_read_host_dir(struct fsv_call *q, const struct fuse_read_in *in, uint32_t size, bool plus)
{
	int r = fsv_hand(q, in->fh, FHAND_DIR);

	if (r < 0)
		return r;
	pthread_mutex_lock(&q->hand->dir->lock);
	r = fsv_seek_dir(q, q->hand->dir, in->offset);
	if (r == 0)
		r = fsv_read_on(q, q->hand->dir, size, plus);
	pthread_mutex_unlock(&q->hand->dir->lock);
	return r;
}

static int fsv_read_dir(struct fsv_call *q, bool plus)
{
	const struct fuse_read_in *in = q->arg;
	uint32_t size = MIN(in->size, q->room);

	return q->node ? fsv_read_host_dir(q, in, size, plus) : fsv_read_root(q, in, size, plus);
}

int fsv_do_readdir(struct fsv_call *q)
{
	return fsv_read_dir(q, false);
}

int fsv_do_readdirplus(struct fsv_call *q)
{
	return fsv_read_dir(q, true);
}
