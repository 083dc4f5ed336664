/* idmap.h - idmapped mounts: files appear to belong to others than they do. mount_setattr(2). */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

/* Map the (detached) mount by the mappings of m, or if it has none by the container's own. */
INTERNAL MUST_USE int ga_idmap_apply(int mount_fd, bool recursive, const Grpc__Mount *m,
				     const Grpc__Linux *l, struct err *e);
