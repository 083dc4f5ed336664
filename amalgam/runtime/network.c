#include "amalgam/runtime/network.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "amalgam/base/mem.h"
#include "amalgam/resource/dan.h"

#define NETWORK_MAC_TEXT 18
#define NETWORK_VHOST    "/dev/vhost-net" /* a host without it is no worse a host */

static char *network_str(const char *s) /* protobuf-c wants char * for strings it only reads */
{
	return (char *)(uintptr_t)s;
}

static char *network_mac_text(const uint8_t m[6], char out[NETWORK_MAC_TEXT])
{
	snprintf(out, NETWORK_MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	return out;
}

static Types__IPFamily network_family(const struct rtnl_ip *ip)
{
	return ip->family == AF_INET6 ? TYPES__IPFAMILY__v6 : TYPES__IPFAMILY__v4;
}

static void network_finish(struct network *w, const struct err *e)
{
	network_done_fn *done = w->done;

	w->done = NULL;
	if (done)
		done(w->arg, e);
}

static void network_fail(struct network *w, const struct ttrpc_result *res, const char *what)
{
	struct err e = { 0 };

	err_set(&e, -EIO, "network: guest: %s: %s", what, res->message);
	network_finish(w, &e);
}

static void network_ask(struct network *w, const char *method, const void *rq,
			const ProtobufCMessageDescriptor *answer, ttrpc_done_fn *done)
{
	agent_ask(&w->sandbox->agent, method, rq, answer, AGENT_LIMIT_NS, done, w);
}

/* --- neighbours --------------------------------------------------------------------------------- */

struct network_neigh {
	Types__ARPNeighbor msg;
	Types__IPAddress ip;
	char address[RTNL_IP_TEXT], mac[NETWORK_MAC_TEXT];
};

static void network_on_neighs(void *arg, const struct ttrpc_result *res)
{
	struct network *w = arg;
	struct err e = { 0 };

	if (res->code != TTRPC_OK)
		network_fail(w, res, "neighbours");
	else
		network_finish(w, &e);
}

static void network_tell_neighs(struct network *w)
{
	const struct net *n = &w->net;
	AUTO_FREE struct network_neigh *all = mem_calloc(n->nneighs + 1, sizeof *all);
	AUTO_FREE Types__ARPNeighbor **list = mem_calloc(n->nneighs + 1, sizeof *list);
	Grpc__AddARPNeighborsRequest rq = GRPC__ADD_ARPNEIGHBORS_REQUEST__INIT;
	Grpc__ARPNeighbors neighs = GRPC__ARPNEIGHBORS__INIT;
	struct err e = { 0 };

	if (n->nneighs == 0) {
		network_finish(w, &e);
		return;
	}
	for (size_t i = 0; i < n->nneighs; i++) {
		const struct rtnl_neigh *k = &n->neigh[i];
		struct network_neigh *m = &all[i];
		types__arpneighbor__init(&m->msg);
		types__ipaddress__init(&m->ip);
		m->ip.family = network_family(&k->ip);
		m->ip.address = network_str(rtnl_ip_text(&k->ip, false, m->address));
		m->msg.toipaddress = &m->ip;
		m->msg.device = network_str(net_name(n, k->index));
		m->msg.lladdr = network_mac_text(k->mac, m->mac);
		m->msg.state = k->state;
		m->msg.flags = k->flags;
		list[i] = &m->msg;
	}
	neighs.arpneighbors = list;
	neighs.n_arpneighbors = n->nneighs;
	rq.neighbors = &neighs;
	network_ask(w, "AddARPNeighbors", &rq, &grpc__empty__descriptor, network_on_neighs);
}

/* --- routes ------------------------------------------------------------------------------------- */

struct network_route {
	Types__Route msg;
	char dst[RTNL_IP_TEXT], gateway[RTNL_IP_TEXT], source[RTNL_IP_TEXT];
};

static void network_on_routes(void *arg, const struct ttrpc_result *res)
{
	struct network *w = arg;

	if (res->code != TTRPC_OK)
		network_fail(w, res, "routes");
	else
		network_tell_neighs(w);
}

static void network_describe_route(const struct net *n, const struct rtnl_route *r, struct network_route *m)
{
	types__route__init(&m->msg);
	m->msg.dest = network_str(r->dst.prefix ? rtnl_ip_text(&r->dst, true, m->dst) : "");
	m->msg.gateway = network_str(rtnl_ip_text(&r->gateway, false, m->gateway));
	m->msg.source = network_str(rtnl_ip_text(&r->source, false, m->source));
	m->msg.device = network_str(net_name(n, r->index));
	m->msg.family = network_family(&r->dst);
	m->msg.scope = r->scope;
	m->msg.flags = r->flags;
	m->msg.mtu = r->mtu;
	m->msg.metric = r->metric;
}

static void network_tell_routes(struct network *w)
{
	const struct net *n = &w->net;
	AUTO_FREE struct network_route *all = mem_calloc(n->nroutes + 1, sizeof *all);
	AUTO_FREE Types__Route **list = mem_calloc(n->nroutes + 1, sizeof *list);
	Grpc__UpdateRoutesRequest rq = GRPC__UPDATE_ROUTES_REQUEST__INIT;
	Grpc__Routes routes = GRPC__ROUTES__INIT;

	for (size_t i = 0; i < n->nroutes; i++) {
		network_describe_route(n, &n->route[i], &all[i]);
		list[i] = &all[i].msg;
	}
	routes.routes = list;
	routes.n_routes = n->nroutes;
	rq.routes = &routes;
	if (n->nroutes)
		network_ask(w, "UpdateRoutes", &rq, &grpc__routes__descriptor, network_on_routes);
	else
		network_tell_neighs(w);
}

/* --- links -------------------------------------------------------------------------------------- */

struct network_addr {
	Types__IPAddress msg;
	char address[RTNL_IP_TEXT], mask[4];
};

static void network_tell_link(struct network *w);

static void network_on_link(void *arg, const struct ttrpc_result *res)
{
	struct network *w = arg;

	if (res->code != TTRPC_OK) {
		network_fail(w, res, w->net.link[w->at].host.name);
		return;
	}
	w->at++;
	network_tell_link(w);
}

static void network_describe_addr(const struct rtnl_addr *a, struct network_addr *m)
{
	types__ipaddress__init(&m->msg);
	snprintf(m->mask, sizeof m->mask, "%u", a->ip.prefix);
	m->msg.family = network_family(&a->ip);
	m->msg.address = network_str(rtnl_ip_text(&a->ip, false, m->address));
	m->msg.mask = m->mask;
}

/* The next one; after the last come the routes, which need them all. */
static void network_tell_link(struct network *w)
{
	const struct net_link *l = &w->net.link[w->at];
	Grpc__UpdateInterfaceRequest rq = GRPC__UPDATE_INTERFACE_REQUEST__INIT;
	Types__Interface i = TYPES__INTERFACE__INIT;
	AUTO_FREE struct network_addr *all = NULL;
	AUTO_FREE Types__IPAddress **list = NULL;
	char mac[NETWORK_MAC_TEXT], slot[16];

	if (w->at == w->net.nlinks) {
		network_tell_routes(w);
		return;
	}
	all = mem_calloc(l->naddrs + 1, sizeof *all);
	list = mem_calloc(l->naddrs + 1, sizeof *list);
	for (size_t k = 0; k < l->naddrs; k++) {
		network_describe_addr(&l->addr[k], &all[k]);
		list[k] = &all[k].msg;
	}
	snprintf(slot, sizeof slot, "slot:%u", w->slot[w->at]);
	i.name = i.device = network_str(l->host.name);
	i.ipaddresses = list;
	i.n_ipaddresses = l->naddrs;
	i.mtu = l->host.mtu;
	i.hwaddr = network_mac_text(l->host.mac, mac);
	i.devicepath = slot;
	i.type = network_str(l->host.kind);
	i.raw_flags = l->host.flags;
	rq.interface = &i;
	network_ask(w, "UpdateInterface", &rq, &types__interface__descriptor, network_on_link);
}

/* --- life --------------------------------------------------------------------------------------- */

/* Cards for the links that have none yet. */
static int network_attach(struct network *w, struct err *e)
{
	for (; w->ncards < w->net.nlinks; w->ncards++) {
		struct net_link *l = &w->net.link[w->ncards];
		struct ctl_net card = { .mtu = (uint16_t)MIN(l->host.mtu, (uint32_t)UINT16_MAX),
					.rx_rate = w->rx_rate, .tx_rate = w->tx_rate };
		AUTO_CLOSE int vhost = w->no_vhost ? -1 : open(NETWORK_VHOST, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		int r;
		memcpy(card.mac, l->host.mac, sizeof card.mac);
		r = sandbox_net_add(w->sandbox, l->tap_fd, vhost, &card, &w->slot[w->ncards], e);
		close(take_fd(&l->tap_fd)); /* gone with the machine */
		if (r < 0)
			return err_wrap(e, "link %s", l->host.name);
	}
	return 0;
}

int network_open(struct network *w, int ns_fd, struct err *e)
{
	int r = net_open(&w->net, ns_fd, e);

	w->is_open = r == 0;
	return r < 0 ? err_wrap(e, "network") : 0;
}

int network_open_dan(struct network *w, const char *file, struct err *e)
{
	int r = dan_open(&w->net, file, e);

	w->is_open = r == 0;
	return r < 0 ? err_wrap(e, "network") : 0;
}

void network_sync(struct network *w, struct sandbox *s, network_done_fn *done, void *arg)
{
	struct err e = { 0 };

	ASSERT(!w->done);
	w->sandbox = s;
	w->done = done;
	w->arg = arg;
	w->at = w->ncards;
	if (net_scan(&w->net, &e) >= 0)
		(void)!network_attach(w, &e);
	if (e.code < 0)
		err_wrap(&e, "network");
	if (w->at < w->ncards && e.code == 0)
		network_tell_link(w);
	else
		network_finish(w, &e);
}

struct network_wait {
	bool over;
	struct err *e;
};

static void network_waited(void *arg, const struct err *e)
{
	struct network_wait *wait = arg;

	wait->over = true;
	*wait->e = *e;
}

int network_sync_wait(struct network *w, struct sandbox *s, struct err *e)
{
	struct network_wait wait = { .e = e };
	int r = 0;

	network_sync(w, s, network_waited, &wait);
	while (!wait.over && (r = loop_step(s->loop, -1)) == 0)
		;
	return r < 0 ? err_set(e, r, "event loop: %s", strerror(-r)) : e->code;
}

void network_close(struct network *w)
{
	w->done = NULL;
	if (w->is_open)
		net_close(&w->net);
	w->is_open = false;
}
