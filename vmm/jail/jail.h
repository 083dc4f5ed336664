/* jail.h - what a VMM process gives up before it looks at its first guest byte.
 *
 * Own uid and gid that nobody else has, an empty and already deleted root directory, no capabilities,
 * no new privileges, no core dumps, its own session, and a system call allow-list (filter.c) that has
 * no way to open a file or make a socket. What it works with came over the control socket. It dies
 * with the thread that forked it (prctl(2), PR_SET_PDEATHSIG), whether or not it reads its control
 * socket: a supervisor with several threads must fork it from one that stays. */
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
};

/* Where the control socket is afterwards. */
#define JAIL_CTL_FD 3

/* In the child, once, before any thread. On failure the caller must exit. */
INTERNAL MUST_USE int jail_enter(const struct jail_spec *spec, struct err *e);

/* filter.c: install the allow-list for this and all later threads. */
INTERNAL MUST_USE int jail_install_filter(void (*on_trap)(int nr), struct err *e);
