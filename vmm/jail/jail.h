/* jail.h - what a VMM process gives up before it looks at its first guest byte.
 *
 * Own uid and gid that nobody else has, an empty and already deleted root directory, no capabilities,
 * no new privileges, no core dumps, its own session, and a system call allow-list (filter.c) that has
 * no way to open a file or make a socket. What it works with came over the control socket. It dies
 * with the thread that forked it (prctl(2), PR_SET_PDEATHSIG), whether or not it reads its control
 * socket: a supervisor with several threads must fork it from one that stays.
 *
 * A process that serves files has threads besides, which keep the capabilities of a file server and a
 * longer allow-list, and share everything else: the same uid, the same empty root. Whoever takes over
 * any thread has their power, so what matters is what that power reaches: detached mounts that were
 * passed in (resource/share.h), and this process's own descriptors. */
#pragma once

#include <sys/types.h>

#include "amalgam/base/err.h"

/* Uids from here up, one per pid: unique among living processes, used by no distribution. */
#define JAIL_UID_BASE 0x70000000u

struct jail_spec {
	int root_fd;  /* empty directory to be "/"; consumed */
	int ctl_fd;   /* becomes JAIL_CTL_FD; everything else is closed */
	pid_t parent; /* who forked us */
	/* Told the number of a system call that is not allowed, from the signal handler; the process ends
	 * when it returns. May only make calls that are. */
	void (*on_trap)(int nr);
	/* NULL: no files are served. Else called when root and limits are in place and the process is
	 * otherwise still what it was, to start a thread that calls jail_enter_files() before this
	 * returns. */
	int (*start_files)(void *arg, struct err *e);
	void *arg;
};

/* Where the control socket is afterwards. */
#define JAIL_CTL_FD 3

/* In the child, once, before any thread but those of start_files. On failure the caller must exit. */
INTERNAL MUST_USE int jail_enter(const struct jail_spec *spec, struct err *e);

/* In a file thread, before it serves (vmm/fuse/pool.h): afterwards its user is the jail's and cannot
 * change, it holds JAIL_FILE_CAPS (jail.c) and no way to more, its fsuid and fsgid are 0 and may be set.
 * Its working directory is /proc/<pid>/fd, as a detached mount, in which "17" is what descriptor 17
 * refers to and `..` leads nowhere. Threads it starts inherit all. */
INTERNAL MUST_USE int jail_enter_files(struct err *e);

/* filter.c. What happens at a call that is not allowed, in any thread; once. */
INTERNAL void jail_setup_trap(void (*on_trap)(int nr));
/* Install an allow-list for this and all threads it starts. */
enum jail_who { JAIL_MACHINE, JAIL_FILES };
INTERNAL MUST_USE int jail_install_filter(enum jail_who who, struct err *e);
