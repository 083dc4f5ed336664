#include "guest/agent/net.h"

#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <sys/socket.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/rtnl.h"
#include "amalgam/base/str.h"
#include "guest/agent/rpc.h"

#define GA_ROUTE_MAX 4096

/* ---- What there is */

struct ga_route_list {
	Grpc__Routes routes;
	struct buf raw; /* length (u32) and bytes of header and attributes, to delete them with */
};

/* Routes a person or the host made: main table, not those the kernel keeps for its addresses. */
static bool ga_route_is_ours(const struct nl_message *m)
{
	const struct rtmsg *r = m->head;

	return m->type == RTM_NEWROUTE && r->rtm_table == RT_TABLE_MAIN &&
	       r->rtm_type == RTN_UNICAST && !(r->rtm_flags & RTM_F_CLONED);
}

static char *ga_route_text(const struct nl_message *m, uint16_t type, int prefix)
{
	const struct rtmsg *r = m->head;
	char text[INET6_ADDRSTRLEN] = "";
	struct nl_attr a;

	if (!nl_attr_find(m->attrs, type, &a) || a.len != (r->rtm_family == AF_INET ? 4 : 16) ||
	    !inet_ntop(r->rtm_family, a.data, text, sizeof text))
		return mem_strdup("");
	return prefix < 0 ? mem_strdup(text) : mem_printf("%s/%d", text, prefix);
}

static uint32_t ga_route_mtu(const struct nl_message *m)
{
	struct nl_attr metrics, mtu;

	if (!nl_attr_find(m->attrs, RTA_METRICS, &metrics) ||
	    !nl_attr_find(nl_attr_nested(&metrics), RTAX_MTU, &mtu))
		return 0;
	return nl_attr_u32(&mtu);
}

static void ga_route_keep(struct ga_route_list *l, const struct nl_message *m)
{
	uint32_t n = (uint32_t)(sizeof(struct rtmsg) + cur_left(&m->attrs));

	buf_le32(&l->raw, n);
	buf_add(&l->raw, m->head, sizeof(struct rtmsg));
	buf_add(&l->raw, m->attrs.p, cur_left(&m->attrs));
}

static int ga_route_collect(void *arg, const struct nl_message *m)
{
	struct ga_route_list *l = arg;
	const struct rtmsg *h = m->head;
	char name[IF_NAMESIZE] = "";
	Types__Route *r;
	struct nl_attr a;

	if (!ga_route_is_ours(m) || l->routes.n_routes == GA_ROUTE_MAX)
		return 0;
	if (h->rtm_protocol != RTPROT_KERNEL)
		ga_route_keep(l, m);
	r = mem_zalloc(sizeof *r);
	types__route__init(r);
	r->dest = ga_route_text(m, RTA_DST, h->rtm_dst_len);
	r->gateway = ga_route_text(m, RTA_GATEWAY, -1);
	r->source = ga_route_text(m, RTA_PREFSRC, -1);
	if (nl_attr_find(m->attrs, RTA_OIF, &a))
		if_indextoname(nl_attr_u32(&a), name);
	r->device = mem_strdup(name);
	r->scope = h->rtm_scope;
	r->family = h->rtm_family == AF_INET6 ? TYPES__IPFAMILY__v6 : TYPES__IPFAMILY__v4;
	r->flags = h->rtm_flags;
	r->mtu = ga_route_mtu(m);
	if (nl_attr_find(m->attrs, RTA_PRIORITY, &a))
		r->metric = nl_attr_u32(&a);
	l->routes.routes =
		mem_realloc(l->routes.routes, (l->routes.n_routes + 1) * sizeof *l->routes.routes);
	l->routes.routes[l->routes.n_routes++] = r;
	return 0;
}

static int ga_route_dump(struct nl *nl, struct ga_route_list *l, struct err *e)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	AUTO_BUF struct buf b = { 0 };

	*l = (struct ga_route_list){ .routes = GRPC__ROUTES__INIT };
	for (size_t i = 0; i < ARRAY_LEN(families); i++) {
		struct rtmsg head = { .rtm_family = families[i] };
		int r;
		nl_begin(&b, RTM_GETROUTE, 0, &head, sizeof head);
		r = nl_dump(nl, &b, sizeof head, ga_route_collect, l, e);
		/* A kernel without IPv6 has no routes of it. */
		if (r < 0 && !(families[i] == AF_INET6 && r == -EOPNOTSUPP))
			return r;
	}
	return 0;
}

static void ga_route_list_fini(struct ga_route_list *l)
{
	for (size_t i = 0; i < l->routes.n_routes; i++)
		types__route__free_unpacked(l->routes.routes[i], NULL);
	free(l->routes.routes);
	buf_fini(&l->raw);
}

static void ga_route_answer(struct nl *nl, struct ttrpc_call *call)
{
	struct ga_route_list l;
	struct err e = { 0 };

	if (ga_route_dump(nl, &l, &e) < 0)
		ttrpc_fail_err(call, &e);
	else
		ttrpc_reply(call, &l.routes.base);
	ga_route_list_fini(&l);
}

void ga_net_list_routes(struct ttrpc_call *call)
{
	struct err e;
	struct nl nl;

	if (nl_open(&nl, NETLINK_ROUTE, &e) < 0) {
		ttrpc_fail_err(call, &e);
		return;
	}
	ga_route_answer(&nl, call);
	nl_close(&nl);
}

/* ---- UpdateRoutes */

static int ga_route_delete_all(struct nl *nl, struct err *e)
{
	AUTO_BUF struct buf b = { 0 };
	struct ga_route_list l;
	struct cur c;
	int r = ga_route_dump(nl, &l, e);

	c = cur_of(l.raw.data, l.raw.len);
	while (r == 0 && cur_left(&c)) {
		uint32_t n = cur_le32(&c);
		const uint8_t *p = cur_bytes(&c, n);
		nl_begin(&b, RTM_DELROUTE, 0, p, n);
		r = nl_do(nl, &b, sizeof(struct rtmsg), NULL, NULL, e);
		r = r == -ESRCH ? 0 : r; /* went with another */
	}
	ga_route_list_fini(&l);
	return r;
}

static int ga_route_put_addr(struct buf *b, uint16_t type, const char *text, uint8_t family,
			     uint8_t *prefix, struct err *e)
{
	struct rtnl_ip addr;

	if (rtnl_ip_parse(text, &addr) < 0 || (family && addr.family != family))
		return err_set(e, -EINVAL, "address \"%.64s\"", text);
	if (prefix)
		*prefix = addr.prefix;
	nl_put(b, type, addr.bytes, addr.len);
	return 0;
}

static int ga_route_add(struct nl *nl, const Types__Route *r, struct err *e)
{
	bool is_default = !*r->dest || !strcmp(r->dest, "default");
	uint8_t family =
		r->family == TYPES__IPFAMILY__v6 || strchr(r->dest, ':') || strchr(r->gateway, ':')
			? AF_INET6
			: AF_INET;
	struct rtmsg head = {
		.rtm_family = family,
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = RTPROT_BOOT,
		.rtm_scope = (uint8_t)r->scope,
		.rtm_type = RTN_UNICAST,
		.rtm_flags = r->flags & RTNH_F_ONLINK,
	};
	AUTO_BUF struct buf b = { 0 };
	uint32_t index = if_nametoindex(r->device);
	size_t at;

	if (!index)
		return err_set(e, -ENODEV, "no interface \"%.32s\"", r->device);
	nl_begin(&b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof head);
	if ((!is_default &&
	     ga_route_put_addr(&b, RTA_DST, r->dest, family, &head.rtm_dst_len, e) < 0) ||
	    (*r->gateway && ga_route_put_addr(&b, RTA_GATEWAY, r->gateway, family, NULL, e) < 0) ||
	    (*r->source && ga_route_put_addr(&b, RTA_PREFSRC, r->source, family, NULL, e) < 0))
		return e->code;
	/* Now that the length of the destination is known. */
	memcpy(b.data + NLMSG_HDRLEN, &head, sizeof head);
	nl_put_u32(&b, RTA_OIF, index);
	if (r->metric)
		nl_put_u32(&b, RTA_PRIORITY, r->metric);
	if (r->mtu) {
		at = nl_nest(&b, RTA_METRICS);
		nl_put_u32(&b, RTAX_MTU, r->mtu);
		nl_nest_end(&b, at);
	}
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

/* Routes on the link first: a gateway must be reachable when its route comes. */
static int ga_route_add_all(struct nl *nl, const Grpc__Routes *routes, struct err *e)
{
	for (unsigned pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < routes->n_routes; i++) {
			const Types__Route *r = routes->routes[i];
			if ((*r->gateway != '\0') != pass)
				continue;
			if (ga_route_add(nl, r, e) < 0)
				return err_wrap(e, "route to %.64s",
						*r->dest ? r->dest : "default");
		}
	}
	return 0;
}

void ga_net_update_routes(struct ttrpc_call *call, const Grpc__Routes *routes)
{
	struct err e = { 0 };
	struct nl nl;

	if (!routes || routes->n_routes > GA_ROUTE_MAX) {
		ttrpc_fail(call, TTRPC_INVALID_ARGUMENT, "no routes in the request, or too many");
		return;
	}
	if (nl_open(&nl, NETLINK_ROUTE, &e) < 0) {
		ttrpc_fail_err(call, &e);
		return;
	}
	if (ga_route_delete_all(&nl, &e) < 0 || ga_route_add_all(&nl, routes, &e) < 0)
		ttrpc_fail_err(call, &e);
	else
		ga_route_answer(&nl, call);
	nl_close(&nl);
}

/* ---- AddARPNeighbors */

static int ga_route_add_neighbor(struct nl *nl, const Types__ARPNeighbor *n, struct err *e)
{
	struct ndmsg head = { .ndm_state = NUD_PERMANENT };
	AUTO_BUF struct buf b = { 0 };
	struct rtnl_ip addr;
	uint8_t mac[6];

	if (!n->toipaddress || rtnl_ip_parse(n->toipaddress->address, &addr) < 0)
		return err_set(e, -EINVAL, "neighbour without a valid address");
	head.ndm_family = addr.family;
	head.ndm_ifindex = (int)if_nametoindex(n->device);
	head.ndm_flags = (uint8_t)n->flags;
	if (n->state)
		head.ndm_state = (uint16_t)n->state;
	if (!head.ndm_ifindex)
		return err_set(e, -ENODEV, "neighbour %s: no interface \"%.32s\"",
			       n->toipaddress->address, n->device);
	if (*n->lladdr && rtnl_mac_parse(n->lladdr, mac) < 0)
		return err_set(e, -EINVAL, "neighbour %s: hardware address \"%.32s\"",
			       n->toipaddress->address, n->lladdr);
	nl_begin(&b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof head);
	nl_put(&b, NDA_DST, addr.bytes, addr.len);
	if (*n->lladdr)
		nl_put(&b, NDA_LLADDR, mac, sizeof mac);
	if (nl_do(nl, &b, sizeof head, NULL, NULL, e) < 0)
		return err_wrap(e, "neighbour %s", n->toipaddress->address);
	return 0;
}

void ga_net_add_neighbors(struct ttrpc_call *call, const Grpc__ARPNeighbors *list)
{
	struct err e = { 0 };
	struct nl nl;
	int r = nl_open(&nl, NETLINK_ROUTE, &e);

	if (r == 0) {
		for (size_t i = 0; r == 0 && list && i < list->n_arpneighbors; i++)
			r = ga_route_add_neighbor(&nl, list->arpneighbors[i], &e);
		nl_close(&nl);
	}
	ga_rpc_answer(call, r, &e);
}
