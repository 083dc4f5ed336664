/* From names to nodes. A name is one component, looked up relative to its directory's descriptor. */
#include "vmm/fuse/call.h"

#include <fcntl.h>
#include <sys/stat.h>

/* How long the guest may believe us, in seconds. Names of a share that others change are asked for each
 * time: with the answer come the file's size and times, so who opens a file sees what was written before. */
#define FSV_PRIVATE_S 86400u
#define FSV_SHARED_S  1u

uint64_t fsv_attr_seconds(const struct fnode *n)
{
	return n->flags & FSV_PRIVATE ? FSV_PRIVATE_S : FSV_SHARED_S;
}

void fsv_fill_attr(const struct fnode *n, const struct fsv_stat *st, struct fuse_attr *attr)
{
	*attr = st->attr;
	attr->ino = fnode_show_ino(n, st->ino);
}

int fsv_enter(struct fsv_call *q, const struct fnode *parent, int fd, struct fuse_entry_out *out, bool keep)
{
	struct fsv_stat st;
	struct fnode_key key;
	struct fnode *n = NULL;
	int r = fsv_stat_fd(fd, &st);

	*out = (struct fuse_entry_out){ 0 };
	if (r < 0) {
		close(fd);
		return r;
	}
	key = (struct fnode_key){ parent->key.share, st.mount, st.dev, st.ino };
	r = fnode_look_up(&q->s->nodes, &key, st.attr.mode & S_IFMT, parent->flags, fd, &n);
	if (r < 0)
		return r;
	out->nodeid = n->id;
	out->entry_valid = n->flags & FSV_PRIVATE ? FSV_PRIVATE_S : 0;
	out->attr_valid = fsv_attr_seconds(n);
	fsv_fill_attr(n, &st, &out->attr);
	if (keep)
		q->other = n;
	else
		fnode_put(&q->s->nodes, n);
	return 0;
}

int fsv_enter_name(struct fsv_call *q, const struct fnode *parent, const char *name,
		   struct fuse_entry_out *out, bool keep)
{
	int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	*out = (struct fuse_entry_out){ 0 };
	return fd < 0 ? -errno : fsv_enter(q, parent, fd, out, keep);
}

int fsv_do_lookup(struct fsv_call *q)
{
	struct fuse_entry_out out = { 0 };
	int r = q->node ? fsv_enter_name(q, q->node, q->name, &out, false) :
			  fsv_enter_share(q, q->name, &out);

	/* "There is no such file", to be remembered: node id 0. */
	if (r == -ENOENT && q->node && (q->node->flags & FSV_PRIVATE)) {
		out.entry_valid = FSV_PRIVATE_S;
		r = 0;
	}
	fsv_reply(q, &out, sizeof out);
	return r;
}

int fsv_do_readlink(struct fsv_call *q)
{
	ssize_t n;

	if (q->node->type != S_IFLNK)
		return -EINVAL;
	n = readlinkat(q->node->fd, "", (char *)q->scratch, MIN(q->room, PATH_MAX));
	if (n < 0)
		return -errno;
	fsv_reply(q, q->scratch, (size_t)n);
	return 0;
}
