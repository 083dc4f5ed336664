#include "vmm/fuse/server.h"

#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"

#include "vmm/fuse/call.h"

/* The protocol spoken: replies say this, and a guest below FSV_MINOR_MIN is refused. */
#define FSV_MINOR     38u
#define FSV_MINOR_MIN 31u

/* What we ask for of what the guest offers. Not: locks (the guest's kernel does them), EXPORT_SUPPORT
 * ("..": never), POSIX_ACL, WRITEBACK_CACHE (two sides that both know the size), SPLICE (means nothing
 * here), NO_OPEN_SUPPORT, DAX. A symbolic link never changes, so CACHE_SYMLINKS is right for all shares. */
#define FSV_FLAGS                                                                                  \
	((uint32_t)(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | \
		    FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | \
		    FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_HANDLE_KILLPRIV_V2))

/* Requests the guest lets wait in the background (readahead, asynchronous direct I/O). */
#define FSV_MAX_BACKGROUND 64u
#define FSV_MAX_READAHEAD  MIB(1)

/* --- life ------------------------------------------------------------------------------------- */

struct fsv *fsv_new(void)
{
	struct fsv *s = mem_zalloc(sizeof *s);

	fnode_init(&s->nodes);
	fhand_init(&s->hands);
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

void fsv_free(struct fsv *s)
{
	fhand_fini(&s->hands);
	fnode_fini(&s->nodes);
	for (unsigned i = 0; i < FNODE_SHARES; i++)
		if (s->share[i].id)
			close(s->share[i].root_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

struct fsv_call *fsv_call_new(void)
{
	return mem_zalloc(sizeof(struct fsv_call));
}

void fsv_call_free(struct fsv_call *q)
{
	free(q);
}

struct vq_chain *fsv_call_chain(struct fsv_call *q)
{
	return &q->c;
}

/* --- the session ------------------------------------------------------------------------------ */

static void fsv_end_session(struct fsv *s)
{
	fhand_close_share(&s->hands, 0);
	fnode_detach_all(&s->nodes);
}

static void fsv_put_session(struct fsv *s, uint32_t minor, uint32_t flags)
{
	pthread_mutex_lock(&s->lock);
	s->minor = minor;
	s->flags = flags;
	pthread_mutex_unlock(&s->lock);
}

void fsv_get_session(struct fsv *s, uint32_t *minor, uint32_t *flags)
{
	pthread_mutex_lock(&s->lock);
	*minor = s->minor;
	*flags = s->flags;
	pthread_mutex_unlock(&s->lock);
}

bool fsv_session_is_valid(uint32_t minor, uint32_t flags)
{
	return minor == 0 ? flags == 0 : minor == FSV_MINOR && !(flags & ~FSV_FLAGS);
}

int fsv_set_session(struct fsv *s, uint32_t minor, uint32_t flags)
{
	if (!fsv_session_is_valid(minor, flags))
		return -EINVAL;
	fsv_put_session(s, minor, flags);
	return 0;
}

bool fsv_is_idle(struct fsv *s)
{
	return fnode_known(&s->nodes) == 0 && fhand_count(&s->hands) == 0;
}

static int fsv_do_init(struct fsv_call *q)
{
	struct fuse_init_in in = { 0 };
	struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION, .minor = FSV_MINOR };

	memcpy(&in, q->arg, offsetof(struct fuse_init_in, flags2));
	if (in.major < FUSE_KERNEL_VERSION ||
	    (in.major == FUSE_KERNEL_VERSION && in.minor < FSV_MINOR_MIN))
		return -EPROTO;
	fsv_end_session(q->s);
	if (in.major == FUSE_KERNEL_VERSION) { /* else it asks again, with our major number */
		out.flags = in.flags & FSV_FLAGS;
		fsv_put_session(q->s, FSV_MINOR, out.flags);
	}
	out.max_readahead = MIN(in.max_readahead, FSV_MAX_READAHEAD);
	out.max_background = FSV_MAX_BACKGROUND;
	out.congestion_threshold = FSV_MAX_BACKGROUND * 3 / 4;
	out.max_pages = FSV_MAX_PAGES;
	out.max_write = FSV_MAX_BYTES;
	out.time_gran = 1;
	fsv_reply(q, &out, sizeof out);
	return 0;
}

static int fsv_do_destroy(struct fsv_call *q)
{
	fsv_end_session(q->s);
	fsv_put_session(q->s, 0, 0);
	return 0;
}

static int fsv_do_forget(struct fsv_call *q)
{
	const struct fuse_forget_in *in = q->arg;

	fnode_forget(&q->s->nodes, q->h.nodeid, in->nlookup);
	return 0;
}

static int fsv_do_forgets(struct fsv_call *q)
{
	const struct fuse_batch_forget_in *in = q->arg;
	uint32_t n = MIN(in->count, q->rest_len / sizeof(struct fuse_forget_one));

	for (uint32_t i = 0; i < n; i++) {
		struct fuse_forget_one one;
		memcpy(&one, q->rest + i * sizeof one, sizeof one);
		fnode_forget(&q->s->nodes, one.nodeid, one.nlookup);
	}
	return 0;
}

static int fsv_do_nothing(struct fsv_call *q)
{
	(void)q;
	return 0;
}
static int fsv_do_ioctl(struct fsv_call *q)
{
	(void)q;
	return -ENOTTY; /* ENOSYS would reach the program */
}

/* --- what a request means --------------------------------------------------------------------- */

/* How a row's request is treated before its function is called. */
#define FSV_ANY_NODE 1u /* the node id is not looked at, or by the function */
#define FSV_ROOT     2u /* may be about the root directory (q->node NULL) */
#define FSV_CHANGES  4u /* not in a read-only share */
#define FSV_NO_REPLY 8u /* nobody waits for an answer */
#define FSV_EARLY    16u /* also before INIT */
#define FSV_SILENT   (FSV_NO_REPLY | FSV_ANY_NODE)
#define FSV_ALWAYS   (FSV_EARLY | FSV_ANY_NODE)

#define FSV_IN(what)    ((uint32_t)sizeof(struct fuse_##what##_in))
#define FSV_OUT(what)   ((uint32_t)sizeof(struct fuse_##what##_out))
#define FSV_CREATED     (FSV_OUT(entry) + FSV_OUT(open))
#define FSV_INIT_IN     16u /* before 7.36 it ended there */
#define FSV_SETXATTR_IN 8u  /* without SETXATTR_EXT it does */

/* Protocol 7.31. An opcode that is not here is ENOSYS, which the guest remembers. `arg`: bytes of the fixed
 * structure; `names`: strings after it; `out`: what must fit into the answer, or nothing is done. */
static const struct fsv_op {
	uint32_t opcode, arg;
	unsigned names;
	uint32_t out, how;
	int (*serve)(struct fsv_call *q);
} fsv_ops[] = {
	{ FUSE_LOOKUP,          0,                       1, FSV_OUT(entry),  FSV_ROOT,     fsv_do_lookup },
	{ FUSE_FORGET,          FSV_IN(forget),          0, 0,               FSV_SILENT,   fsv_do_forget },
	{ FUSE_GETATTR,         FSV_IN(getattr),         0, FSV_OUT(attr),   FSV_ROOT,     fsv_do_getattr },
	{ FUSE_SETATTR,         FSV_IN(setattr),         0, FSV_OUT(attr),   FSV_CHANGES,  fsv_do_setattr },
	{ FUSE_READLINK,        0,                       0, 1,               0,            fsv_do_readlink },
	{ FUSE_SYMLINK,         0,                       2, FSV_OUT(entry),  FSV_CHANGES,  fsv_do_symlink },
	{ FUSE_MKNOD,           FSV_IN(mknod),           1, FSV_OUT(entry),  FSV_CHANGES,  fsv_do_mknod },
	{ FUSE_MKDIR,           FSV_IN(mkdir),           1, FSV_OUT(entry),  FSV_CHANGES,  fsv_do_mkdir },
	{ FUSE_UNLINK,          0,                       1, 0,               FSV_CHANGES,  fsv_do_unlink },
	{ FUSE_RMDIR,           0,                       1, 0,               FSV_CHANGES,  fsv_do_rmdir },
	{ FUSE_RENAME,          FSV_IN(rename),          2, 0,               FSV_CHANGES,  fsv_do_rename },
	{ FUSE_LINK,            FSV_IN(link),            1, FSV_OUT(entry),  FSV_CHANGES,  fsv_do_link },
	{ FUSE_OPEN,            FSV_IN(open),            0, FSV_OUT(open),   0,            fsv_do_open },
	{ FUSE_READ,            FSV_IN(read),            0, 0,               0,            fsv_do_read },
	{ FUSE_WRITE,           FSV_IN(write),           0, FSV_OUT(write),  FSV_CHANGES,  fsv_do_write },
	{ FUSE_STATFS,          0,                       0, FSV_OUT(statfs), FSV_ROOT,     fsv_do_statfs },
	{ FUSE_RELEASE,         FSV_IN(release),         0, 0,               FSV_ANY_NODE, fsv_do_release },
	{ FUSE_FSYNC,           FSV_IN(fsync),           0, 0,               0,            fsv_do_fsync },
	{ FUSE_SETXATTR,        FSV_SETXATTR_IN,         1, 0,               FSV_CHANGES,  fsv_do_setxattr },
	{ FUSE_GETXATTR,        FSV_IN(getxattr),        1, 0,               FSV_ROOT,     fsv_do_getxattr },
	{ FUSE_LISTXATTR,       FSV_IN(getxattr),        0, 0,               FSV_ROOT,     fsv_do_listxattr },
	{ FUSE_REMOVEXATTR,     0,                       1, 0,               FSV_CHANGES,  fsv_do_removexattr },
	{ FUSE_FLUSH,           FSV_IN(flush),           0, 0,               0,            fsv_do_flush },
	{ FUSE_INIT,            FSV_INIT_IN,             0, FSV_OUT(init),   FSV_ALWAYS,   fsv_do_init },
	{ FUSE_OPENDIR,         FSV_IN(open),            0, FSV_OUT(open),   FSV_ROOT,     fsv_do_opendir },
	{ FUSE_READDIR,         FSV_IN(read),            0, 0,               FSV_ROOT,     fsv_do_readdir },
	{ FUSE_RELEASEDIR,      FSV_IN(release),         0, 0,               FSV_ANY_NODE, fsv_do_release },
	{ FUSE_FSYNCDIR,        FSV_IN(fsync),           0, 0,               FSV_ROOT,     fsv_do_fsyncdir },
	{ FUSE_CREATE,          FSV_IN(create),          1, FSV_CREATED,     FSV_CHANGES,  fsv_do_create },
	{ FUSE_INTERRUPT,       0,                       0, 0,               FSV_SILENT,   fsv_do_nothing },
	{ FUSE_DESTROY,         0,                       0, 0,               FSV_ANY_NODE, fsv_do_destroy },
	{ FUSE_IOCTL,           FSV_IN(ioctl),           0, 0,               FSV_ANY_NODE, fsv_do_ioctl },
	{ FUSE_BATCH_FORGET,    FSV_IN(batch_forget),    0, 0,               FSV_SILENT,   fsv_do_forgets },
	{ FUSE_FALLOCATE,       FSV_IN(fallocate),       0, 0,               FSV_CHANGES,  fsv_do_fallocate },
	{ FUSE_READDIRPLUS,     FSV_IN(read),            0, 0,               FSV_ROOT,     fsv_do_readdirplus },
	{ FUSE_RENAME2,         FSV_IN(rename2),         2, 0,               FSV_CHANGES,  fsv_do_rename2 },
	{ FUSE_LSEEK,           FSV_IN(lseek),           0, FSV_OUT(lseek),  0,            fsv_do_lseek },
	{ FUSE_COPY_FILE_RANGE, FSV_IN(copy_file_range), 0, FSV_OUT(write),  0,            fsv_do_copy },
	{ FUSE_SYNCFS,          FSV_IN(syncfs),          0, 0,               FSV_ROOT,     fsv_do_syncfs },
	{ FUSE_TMPFILE,         FSV_IN(create),          1, FSV_CREATED,     FSV_CHANGES,  fsv_do_tmpfile },
};

static const struct fsv_op *fsv_find_op(uint32_t opcode)
{
	for (unsigned i = 0; i < ARRAY_LEN(fsv_ops); i++)
		if (fsv_ops[i].opcode == opcode)
			return &fsv_ops[i];
	return NULL;
}

/* --- checking a request ----------------------------------------------------------------------- */

/* The next NUL-terminated string of the request. */
static const char *fsv_next_string(struct fsv_call *q)
{
	const char *s = (const char *)q->rest;
	const uint8_t *end = memchr(q->rest, 0, q->rest_len);

	if (!end)
		return NULL;
	q->rest_len -= (uint32_t)(end + 1 - q->rest);
	q->rest = end + 1;
	return s;
}

/* One component that names something in a directory. */
static int fsv_check_name(const char *name)
{
	if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	return strlen(name) > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* Is this string of the request the name of a file? */
static bool fsv_is_file_name(uint32_t opcode, unsigned i)
{
	switch (opcode) {
	case FUSE_SETXATTR:
	case FUSE_GETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_TMPFILE: /* of no meaning */
		return false;
	case FUSE_SYMLINK: /* then the target */
		return i == 0;
	default:
		return true;
	}
}

/* Copy what the function is going to read: all of a request but the data of a WRITE. */
static int fsv_take_request(struct fsv_call *q, const struct fsv_op *op)
{
	uint32_t len = q->h.len - (uint32_t)sizeof q->h;

	if (q->h.opcode == FUSE_WRITE)
		len = MIN(len, op->arg);
	if (len < op->arg || len > FSV_IN_MAX)
		return -EINVAL;
	vq_copy_out(&q->c, sizeof q->h, q->in, len);
	q->arg = q->in;
	q->rest = q->in + op->arg;
	q->rest_len = len - op->arg;
	for (unsigned i = 0; i < op->names; i++) {
		const char *name = fsv_next_string(q);
		int r = !name ? -EINVAL : fsv_is_file_name(q->h.opcode, i) ? fsv_check_name(name) : 0;
		if (r < 0)
			return r;
		*(i ? &q->name2 : &q->name) = name;
	}
	return 0;
}

/* Find the node, and may that be done to it? */
static int fsv_take_node(struct fsv_call *q, const struct fsv_op *op)
{
	uint32_t minor, flags;

	fsv_get_session(q->s, &minor, &flags);
	if (!minor && !(op->how & FSV_EARLY))
		return -EIO;
	if (op->how & FSV_ANY_NODE)
		return 0;
	if (q->h.nodeid == 0)
		return -EINVAL;
	if (q->h.nodeid == FUSE_ROOT_ID)
		return op->how & FSV_ROOT ? 0 : op->how & FSV_CHANGES ? -EROFS : -EINVAL;
	q->node = fnode_get(&q->s->nodes, q->h.nodeid);
	if (!q->node)
		return -ESTALE;
	return (op->how & FSV_CHANGES) && (q->node->flags & FSV_READONLY) ? -EROFS : 0;
}

static int fsv_run(struct fsv_call *q, const struct fsv_op *op)
{
	int r;

	if (q->h.len < sizeof q->h || q->h.len > q->c.out_len)
		return -EINVAL;
	if (!op)
		return -ENOSYS;
	if (op->out > q->room)
		return -EINVAL;
	if ((r = fsv_take_request(q, op)) < 0 || (r = fsv_take_node(q, op)) < 0)
		return r;
	return op->serve(q);
}

/* --- answering -------------------------------------------------------------------------------- */

void fsv_reply(struct fsv_call *q, const void *p, size_t n)
{
	ASSERT(n <= sizeof q->out - q->out_len);
	memcpy(q->out + q->out_len, p, n);
	q->out_len += (uint32_t)n;
}

/* The guest takes any number for an error of its own kernel: only such as programs know. */
static int fsv_errno(int r)
{
	if (r == -EMFILE || r == -ENFILE)
		return -ENOMEM;
	return r < -EHWPOISON ? -EIO : r;
}

static uint32_t fsv_answer(struct fsv_call *q, int r)
{
	struct fuse_out_header h = { .unique = q->h.unique, .error = r < 0 ? fsv_errno(r) : 0 };

	if (r < 0)
		q->out_len = q->bulk = 0;
	if (q->out_len > q->room) { /* a row that promised too little */
		h.error = -EIO;
		q->out_len = 0;
	}
	h.len = (uint32_t)sizeof h + q->out_len + q->bulk;
	vq_copy_in(&q->c, 0, &h, sizeof h);
	vq_copy_in(&q->c, sizeof h, q->out, q->out_len);
	return h.len;
}

static void fsv_put_all(struct fsv_call *q)
{
	fhand_put(&q->s->hands, take_ptr(&q->hand));
	fhand_put(&q->s->hands, take_ptr(&q->other_hand));
	fnode_put(&q->s->nodes, take_ptr(&q->node));
	fnode_put(&q->s->nodes, take_ptr(&q->other));
}

uint32_t fsv_serve(struct fsv *s, struct fsv_call *q)
{
	const struct fsv_op *op;
	bool reply;
	int r;

	q->s = s;
	q->out_len = q->bulk = 0;
	q->name = q->name2 = NULL;
	if (vq_copy_out(&q->c, 0, &q->h, sizeof q->h) != sizeof q->h)
		memset(&q->h, 0, sizeof q->h); /* len 0: refused below */
	op = fsv_find_op(q->h.opcode);
	reply = !op || !(op->how & FSV_NO_REPLY);
	if (reply && q->c.in_len < sizeof(struct fuse_out_header))
		return 0;
	q->room = reply ? MIN(q->c.in_len - (uint32_t)sizeof(struct fuse_out_header), FSV_OUT_MAX) : 0;
	r = fsv_run(q, op);
	fsv_put_all(q);
	return reply ? fsv_answer(q, r) : 0;
}
