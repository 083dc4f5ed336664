/* network.h - a pod's network in its guest: the links of a namespace (resource/net.h) become cards of the
 * machine, and the agent gives them the names, addresses, routes and neighbours they had.
 *
 * One thread, the sandbox's loop. Nothing of this happens for a sandbox without a network. The sandbox is
 * ready when it begins, and outlives it. */
#pragma once

#include "amalgam/resource/net.h"
#include "amalgam/runtime/sandbox.h"

/* All of the network is in the guest (e->code is 0), or something is not. */
typedef void network_done_fn(void *arg, const struct err *e);

struct network {
	bool is_open; /* rates and no_vhost may be set before */
	struct net net;
	struct sandbox *sandbox;
	uint32_t slot[NET_MAX_LINKS];
	uint64_t rx_rate, tx_rate; /* of each card, bits per second; 0 = no limit */
	bool no_vhost;             /* do without the host's vhost-net */
	unsigned ncards;           /* links that have one */
	unsigned at;               /* the link the guest is told about next */
	network_done_fn *done;     /* NULL: nothing is going on */
	void *arg;
};

/* Look at the namespace before there is a machine: ns_fd is taken, also when this fails (net_open()). */
INTERNAL MUST_USE int network_open(struct network *w, int ns_fd, struct err *e);
/* The same with a network that somebody has written down (resource/dan.h). */
INTERNAL MUST_USE int network_open_dan(struct network *w, const char *file, struct err *e);

/* Give the guest what it does not have yet; again whenever there may be more. done() is called once, perhaps
 * before this returns. */
INTERNAL void network_sync(struct network *w, struct sandbox *s, network_done_fn *done, void *arg);
/* The same, running the loop until it is done. */
INTERNAL MUST_USE int network_sync_wait(struct network *w, struct sandbox *s, struct err *e);

/* Leave the namespace as it was found; done() is not called any more. Safe on one that is zeroed. */
INTERNAL void network_close(struct network *w);
