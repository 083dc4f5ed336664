/* default_spec.h - the spec of a container that nobody wrote a config.json for: Docker's defaults. */
#pragma once

#include "oci.pb-c.h"

#include "amalgam/base/base.h"

struct default_spec {
	char *const *args; /* NULL-terminated */
	char *const *env;  /* the same */
	const char *cwd, *hostname;
	bool terminal, read_only;
};

/* On the heap, as if unpacked from the wire: free with grpc__spec__free_unpacked(). container_run()
 * sets the root's path. */
INTERNAL MUST_USE Grpc__Spec *default_spec_make(const struct default_spec *d);
