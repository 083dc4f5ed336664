/* net.h - the network of a pod: found in a namespace of the host, led to a machine, given back.
 *
 * Somebody (CNI, docker, ip-netns) has made a namespace with links, addresses, routes and neighbours in it. A
 * machine takes the namespace's place: every link gets a tap beside it, and what either receives leaves by
 * the other (tc-u32(8), tc-mirred(8)). The guest's card has the link's own address and MTU, so nobody on
 * the network sees a difference; veth, macvlan, ipvlan, vlan and others are all the same here. The
 * namespace's own stack still has the addresses, and hears nothing any more. Nor does a link that is stacked
 * on another one of the same namespace (a VLAN of its eth0), a bridge excepted: make such a one in the guest.
 *
 * Life: net_open() -> net_scan() as often as something may have changed -> net_close(). A scan leads links
 * that were not there before, and reads all routes and neighbours anew. The taps go away with the last of
 * their descriptors, and net_close() removes what else was added, so the namespace is as it was found; links
 * that are gone by then are no error.
 *
 * The caller's thread visits the namespace with setns(2) to open what it needs and is back when a function
 * returns. One thread. */
#pragma once

#include "amalgam/base/rtnl.h"

#define NET_MAX_LINKS  16
#define NET_MAX_ROUTES 4096 /* and neighbours, and addresses of a link */

/* A link of the namespace and the tap beside it. A tap that was there before is a link without another. */
struct net_link {
	struct rtnl_link host; /* as it was found, and as it shall be in the guest */
	struct rtnl_addr *addr;
	size_t naddrs;
	char tap[IFNAMSIZ];
	int tap_index;
	int tap_fd;       /* as vmm/virtio/net.h wants it; the caller may close it and set it to -1 */
	bool is_led;      /* what it receives goes to the tap */
};

struct net {
	int ns_fd;
	bool is_fixed; /* somebody else has said what there is (dan.h): nothing is looked for */
	struct nl nl;  /* in the namespace */
	struct net_link link[NET_MAX_LINKS];
	unsigned nlinks; /* those led so far; a scan adds at the end */
	/* Of these links, as of the last scan. */
	struct rtnl_route *route;
	struct rtnl_neigh *neigh;
	size_t nroutes, nneighs;
};

/* A namespace by its path, or by its name in /run/netns (ip-netns(8)). Descriptor or -errno. */
INTERNAL MUST_USE int net_find(const char *name, struct err *e);

/* Is it the namespace of this host's own network? A machine cannot have that one. */
INTERNAL bool net_is_hosts(int ns_fd);

/* Begin with a namespace; ns_fd is taken, also when this fails. -EPERM: it is the host's own; -EBUSY: a
 * machine is connected to it already (told by net_scan()): a second would fight with it for every frame. */
INTERNAL MUST_USE int net_open(struct net *n, int ns_fd, struct err *e);
/* The same, though it be the host's: for taps that somebody made for a machine there. */
INTERNAL MUST_USE int net_open_any(struct net *n, int ns_fd, struct err *e);

/* Lead what is new. The number of new links, or -errno with nothing changed. */
INTERNAL MUST_USE int net_scan(struct net *n, struct err *e);

/* Attach to the tap of this name, which exists and is nobody's, instead of leading a link to one. The
 * caller completes link[nlinks - 1]; its hardware address is made from the tap's, which keeps its own. */
INTERNAL MUST_USE int net_add_tap(struct net *n, const char *name, struct err *e);

/* Instead of a scan: take back what a process that was killed has left here. Nothing if another machine is
 * connected by now, which has taken it over. */
INTERNAL void net_repair(struct net *n);

/* Take back everything. Safe on one that is zeroed or closed. */
INTERNAL void net_close(struct net *n);

/* The link's name; "" if it is none of ours. */
INTERNAL const char *net_name(const struct net *n, int index);
