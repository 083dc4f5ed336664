/* share.h - a part of the host's tree, made ready to be shown to a guest: a detached mount.
 *
 * A clone of the mount that nobody else sees and that is attached nowhere (open_tree(2)), so `..` ends at
 * its root whoever walks it, a machine process that was taken over included. Device nodes in it open
 * nothing, setuid does nothing, and no symlink in it is ever followed (mount_setattr(2)); read-only is
 * the mount's, so no server can forget it. It ends with its last descriptor. Needs CAP_SYS_ADMIN and
 * Linux 5.12. */
#pragma once

#include "amalgam/base/err.h"

enum {
	SHARE_READONLY = 1u,
	SHARE_RECURSIVE = 2u, /* with what is mounted below it now (rbind); without it, what that covers */
};

/* The directory or regular file at path, symlinks followed, below dir_fd if it is relative; dir_fd may be
 * AT_FDCWD. Returns an O_PATH descriptor, close-on-exec. -EINVAL: neither file nor directory. Words of
 * an error do not repeat the path. */
INTERNAL MUST_USE int share_open(int dir_fd, const char *path, unsigned flags, struct err *e);

/* The image or block device at path, symlinks followed, open for reading alone: on a mount of its own that
 * is read-only and opens no devices. So whoever has the descriptor, and /proc/self/fd, and every
 * capability over files cannot open it anew for writing; a machine's file threads have that
 * (vmm/fuse/pool.h). A FIFO is not waited for; what it is is the caller's to look at. Before Linux 5.12
 * it is a plain descriptor: there machines have no file threads. -errno. */
INTERNAL MUST_USE int share_open_image(const char *path);
