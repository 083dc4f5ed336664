/* fuse_rig.h - the guest's side of a FUSE server: requests made of plain memory, no queue between.
 *
 * frig_init() makes a server with a session, and turns this process into what a file thread is (pool.h).
 * frig_share() shows a directory. The frig_*() calls send one request and return 0 or a negative errno;
 * the answer is then in r->body, r->len bytes. Requests are copied to the end of a page with none behind,
 * so that reading too far faults. */
#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "vmm/fuse/call.h"

#define FRIG_BODY KIB(600)

struct frig {
	struct fsv *s;
	struct fsv_call *q;
	uint32_t uid, gid;  /* of the caller */
	uint64_t unique;
	uint32_t room;      /* bytes offered for an answer's body; FRIG_BODY unless a test wants less */
	uint32_t len;       /* of the body that came */
	uint32_t written;   /* what fsv_serve() said */
	uint8_t *body;      /* [FRIG_BODY] behind a header */
	uint8_t *answer;
	char dir[128];      /* shown by frig_share() */
};

/* A file thread, as far as a test can be one. */
static inline int frig_enter(struct err *e)
{
	(void)e;
	if (unshare(CLONE_FS) < 0 || chdir("/proc/self/fd") < 0 ||
	    prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0)
		return -errno;
	umask(0);
	return 0;
}

/* Send the request in `out`, in one piece of guest memory; the answer goes to two. */
static inline int frig_send(struct frig *r, const void *out, size_t n)
{
	struct vq_chain *c = fsv_call_chain(r->q);
	struct fuse_out_header h;
	void *guarded = test_guard(out, n);
	uint32_t cut = MIN(r->room, 100);

	memset(r->answer, 0xee, sizeof h + FRIG_BODY);
	c->nout = 1;
	c->out_len = (uint32_t)n;
	c->iov[0] = (struct iovec){ guarded, n };
	c->nin = 2;
	c->in_len = (uint32_t)sizeof h + r->room;
	c->iov[1] = (struct iovec){ r->answer, sizeof h + cut };
	c->iov[2] = (struct iovec){ r->answer + sizeof h + cut, r->room - cut };
	r->written = fsv_serve(r->s, r->q);
	memcpy(&h, r->answer, sizeof h);
	if (r->written == 0)
		return -ENOMSG;
	CHECK_EQ(h.len, r->written);
	CHECK_EQ(h.unique, r->unique);
	CHECK(h.error <= 0 && h.error > -134);
	r->len = h.len - (uint32_t)sizeof h;
	CHECK(r->len <= r->room);
	for (uint32_t i = r->len; i < MIN(r->len + 64, FRIG_BODY); i++)
		CHECK_EQ(r->body[i], 0xee);
	return h.error;
}

/* A request of three parts behind its header. */
static inline int frig_call3(struct frig *r, uint32_t opcode, uint64_t node, const void *a, size_t na,
			     const void *b, size_t nb, const void *c, size_t nc)
{
	struct fuse_in_header h = { .len = (uint32_t)(sizeof h + na + nb + nc), .opcode = opcode,
				    .unique = ++r->unique, .nodeid = node, .uid = r->uid, .gid = r->gid };
	struct buf out = { 0 };
	int err;

	buf_add(&out, &h, sizeof h);
	buf_add(&out, a, na);
	buf_add(&out, b, nb);
	buf_add(&out, c, nc);
	err = frig_send(r, out.data, out.len);
	buf_fini(&out);
	return err;
}

/* A structure and up to two strings. */
static inline int frig_call(struct frig *r, uint32_t opcode, uint64_t node, const void *a, size_t na,
			    const char *name, const char *name2)
{
	return frig_call3(r, opcode, node, a, na, name ? name : "", name ? strlen(name) + 1 : 0,
			  name2 ? name2 : "", name2 ? strlen(name2) + 1 : 0);
}

#define FRIG_IN(x) &(x), sizeof(x)

/* The answer as a structure. */
#define FRIG_ANSWER(r, type)                           \
	({                                             \
		struct type a_;                        \
		CHECK((r)->len >= sizeof a_);          \
		memcpy(&a_, (r)->body, sizeof a_);     \
		a_;                                    \
	})

static inline int frig_init_session(struct frig *r)
{
	struct fuse_init_in in = { .major = 7, .minor = 37, .max_readahead = 131072,
				   .flags = UINT32_MAX };
	return frig_call(r, FUSE_INIT, 0, FRIG_IN(in), NULL, NULL);
}

static inline void frig_init(struct frig *r)
{
	*r = (struct frig){ .s = fsv_new(), .q = fsv_call_new(), .room = FRIG_BODY };
	r->answer = mem_zalloc(sizeof(struct fuse_out_header) + FRIG_BODY);
	r->body = r->answer + sizeof(struct fuse_out_header);
	snprintf(r->dir, sizeof r->dir, "%s", test_dir());
	if (geteuid() != 0)
		test_skip("needs root");
	CHECK_EQ(frig_enter(NULL), 0);
	CHECK_EQ(frig_init_session(r), 0);
}

static inline void frig_fini(struct frig *r)
{
	fsv_free(r->s);
	fsv_call_free(r->q);
	free(r->answer);
}

/* --- the host's side -------------------------------------------------------------------------- */

/* A path below the shared directory; good until four more were asked for. */
static inline const char *frig_path(const struct frig *r, const char *name)
{
	static char path[4][512];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof path[0], "%s/%s", r->dir, name);
	return p;
}

static inline void frig_write_host(const struct frig *r, const char *name, const char *text)
{
	int fd = open(frig_path(r, name), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static inline struct stat frig_stat_host(const struct frig *r, const char *name)
{
	struct stat st;
	test_note("%s", name);
	CHECK_EQ(lstat(frig_path(r, name), &st), 0);
	test_note("%s", "");
	return st;
}

/* Show `path` (NULL: the test's directory). */
static inline int frig_share_path(struct frig *r, const char *name, const char *path, unsigned flags)
{
	int fd = open(path ? path : r->dir, O_PATH | O_CLOEXEC);
	CHECK(fd >= 0);
	return fsv_share_add(r->s, name, fd, flags, NULL);
}

/* --- requests --------------------------------------------------------------------------------- */

static inline int frig_lookup(struct frig *r, uint64_t dir, const char *name, uint64_t *node)
{
	int err = frig_call(r, FUSE_LOOKUP, dir, "", 0, name, NULL);

	*node = err == 0 ? FRIG_ANSWER(r, fuse_entry_out).nodeid : 0;
	return err;
}

/* A node that must be there. */
static inline uint64_t frig_node(struct frig *r, uint64_t dir, const char *name)
{
	uint64_t node;

	test_note("%s", name);
	CHECK_EQ(frig_lookup(r, dir, name, &node), 0);
	CHECK(node != 0);
	test_note("%s", "");
	return node;
}

/* Share the test's directory as "s" and return its root's node. */
static inline uint64_t frig_share(struct frig *r, unsigned flags)
{
	CHECK_EQ(frig_share_path(r, "s", NULL, flags), 0);
	return frig_node(r, FUSE_ROOT_ID, "s");
}

static inline int frig_forget(struct frig *r, uint64_t node, uint64_t n)
{
	struct fuse_forget_in in = { .nlookup = n };
	return frig_call(r, FUSE_FORGET, node, FRIG_IN(in), NULL, NULL);
}

static inline int frig_getattr(struct frig *r, uint64_t node, struct fuse_attr *attr)
{
	struct fuse_getattr_in in = { 0 };
	int err = frig_call(r, FUSE_GETATTR, node, FRIG_IN(in), NULL, NULL);

	if (err == 0)
		*attr = FRIG_ANSWER(r, fuse_attr_out).attr;
	return err;
}

static inline int frig_open(struct frig *r, uint64_t node, uint32_t flags, uint64_t *fh)
{
	struct fuse_open_in in = { .flags = flags };
	int err = frig_call(r, FUSE_OPEN, node, FRIG_IN(in), NULL, NULL);

	*fh = err == 0 ? FRIG_ANSWER(r, fuse_open_out).fh : 0;
	return err;
}

static inline int frig_release(struct frig *r, uint64_t node, uint64_t fh)
{
	struct fuse_release_in in = { .fh = fh };
	return frig_call(r, FUSE_RELEASE, node, FRIG_IN(in), NULL, NULL);
}

static inline int frig_create(struct frig *r, uint64_t dir, const char *name, uint32_t flags, uint32_t mode,
			      uint64_t *node, uint64_t *fh)
{
	struct fuse_create_in in = { .flags = flags, .mode = S_IFREG | mode };
	int err = frig_call(r, FUSE_CREATE, dir, FRIG_IN(in), name, NULL);

	*node = *fh = 0;
	if (err == 0) {
		struct fuse_open_out open;
		*node = FRIG_ANSWER(r, fuse_entry_out).nodeid;
		CHECK_EQ(r->len, sizeof(struct fuse_entry_out) + sizeof open);
		memcpy(&open, r->body + sizeof(struct fuse_entry_out), sizeof open);
		*fh = open.fh;
	}
	return err;
}

static inline int frig_read(struct frig *r, uint64_t node, uint64_t fh, uint64_t at, uint32_t size)
{
	struct fuse_read_in in = { .fh = fh, .offset = at, .size = size };
	return frig_call(r, FUSE_READ, node, FRIG_IN(in), NULL, NULL);
}

static inline int frig_write(struct frig *r, uint64_t node, uint64_t fh, uint64_t at, const char *text,
			     uint32_t flags, uint32_t write_flags)
{
	struct fuse_write_in in = { .fh = fh, .offset = at, .size = (uint32_t)strlen(text), .flags = flags,
				    .write_flags = write_flags };
	return frig_call3(r, FUSE_WRITE, node, FRIG_IN(in), text, strlen(text), "", 0);
}

static inline int frig_setattr(struct frig *r, uint64_t node, struct fuse_setattr_in in)
{
	return frig_call(r, FUSE_SETATTR, node, FRIG_IN(in), NULL, NULL);
}

static inline int frig_rename2(struct frig *r, uint64_t dir, const char *name, uint64_t newdir,
			       const char *newname, uint32_t flags)
{
	struct fuse_rename2_in in = { .newdir = newdir, .flags = flags };
	return frig_call(r, FUSE_RENAME2, dir, FRIG_IN(in), name, newname);
}

static inline int frig_opendir(struct frig *r, uint64_t node, uint64_t *fh)
{
	struct fuse_open_in in = { .flags = O_RDONLY | O_DIRECTORY };
	int err = frig_call(r, FUSE_OPENDIR, node, FRIG_IN(in), NULL, NULL);

	*fh = err == 0 ? FRIG_ANSWER(r, fuse_open_out).fh : 0;
	return err;
}
