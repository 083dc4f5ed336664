/* oci_spec.h - the OCI runtime specification's config.json into the messages of proto/oci.proto.
 *
 * Source: runtime-spec 1.2 config.md and config-linux.md. What it marks REQUIRED must be there;
 * words it enumerates (namespaces, rlimits, seccomp actions ...) must be known; a value of another
 * type is refused. Members it does not define, or that the messages have no field for, are ignored.
 *
 * The result is on the heap as if unpacked from the wire: free it with grpc__spec__free_unpacked(m,
 * NULL) and its like. Strings that are absent are "", never NULL. NULL on failure, and e says
 * where: "process.args: must be a list of strings". */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

#define OCI_SPEC_MAX_BYTES (4u << 20)
#define OCI_SPEC_MAX_ITEMS 65536 /* of one list */
#define OCI_SPEC_MAX_NAMES 4096  /* of one map: annotations, sysctl, unified */

/* A whole config.json. */
INTERNAL MUST_USE Grpc__Spec *oci_spec_parse(const void *text, size_t n, struct err *e);
/* Its "process", as containerd sends it for an exec. */
INTERNAL MUST_USE Grpc__Process *oci_process_parse(const void *text, size_t n, struct err *e);
/* Its "linux.resources", as containerd sends it for an update. */
INTERNAL MUST_USE Grpc__LinuxResources *oci_resources_parse(const void *text, size_t n,
							    struct err *e);
