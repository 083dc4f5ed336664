/* job.h - programs run to their end, watched by an event loop.
 *
 *     we --fork--> keeper --fork--> the program, and what it starts
 *
 * The keeper leads a process group of which the program is part, and exists for one reason: whatever
 * ends us, SIGKILL too, the kernel tells the keeper (PR_SET_PDEATHSIG), which ends the group. So nothing
 * of a job outlives who asked for it, but what has left the group on purpose.
 *
 * The program gets default signal actions, no blocked signals, stdout on /dev/null, and no descriptor of
 * ours. What it leaves in the background is not waited for, and finds stderr closed. Nobody but this
 * file may wait(2) for the keeper. Needs Linux 5.3. */
#pragma once

#include "amalgam/base/buf.h"
#include "amalgam/base/loop.h"

/* What to run. All borrowed, until job_begin() returns. */
struct job_spec {
	const char *path;   /* execve(2); without a slash it is looked for in our PATH */
	char *const *argv;  /* NULL-terminated, as is env */
	char *const *env;   /* all it gets */
	const char *cwd;    /* NULL = "/" */
	const void *in;     /* its standard input: a file with these bytes, so that it may */
	size_t nin;         /* read them or not */
	uint64_t timeout_s; /* 0 = none; then its group is killed */
	size_t max_words;   /* of what it writes to stderr, the first bytes; more are thrown away */
};

struct job;
/* It has ended; from the loop, once. r: its wait status; -errno: it could not be executed; what
 * job_kill() was told, or -ETIMEDOUT. j->words stay until job_fini(). */
typedef void job_over_fn(struct job *j, int r);

struct job {
	struct loop *loop;
	pid_t pid; /* the keeper's, and the group's; 0 = nothing runs */
	int pidfd, err_fd, result_fd;
	struct watch ended, wrote;
	struct timer late;
	struct buf words;
	size_t left; /* of max_words */
	int why;     /* it was killed: what over() is told; 0 = it was not */
	job_over_fn *over;
};

/* 0: over() follows. -errno: no process could be made, there is nothing to job_fini(). */
INTERNAL MUST_USE int job_begin(struct job *j, struct loop *l, const struct job_spec *spec, job_over_fn *over);
/* End it and its group; over() follows when they are gone. */
INTERNAL void job_kill(struct job *j, int why);
/* Forget it: what still runs is killed, over() is not called any more. A zombie may stay as long as we
 * do. Harmless on zeroed memory. */
INTERNAL void job_fini(struct job *j);

/* The same, asleep until it is over, on a loop of its own: the result is over()'s, or job_begin()'s.
 * What it wrote is appended to words. */
INTERNAL MUST_USE int job_run(const struct job_spec *spec, struct buf *words);
