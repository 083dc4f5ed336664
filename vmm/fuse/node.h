/* node.h - what the guest knows: node ids and the host files behind them.
 *
 * A node is one file on one mount of one share, whatever its names; the key is (share, mount, device,
 * inode number). It holds an O_PATH descriptor, so that the inode cannot go and its number not come
 * back as long as the guest may use the id. An id is never used twice: index and generation.
 *
 * A node lives while the guest has looked it up more often than it forgot it, or a request uses it. When
 * its share goes or the session ends, it is detached: its id means nothing any more, and its descriptor
 * goes with the last request. What a holder of a reference reads never changes.
 *
 * Any thread. One mutex; no system call is made under it. All memory is reserved by fnode_init(). */
#pragma once

#include <pthread.h>

#include "amalgam/base/base.h"

#define FNODE_MAX  500000u /* nodes a guest can make us hold, and descriptors */
#define FNODE_DEVS 64u     /* host file systems told apart by inode numbers, see fnode_show_ino() */
#define FNODE_SHARES 256u

struct fnode_key {
	uint32_t share; /* server.h's; its low 8 bits are the slot */
	uint64_t mount, dev, ino;
};

struct fnode {
	struct fnode_key key;
	uint64_t id;
	uint32_t type;    /* S_IFMT of its mode */
	uint32_t flags;   /* of its share, VFS_SHARE_* */
	uint64_t ino_mix; /* see fnode_show_ino() */
	int fd;
	/* Under the lock: */
	bool known;       /* the id means this; else free or detached */
	uint32_t refs;    /* requests that use it */
	uint32_t next;    /* of its bucket, or of the free; index + 1 */
	uint64_t generation, lookups;
};

struct fnode_table {
	pthread_mutex_t lock;
	struct fnode *node;   /* [FNODE_MAX]; untouched memory costs nothing */
	uint32_t *bucket;     /* heads of chains, index + 1 */
	uint32_t touched;     /* nodes below this were used at some time */
	uint32_t free;        /* index + 1 */
	uint32_t known;       /* nodes that are */
	uint32_t share[FNODE_SHARES]; /* living shares by slot; 0 = none */
	uint64_t dev[FNODE_DEVS];
	unsigned ndevs;
};

INTERNAL void fnode_init(struct fnode_table *t);
INTERNAL void fnode_fini(struct fnode_table *t);

/* A reference to a node, for fnode_put(). NULL: no such id. */
INTERNAL MUST_USE struct fnode *fnode_get(struct fnode_table *t, uint64_t id);
INTERNAL void fnode_put(struct fnode_table *t, struct fnode *n); /* NULL is fine */

/* The guest looks up the file behind fd, which is taken. *out: a reference, with one lookup more. -ESTALE:
 * the share is gone, -ENOMEM: too many nodes. */
INTERNAL MUST_USE int fnode_look_up(struct fnode_table *t, const struct fnode_key *key, uint32_t type,
				    uint32_t flags, int fd, struct fnode **out);
/* The guest takes back n lookups. Unknown ids and too many are ignored. */
INTERNAL void fnode_forget(struct fnode_table *t, uint64_t id, uint64_t n);

/* From now on nodes of this share can be made. */
INTERNAL void fnode_open_share(struct fnode_table *t, uint32_t share);
/* None any more, and those there are become unknown. */
INTERNAL void fnode_close_share(struct fnode_table *t, uint32_t share);
/* All nodes become unknown; shares stay. */
INTERNAL void fnode_detach_all(struct fnode_table *t);
INTERNAL uint32_t fnode_known(struct fnode_table *t);
/* Has a node one holds a reference to been detached? */
INTERNAL bool fnode_is_stale(struct fnode_table *t, const struct fnode *n);

/* The inode number to show for inode `ino` on the file system of n. All shares are one file system to the
 * guest, and programs take two files of one number for the same one ("file system loop detected"): so
 * every host file system but the first is given numbers of its own. */
INTERNAL uint64_t fnode_show_ino(const struct fnode *n, uint64_t ino);
