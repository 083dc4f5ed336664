/* handle.h - what the guest has open: file handles (fh) and the descriptors behind them.
 *
 * A handle belongs to the node it was opened for; another node's request does not find it. Its number is
 * an index and a generation and is never used twice. A request holds a reference, so a descriptor is
 * closed when the guest has released the handle and the last request with it is done.
 *
 * Any thread. One mutex; no system call is made under it. All memory is reserved by fhand_init(), but for
 * FHAND_DIR_BYTES and a little of each directory that was read. */
#pragma once

#include <pthread.h>

#include "amalgam/base/base.h"

#define FHAND_MAX 65536u /* open files and directories of a guest */
#define FHAND_DIR_BYTES 2048u /* more than an entry with the longest name takes */

enum fhand_kind { FHAND_FILE, FHAND_DIR, FHAND_ROOT /* the root directory: no descriptor */ };

/* How far a directory was read. The host's list goes on behind what is kept here, which it gave and the
 * guest did not get yet: so who reads on never seeks. On tmpfs an offset counts the entries before it, and
 * to seek while they are removed skips as many. */
struct fhand_dir {
	pthread_mutex_t lock; /* everything below, and the position of the descriptor */
	uint64_t next;        /* the offset behind the last entry told */
	uint32_t at, end;     /* entries[at..end) is kept */
	uint8_t entries[FHAND_DIR_BYTES] __attribute__((aligned(8)));
};

struct fhand {
	uint64_t id;     /* the guest's fh; 0: free, or released */
	uint64_t nodeid;
	uint32_t share;
	enum fhand_kind kind;
	bool writable;
	int fd;
	struct fhand_dir *dir; /* FHAND_DIR's; freed with the descriptor */
	/* Under the lock: */
	uint32_t refs, next; /* next: of the free, index + 1 */
	uint64_t generation;
};

struct fhand_table {
	pthread_mutex_t lock;
	struct fhand *hand; /* [FHAND_MAX] */
	uint32_t touched, free, open;
};

INTERNAL void fhand_init(struct fhand_table *t);
INTERNAL void fhand_fini(struct fhand_table *t);

/* A handle like `as` (fd, nodeid, share, kind, writable), whose fd is taken. -ENFILE: too many; fd is
 * closed then. A directory's begins at offset 0. */
INTERNAL MUST_USE int fhand_open(struct fhand_table *t, const struct fhand *as, uint64_t *fh);
/* A reference, for fhand_put(). NULL: not open, not of this node, or not of this kind. */
INTERNAL MUST_USE struct fhand *fhand_get(struct fhand_table *t, uint64_t fh, uint64_t nodeid,
					  enum fhand_kind kind);
INTERNAL void fhand_put(struct fhand_table *t, struct fhand *h); /* NULL is fine */
/* The guest's release. -EBADF as above. */
INTERNAL int fhand_close(struct fhand_table *t, uint64_t fh, uint64_t nodeid);
/* Release those of a share, or (0) all. */
INTERNAL void fhand_close_share(struct fhand_table *t, uint32_t share);
INTERNAL uint32_t fhand_count(struct fhand_table *t);
