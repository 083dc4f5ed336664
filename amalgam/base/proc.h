/* proc.h - processes: identity that survives pid reuse, exit status as shells print it. */
#pragma once

#include <sys/types.h>

#include "amalgam/base/base.h"

/* Field 22 of /proc/<pid>/stat (clock ticks since boot): with the pid it names one process for
 * ever. 0 when there is no such process. */
INTERNAL uint64_t proc_start_time(pid_t pid);

/* Is this very process still there? */
INTERNAL bool proc_alive(pid_t pid, uint64_t start_time);

/* pidfd_open(2); -errno. Readable when the process has ended. */
INTERNAL MUST_USE int proc_pidfd(pid_t pid);
INTERNAL int proc_pidfd_kill(int pidfd, int sig);

/* wait status -> 0..255, signals as 128+n. */
INTERNAL int proc_exit_code(int wait_status);

/* waitpid() retried over EINTR; returns the wait status or -errno. */
INTERNAL int proc_wait(pid_t pid);

/* oom_score_adj of this process = that of `parent` plus 1, at most 1000: when memory is gone, the
 * child goes first. Not being allowed to lower our own is success. 0/-errno. */
INTERNAL int proc_oom_score_from(pid_t parent);

/* What ps(1) shows of this process instead of its command line, which then cannot be read any more. Only
 * as much as fits where the command line was. main() says where that is, once. */
INTERNAL void proc_title_init(int argc, char **argv);
INTERNAL void proc_title_set(const char *title);
