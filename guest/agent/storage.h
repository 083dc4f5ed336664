/* storage.h - things the host asks to have mounted in the guest, by driver name.
 *
 * A storage belongs to the list it was added to (the sandbox's or a container's) and goes with it,
 * last first. One marked shared is counted in the sandbox's list: mounted for the first that names
 * it, unmounted with the last. PROTOCOL.agent section 3 has the table of drivers. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/base/err.h"

struct ga_agent;

struct ga_storage {
	struct ga_storage *next;   /* the one added before */
	struct ga_storage *shared; /* stands for this one in the sandbox's list */
	char *mount_point;
	unsigned users;
	int slot; /* bound for it, -1 = none */
	bool is_mounted;
	bool is_disk; /* whose host is going to take it out */
	bool is_made; /* the directory is ours to remove with its content */
};

/* -EAGAIN: its device is not there yet, ask again. */
INTERNAL MUST_USE int ga_storage_add(struct ga_agent *a, struct ga_storage **list,
				     const Grpc__Storage *s, struct err *e);
/* Undo all of a list. */
INTERNAL void ga_storage_remove_all(struct ga_agent *a, struct ga_storage **list);

/* Names of all drivers, for GetGuestDetails. */
INTERNAL const char *const *ga_storage_drivers(size_t *n);
