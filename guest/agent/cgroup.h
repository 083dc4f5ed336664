/* cgroup.h - a container's cgroup (version 2): made, limited, frozen, killed, removed.
 *
 * The agent itself stays in the root of the hierarchy, which is allowed to have both processes and
 * children; every controller the kernel has is handed down to each level we make.
 * Sources: Documentation/admin-guide/cgroup-v2.rst; runtime-spec config-linux.md "Control groups",
 * whose numbers are cgroup version 1's and are converted here as other runtimes do. */
#pragma once

#include "amalgam/base/buf.h"
#include "amalgam/base/err.h"
#include "oci.pb-c.h"

struct ga_cgroup {
	char *path; /* below /sys/fs/cgroup, absolute; NULL = none */
	int fd;     /* the directory, for CLONE_INTO_CGROUP */
	int dev_fd; /* BPF program that decides on devices, -1 = none */
};

#define GA_CGROUP_NONE ((struct ga_cgroup){ .fd = -1, .dev_fd = -1 })

/* Enable every controller below the root. */
INTERNAL MUST_USE int ga_cgroup_init_root(struct err *e);

/* Where a container's cgroup goes: linux.cgroupsPath, made safe and absolute; "/<id>" when empty;
 * "slice:prefix:name" as systemd drivers write it becomes "/slice/prefix-name". -EINVAL for "..".
 */
INTERNAL MUST_USE int ga_cgroup_place(const char *cgroups_path, const char *id, struct buf *out,
				      struct err *e);

INTERNAL MUST_USE int ga_cgroup_create(struct ga_cgroup *cg, const char *place, struct err *e);
/* Remove it with everything below; it must be empty of processes. Frees cg. */
INTERNAL void ga_cgroup_remove(struct ga_cgroup *cg);

/* Write all limits that are set. */
INTERNAL MUST_USE int ga_cgroup_apply(const struct ga_cgroup *cg, const Grpc__LinuxResources *r,
				      struct err *e);

/* Conversions, pure. Ranges as the kernel's: cpu.weight and io.weight 1..10000. */
INTERNAL uint64_t ga_cgroup_cpu_weight(uint64_t shares);
INTERNAL uint64_t ga_cgroup_io_weight(uint64_t weight);
/* memory.swap.max (swap alone) from OCI's memory+swap and memory; -1 = max. -EINVAL: smaller than
 * memory. */
INTERNAL MUST_USE int ga_cgroup_swap_max(int64_t limit, int64_t swap, int64_t *out);

INTERNAL MUST_USE int ga_cgroup_freeze(const struct ga_cgroup *cg, bool on, struct err *e);
/* Has the freezing (or thawing) come to its end? A frozen one may answer no for moments. */
INTERNAL bool ga_cgroup_is_frozen(const struct ga_cgroup *cg, bool on);
/* Is it to be frozen, whether or not it is already? */
INTERNAL bool ga_cgroup_is_paused(const struct ga_cgroup *cg);
/* SIGKILL to every process in it and below, also those being born (cgroup.kill). */
INTERNAL void ga_cgroup_kill(const struct ga_cgroup *cg);
/* Append the pid_t of every process in it and below that can be named from here. */
INTERNAL void ga_cgroup_pids(const struct ga_cgroup *cg, struct buf *out);
INTERNAL bool ga_cgroup_is_empty(const struct ga_cgroup *cg);

/* One number; "max" is UINT64_MAX. false when the file is not there. */
INTERNAL bool ga_cgroup_number(const struct ga_cgroup *cg, const char *file, uint64_t *out);
/* The value behind `key ` in a flat keyed file, 0 when there is none. */
INTERNAL uint64_t ga_cgroup_keyed(const struct ga_cgroup *cg, const char *file, const char *key);
INTERNAL MUST_USE int ga_cgroup_read(const struct ga_cgroup *cg, const char *file, struct buf *out);
