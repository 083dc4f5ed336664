/* agent.h - the agent as one value, handed down to all of its parts.
 *
 * PID 1 of the guest: one thread, one loop. Requests come in by ttRPC (rpc.h), children end by
 * SIGCHLD (reap.h), streams by connections to a second port (direct.h). Nothing blocks longer than
 * a system call on local state; what has to be waited for is polled by a timer (wait.h). */
#pragma once

#include "amalgam/base/loop.h"
#include "guest/agent/boot.h"
#include "guest/agent/direct.h"
#include "guest/agent/logport.h"
#include "guest/agent/ns.h"
#include "guest/agent/oom.h"
#include "guest/agent/reap.h"
#include "guest/agent/sandbox.h"
#include "version.h"

#define GA_MAX_CONNECTIONS 64

struct ga_agent {
	struct loop loop;
	struct ga_config config;
	struct ga_ns_set own;
	struct ga_sandbox sandbox;
	struct ga_container *containers;
	struct ga_direct direct;
	struct ga_oom oom;
	struct ga_reap reap;
	struct ga_logport logport;
	struct watch rpc_watch;
	unsigned connections;
	unsigned scrapes; /* GetMetrics so far */
	struct timer end;
};

/* Leave the loop soon: what has been answered goes out first. */
INTERNAL void ga_agent_end(struct ga_agent *a);

/* The next connection, from the host: a container may know vsock, too, and is turned away.
 * Close-on-exec, non-blocking; -1 = none. *port: the host's vsock port, 0 in tests; may be NULL. */
INTERNAL int ga_agent_accept(int listener, uint32_t *port);

/* A listening socket on a vsock port, or in tests on <listen>[.suffix]; -errno. */
INTERNAL MUST_USE int ga_agent_listen(const struct ga_config *c, uint32_t port, bool is_rpc,
				      struct err *e);
