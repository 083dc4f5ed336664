/* net.h - links, addresses, routes and neighbours of the guest, as the host mirrors a pod's network
 * into it. rtnetlink(7).
 *
 * The guest's own network namespace is the pod's: one interface for each of the pod's, same name,
 * MAC, addresses and routes. Text from the host (addresses, prefixes, MACs) is parsed here. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/wire/ttrpc.h"

struct ga_agent;

INTERNAL MUST_USE int ga_net_loopback_up(struct err *e);

/* The five requests; each is answered. */
INTERNAL void ga_net_update_interface(struct ga_agent *a, struct ttrpc_call *call,
				      const Types__Interface *i);
INTERNAL void ga_net_update_routes(struct ttrpc_call *call, const Grpc__Routes *routes);
INTERNAL void ga_net_list_interfaces(struct ttrpc_call *call);
INTERNAL void ga_net_list_routes(struct ttrpc_call *call);
INTERNAL void ga_net_add_neighbors(struct ttrpc_call *call, const Grpc__ARPNeighbors *n);

/* Counters of every link but loopback, for StatsContainer; *out and *n as protobuf-c has lists, on
 * the heap. */
INTERNAL void ga_net_stats(Grpc__NetworkStats ***out, size_t *n);
