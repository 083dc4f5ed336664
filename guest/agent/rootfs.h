/* rootfs.h - a container's view of the filesystem, built and entered by its init process.
 *
 * Runs in the new mount namespace with the agent's tree still around. Every path the specification
 * names is resolved below root_fd (openat2, RESOLVE_IN_ROOT) and then used by descriptor, so
 * nothing the image contains leads outside. Order, after runtime-spec and what images rely on:
 * propagation, the root as a mount of its own, mounts, device nodes and links, masked and read-only
 * paths, read-only root, pivot_root. */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

struct ga_rootfs {
	const Grpc__Spec *spec;
	const char *cgroup_path; /* bound where a cgroup mount is asked for without a namespace */
	bool has_cgroup_ns;
	int fd; /* root of the container, once opened; -1 before */
};

/* Everything but the last step, so that what needs both trees can be done in between. */
INTERNAL MUST_USE int ga_rootfs_build(struct ga_rootfs *r, struct err *e);
/* Make the pty slave /dev/console. */
INTERNAL MUST_USE int ga_rootfs_console(const struct ga_rootfs *r, int slave, struct err *e);
/* Read-only root, pivot_root, and the agent's tree is gone. */
INTERNAL MUST_USE int ga_rootfs_enter(struct ga_rootfs *r, struct err *e);
