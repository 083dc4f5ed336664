/* default_spec.h - the spec of a container that nobody wrote a config.json for: Docker's defaults. */
#pragma once

#include "oci.pb-c.h"

#include "amalgam/base/base.h"

struct default_spec {
	char *const *args; /* NULL-terminated */
	char *const *env;  /* the same */
	const char *cwd, *hostname;
	bool terminal, read_only;
	bool resolv_conf; /* has the guest's /etc/resolv.conf (sandbox_spec.dns), if there is a place for it */
};

/* On the heap, as if unpacked from the wire: free with grpc__spec__free_unpacked(). container_run()
 * sets the root's path. */
INTERNAL MUST_USE Grpc__Spec *default_spec_make(const struct default_spec *d);
