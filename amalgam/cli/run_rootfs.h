/* run_rootfs.h - what spore run takes a container's files from: an image, a directory, and what of the
 * host a bundle mounts. Everything is opened, checked and locked here, before a machine exists. */
#pragma once

#include "amalgam/runtime/binds.h"
#include "amalgam/runtime/container.h"

struct run_rootfs {
	int block_fd;        /* the image, -1 = the root is a directory */
	struct binds shares; /* the root, if it is a directory, then the bundle's bind mounts */
	struct container_rootfs root;
};

/* --block, or an image in a bundle; what says which, in an error. Locked as long as the machine has it. */
INTERNAL MUST_USE int run_rootfs_block(struct run_rootfs *r, const char *what, const char *path,
				       bool read_only, struct err *e);
/* --rootfs, or a directory in a bundle. */
INTERNAL MUST_USE int run_rootfs_dir(struct run_rootfs *r, const char *what, const char *path,
				     bool read_only, struct err *e);
/* Is this descriptor one that is needed later? */
INTERNAL bool run_rootfs_holds(const struct run_rootfs *r, int fd);
