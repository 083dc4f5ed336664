/* logport.h - the agent's log on port 1025, for a host that wants it. PROTOCOL.agent section 1.
 *
 * The last one to connect gets the lines, from info up; without anyone they go to the console, as
 * far as agent.log= says. A reader that is too slow loses lines, never holds us up. */
#pragma once

#include "amalgam/base/err.h"
#include "amalgam/base/loop.h"

struct ga_agent;

struct ga_logport {
	struct watch listen, reader;
	int fd; /* of the reader */
};

INTERNAL MUST_USE int ga_logport_listen(struct ga_agent *a, struct err *e);
