/* hostcg.h - the machine's cgroup on the host: made, entered, limited, counted, frozen, killed,
 * removed.
 *
 * One group per sandbox holds the machine process, so that limits of the pod and what the kubelet
 * and "ctr task metrics" count are true of it. Its path is the same in every hierarchy: on a
 * unified host (cgroup version 2 on /sys/fs/cgroup) there is one; on a version 1 host one per
 * controller; on a hybrid one those and an additional version 2 one, mostly without controllers.
 * Hierarchies none of whose controllers we use (name=systemd, devices ...) are entered, too, but
 * one that cannot be is left out without a word.
 *
 * Paths, from the OCI linux.cgroupsPath (config-linux.md "Cgroups Path"):
 *   /a/b, a/b          below the root of each hierarchy, in both spellings
 *   slice:prefix:name  what systemd drivers say: a-b.slice becomes /a.slice/a-b.slice, and in it
 *                      prefix-name.scope (name.scope without a prefix; a name that is a slice stays
 * as it is). No slice is system.slice, "-.slice" the root
 *   ""                 /spore/<id>
 * "..", "." and names that are files of a cgroup are refused.
 *
 * systemd is never asked: no D-Bus is spoken here. The slices and the scope are plain directories,
 * which is right where systemd is not pid 1 and works where it is: it leaves directories it has not
 * made alone, as it does those of every other cgroupfs driver, but "systemctl" shows no such scope.
 *
 * Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/. Not for several threads at once.
 */
#pragma once

#include "amalgam/base/buf.h"
#include "amalgam/base/err.h"
#include "amalgam/wire/json.h"
#include "oci.pb-c.h"

#define HOSTCG_MAX_TREES 24 /* hierarchies: the kernel's 14 controllers, and named ones */

/* Controllers something is done with here; a bit each. */
enum hostcg_controller {
	HOSTCG_CPU = 1 << 0,
	HOSTCG_CPUACCT = 1 << 1, /* version 2: in cpu.stat, always there */
	HOSTCG_CPUSET = 1 << 2,
	HOSTCG_MEMORY = 1 << 3,
	HOSTCG_PIDS =
		1 << 4,     /* counted, never limited: threads of ours are not the pod's business */
	HOSTCG_IO = 1 << 5, /* counted */
	HOSTCG_FREEZER = 1 << 6, /* version 2: always there */
};

/* The group in one hierarchy. */
struct hostcg_tree {
	char *mount;  /* where the hierarchy is */
	char *dir;    /* mount + path */
	unsigned has; /* HOSTCG_*; version 2: which the host has, not which were handed down */
	bool v2;
	size_t made;  /* so many bytes of dir name the outermost directory we made; 0 = none */
	int procs_fd; /* dir/cgroup.procs for writing; -1 = not open */
};

/* Start from HOSTCG_NONE; hostcg_fini() releases memory and descriptors, and removes nothing. */
struct hostcg {
	char *path;  /* "/a/b"; NULL = none */
	bool shared; /* it asked for no place: its parent is removed by whoever leaves last */
	struct hostcg_tree trees[HOSTCG_MAX_TREES];
	size_t n;
};
#define HOSTCG_NONE ((struct hostcg){ 0 })
INTERNAL void hostcg_fini(struct hostcg *cg);

/* Which metrics containerd expects of us: those of cgroup version 2, or (false) of 1 and hybrid. */
INTERNAL bool hostcg_is_unified(void);

/* Append the path that cgroups_path means. -EINVAL: cgroup path "..." is not allowed */
INTERNAL MUST_USE int hostcg_place(const char *cgroups_path, const char *id, struct buf *out,
				   struct err *e);

/* What hostcg_create() is going to make, as far as it is missing now: to be saved before, since who is
 * killed while making it could not say any more. Nothing is made. */
INTERNAL MUST_USE int hostcg_plan(struct hostcg *cg, const char *cgroups_path, const char *id,
				  struct err *e);
/* Make the group that was planned, or use it as it is where it exists already. Version 2: controllers
 * are handed down on the way wherever the kernel allows it (it does not below a group with processes in
 * it). Version 1: cpuset.cpus and .mems are taken from the parent, as nothing could enter otherwise. On
 * failure what was made is removed and *cg is HOSTCG_NONE. */
INTERNAL MUST_USE int hostcg_create(struct hostcg *cg, struct err *e);

/* For who comes after us, such as the shim's "delete": append {"path":..,"made":[..]} to b, and
 * make the group from it again, only to kill, count, freeze and remove. Hierarchies that are no
 * longer there are left out; a "made" that is not on the way to the group is refused. */
INTERNAL void hostcg_save(const struct hostcg *cg, struct buf *b);
INTERNAL MUST_USE int hostcg_load(struct hostcg *cg, const struct json *v, struct err *e);

/* The descriptors a forked child hands to hostcg_enter(); borrowed. Their number. */
INTERNAL size_t hostcg_procs(const struct hostcg *cg, int fds[HOSTCG_MAX_TREES]);
/* Put the calling process, all threads, into the group. After fork() only calls write(2). 0/-errno.
 */
INTERNAL MUST_USE int hostcg_enter(const int *fds, size_t n);

/* Set what is set in r: the memory limit plus `overhead` bytes for what a machine needs besides the
 * guest's memory, CPU shares, quota and period, cpuset. Not the number of processes, I/O, devices:
 * those are the guest's. -EOPNOTSUPP when the controller was not handed down to the group:
 *     cgroup /a/b: set memory.max to 1000: this host hands no such controller down to it */
INTERNAL MUST_USE int hostcg_limit(const struct hostcg *cg, const Grpc__LinuxResources *r,
				   uint64_t overhead, struct err *e);

/* OCI shares 2..262144 -> cpu.weight 1..10000, linear. Pure. */
INTERNAL uint64_t hostcg_cpu_weight(uint64_t shares);

/* What was counted; 0 where the host counts nothing. */
struct hostcg_stats {
	uint64_t cpu_ns, cpu_user_ns, cpu_system_ns;
	uint64_t periods, throttled_periods, throttled_ns; /* of the CPU quota */
	uint64_t memory, memory_limit;                     /* bytes; UINT64_MAX = no limit */
	uint64_t memory_peak, inactive_file;               /* bytes */
	uint64_t oom_kills;
	uint64_t pids; /* threads */
};
/* -ENOENT when the group is gone. */
INTERNAL MUST_USE int hostcg_stats(const struct hostcg *cg, struct hostcg_stats *out,
				   struct err *e);

/* Stop or go on. Returns when it is so; after two seconds it is undone and -ETIMEDOUT. -EDEADLK
 * when we are in it. */
INTERNAL MUST_USE int hostcg_freeze(const struct hostcg *cg, bool on, struct err *e);

/* SIGKILL to all in it but us, frozen or not, and wait until it is empty (or only we are there): at
 * most two seconds, -ETIMEDOUT. */
INTERNAL MUST_USE int hostcg_kill(const struct hostcg *cg, struct err *e);

/* Remove the directories we made, the group first, its parents as far as they are empty. A busy
 * group is tried again for a second; -EBUSY. One that is gone is success. May be called again. */
INTERNAL MUST_USE int hostcg_remove(struct hostcg *cg, struct err *e);

/* Put this process into a group that exists, in each hierarchy where it does: the option
 * shim_cgroup. -ENOENT when it exists in none. */
INTERNAL MUST_USE int hostcg_join(const char *cgroups_path, struct err *e);
