/* copyfile.h - CopyFile: files, directories and symlinks from the host, for pods without a shared
 * filesystem. Confined below /run/kata-containers: nothing there, symlinks least of all, leads out.
 */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/base/err.h"

/* A file comes in one or several requests; it appears under its name, with owner and mode, when the
 * last byte is there. */
INTERNAL MUST_USE int ga_copyfile(const Grpc__CopyFileRequest *req, struct err *e);

/* The path behind the base directory, or NULL when it is not below it by its text alone. Pure. */
INTERNAL const char *ga_copyfile_below(const char *path);
