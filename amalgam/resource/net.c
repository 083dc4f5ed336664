#include "amalgam/resource/net.h"

#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/nsfs.h>
#include <net/if_arp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"

#define NET_NAMED      "/run/netns"
#define NET_TAP_SUFFIX "_spore"
#define NET_HDR_BYTES  12 /* of a tap: struct virtio_net_hdr_v1 */
#define NET_OFFLOADS   (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)

/* Preferences of our redirections, which are behind other filters. The number tells whose ingress queue it
 * is: so who finds one that a killed process left can tell what to take away with it. */
#define NET_PREFERENCE_OWN   0x5350
#define NET_PREFERENCE_GUEST 0x5351

/* --- namespaces ------------------------------------------------------------------------------- */

int net_find(const char *name, struct err *e)
{
	AUTO_FREE char *path = strchr(name, '/') ? mem_strdup(name) : mem_printf(NET_NAMED "/%s", name);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_set(e, -errno, "network namespace %s: %m", path);
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return err_set(e, -EINVAL, "network namespace %s: this is none", path);
	return take_fd(&fd);
}

static bool net_is_same(int ns_fd, const char *path)
{
	struct stat a, b;

	return fstat(ns_fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool net_is_hosts(int ns_fd)
{
	return net_is_same(ns_fd, "/proc/self/ns/net") || net_is_same(ns_fd, "/proc/1/ns/net");
}

/* Into the namespace; *back is the way out. */
static int net_enter(int ns_fd, int *back, struct err *e)
{
	*back = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (*back < 0)
		return err_set(e, -errno, "own network namespace: %m");
	if (setns(ns_fd, CLONE_NEWNET) < 0) {
		int code = -errno;
		close(take_fd(back));
		return err_set(e, code, "enter network namespace: %s", strerror(-code));
	}
	return 0;
}

static void net_leave(int back)
{
	int r = setns(back, CLONE_NEWNET);

	ASSERT(r == 0); /* it was ours a moment ago */
	close(back);
}

/* --- what there is ---------------------------------------------------------------------------- */

struct net_scan {
	struct net *net;
	struct rtnl_link link[NET_MAX_LINKS]; /* wanted and not led yet */
	unsigned n;
	bool is_taken; /* by a machine */
};

static struct net_link *net_by_index(struct net *n, int index)
{
	for (unsigned i = 0; i < n->nlinks; i++)
		if (n->link[i].host.index == index)
			return &n->link[i];
	return NULL;
}

const char *net_name(const struct net *n, int index)
{
	for (unsigned i = 0; i < n->nlinks; i++)
		if (n->link[i].host.index == index)
			return n->link[i].host.name;
	return "";
}

/* A tap that leads to a machine, ours or one of Kata's. */
static bool net_is_lead(const struct rtnl_link *l)
{
	unsigned number;
	int end = 0;

	return !strcmp(l->kind, "tun") && sscanf(l->name, "tap%3u_%n", &number, &end) == 1 && end &&
	       (!strcmp(l->name + end - 1, NET_TAP_SUFFIX) || !strcmp(l->name + end - 1, "_kata"));
}

/* One that was made for a machine, as by the CNI plugin of this name; tun(4) has other kinds, too. */
static bool net_is_tap(const struct rtnl_link *l)
{
	return !strcmp(l->kind, "tun") && l->type == ARPHRD_ETHER && l->has_mac;
}

static bool net_is_led(const struct net *n, const struct rtnl_link *l)
{
	for (unsigned i = 0; i < n->nlinks; i++)
		if (n->link[i].host.index == l->index || n->link[i].tap_index == l->index)
			return true;
	return false;
}

/* Tunnel modules put a link of theirs into every namespace: those are down. What is part of a bridge or bond
 * comes with that. One without Ethernet frames cannot be led to a card. */
static int net_on_link(void *arg, const struct rtnl_link *l)
{
	struct net_scan *s = arg;

	if (l->flags & IFF_LOOPBACK || net_is_led(s->net, l))
		return 0;
	if (net_is_lead(l)) {
		s->is_taken = true;
		return 0;
	}
	if (!(l->flags & IFF_UP) || l->master)
		return 0;
	if (l->type != ARPHRD_ETHER || !l->has_mac) {
		log_warn("link is not Ethernet; the guest does not get it", KV("link", l->name));
		return 0;
	}
	if (s->net->nlinks + s->n == NET_MAX_LINKS)
		return -E2BIG;
	s->link[s->n++] = *l;
	return 0;
}

/* The one that the guest's kernel makes from the hardware address by itself (RFC 4291, appendix A). */
static bool net_is_automatic(const struct rtnl_link *l, const struct rtnl_addr *a)
{
	const uint8_t *m = l->mac;
	const uint8_t want[16] = { 0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4],
				   m[5] };

	return a->ip.family == AF_INET6 && !memcmp(a->ip.bytes, want, sizeof want);
}

static int net_on_addr(void *arg, const struct rtnl_addr *a)
{
	struct net_link *l = net_by_index(arg, a->index);

	if (!l || l->naddrs == NET_MAX_ROUTES || net_is_automatic(&l->host, a) ||
	    a->flags & IFA_F_DADFAILED || (a->ip.family == AF_INET6 && a->flags & IFA_F_TEMPORARY))
		return 0;
	l->addr = mem_realloc(l->addr, (l->naddrs + 1) * sizeof *l->addr);
	l->addr[l->naddrs++] = *a;
	return 0;
}

/* Those that somebody made. What the kernel keeps for an address comes with the address. */
static int net_on_route(void *arg, const struct rtnl_route *r)
{
	struct net *n = arg;

	if (r->table != RT_TABLE_MAIN || r->type != RTN_UNICAST || r->protocol == RTPROT_KERNEL ||
	    r->flags & RTM_F_CLONED || !net_by_index(n, r->index))
		return 0;
	if (n->nroutes == NET_MAX_ROUTES)
		return -E2BIG;
	n->route = mem_realloc(n->route, (n->nroutes + 1) * sizeof *n->route);
	n->route[n->nroutes++] = *r;
	return 0;
}

static int net_on_neigh(void *arg, const struct rtnl_neigh *k)
{
	struct net *n = arg;

	if (!(k->state & NUD_PERMANENT) || k->flags & NTF_PROXY || !k->has_mac || !net_by_index(n, k->index))
		return 0;
	if (n->nneighs == NET_MAX_ROUTES)
		return -E2BIG;
	n->neigh = mem_realloc(n->neigh, (n->nneighs + 1) * sizeof *n->neigh);
	n->neigh[n->nneighs++] = *k;
	return 0;
}

/* Of all links that are led. */
static int net_describe(struct net *n, struct err *e)
{
	for (unsigned i = 0; i < n->nlinks; i++)
		n->link[i].naddrs = 0;
	n->nroutes = n->nneighs = 0;
	if (rtnl_addrs(&n->nl, net_on_addr, n, e) < 0)
		return err_wrap(e, "addresses");
	if (rtnl_routes(&n->nl, net_on_route, n, e) < 0)
		return err_wrap(e, "routes");
	if (rtnl_neighs(&n->nl, net_on_neigh, n, e) < 0)
		return err_wrap(e, "neighbours");
	return 0;
}

/* --- leading a link --------------------------------------------------------------------------- */

/* In the namespace: a new tap, or the one there is of this name. It exists as long as its descriptor, unless it
 * did so before. */
static int net_ask_tap(int fd, const char *name, unsigned flags)
{
	struct ifreq ifr = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags) };

	snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", name);
	return ioctl(fd, TUNSETIFF, &ifr) < 0 ? -errno : 0;
}

static int net_open_tap(struct net_link *l, struct err *e)
{
	l->tap_fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	return l->tap_fd < 0 ? err_set(e, -errno, "/dev/net/tun: %m; is the module tun there?") : 0;
}

/* What vmm/virtio/net.h wants of it. */
static int net_set_tap(struct net_link *l, struct err *e)
{
	const int header = NET_HDR_BYTES;

	if (ioctl(l->tap_fd, TUNSETVNETHDRSZ, &header) < 0 ||
	    ioctl(l->tap_fd, TUNSETOFFLOAD, NET_OFFLOADS) < 0 ||
	    (l->tap_index = (int)if_nametoindex(l->tap)) == 0)
		return err_set(e, -errno, "tap %s: %m", l->tap);
	return 0;
}

/* Of the first name that is free. */
static int net_make_tap(struct net_link *l, struct err *e)
{
	int r = net_open_tap(l, e);

	if (r < 0)
		return r;
	r = -EBUSY;
	for (unsigned i = 0; i < 1000 && (r == -EBUSY || r == -EEXIST); i++) {
		snprintf(l->tap, sizeof l->tap, "tap%u" NET_TAP_SUFFIX, i);
		r = net_ask_tap(l->tap_fd, l->tap, IFF_TUN_EXCL);
	}
	return r < 0 ? err_set(e, r, "tap %s: %s", l->tap, strerror(-r)) : net_set_tap(l, e);
}

/* Take a redirection back, and its queue if that came with it; false: there is none of ours. */
static bool net_clear(struct nl *nl, int index)
{
	if (rtnl_redirect_delete(nl, index, NET_PREFERENCE_OWN, NULL) == 0) {
		(void)!rtnl_ingress_delete(nl, index, NULL);
		return true;
	}
	return rtnl_redirect_delete(nl, index, NET_PREFERENCE_GUEST, NULL) == 0;
}

/* What the link receives leaves by the tap. */
static int net_redirect(struct nl *nl, const struct net_link *l, struct err *e)
{
	int r = rtnl_ingress_add(nl, l->host.index, e);

	/* No machine is connected, so one of ours is from a time before. */
	if (r == -EEXIST && net_clear(nl, l->host.index))
		r = rtnl_ingress_add(nl, l->host.index, e);
	if (r < 0 && r != -EEXIST)
		return r;
	return rtnl_redirect_add(nl, l->host.index, l->tap_index,
				 r == 0 ? NET_PREFERENCE_OWN : NET_PREFERENCE_GUEST, e);
}

static int net_lead(struct net *n, struct net_link *l, struct err *e)
{
	struct nl *nl = &n->nl;

	/* A kernel without IPv6 has no such address. */
	(void)!rtnl_link_no_addr(nl, l->tap_index, NULL);
	if (rtnl_link_set(nl, l->tap_index, 0, 0, l->host.mtu, e) < 0 ||
	    rtnl_ingress_add(nl, l->tap_index, e) < 0 ||
	    rtnl_redirect_add(nl, l->tap_index, l->host.index, NET_PREFERENCE_OWN, e) < 0)
		return err_wrap(e, "%s", l->tap);
	if (net_redirect(nl, l, e) < 0)
		return err_wrap(e, "redirect to %s", l->tap);
	l->is_led = true;
	if (rtnl_link_set(nl, l->tap_index, IFF_UP, IFF_UP, 0, e) < 0)
		return err_wrap(e, "%s", l->tap);
	return 0;
}

/* Also of one that was half made. */
static void net_unlead(struct net *n, struct net_link *l)
{
	if (l->is_led)
		net_clear(&n->nl, l->host.index);
	if (l->tap_index && l->tap_index != l->host.index)
		(void)!rtnl_link_delete(&n->nl, l->tap_index, NULL);
	if (l->tap_fd >= 0)
		close(take_fd(&l->tap_fd));
	free(take_ptr(&l->addr));
	*l = (struct net_link){ .tap_fd = -1 };
}

/* In the namespace. */
static int net_add(struct net *n, const struct rtnl_link *found, struct err *e)
{
	struct net_link *l = &n->link[n->nlinks];
	int r;

	*l = (struct net_link){ .host = *found, .tap_fd = -1 };
	if ((r = net_make_tap(l, e)) == 0)
		r = net_lead(n, l, e);
	if (r < 0) {
		net_unlead(n, l);
		return err_wrap(e, "link %s", found->name);
	}
	n->nlinks++;
	return 0;
}

/* The same for a tap. Its other end in the host's stack has its own hardware address, so ours is another. */
static int net_add_found_tap(struct net *n, const struct rtnl_link *found, struct err *e)
{
	struct net_link *l = &n->link[n->nlinks];
	int r;

	*l = (struct net_link){ .host = *found, .tap_fd = -1 };
	memcpy(l->tap, found->name, sizeof l->tap);
	l->host.mac[0] = (uint8_t)((l->host.mac[0] | 2) & ~1);
	l->host.mac[1] ^= 0xff;
	if ((r = net_open_tap(l, e)) == 0) {
		r = net_ask_tap(l->tap_fd, l->tap, 0);
		if (r == -EINVAL) /* it may have several queues, and wants to hear that we know */
			r = net_ask_tap(l->tap_fd, l->tap, IFF_MULTI_QUEUE);
		r = r < 0 ? err_set(e, r, "%s", strerror(-r)) : net_set_tap(l, e);
	}
	if (r < 0) {
		net_unlead(n, l);
		return err_wrap(e, "tap %s", found->name);
	}
	n->nlinks++;
	return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

int net_open_any(struct net *n, int ns_fd, struct err *e)
{
	int back, r;

	*n = (struct net){ .ns_fd = ns_fd, .nl.fd = -1 };
	if ((r = net_enter(ns_fd, &back, e)) == 0) {
		r = nl_open(&n->nl, NETLINK_ROUTE, e);
		net_leave(back);
	}
	if (r < 0)
		net_close(n);
	return r;
}

int net_open(struct net *n, int ns_fd, struct err *e)
{
	if (!net_is_hosts(ns_fd))
		return net_open_any(n, ns_fd, e);
	close(ns_fd);
	*n = (struct net){ .ns_fd = -1, .nl.fd = -1 };
	return err_set(e, -EPERM, "the host's own network cannot be a machine's");
}

static int net_add_all(struct net *n, const struct net_scan *s, struct err *e)
{
	int back, r = net_enter(n->ns_fd, &back, e);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < s->n && r == 0; i++) {
		if (!net_is_tap(&s->link[i])) {
			r = net_add(n, &s->link[i], e);
			continue;
		}
		r = net_add_found_tap(n, &s->link[i], e);
		if (r == -EBUSY && !n->is_fixed) { /* the tap of a program, a VPN's for one */
			log_warn("tap is in use; the guest does not get it", KV("link", s->link[i].name));
			*e = (struct err){ 0 };
			r = 0;
		}
	}
	net_leave(back);
	return r;
}

struct net_look {
	const char *name;
	struct rtnl_link found;
};

static int net_match_name(void *arg, const struct rtnl_link *l)
{
	struct net_look *look = arg;

	if (!strcmp(l->name, look->name))
		look->found = *l;
	return 0;
}

int net_add_tap(struct net *n, const char *name, struct err *e)
{
	struct net_look look = { .name = name };
	struct net_scan s = { .net = n, .n = 1 };

	if (n->nlinks == NET_MAX_LINKS)
		return err_set(e, -E2BIG, "more than %d links", NET_MAX_LINKS);
	if (rtnl_links(&n->nl, net_match_name, &look, e) < 0)
		return err_wrap(e, "links");
	if (!net_is_tap(&look.found))
		return err_set(e, -ENOENT, "tap %s: there is none", name);
	s.link[0] = look.found;
	return net_add_all(n, &s, e);
}

int net_scan(struct net *n, struct err *e)
{
	struct net_scan s = { .net = n };
	unsigned before = n->nlinks;
	int r;

	if (n->is_fixed)
		return 0;
	r = rtnl_links(&n->nl, net_on_link, &s, e);
	if (r < 0)
		return err_wrap(e, "links");
	if (s.is_taken)
		return err_set(e, -EBUSY, "another machine is connected to this network namespace");
	if (s.n)
		r = net_add_all(n, &s, e);
	if (r == 0 && n->nlinks)
		r = net_describe(n, e);
	while (r < 0 && n->nlinks > before)
		net_unlead(n, &n->link[--n->nlinks]);
	return r < 0 ? r : (int)(n->nlinks - before);
}

struct net_left {
	struct buf index; /* uint32_t each */
	bool is_taken;
};

static int net_note_left(void *arg, const struct rtnl_link *l)
{
	struct net_left *left = arg;

	buf_le32(&left->index, (uint32_t)l->index);
	left->is_taken |= net_is_lead(l);
	return 0;
}

void net_repair(struct net *n)
{
	struct net_left left = { .is_taken = false };
	struct cur c;
	struct err e;

	if (rtnl_links(&n->nl, net_note_left, &left, &e) < 0)
		log_warn("network not looked at for what a machine left", KV("reason", e.msg));
	c = cur_of(left.index.data, left.index.len);
	while (cur_left(&c) && !left.is_taken)
		net_clear(&n->nl, (int)cur_le32(&c));
	buf_fini(&left.index);
}

void net_close(struct net *n)
{
	while (n->nlinks)
		net_unlead(n, &n->link[--n->nlinks]);
	free(take_ptr(&n->route));
	free(take_ptr(&n->neigh));
	n->nroutes = n->nneighs = 0;
	if (n->nl.fd > 0)
		nl_close(&n->nl);
	if (n->ns_fd > 0)
		close(n->ns_fd);
	n->ns_fd = n->nl.fd = -1;
}
