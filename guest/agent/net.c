#include "guest/agent/net.h"

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <sys/socket.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/rtnl.h"
#include "amalgam/base/str.h"
#include "guest/agent/agent.h"
#include "guest/agent/slot.h"

#define GA_NET_MAX_LINKS  256
#define GA_NET_MAX_ROUTES 4096
#define GA_NET_TEMP_NAME  "spore-tmp"

static char *ga_net_link_name(uint32_t index)
{
	char name[IF_NAMESIZE] = "";

	return mem_strdup(index && if_indextoname(index, name) ? name : "");
}

/* ---- Links */

int ga_net_loopback_up(struct err *e)
{
	struct ifinfomsg head = { .ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	AUTO_BUF struct buf b = { 0 };
	struct nl nl;
	int r;

	if (nl_open(&nl, NETLINK_ROUTE, e) < 0)
		return e->code;
	nl_begin(&b, RTM_NEWLINK, 0, &head, sizeof head);
	r = nl_do(&nl, &b, sizeof head, NULL, NULL, e);
	nl_close(&nl);
	return r < 0 ? err_wrap(e, "loopback") : 0;
}

struct ga_net_find {
	uint8_t mac[6];
	uint32_t index;
};

static int ga_net_match_mac(void *arg, const struct rtnl_link *l)
{
	struct ga_net_find *f = arg;

	if (!f->index && l->has_mac && !memcmp(l->mac, f->mac, 6))
		f->index = (uint32_t)l->index;
	return 0;
}

/* Index of the link with this hardware address, 0 if there is none. */
static int ga_net_find_mac(struct nl *nl, const char *text, struct err *e)
{
	struct ga_net_find f = { .index = 0 };

	if (rtnl_mac_parse(text, f.mac) < 0)
		return err_set(e, -EINVAL, "hardware address \"%.64s\"", text);
	if (rtnl_links(nl, ga_net_match_mac, &f, e) < 0)
		return e->code;
	return (int)f.index;
}

static int ga_net_set_link(struct nl *nl, uint32_t index, unsigned flags, unsigned change,
			   const char *name, uint32_t mtu, struct err *e)
{
	struct ifinfomsg head = { .ifi_index = (int)index,
				  .ifi_flags = flags,
				  .ifi_change = change };
	AUTO_BUF struct buf b = { 0 };

	nl_begin(&b, RTM_NEWLINK, 0, &head, sizeof head);
	if (name)
		nl_put_str(&b, IFLA_IFNAME, name);
	if (mtu)
		nl_put_u32(&b, IFLA_MTU, mtu);
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

/* A link has to be down for it, and the name free: whoever has it now gets another. */
static int ga_net_rename(struct nl *nl, uint32_t index, const char *name, struct err *e)
{
	uint32_t other = if_nametoindex(name);

	if (other == index)
		return 0;
	if (!*name || strlen(name) >= IF_NAMESIZE || strpbrk(name, "/ ") || !strcmp(name, "."))
		return err_set(e, -EINVAL, "interface name \"%.32s\"", name);
	if (other) {
		char temp[IF_NAMESIZE];
		snprintf(temp, sizeof temp, GA_NET_TEMP_NAME "%u", other % 10000);
		if (ga_net_set_link(nl, other, 0, IFF_UP, temp, 0, e) < 0)
			return err_wrap(e, "move %s out of the way", name);
	}
	if (ga_net_set_link(nl, index, 0, IFF_UP, name, 0, e) < 0)
		return err_wrap(e, "name %s", name);
	return 0;
}

/* ---- Addresses */

struct ga_net_old_addrs {
	uint32_t index;
	struct buf found; /* struct rtnl_ip each */
};

static int ga_net_collect_addr(void *arg, const struct rtnl_addr *a)
{
	struct ga_net_old_addrs *old = arg;

	/* IPv6 link-local addresses are the kernel's doing, and neighbour discovery needs them. */
	if ((uint32_t)a->index == old->index && a->scope != RT_SCOPE_LINK)
		buf_add(&old->found, &a->ip, sizeof a->ip);
	return 0;
}

static int ga_net_change_addr(struct nl *nl, uint16_t type, uint16_t flags, uint32_t index,
			      const struct rtnl_ip *addr, struct err *e)
{
	struct ifaddrmsg head = { .ifa_family = addr->family,
				  .ifa_prefixlen = addr->prefix,
				  .ifa_index = index };
	AUTO_BUF struct buf b = { 0 };

	/* The host's address was in use before; looking for duplicates would only make it wait. */
	if (addr->family == AF_INET6)
		head.ifa_flags = IFA_F_NODAD;
	nl_begin(&b, type, flags, &head, sizeof head);
	nl_put(&b, IFA_LOCAL, addr->bytes, addr->len);
	nl_put(&b, IFA_ADDRESS, addr->bytes, addr->len);
	return nl_do(nl, &b, sizeof head, NULL, NULL, e);
}

static int ga_net_parse_ip(const Types__IPAddress *ip, struct rtnl_ip *addr, struct err *e)
{
	uint64_t prefix;

	if (rtnl_ip_parse(ip->address, addr) < 0)
		return err_set(e, -EINVAL, "address \"%.64s\"", ip->address);
	if (*ip->mask) {
		if (str_u64(ip->mask, 0, addr->len * 8u, &prefix) < 0)
			return err_set(e, -EINVAL, "mask \"%.64s\" of %s", ip->mask, ip->address);
		addr->prefix = (uint8_t)prefix;
	}
	return 0;
}

/* In the place of those it has. */
static int ga_net_set_addrs(struct nl *nl, uint32_t index, const Types__Interface *i, struct err *e)
{
	struct ga_net_old_addrs old = { .index = index };
	int r = rtnl_addrs(nl, ga_net_collect_addr, &old, e);

	for (size_t k = 0; r == 0 && k < old.found.len; k += sizeof(struct rtnl_ip)) {
		struct rtnl_ip addr;
		memcpy(&addr, old.found.data + k, sizeof addr);
		r = ga_net_change_addr(nl, RTM_DELADDR, 0, index, &addr, e);
		r = r == -EADDRNOTAVAIL ? 0 : r; /* a secondary went with its primary */
	}
	buf_fini(&old.found);
	for (size_t k = 0; r == 0 && k < i->n_ipaddresses; k++) {
		struct rtnl_ip addr;
		r = ga_net_parse_ip(i->ipaddresses[k], &addr, e);
		if (r == 0)
			r = ga_net_change_addr(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index,
					       &addr, e);
		if (r < 0)
			return err_wrap(e, "address %s", i->ipaddresses[k]->address);
	}
	return r;
}

/* ---- UpdateInterface */

struct ga_net_update {
	struct ga_wait wait;
	struct ttrpc_call *call;
	const Types__Interface *want; /* the request's, which lives as long as the call */
	struct nl nl;
	uint32_t index;
	struct err e;
};

/* By slot, else by hardware address. Index, 0 not yet, or an error. */
static int ga_net_find_link(struct ga_net_update *u)
{
	int slot = ga_slot_parse(u->want->devicepath);
	char name[IF_NAMESIZE];
	bool was_bound;

	if (slot < 0)
		return ga_net_find_mac(&u->nl, u->want->hwaddr, &u->e);
	if (ga_slot_bind((unsigned)slot, &was_bound, &u->e) < 0)
		return u->e.code;
	return ga_slot_device((unsigned)slot, "net", name, sizeof name) < 0
		       ? 0
		       : (int)if_nametoindex(name);
}

static int ga_net_configure(struct ga_net_update *u)
{
	const Types__Interface *i = u->want;
	/* Of the flags only what a driver cannot know by itself is the host's to say. */
	unsigned flags = i->raw_flags & (IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI);
	struct err *e = &u->e;

	if ((i->mtu > UINT32_MAX && err_set(e, -EINVAL, "mtu %llu", (unsigned long long)i->mtu)) ||
	    (*i->name && ga_net_rename(&u->nl, u->index, i->name, e) < 0) ||
	    (i->mtu && ga_net_set_link(&u->nl, u->index, 0, 0, NULL, (uint32_t)i->mtu, e) < 0) ||
	    ga_net_set_link(&u->nl, u->index, IFF_UP | flags, IFF_UP | flags, NULL, 0, e) < 0 ||
	    ga_net_set_addrs(&u->nl, u->index, i, e) < 0)
		return e->code;
	return 0;
}

static bool ga_net_try_update(struct ga_wait *w)
{
	struct ga_net_update *u = container_of(w, struct ga_net_update, wait);
	int index = ga_net_find_link(u);

	u->index = index > 0 ? (uint32_t)index : 0;
	return index != 0;
}

static void ga_net_updated(struct ga_wait *w, bool in_time)
{
	struct ga_net_update *u = container_of(w, struct ga_net_update, wait);
	const Types__Interface *i = u->want;

	if (!in_time)
		err_set(&u->e, -ETIMEDOUT, "no link with hardware address %.32s or path %.32s",
			i->hwaddr, i->devicepath);
	if (u->index && ga_net_configure(u) < 0)
		err_wrap(&u->e, "interface %.32s", i->name);
	nl_close(&u->nl);
	if (u->e.code < 0)
		ttrpc_fail_err(u->call, &u->e);
	else
		ttrpc_reply(u->call, &i->base);
	free(u);
}

void ga_net_update_interface(struct ga_agent *a, struct ttrpc_call *call, const Types__Interface *i)
{
	struct ga_net_update *u;
	struct err e;

	if (!i) {
		ttrpc_fail(call, TTRPC_INVALID_ARGUMENT, "no interface in the request");
		return;
	}
	u = mem_zalloc(sizeof *u);
	u->call = call;
	u->want = i;
	if (nl_open(&u->nl, NETLINK_ROUTE, &e) < 0) {
		ttrpc_fail_err(call, &e);
		free(u);
		return;
	}
	ga_wait_start(&a->loop, &u->wait, a->config.hotplug_timeout_ms, ga_net_try_update,
		      ga_net_updated);
}

/* ---- Lists: what there is, as the protocol's messages on the heap */

static void ga_net_grow(void *list_p, size_t *n, void *item)
{
	void **list = mem_realloc(*(void ***)list_p, (*n + 1) * sizeof *list);

	list[(*n)++] = item;
	*(void ***)list_p = list;
}

static char *ga_net_attr_text(const struct nl_message *m, uint16_t type)
{
	char text[64] = "";
	struct nl_attr a;

	if (nl_attr_find(m->attrs, type, &a))
		nl_attr_str(&a, text, sizeof text);
	return mem_strdup(text);
}

static int ga_net_add_link(void *arg, const struct rtnl_link *l)
{
	Grpc__Interfaces *list = arg;
	Types__Interface *i;

	if (list->n_interfaces == GA_NET_MAX_LINKS)
		return 0;
	i = mem_zalloc(sizeof *i);
	types__interface__init(i);
	i->name = mem_strdup(l->name);
	i->device = mem_strdup(l->name);
	i->raw_flags = l->flags;
	i->mtu = l->mtu;
	if (l->has_mac)
		i->hwaddr = mem_printf("%02x:%02x:%02x:%02x:%02x:%02x", l->mac[0], l->mac[1], l->mac[2],
				       l->mac[3], l->mac[4], l->mac[5]);
	ga_net_grow(&list->interfaces, &list->n_interfaces, i);
	return 0;
}

static int ga_net_add_address(void *arg, const struct rtnl_addr *a)
{
	Grpc__Interfaces *list = arg;
	AUTO_FREE char *name = ga_net_link_name((uint32_t)a->index);
	char text[RTNL_IP_TEXT];
	Types__IPAddress *ip;

	for (size_t k = 0; k < list->n_interfaces; k++) {
		Types__Interface *i = list->interfaces[k];
		if (strcmp(i->name, name) != 0 || i->n_ipaddresses == GA_NET_MAX_ROUTES)
			continue;
		ip = mem_zalloc(sizeof *ip);
		types__ipaddress__init(ip);
		ip->family = a->ip.family == AF_INET6 ? TYPES__IPFAMILY__v6 : TYPES__IPFAMILY__v4;
		ip->address = mem_strdup(rtnl_ip_text(&a->ip, false, text));
		ip->mask = mem_printf("%u", a->ip.prefix);
		ga_net_grow(&i->ipaddresses, &i->n_ipaddresses, ip);
	}
	return 0;
}

void ga_net_list_interfaces(struct ttrpc_call *call)
{
	Grpc__Interfaces *list = mem_zalloc(sizeof *list);
	struct err e = { 0 };
	struct nl nl;
	int r;

	grpc__interfaces__init(list);
	r = nl_open(&nl, NETLINK_ROUTE, &e);
	if (r == 0) {
		r = rtnl_links(&nl, ga_net_add_link, list, &e);
		if (r == 0)
			r = rtnl_addrs(&nl, ga_net_add_address, list, &e);
		nl_close(&nl);
	}
	if (r < 0)
		ttrpc_fail_err(call, &e);
	else
		ttrpc_reply(call, &list->base);
	grpc__interfaces__free_unpacked(list, NULL);
}

static void ga_net_count(Grpc__NetworkStats *s, const struct rtnl_link_stats64 *k)
{
	s->rx_bytes = k->rx_bytes;
	s->rx_packets = k->rx_packets;
	s->rx_errors = k->rx_errors;
	s->rx_dropped = k->rx_dropped;
	s->tx_bytes = k->tx_bytes;
	s->tx_packets = k->tx_packets;
	s->tx_errors = k->tx_errors;
	s->tx_dropped = k->tx_dropped;
}

struct ga_net_stats_list {
	Grpc__NetworkStats **list;
	size_t n;
};

static int ga_net_add_stats(void *arg, const struct nl_message *m)
{
	struct ga_net_stats_list *l = arg;
	const struct ifinfomsg *h = m->head;
	struct rtnl_link_stats64 k;
	Grpc__NetworkStats *s;
	struct nl_attr a;

	if (m->type != RTM_NEWLINK || h->ifi_flags & IFF_LOOPBACK || l->n == GA_NET_MAX_LINKS ||
	    !nl_attr_find(m->attrs, IFLA_STATS64, &a))
		return 0;
	/* The structure grows with the kernel; take what both know. */
	memset(&k, 0, sizeof k);
	memcpy(&k, a.data, MIN(sizeof k, a.len));
	s = mem_zalloc(sizeof *s);
	grpc__network_stats__init(s);
	s->name = ga_net_attr_text(m, IFLA_IFNAME);
	ga_net_count(s, &k);
	ga_net_grow(&l->list, &l->n, s);
	return 0;
}

void ga_net_stats(Grpc__NetworkStats ***out, size_t *n)
{
	struct ga_net_stats_list l = { .n = 0 };
	struct ifinfomsg head = { 0 };
	AUTO_BUF struct buf b = { 0 };
	struct nl nl;

	if (nl_open(&nl, NETLINK_ROUTE, NULL) == 0) {
		nl_begin(&b, RTM_GETLINK, 0, &head, sizeof head);
		(void)!nl_dump(&nl, &b, sizeof head, ga_net_add_stats, &l, NULL);
		nl_close(&nl);
	}
	*out = l.list;
	*n = l.n;
}
