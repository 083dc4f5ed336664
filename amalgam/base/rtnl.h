/* rtnl.h - links, addresses, routes and neighbours as plain structures, and what we change of them;
 * rtnetlink(7), linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h.
 *
 * On top of nl.h: all of it happens in the namespace the socket was opened in, whoever asks. Lists are
 * dumps: one callback per object, which cannot use the socket itself; a negative return ends the walk and
 * becomes the result. */
#pragma once

#include <net/if.h>

#include "amalgam/base/nl.h"

#define RTNL_IP_TEXT 52 /* the longest address, its prefix and a NUL */

/* An address of either family in network order. */
struct rtnl_ip {
	uint8_t family; /* AF_INET, AF_INET6; 0 = none */
	uint8_t len;    /* bytes: 4, 16 */
	uint8_t prefix; /* bits */
	uint8_t bytes[16];
};

struct rtnl_link {
	int index;
	int master;     /* the bridge or bond that has it; 0 = none */
	uint16_t type;  /* ARPHRD_* */
	unsigned flags; /* IFF_* */
	uint32_t mtu;
	bool has_mac;
	uint8_t mac[6];
	char name[IFNAMSIZ];
	char kind[IFNAMSIZ]; /* "veth", "macvlan" ...; "" for hardware and loopback */
};

struct rtnl_addr {
	int index; /* the link's */
	uint8_t scope;
	uint32_t flags; /* IFA_F_* */
	struct rtnl_ip ip;
};

struct rtnl_route {
	struct rtnl_ip dst; /* always with its family; prefix 0: default */
	struct rtnl_ip gateway, source;
	int index;          /* the link it leaves by, 0 = none */
	uint8_t table, type, protocol, scope;
	uint32_t flags;     /* RTM_F_*, RTNH_F_* */
	uint32_t metric, mtu;
};

struct rtnl_neigh {
	int index;
	uint16_t state; /* NUD_* */
	uint8_t flags;  /* NTF_* */
	struct rtnl_ip ip;
	bool has_mac;
	uint8_t mac[6];
};

typedef int rtnl_link_fn(void *arg, const struct rtnl_link *l);
typedef int rtnl_addr_fn(void *arg, const struct rtnl_addr *a);
typedef int rtnl_route_fn(void *arg, const struct rtnl_route *r);
typedef int rtnl_neigh_fn(void *arg, const struct rtnl_neigh *n);

INTERNAL MUST_USE int rtnl_links(struct nl *nl, rtnl_link_fn *fn, void *arg, struct err *e);
INTERNAL MUST_USE int rtnl_addrs(struct nl *nl, rtnl_addr_fn *fn, void *arg, struct err *e);
/* Of both families. One with several next hops is told with the first. */
INTERNAL MUST_USE int rtnl_routes(struct nl *nl, rtnl_route_fn *fn, void *arg, struct err *e);
INTERNAL MUST_USE int rtnl_neighs(struct nl *nl, rtnl_neigh_fn *fn, void *arg, struct err *e);

/* "10.0.0.1" or "10.0.0.0/8"; without a slash the prefix is the whole address. -EINVAL. */
INTERNAL MUST_USE int rtnl_ip_parse(const char *text, struct rtnl_ip *out);
/* "02:42:ac:11:00:02"; -EINVAL. */
INTERNAL MUST_USE int rtnl_mac_parse(const char *text, uint8_t mac[6]);
/* "10.0.0.1", or "10.0.0.1/8"; "" for none. */
INTERNAL const char *rtnl_ip_text(const struct rtnl_ip *ip, bool with_prefix, char out[RTNL_IP_TEXT]);

/* Flags of a link, those in `change`; mtu 0 = as it is. */
INTERNAL MUST_USE int rtnl_link_set(struct nl *nl, int index, unsigned flags, unsigned change, uint32_t mtu,
				    struct err *e);
/* No IPv6 address of its own when it comes up: it carries somebody else's frames. */
INTERNAL MUST_USE int rtnl_link_no_addr(struct nl *nl, int index, struct err *e);
INTERNAL MUST_USE int rtnl_link_delete(struct nl *nl, int index, struct err *e);

/* Where filters for what a link receives hang. -EEXIST: it has one of these, or clsact. */
INTERNAL MUST_USE int rtnl_ingress_add(struct nl *nl, int index, struct err *e);
INTERNAL MUST_USE int rtnl_ingress_delete(struct nl *nl, int index, struct err *e);
/* Every frame that `from` receives leaves by `to` instead; from has an ingress. One of a preference. */
INTERNAL MUST_USE int rtnl_redirect_add(struct nl *nl, int from, int to, uint16_t preference, struct err *e);
INTERNAL MUST_USE int rtnl_redirect_delete(struct nl *nl, int from, uint16_t preference, struct err *e);
