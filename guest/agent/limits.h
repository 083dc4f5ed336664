/* limits.h - what a process or its namespaces are set to by number: rlimits, scheduling, sysctls.
 */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

/* Number of "RLIMIT_NOFILE", or -EINVAL. */
INTERNAL MUST_USE int ga_limits_number(const char *name);

/* rlimits, io priority and scheduler of the calling process. */
INTERNAL MUST_USE int ga_limits_apply(const Grpc__Process *p, struct err *e);

/* Does a sysctl belong to a namespace, so that setting it changes one container and not the
 * machine? Returns the CLONE_NEW* it needs, or 0. Pure. */
INTERNAL uint64_t ga_limits_sysctl_ns(const char *name);

/* Write all, from inside the container's namespaces. Which of them it shares does not matter: ipc,
 * uts and net are at most the pod's, and the pod has this machine for itself. */
INTERNAL MUST_USE int ga_limits_sysctls(const Grpc__Linux *l, struct err *e);
