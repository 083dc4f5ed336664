/* copyup.h - the "tmpcopyup" mount option: a tmpfs that starts with what it hides. */
#pragma once

#include "amalgam/base/err.h"

/* Copy the tree at `path` below root_fd into the (detached) mount `to`: directories, files,
 * symlinks, with owner and mode; device nodes, sockets and other filesystems below are left out. */
INTERNAL MUST_USE int ga_copyup(int root_fd, const char *path, int to, struct err *e);
