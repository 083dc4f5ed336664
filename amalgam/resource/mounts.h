/* mounts.h - what containerd asks to be mounted, and its end.
 *
 * A snapshotter hands the runtime a list of mounts for the root filesystem, in the order in which
 * they go onto the same directory. Everything happens in the caller's mount namespace. Options are
 * those of mount(8), each a string of its own:
 *
 *   async atime bind defaults dev diratime dirsync exec mand noatime nodev nodiratime noexec nomand
 *   norelatime nostrictatime nosuid rbind relatime remount ro rw strictatime suid sync
 *                   a flag on or off, the later one wins
 *   [r]private [r]shared [r]slave [r]unbindable
 *                   propagation, set after the mount was made, in the order given
 *   loop            the source is a file: mount it through a loop device
 *   X-containerd.*  meant for who should have acted before us: refused
 *   uidmap=, gidmap=
 *                   idmapped mounts, which we do not announce: refused
 *   anything else   the filesystem's, joined with ","
 *
 * A mount's type "fuse3.X" or "fuse.X" is made by the program mount.fuse3 or mount.fuse in our
 * PATH.
 *
 * All of it goes through mount(2), not fsconfig(2): that one takes 255 bytes per value, so a chain
 * of layers would not fit before Linux 6.8 ("lowerdir+"). mount(2) takes a page of data; more is
 * refused, but an overlay's lower directories are first named from the directory they have in
 * common.
 *
 * Single-threaded callers: the working directory changes for a moment in that case. (A second
 * thread would not see it, it gets a working directory of its own by unshare(2).) */
#pragma once

#include "amalgam/base/err.h"

struct res_mount {
	const char *type, *source;
	const char *target; /* below the common target; "" or NULL = itself. It must exist there */
	char **options;
	size_t noptions;
};

/* Mount all of the list onto the directory `target`, an absolute path that is no symlink. What the
 * target of an entry names is resolved below it, symlinks as if it were "/". All or nothing: on
 * failure what had been mounted is unmounted again. -errno, and e says
 *     mount overlay (overlay) on /run/b/rootfs: No such file or directory */
INTERNAL MUST_USE int res_mount_all(const struct res_mount *list, size_t n, const char *target,
				    struct err *e);

/* Unmount everything at and below `target`: stacked mounts, submounts, the youngest first. Busy
 * ones are tried again for a second and then detached (MNT_DETACH), which is logged as a warning.
 * Success if nothing is mounted there, the path does not exist or is a symlink (which is not
 * followed). */
INTERNAL MUST_USE int res_unmount_all(const char *target, struct err *e);

/* The list as one disk. */
struct res_disk {
	const char *path;   /* borrowed from the list */
	const char *fstype; /* what the guest mounts it as: "ext4", "erofs"; static */
	bool read_only;
	char *options; /* the filesystem's, joined with ","; "" if none. On the heap */
};

/* Is the list one disk that a machine takes as it is? One entry without a target of its own, of a
 * type the guest kernel has (ext4, which also reads ext2 and ext3; erofs on one device), on a block
 * device, or on a regular file with "loop". Then *d is filled, and res_disk_fini() frees it. A list
 * that is refused by res_mount_all() is none. Nothing is opened: the caller must be able to. */
INTERNAL bool res_mounts_disk(const struct res_mount *list, size_t n, struct res_disk *d);
INTERNAL void res_disk_fini(struct res_disk *d);
