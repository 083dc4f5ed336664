/* server.h - a FUSE server over directories of the host (linux/fuse.h, protocol 7.31 and later).
 *
 * It knows no queue and no machine: a request is a chain of buffers, fsv_serve() answers it and waits for
 * the host as long as that takes. Any number of threads may call it at once, each with an fsv_call of its
 * own. They must be file threads (pool.h) once there is a share.
 *
 * What it relies on, and what not:
 *
 *   the guest's kernel   checks permissions (it is the mount's default), caches, and does locks, which are
 *                        local to the guest. A hostile one gets at most what is below its shares, with any
 *                        owner and mode: so a share that holds more than its guest may see is a mistake of
 *                        whoever made it
 *   names                one component each, never "." or "..", never with a slash: no walk of ours
 *                        leaves a share upwards, whatever is renamed meanwhile. Symbolic links are returned,
 *                        never followed. Mounts below a share are entered
 *   opening              only regular files for data and directories for their list. A device, FIFO or
 *                        socket can be made, shown and removed; it is never opened
 *   new files            belong to the caller whom the request names (setfsuid(2)); the rest is done as root
 *   caching              a private share may be cached for a day, names that do not exist included; of the
 *                        others names for no time, attributes of what is open for a second, data until the
 *                        next open (close-to-open) or a change of size or time that is noticed. The root
 *                        directory for no time
 *   set-user-ID          is dropped by writes, as the guest asks (HANDLE_KILLPRIV_V2)
 *   extended attributes  user.* and security.capability; no others are shown or changed, and not user.overlay.*
 *   sync(2)              of the guest is syncfs(2) of each host file system with a share it may write to.
 *                        That writes back what others have written there, too, as sync(2) of a process of
 *                        the host does, and needs no privilege there: who asks for it again and again waits
 *                        for it each time, and costs others no more than with fsync(2) again and again
 *   not there            locks, ioctl, poll, bmap, DAX
 *
 * Errors of the host go to the guest as they are, but for full descriptor tables: ENOMEM. */
#pragma once

#include "vmm/fuse/handle.h"
#include "vmm/fuse/node.h"
#include "vmm/virtio/queue.h"

/* Pages of one READ or WRITE: with its headers it fits into VQ_MAX_IOV segments. */
#define FSV_MAX_PAGES 120u
#define FSV_MAX_BYTES (FSV_MAX_PAGES * 4096u)

/* Flags of a share, same numbers as VFS_SHARE_*. */
#define FSV_READONLY 1u
#define FSV_PRIVATE  2u

struct fsv_share {
	uint32_t id; /* 0 = none; low 8 bits: the slot */
	uint32_t flags;
	int root_fd;
	char name[NAME_MAX + 1];
};

struct fsv {
	struct fnode_table nodes;
	struct fhand_table hands;
	pthread_mutex_t lock; /* everything below; no system call but dup is made under it */
	struct fsv_share share[FNODE_SHARES];
	uint32_t shares_made;
	/* The session: what INIT agreed upon. minor 0: there is none. */
	uint32_t minor, flags;
};

/* Everything one request needs besides the server; see call.h. */
struct fsv_call;

INTERNAL MUST_USE struct fsv *fsv_new(void);
INTERNAL void fsv_free(struct fsv *s); /* no request is in flight */

INTERNAL MUST_USE struct fsv_call *fsv_call_new(void);
INTERNAL void fsv_call_free(struct fsv_call *q);
/* Where the caller puts the request. */
INTERNAL struct vq_chain *fsv_call_chain(struct fsv_call *q);

/* Serve the request in q's chain; returns the bytes written to its device-writable part. 0: there is no
 * answer, because the request wants none or there is no room for one. */
INTERNAL MUST_USE uint32_t fsv_serve(struct fsv *s, struct fsv_call *q);

/* vfs_share_add() and vfs_share_remove() of virtio/fs.h. Any thread. */
INTERNAL MUST_USE int fsv_share_add(struct fsv *s, const char *name, int root_fd, unsigned flags,
				    struct err *e);
INTERNAL int fsv_share_remove(struct fsv *s, const char *name, struct err *e);

/* Does the guest know nothing but the root, and has nothing open? */
INTERNAL bool fsv_is_idle(struct fsv *s);
/* The session, as two numbers. Hostile when they come back: -EINVAL. */
INTERNAL void fsv_get_session(struct fsv *s, uint32_t *minor, uint32_t *flags);
INTERNAL bool fsv_session_is_valid(uint32_t minor, uint32_t flags);
INTERNAL MUST_USE int fsv_set_session(struct fsv *s, uint32_t minor, uint32_t flags);
