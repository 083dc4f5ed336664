/* hooks.h - the startContainer hooks: programs in the container, before its own. runtime-spec
 * config.md "POSIX-platform Hooks", runtime.md "State". */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

#define GA_HOOKS_MAX 64

/* In order, each with the container's state on its standard input; the first that fails or exceeds
 * its timeout fails the container. hooks may be NULL. */
INTERNAL MUST_USE int ga_hooks_run(const Grpc__Hooks *hooks, const Grpc__Spec *spec, const char *id,
				   struct err *e);
