/* init.h - the child's side of starting a process: from clone3() to execve().
 *
 * Runs in a copy of the agent's memory and never returns. First the agent's descriptors are closed,
 * then a table of steps is walked; the first that fails ends the process and its words reach the
 * caller of CreateContainer, StartContainer or ExecProcess through sync.h. */
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include "agent.pb-c.h"
#include "amalgam/base/base.h"

/* Borrowed from the agent, read by the child. */
struct ga_launch {
	const Grpc__Process *process;
	const Grpc__StringUser *string_user; /* NULL or names to look up in the container */
	const Grpc__Spec *spec;              /* NULL: a further process of a running container */
	const char *id;
	const char *cgroup_path;
	uint64_t new_ns;           /* CLONE_NEW* of namespaces that were made for it */
	bool says_why;             /* a program that is none is told on stderr, and is status 1 */
	bool sets_hostname;        /* its uts namespace has no name yet */
	int target;                /* pidfd of the init process whose namespaces to join, or -1 */
	int target_ns;             /* CLONE_NEW* of these */
	int sync;                  /* the child's end */
	int stdio[3];              /* the child's ends; -1 with a terminal */
	struct sock_fprog seccomp; /* len 0 = none */
	unsigned seccomp_flags;
};

INTERNAL NORETURN void ga_init_main(struct ga_launch *l);
