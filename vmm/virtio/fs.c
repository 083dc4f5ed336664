#include "vmm/virtio/fs.h"

#include "amalgam/base/mem.h"

static int vfs_kick(struct vdev *d, unsigned q)
{
	(void)d, (void)q;
	return 0;
}
static void vfs_destroy(struct vdev *d)
{
	free(d);
}
static const struct vdev_ops vfs_ops = {
	.name = "fs", .id = VDEV_FS, .nqueues = 2, .kick = vfs_kick, .destroy = vfs_destroy,
};
ONLY_TESTED struct vdev *vfs_new(struct loop *loop, const struct gmem *mem, struct fpool *pool)
{
	struct vdev *d = mem_zalloc(sizeof *d);

	(void)pool;
	*d = (struct vdev){ .ops = &vfs_ops, .mem = mem, .loop = loop };
	return d;
}
ONLY_TESTED int vfs_share_add(struct vdev *d, const char *name, int root_fd, unsigned flags, struct err *e)
{
	(void)d, (void)name, (void)flags;
	close(root_fd);
	return err_set(e, -EOPNOTSUPP, "shares are not there yet");
}
ONLY_TESTED int vfs_share_remove(struct vdev *d, const char *name, struct err *e)
{
	(void)d, (void)name;
	return err_set(e, -ENOENT, "shares are not there yet");
}
