/* dev.h - device nodes and links of a container's /dev. runtime-spec config-linux.md "Devices",
 * "Default Devices". */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

/* Unless the specification binds a /dev of its own: default devices, those of the specification,
 * links to the standard streams and ptmx. */
INTERNAL MUST_USE int ga_dev_populate(int root_fd, const Grpc__Spec *spec, struct err *e);

/* Device rules for the cgroup: those of the specification, or if it has none, mknod of anything and
 * use of the default devices and the specification's. *out and what it points to: one free(). */
INTERNAL size_t ga_dev_rules(const Grpc__Spec *spec, Grpc__LinuxDeviceCgroup ***out);
