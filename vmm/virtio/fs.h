/* fs.h - shared directories: virtio 1.2 section 5.11, a FUSE server (vmm/fuse) behind two queues.
 *
 * One device for a machine, tag "spore". Its root directory holds "shares": names, each with one
 * directory or regular file of the host behind it, that come and go while the guest runs. A guest mounts
 * it once, before the template is saved; what its INIT agreed upon is saved state, and nothing else is:
 * quiesce() is -EBUSY while the guest knows a node besides the root or has anything open.
 *
 * Requests are taken from the queues by file threads (vmm/fuse/pool.h). Without any, the device answers
 * for the empty root directory alone, on the loop thread.
 *
 * A request that cannot be understood is answered with EINVAL; one without room for an answer is given
 * back empty. Only a broken queue breaks the device. Reset waits for host calls under way, VFS_RESET_MS
 * at most, for the reasons given in blk.h; then the session ends: nodes and open files are forgotten. */
#pragma once

#include "vmm/fuse/pool.h"
#include "vmm/virtio/virtio.h"

#define VFS_TAG        "spore"
#define VFS_RESET_MS   1000  /* longest wait of a driver reset for host calls under way */
#define VFS_QUIESCE_MS 10000 /* longest wait of quiesce(), then -EBUSY */

/* What a share allows and promises. */
#define VFS_SHARE_READONLY 1u /* every change is EROFS, said by us and not only by the host's mount */
#define VFS_SHARE_PRIVATE  2u /* nobody but this guest changes it: the guest may cache for long */

/* Never NULL. slots_attach() takes it. pool: the device's from here on; NULL = no file service. Its bell
 * (fpool_bell()) is where the guest's kicks are best routed to. */
INTERNAL MUST_USE struct vdev *vfs_new(struct loop *loop, const struct gmem *mem, struct fpool *pool);

/* Show the directory or regular file behind root_fd (O_PATH or open for reading) as `name` in the root.
 * root_fd is taken: closed with the share, also when this fails. Mounts below it are shown too. Loop
 * thread, no lock. -EINVAL: name or file of a kind that cannot be shared, -EEXIST, -ENOSPC: too many,
 * -EOPNOTSUPP: no file threads. */
INTERNAL MUST_USE int vfs_share_add(struct vdev *d, const char *name, int root_fd, unsigned flags,
				    struct err *e);
/* Take it away. The guest may still use it: its nodes and files answer ESTALE from now on, and their
 * descriptors are closed when this returns, but for those of requests under way. Loop thread, no lock.
 * -ENOENT. */
INTERNAL int vfs_share_remove(struct vdev *d, const char *name, struct err *e);
