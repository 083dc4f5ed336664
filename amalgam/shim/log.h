/* log.h - our log lines into containerd's: the fifo `log` of the bundle.
 *
 * containerd makes the fifo and reads it before it starts a shim, and copies what comes to its own log.
 * It may be restarted, and then reads the same fifo again. While nobody reads, and when the reader is so
 * slow that the pipe is full, lines are dropped: a log must not hold up a machine. The fifo is opened
 * when there is a line and it is not open, so nothing has to be done when containerd is back.
 *
 * Lines are logfmt, as base/log.h makes them: time="..." level=... msg="..." key="...". */
#pragma once

#include "amalgam/base/log.h"

struct shim_log {
	char *path;
	int fd; /* -1 = not open */
};

/* The log of this process goes to `path` from here on; lg must outlive that. Nothing has to exist there.
 * SIGPIPE is ignored from here on (a child gets it back to the default itself). */
INTERNAL void shim_log_start(struct shim_log *lg, const char *path, enum log_level level);
/* The log goes nowhere from here on. */
INTERNAL void shim_log_stop(struct shim_log *lg);
