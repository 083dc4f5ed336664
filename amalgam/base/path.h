/* path.h - files and directories: whole reads, atomic replacement, trees.
 *
 * Paths here are the host's or the agent's own. A path that a container or an image chose is
 * resolved with path_open_in_root(), which cannot leave the root by "..", a symlink or a magic link
 * (openat2(2), RESOLVE_IN_ROOT). */
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/err.h"

/* Append the whole file to b; more than max bytes is -EFBIG. */
INTERNAL MUST_USE int path_read(const char *path, size_t max, struct buf *b, struct err *e);

/* Write the file so that a reader sees the old bytes or the new ones: temporary file in the same
 * directory, rename. */
INTERNAL MUST_USE int path_replace(const char *path, const void *p, size_t n, mode_t mode,
				   struct err *e);

/* Write n bytes to an existing file in one write(2), as /proc and cgroup files want it. 0/-errno. */
INTERNAL MUST_USE int path_put(const char *path, const char *text);

/* mkdir -p. Directories that exist are left as they are. */
INTERNAL MUST_USE int path_mkdirs(const char *path, mode_t mode, struct err *e);

/* rm -rf, never crossing into another filesystem and never following a symlink. A path that does
 * not exist is success. */
INTERNAL int path_remove_tree(const char *path);

/* openat2 with RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS: `path` is resolved as if root_fd were "/".
 * Returns a close-on-exec descriptor or -errno. */
INTERNAL MUST_USE int path_open_in_root(int root_fd, const char *path, int flags, mode_t mode);
