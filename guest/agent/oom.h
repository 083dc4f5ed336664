/* oom.h - out-of-memory kills of containers, told to whoever asks with GetOOMEvent.
 *
 * memory.events of a cgroup raises EPOLLPRI when a counter in it changes. Kills while nobody asks
 * are kept, GA_OOM_MAX of them. */
#pragma once

#include "amalgam/base/loop.h"
#include "amalgam/wire/ttrpc.h"

#define GA_OOM_MAX 64

struct ga_container;

struct ga_oom {
	struct loop *loop;
	struct ga_oom_watch *watches;
	char *kept[GA_OOM_MAX];
	size_t n_kept;
	struct ga_oom_asker *askers; /* the one who has waited longest first */
};

INTERNAL void ga_oom_watch(struct ga_oom *o, struct ga_container *c);
INTERNAL void ga_oom_unwatch(struct ga_oom *o, struct ga_container *c);
/* Look now: a container has ended, and the event may come after the exit code is told. */
INTERNAL void ga_oom_check(struct ga_oom *o, struct ga_container *c);
INTERNAL void ga_oom_ask(struct ga_oom *o, struct ttrpc_call *call);
