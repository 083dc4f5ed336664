/* Extended attributes, reached by number (pool.h): so those of symbolic links and of devices too, without
 * opening anything. */
#include "vmm/fuse/call.h"

#include <sys/xattr.h>

/* Which names a guest may use. security.capability is what a program file may do, user.* belongs to
 * programs. The rest belongs to the host: trusted.*, labels and signatures (security.*), access lists, which
 * the guest's kernel would not apply, and the marks of a host's overlay. */
static bool fsv_xattr_is_guests(const char *name)
{
	if (!strncmp(name, "user.overlay.", 13))
		return false;
	return !strncmp(name, "user.", 5) || !strcmp(name, "security.capability");
}

static int fsv_check_xattr(const struct fsv_call *q)
{
	return fsv_xattr_is_guests(q->name) ? 0 : -EOPNOTSUPP;
}

int fsv_do_setxattr(struct fsv_call *q)
{
	const struct fuse_setxattr_in *in = q->arg; /* the first two fields of it */
	int r = fsv_check_xattr(q);

	if (r < 0)
		return r;
	if (in->size > q->rest_len)
		return -EINVAL;
	if (setxattr(fsv_path_of(q->node->fd).s, q->name, q->rest, in->size, (int)in->flags) < 0)
		return -errno;
	return 0;
}

int fsv_do_removexattr(struct fsv_call *q)
{
	int r = fsv_check_xattr(q);

	if (r == 0 && removexattr(fsv_path_of(q->node->fd).s, q->name) < 0)
		r = -errno;
	return r;
}

/* `n` bytes in scratch: they, or only their number when the guest wants that first. */
static int fsv_reply_xattr(struct fsv_call *q, size_t n)
{
	const struct fuse_getxattr_in *in = q->arg;
	struct fuse_getxattr_out out = { .size = (uint32_t)n };

	if (in->size && n > MIN(in->size, q->room))
		return -ERANGE;
	if (in->size)
		fsv_reply(q, q->scratch, n);
	else
		fsv_reply(q, &out, sizeof out);
	return 0;
}

int fsv_do_getxattr(struct fsv_call *q)
{
	const struct fuse_getxattr_in *in = q->arg;
	ssize_t n;
	int r = fsv_check_xattr(q);

	if (r < 0)
		return r;
	if (!q->node)
		return -ENODATA;
	/* The host's kernel clears as much as we ask for: ask for no more than the guest. */
	n = getxattr(fsv_path_of(q->node->fd).s, q->name, q->scratch,
		     in->size ? MIN(in->size, sizeof q->scratch) : 0);
	return n < 0 ? -errno : fsv_reply_xattr(q, (size_t)n);
}

int fsv_do_listxattr(struct fsv_call *q)
{
	char *list = (char *)q->scratch;
	ssize_t n = q->node ? listxattr(fsv_path_of(q->node->fd).s, list, sizeof q->scratch) : 0;
	size_t kept = 0;

	if (n < 0)
		return -errno;
	for (size_t at = 0, len; at < (size_t)n; at += len) {
		len = strnlen(list + at, (size_t)n - at) + 1;
		if (!fsv_xattr_is_guests(list + at))
			continue;
		memmove(list + kept, list + at, len);
		kept += len;
	}
	return fsv_reply_xattr(q, kept);
}
