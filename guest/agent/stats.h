/* stats.h - StatsContainer: what the cgroup has counted, in the shape cgroup version 1 gave it. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/wire/ttrpc.h"
#include "guest/agent/cgroup.h"

struct ga_agent;

INTERNAL void ga_stats_container(struct ga_agent *a, struct ttrpc_call *call, const char *id);

/* One line of io.stat, "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...", appended to both lists. Pure but
 * for the heap. */
INTERNAL void ga_stats_io_line(const char *line, Grpc__BlkioStats *out);
