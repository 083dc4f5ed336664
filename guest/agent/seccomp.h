/* seccomp.h - an OCI seccomp profile as a BPF program, by libseccomp. runtime-spec config-linux.md
 * "Seccomp".
 *
 * Compiled once per container, by the agent; loaded by each of its processes just before execve. */
#pragma once

#include <linux/filter.h>

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

struct ga_seccomp {
	struct sock_fprog prog; /* len 0 = no filter */
	unsigned flags;         /* SECCOMP_FILTER_FLAG_* */
};

/* profile may be NULL. */
INTERNAL MUST_USE int ga_seccomp_compile(const Grpc__LinuxSeccomp *profile, struct ga_seccomp *out,
					 struct err *e);
INTERNAL void ga_seccomp_fini(struct ga_seccomp *s);
