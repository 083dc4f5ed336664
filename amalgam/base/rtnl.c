#include "amalgam/base/rtnl.h"

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/tc_act/tc_mirred.h>
#include <sys/socket.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"

/* A family's callback, and who called. */
struct rtnl_walk {
	union {
		rtnl_link_fn *link;
		rtnl_addr_fn *addr;
		rtnl_route_fn *route;
		rtnl_neigh_fn *neigh;
	};
	void *arg;
};

static bool rtnl_get_ip(struct cur attrs, uint16_t type, uint8_t family, uint8_t prefix, struct rtnl_ip *ip)
{
	uint8_t len = family == AF_INET ? 4 : 16;
	struct nl_attr a;

	*ip = (struct rtnl_ip){ .family = 0 };
	if ((family != AF_INET && family != AF_INET6) || !nl_attr_find(attrs, type, &a) || a.len != len)
		return false;
	*ip = (struct rtnl_ip){ .family = family, .len = len, .prefix = prefix };
	memcpy(ip->bytes, a.data, len);
	return true;
}

static bool rtnl_get_mac(struct cur attrs, uint16_t type, uint8_t mac[6])
{
	struct nl_attr a;

	if (!nl_attr_find(attrs, type, &a) || a.len != 6)
		return false;
	memcpy(mac, a.data, 6);
	return true;
}

static uint32_t rtnl_get_u32(struct cur attrs, uint16_t type, uint32_t otherwise)
{
	struct nl_attr a;

	return nl_attr_find(attrs, type, &a) ? nl_attr_u32(&a) : otherwise;
}

int rtnl_ip_parse(const char *text, struct rtnl_ip *out)
{
	char addr[INET6_ADDRSTRLEN];
	size_t n = strcspn(text, "/");
	uint64_t prefix;

	*out = (struct rtnl_ip){ .family = AF_INET, .len = 4 };
	if (n >= sizeof addr)
		return -EINVAL;
	memcpy(addr, text, n);
	addr[n] = '\0';
	if (strchr(addr, ':')) {
		out->family = AF_INET6;
		out->len = 16;
	}
	if (inet_pton(out->family, addr, out->bytes) != 1)
		return -EINVAL;
	prefix = out->len * 8u;
	if (text[n] == '/' && str_u64(text + n + 1, 0, prefix, &prefix) < 0)
		return -EINVAL;
	out->prefix = (uint8_t)prefix;
	return 0;
}

int rtnl_mac_parse(const char *text, uint8_t mac[6])
{
	unsigned v[6];
	int end = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
		   &end) != 6 ||
	    text[end])
		return -EINVAL;
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)v[i];
	return 0;
}

const char *rtnl_ip_text(const struct rtnl_ip *ip, bool with_prefix, char out[RTNL_IP_TEXT])
{
	size_t n;

	out[0] = '\0';
	if (!ip->family || !inet_ntop(ip->family, ip->bytes, out, RTNL_IP_TEXT))
		return out;
	n = strlen(out);
	if (with_prefix)
		snprintf(out + n, RTNL_IP_TEXT - n, "/%u", ip->prefix);
	return out;
}

/* --- lists ------------------------------------------------------------------------------------ */

static int rtnl_on_link(void *arg, const struct nl_message *m)
{
	const struct ifinfomsg *h = m->head;
	struct rtnl_link l = { .index = h->ifi_index, .type = h->ifi_type, .flags = h->ifi_flags };
	struct rtnl_walk *w = arg;
	struct nl_attr a, kind;

	if (m->type != RTM_NEWLINK)
		return 0;
	l.mtu = rtnl_get_u32(m->attrs, IFLA_MTU, 0);
	l.master = (int)rtnl_get_u32(m->attrs, IFLA_MASTER, 0);
	l.has_mac = rtnl_get_mac(m->attrs, IFLA_ADDRESS, l.mac);
	if (nl_attr_find(m->attrs, IFLA_IFNAME, &a))
		nl_attr_str(&a, l.name, sizeof l.name);
	if (nl_attr_find(m->attrs, IFLA_LINKINFO, &a) &&
	    nl_attr_find(nl_attr_nested(&a), IFLA_INFO_KIND, &kind))
		nl_attr_str(&kind, l.kind, sizeof l.kind);
	return w->link(w->arg, &l);
}

int rtnl_links(struct nl *nl, rtnl_link_fn *fn, void *arg, struct err *e)
{
	struct rtnl_walk w = { .link = fn, .arg = arg };
	struct ifinfomsg head = { 0 };
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_GETLINK, 0, &head, sizeof head);
	return nl_dump(nl, &b, sizeof head, rtnl_on_link, &w, e);
}

static int rtnl_on_addr(void *arg, const struct nl_message *m)
{
	const struct ifaddrmsg *h = m->head;
	struct rtnl_addr a = { .index = (int)h->ifa_index, .scope = h->ifa_scope };
	struct rtnl_walk *w = arg;

	/* The own one; where there is no other end IPv6 has it in the other attribute. */
	if (m->type != RTM_NEWADDR ||
	    (!rtnl_get_ip(m->attrs, IFA_LOCAL, h->ifa_family, h->ifa_prefixlen, &a.ip) &&
	     !rtnl_get_ip(m->attrs, IFA_ADDRESS, h->ifa_family, h->ifa_prefixlen, &a.ip)))
		return 0;
	a.flags = rtnl_get_u32(m->attrs, IFA_FLAGS, h->ifa_flags);
	return w->addr(w->arg, &a);
}

int rtnl_addrs(struct nl *nl, rtnl_addr_fn *fn, void *arg, struct err *e)
{
	struct rtnl_walk w = { .addr = fn, .arg = arg };
	struct ifaddrmsg head = { 0 };
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_GETADDR, 0, &head, sizeof head);
	return nl_dump(nl, &b, sizeof head, rtnl_on_addr, &w, e);
}

/* Link and gateway of the first of several next hops. */
static void rtnl_first_hop(const struct nl_attr *a, struct rtnl_route *r)
{
	struct rtnexthop hop;

	if (a->len < sizeof hop)
		return;
	memcpy(&hop, a->data, sizeof hop);
	if (hop.rtnh_len < sizeof hop || hop.rtnh_len > a->len)
		return;
	r->index = hop.rtnh_ifindex;
	r->flags |= hop.rtnh_flags;
	rtnl_get_ip(cur_of(a->data + sizeof hop, hop.rtnh_len - sizeof hop), RTA_GATEWAY, r->dst.family,
		    (uint8_t)(8 * r->dst.len), &r->gateway);
}

static int rtnl_on_route(void *arg, const struct nl_message *m)
{
	const struct rtmsg *h = m->head;
	struct rtnl_route r = { .table = h->rtm_table, .type = h->rtm_type, .protocol = h->rtm_protocol,
				.scope = h->rtm_scope, .flags = h->rtm_flags };
	uint8_t bits = h->rtm_family == AF_INET ? 32 : 128;
	struct rtnl_walk *w = arg;
	struct nl_attr a;

	if (m->type != RTM_NEWROUTE || (h->rtm_family != AF_INET && h->rtm_family != AF_INET6))
		return 0;
	if (!rtnl_get_ip(m->attrs, RTA_DST, h->rtm_family, h->rtm_dst_len, &r.dst))
		r.dst = (struct rtnl_ip){ .family = h->rtm_family, .len = bits / 8 };
	rtnl_get_ip(m->attrs, RTA_GATEWAY, h->rtm_family, bits, &r.gateway);
	rtnl_get_ip(m->attrs, RTA_PREFSRC, h->rtm_family, bits, &r.source);
	r.index = (int)rtnl_get_u32(m->attrs, RTA_OIF, 0);
	r.metric = rtnl_get_u32(m->attrs, RTA_PRIORITY, 0);
	if (nl_attr_find(m->attrs, RTA_METRICS, &a))
		r.mtu = rtnl_get_u32(nl_attr_nested(&a), RTAX_MTU, 0);
	if (nl_attr_find(m->attrs, RTA_MULTIPATH, &a))
		rtnl_first_hop(&a, &r);
	return w->route(w->arg, &r);
}

int rtnl_routes(struct nl *nl, rtnl_route_fn *fn, void *arg, struct err *e)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	struct rtnl_walk w = { .route = fn, .arg = arg };
	AUTO_BUF struct buf b = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(families); i++) {
		struct rtmsg head = { .rtm_family = families[i] };
		int r;
		nl_begin(&b, RTM_GETROUTE, 0, &head, sizeof head);
		r = nl_dump(nl, &b, sizeof head, rtnl_on_route, &w, e);
		/* A kernel without IPv6 has no routes of it. */
		if (r < 0 && !(families[i] == AF_INET6 && r == -EOPNOTSUPP))
			return r;
	}
	return 0;
}

static int rtnl_on_neigh(void *arg, const struct nl_message *m)
{
	const struct ndmsg *h = m->head;
	struct rtnl_neigh n = { .index = h->ndm_ifindex, .state = h->ndm_state, .flags = h->ndm_flags };
	uint8_t bits = h->ndm_family == AF_INET ? 32 : 128;
	struct rtnl_walk *w = arg;

	if (m->type != RTM_NEWNEIGH || !rtnl_get_ip(m->attrs, NDA_DST, h->ndm_family, bits, &n.ip))
		return 0;
	n.has_mac = rtnl_get_mac(m->attrs, NDA_LLADDR, n.mac);
	return w->neigh(w->arg, &n);
}

int rtnl_neighs(struct nl *nl, rtnl_neigh_fn *fn, void *arg, struct err *e)
{
	struct rtnl_walk w = { .neigh = fn, .arg = arg };
	struct ndmsg head = { 0 };
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_GETNEIGH, 0, &head, sizeof head);
	return nl_dump(nl, &b, sizeof head, rtnl_on_neigh, &w, e);
}

/* --- links ------------------------------------------------------------------------------------ */

int rtnl_link_set(struct nl *nl, int index, unsigned flags, unsigned change, uint32_t mtu, struct err *e)
{
	struct ifinfomsg head = { .ifi_index = index, .ifi_flags = flags, .ifi_change = change };
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_NEWLINK, 0, &head, sizeof head);
	if (mtu)
		nl_put_u32(&b, IFLA_MTU, mtu);
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

int rtnl_link_no_addr(struct nl *nl, int index, struct err *e)
{
	struct ifinfomsg head = { .ifi_index = index };
	AUTO_BUF struct buf b = { 0 };
	size_t spec, inet6;

	nl_begin(&b, RTM_NEWLINK, 0, &head, sizeof head);
	spec = nl_nest(&b, IFLA_AF_SPEC);
	inet6 = nl_nest(&b, AF_INET6);
	nl_put_u8(&b, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	nl_nest_end(&b, inet6);
	nl_nest_end(&b, spec);
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

int rtnl_link_delete(struct nl *nl, int index, struct err *e)
{
	struct ifinfomsg head = { .ifi_index = index };
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_DELLINK, 0, &head, sizeof head);
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

/* --- traffic control -------------------------------------------------------------------------- */

#define RTNL_INGRESS_HANDLE TC_H_MAKE(TC_H_INGRESS, 0)
/* Of ingress and clsact alike. */
#define RTNL_INGRESS_PARENT TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)

int rtnl_ingress_add(struct nl *nl, int index, struct err *e)
{
	struct tcmsg head = { .tcm_ifindex = index, .tcm_handle = RTNL_INGRESS_HANDLE,
			      .tcm_parent = TC_H_INGRESS };
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
	nl_put_str(&b, TCA_KIND, "ingress");
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

int rtnl_ingress_delete(struct nl *nl, int index, struct err *e)
{
	struct tcmsg head = { .tcm_ifindex = index, .tcm_handle = RTNL_INGRESS_HANDLE,
			      .tcm_parent = TC_H_INGRESS };
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_DELQDISC, 0, &head, sizeof head);
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

static struct tcmsg rtnl_filter(int index, uint16_t preference)
{
	return (struct tcmsg){ .tcm_ifindex = index, .tcm_parent = RTNL_INGRESS_PARENT,
			       .tcm_info = TC_H_MAKE((uint32_t)preference << 16, htons(ETH_P_ALL)) };
}

int rtnl_redirect_add(struct nl *nl, int from, int to, uint16_t preference, struct err *e)
{
	struct tcmsg head = rtnl_filter(from, preference);
	struct tc_mirred mirred = { .action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR,
				    .ifindex = (uint32_t)to };
	struct tc_u32_sel all = { .flags = TC_U32_TERMINAL };
	AUTO_BUF struct buf b = { 0 };
	size_t options, actions, first, parms;

	nl_begin(&b, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
	nl_put_str(&b, TCA_KIND, "u32"); /* which no kernel is without; a selector without keys takes all */
	options = nl_nest(&b, TCA_OPTIONS);
	nl_put(&b, TCA_U32_SEL, &all, sizeof all);
	actions = nl_nest(&b, TCA_U32_ACT);
	first = nl_nest(&b, 1);
	nl_put_str(&b, TCA_ACT_KIND, "mirred");
	parms = nl_nest(&b, TCA_ACT_OPTIONS);
	nl_put(&b, TCA_MIRRED_PARMS, &mirred, sizeof mirred);
	nl_nest_end(&b, parms);
	nl_nest_end(&b, first);
	nl_nest_end(&b, actions);
	nl_nest_end(&b, options);
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

int rtnl_redirect_delete(struct nl *nl, int from, uint16_t preference, struct err *e)
{
	struct tcmsg head = rtnl_filter(from, preference);
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_DELTFILTER, 0, &head, sizeof head);
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}
