/* proc.h - processes: identity that survives pid reuse, exit status as shells print it, programs
 * run to their end. */
#pragma once

#include <sys/types.h>

#include "amalgam/base/buf.h"

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

/* A program to run to its end. */
struct proc_run {
	const char *path;   /* execve(2); without a slash it is looked for in our PATH */
	char *const *argv;  /* NULL-terminated, as is env */
	char *const *env;   /* all it gets */
	const char *cwd;    /* NULL = "/" */
	const void *in;     /* its standard input: a file with these bytes, so that it may */
	size_t nin;         /* read them or not */
	uint64_t timeout_s; /* 0 = none */
};

/* Runs it and sleeps until it has ended. It gets a process group of its own, default signal
 * actions, no blocked signals, stdout on /dev/null and no other descriptor of ours. The first `max`
 * bytes it writes to stderr are appended to `words`, more are thrown away. What it leaves in the
 * background is not waited for, and finds stderr closed. Returns the wait status; -ETIMEDOUT when
 * its group had to be killed; -errno when it could not be executed or there was no process to be
 * had. Nobody else may wait(2) for it. Needs Linux 5.3. */
INTERNAL MUST_USE int proc_run(const struct proc_run *r, struct buf *words, size_t max);

/* What ps(1) shows of this process instead of its command line, which then cannot be read any more. Only
 * as much as fits where the command line was. main() says where that is, once. */
INTERNAL void proc_title_init(int argc, char **argv);
INTERNAL void proc_title_set(const char *title);
