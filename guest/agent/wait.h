/* wait.h - look again later, without blocking the loop.
 *
 * For kernel state that sends no event: a device node, an empty cgroup, a CPU coming online. The
 * owner embeds a ga_wait; poll is asked at once and then every few milliseconds until it says yes
 * or the time is up. done is called once, possibly from inside ga_wait_start(); the owner may be
 * freed in it. */
#pragma once

#include "amalgam/base/loop.h"

struct ga_wait;
typedef bool ga_wait_poll_fn(struct ga_wait *w);
typedef void ga_wait_done_fn(struct ga_wait *w, bool in_time);

struct ga_wait {
	struct timer timer;
	uint64_t deadline_ns, step_ns;
	ga_wait_poll_fn *poll;
	ga_wait_done_fn *done;
};

/* timeout_ms 0 = for ever. */
INTERNAL void ga_wait_start(struct loop *l, struct ga_wait *w, uint64_t timeout_ms,
			    ga_wait_poll_fn *poll, ga_wait_done_fn *done);
INTERNAL void ga_wait_stop(struct ga_wait *w);
