/* stats.h - what a container uses, in the words of containerd's metrics.
 *
 * The agent counts what the container's cgroup in the guest has used (guest/agent/stats.c). containerd
 * wants io.containerd.cgroups.v1.Metrics on hosts with v1 or hybrid cgroups and
 * io.containerd.cgroups.v2.Metrics on unified ones, whatever the guest has: its collector takes no other
 * (wire/proto/metrics.proto).
 *
 * Units: the agent's CPU times are ns; v1 has ns, v2 us. Memory is bytes. CPU times only grow, since the
 * kernel's counters do.
 *
 * No limit reads differently, and consumers look at the number:
 *
 *     memory, swap    v1: LONG_MAX without the last page (0x7ffffffffffff000); v2: UINT64_MAX.
 *                     A limit of 0 or beyond 1<<62 is none; swap may have a limit of 0 in v2
 *     pids            v1: 0; v2: UINT64_MAX
 *
 * v1 counts swap together with memory (memory.memsw), v2 by itself, as the agent does. Block devices are
 * the guest's; network is not told, since consumers read the network namespace of the pid we name. */
#pragma once

#include "amalgam/base/base.h"

#include "agent.pb-c.h"
#include "task.pb-c.h"

/* out (initialised) gets type_url and value, both on the heap: free() them, or let the message that out
 * is part of be freed as if unpacked. Parts that the agent left out count 0. */
INTERNAL void shim_stats_pack(const Grpc__StatsContainerResponse *r, bool unified_host,
			      Ctd__Any *out);
