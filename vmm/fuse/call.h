/* call.h - a request while it is served; between the .c files of this folder alone.
 *
 * server.c copies a request once, checks it against the row of its opcode and calls the row's function,
 * which is in share.c (the root directory), lookup.c, attr.c, name.c, file.c, dir.c or xattr.c. It finds
 * what the row promised: a fixed structure of the right size, names that are one component, a node that is
 * known, a share that may be changed. It returns 0 or a negative errno and has put its answer into `out`
 * before; server.c writes the header.
 * Source: linux/fuse.h. */
#pragma once

#include <linux/fuse.h>

#include "vmm/fuse/server.h"

/* The longest value or list of extended attributes (linux/limits.h) and the longest directory reply. */
#define FSV_DATA_MAX KIB(64)
#define FSV_IN_MAX   (FSV_DATA_MAX + 1024)
#define FSV_OUT_MAX  FSV_DATA_MAX

struct fsv_call {
	struct vq_chain c;
	struct fsv *s;
	struct fuse_in_header h;
	struct fnode *node;       /* h.nodeid's; NULL: the root */
	struct fnode *other;      /* a second one, if the function took it; put afterwards */
	struct fhand *hand, *other_hand; /* the same */
	const void *arg;          /* in `in`; the row's structure */
	const char *name, *name2; /* in `in` */
	const uint8_t *rest;      /* in `in`: what follows all this */
	uint32_t rest_len;
	uint32_t room;            /* bytes for the answer, its header excluded; <= FSV_OUT_MAX */
	uint32_t out_len;         /* of `out` */
	uint32_t bulk;            /* bytes READ put into the guest's buffers, instead of `out` */
	struct iovec iov[VQ_MAX_IOV];
	uint8_t in[FSV_IN_MAX] __attribute__((aligned(8)));
	uint8_t out[FSV_OUT_MAX] __attribute__((aligned(8)));
	uint8_t scratch[FSV_DATA_MAX] __attribute__((aligned(8)));
};

/* What statx(2) says of a file. */
struct fsv_stat {
	uint64_t mount, dev, ino;
	struct fuse_attr attr; /* attr.ino: the host's */
};

/* --- helpers ---------------------------------------------------------------------------------- */

/* statx(2) of a descriptor, also of an O_PATH one. */
INTERNAL MUST_USE int fsv_stat_fd(int fd, struct fsv_stat *st);

/* The path of a descriptor, relative to the working directory of a file thread. */
struct fsv_path {
	char s[12];
};
INTERNAL struct fsv_path fsv_path_of(int fd);

/* Open what a node is, once more. -ENXIO, -ELOOP, -EISDIR, -ENOTDIR: it is nothing that may be opened so.
 * O_DIRECTORY in flags: a directory; else a regular file. */
INTERNAL MUST_USE int fsv_reopen(const struct fnode *n, int flags);

/* Answer with the node behind fd, taken: found below `parent`, whose share it is in. The call keeps the
 * reference in q->other when `keep`. */
INTERNAL MUST_USE int fsv_enter(struct fsv_call *q, const struct fnode *parent, int fd,
				struct fuse_entry_out *out, bool keep);
/* The same for what `name` in the directory `parent` is now. */
INTERNAL MUST_USE int fsv_enter_name(struct fsv_call *q, const struct fnode *parent, const char *name,
				     struct fuse_entry_out *out, bool keep);
/* The same for a share's root. -ENOENT. */
INTERNAL MUST_USE int fsv_enter_share(struct fsv_call *q, const char *name, struct fuse_entry_out *out);

INTERNAL void fsv_fill_attr(const struct fnode *n, const struct fsv_stat *st, struct fuse_attr *attr);
/* Seconds for which the attributes of n may be cached. */
INTERNAL uint64_t fsv_attr_seconds(const struct fnode *n);

/* A handle of the request's node, into q->hand. -EBADF. */
INTERNAL MUST_USE int fsv_hand(struct fsv_call *q, uint64_t fh, enum fhand_kind kind);
/* Remember an open descriptor, taken, as a handle of n; fill out. */
INTERNAL MUST_USE int fsv_open_handle(struct fsv_call *q, const struct fnode *n, int fd, uint32_t open_flags,
				      enum fhand_kind kind, struct fuse_open_out *out);

/* New files belong to the caller: begin before the system call that makes one, end after it. Between the
 * two nothing else is done. */
INTERNAL MUST_USE int fsv_begin_as_caller(const struct fsv_call *q);
INTERNAL void fsv_end_as_caller(const struct fsv_call *q);

/* Without CAP_FSETID the host's kernel drops set-user-ID and set-group-ID where a user's write would. */
INTERNAL void fsv_set_fsetid(bool on);

/* Put n bytes into the answer; they must fit into FSV_OUT_MAX. */
INTERNAL void fsv_reply(struct fsv_call *q, const void *p, size_t n);

/* A device number as the protocol has it. */
INTERNAL uint32_t fsv_rdev(uint32_t major, uint32_t minor);

/* --- the operations, by file ------------------------------------------------------------------ */

INTERNAL int fsv_do_syncfs(struct fsv_call *q);

INTERNAL int fsv_do_lookup(struct fsv_call *q);
INTERNAL int fsv_do_readlink(struct fsv_call *q);
INTERNAL int fsv_do_symlink(struct fsv_call *q);
INTERNAL int fsv_do_mknod(struct fsv_call *q);
INTERNAL int fsv_do_mkdir(struct fsv_call *q);
INTERNAL int fsv_do_unlink(struct fsv_call *q);
INTERNAL int fsv_do_rmdir(struct fsv_call *q);
INTERNAL int fsv_do_rename(struct fsv_call *q);
INTERNAL int fsv_do_rename2(struct fsv_call *q);
INTERNAL int fsv_do_link(struct fsv_call *q);

INTERNAL int fsv_do_getattr(struct fsv_call *q);
INTERNAL int fsv_do_setattr(struct fsv_call *q);
INTERNAL int fsv_do_statfs(struct fsv_call *q);

INTERNAL int fsv_do_open(struct fsv_call *q);
INTERNAL int fsv_do_create(struct fsv_call *q);
INTERNAL int fsv_do_tmpfile(struct fsv_call *q);
INTERNAL int fsv_do_read(struct fsv_call *q);
INTERNAL int fsv_do_write(struct fsv_call *q);
INTERNAL int fsv_do_flush(struct fsv_call *q);
INTERNAL int fsv_do_release(struct fsv_call *q);
INTERNAL int fsv_do_fsync(struct fsv_call *q);
INTERNAL int fsv_do_fallocate(struct fsv_call *q);
INTERNAL int fsv_do_lseek(struct fsv_call *q);
INTERNAL int fsv_do_copy(struct fsv_call *q);

INTERNAL int fsv_do_opendir(struct fsv_call *q);
INTERNAL int fsv_do_readdir(struct fsv_call *q);
INTERNAL int fsv_do_readdirplus(struct fsv_call *q);
INTERNAL int fsv_do_fsyncdir(struct fsv_call *q);

INTERNAL int fsv_do_setxattr(struct fsv_call *q);
INTERNAL int fsv_do_getxattr(struct fsv_call *q);
INTERNAL int fsv_do_listxattr(struct fsv_call *q);
INTERNAL int fsv_do_removexattr(struct fsv_call *q);
