/* target.h - which container a person means.
 *
 *   NAME                 a sandbox, if it has one container; else
 *                        a container, if one running sandbox has it
 *   SANDBOX/CONTAINER    always
 *
 * The name of a sandbox goes before the id of a container. A sandbox of `spore run` has one container, with
 * its name; one of containerd is called NAMESPACE.ID and may have several, with containerd's ids. */
#pragma once

#include "amalgam/runtime/rundir.h"

struct target {
	char *sandbox, *container;
	char *ns, *shim; /* rundir.h; NULL: not containerd's */
};

/* -ENOENT, -ENOTUNIQ or -EINVAL: what the name is not, and what to say instead. The strings are the caller's,
 * to be freed with target_fini(). */
INTERNAL MUST_USE int target_find(const char *name, struct target *t, struct err *e);
INTERNAL void target_fini(struct target *t);
#define AUTO_TARGET __attribute__((cleanup(target_fini)))
