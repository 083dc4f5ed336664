/* direct.h - connections that are a standard stream: accepted on port 1027, kept until a request
 * names them by the host port they come from. PROTOCOL.agent section 4.
 *
 * In tests the socket is a Unix one and the first line of a connection is its "host port". */
#pragma once

#include "amalgam/base/err.h"
#include "amalgam/base/loop.h"

struct ga_agent;

#define GA_DIRECT_MAX     64
#define GA_DIRECT_KEEP_MS 60000
#define GA_DIRECT_WAIT_MS 10000

struct ga_direct {
	struct watch listen;
	struct ga_direct_conn *conns;
	unsigned count;
};

INTERNAL MUST_USE int ga_direct_listen(struct ga_agent *a, struct err *e);

struct ga_stdio;
/* Give the process's streams the connections that are there already. */
INTERNAL void ga_direct_match(struct ga_agent *a, struct ga_stdio *io);
