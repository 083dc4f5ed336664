/* dev.h - device nodes and links of a container's /dev. runtime-spec config-linux.md "Devices",
 * "Default Devices". */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

/* Unless the specification binds a /dev of its own: default devices, those of the specification,
 * links to the standard streams and ptmx. */
INTERNAL MUST_USE int ga_dev_populate(int root_fd, const Grpc__Spec *spec, struct err *e);

/* Device rules for the cgroup: those given, and after them, so that they win, mknod of anything and use
 * of the default devices. Where none are given, use of `devices` (linux.devices) too; a list says itself
 * what may be done with them. *out and what it points to: one free(), and the request must outlive it. */
INTERNAL size_t ga_dev_rules(const Grpc__LinuxResources *given, Grpc__LinuxDevice *const *devices, size_t n,
			     Grpc__LinuxDeviceCgroup ***out);
