/* binds.h - bind mounts of a specification whose sources are on the host: each becomes a share.
 *
 * Between config.json and the guest: opens every source, and rewrites it to where the guest will see the
 * share. Sources below /proc, /sys and /dev stay: those of a host mean nothing in a machine, and the
 * guest has its own. Options stay too, the guest's mount honours them; what is read-only is so on the
 * host's side as well. */
#pragma once

#include "amalgam/runtime/sandbox.h"

#define BINDS_MAX 64

struct binds {
	struct sandbox_share share[BINDS_MAX]; /* for sandbox_spec.shares, or sandbox_share_add() */
	char name[BINDS_MAX][CTL_SHARE_NAME];
	unsigned n;
};

/* One more share: fd from share_open(), taken; a copy of name. -E2BIG: there are BINDS_MAX already (fd is
 * closed). */
INTERNAL MUST_USE int binds_add(struct binds *b, const char *name, int fd, unsigned flags,
				struct err *e);
/* Add the sources of all bind mounts of spec, as "<prefix>-<number>"; a relative one is below dir. */
INTERNAL MUST_USE int binds_of_spec(struct binds *b, Grpc__Spec *spec, const char *dir,
				    const char *prefix, struct err *e);
INTERNAL void binds_close(struct binds *b);
