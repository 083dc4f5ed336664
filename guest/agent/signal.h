/* signal.h - SignalProcess. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/base/err.h"

struct ga_agent;

/* PROTOCOL.agent section 3: the init process and SIGKILL means all, as does `all`; SIGTERM that init would
 * not see is sent as SIGKILL; a process that has ended is success. */
INTERNAL MUST_USE int ga_signal_process(struct ga_agent *a, const Grpc__SignalProcessRequest *req,
					struct err *e);

/* Is a signal neither caught nor ignored, by the text of /proc/<pid>/status? Pure. */
INTERNAL bool ga_signal_is_default(const char *status, int signal);
