/* cgdev.h - which devices a container may use: OCI's device list as a BPF program on its cgroup.
 *
 * cgroup v2 has no devices controller file; the kernel asks a program of type CGROUP_DEVICE on
 * every open and mknod. Source: Documentation/admin-guide/cgroup-v2.rst "Device controller". */
#pragma once

#include <linux/bpf.h>

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

#define GA_CGDEV_MAX_RULES 1024

/* The program for rules: the last one that matches decides, an allow rule when it covers all that
 * is asked, a deny rule when it covers any of it; without one the answer is no. *insns is the
 * caller's to free. */
INTERNAL MUST_USE int ga_cgdev_compile(Grpc__LinuxDeviceCgroup *const *rules, size_t n,
				       struct bpf_insn **insns, size_t *count, struct err *e);

/* Attach to the cgroup, in the place of *prog_fd when that is one (>= 0); *prog_fd is then the new
 * program. */
INTERNAL MUST_USE int ga_cgdev_attach(int cgroup_fd, Grpc__LinuxDeviceCgroup *const *rules,
				      size_t n, int *prog_fd, struct err *e);
