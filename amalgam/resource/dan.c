#include "amalgam/resource/dan.h"

#include <fcntl.h>
#include <linux/neighbour.h>
#include <net/if_arp.h>
#include <sys/socket.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/wire/json.h"

/* An address that may be absent. */
static int dan_ip(const struct json *v, struct rtnl_ip *ip, struct err *e)
{
	const char *text = "";

	if (json_str(v, &text, e) < 0)
		return e->code;
	if (*text && rtnl_ip_parse(text, ip) < 0)
		return json_refuse(v, e, "must be an address");
	return 0;
}

static int dan_u32(const struct json *v, const char *key, uint32_t *out, struct err *e)
{
	uint64_t n = *out;
	int r = json_u64(json_get(v, key), 0, UINT32_MAX, &n, e);

	*out = (uint32_t)n;
	return r;
}

static int dan_addresses(struct net_link *l, const struct json *list, struct err *e)
{
	if (json_is(list, JSON_LIST, e) < 0)
		return e->code;
	json_each(item, list) {
		struct rtnl_addr a = { .index = l->host.index };
		if (dan_ip(item, &a.ip, e) < 0)
			return e->code;
		if (!a.ip.family)
			continue;
		l->addr = mem_realloc(l->addr, (l->naddrs + 1) * sizeof *l->addr);
		l->addr[l->naddrs++] = a;
	}
	return 0;
}

/* A default route says its family by its gateway, or its source. */
static int dan_route(struct net *n, int index, const struct json *v, struct err *e)
{
	struct rtnl_route r = { .index = index, .table = RT_TABLE_MAIN, .type = RTN_UNICAST };
	uint32_t scope = 0;

	if (dan_ip(json_get(v, "dest"), &r.dst, e) < 0 || dan_ip(json_get(v, "gateway"), &r.gateway, e) < 0 ||
	    dan_ip(json_get(v, "source"), &r.source, e) < 0 || dan_u32(v, "scope", &scope, e) < 0 ||
	    dan_u32(v, "flags", &r.flags, e) < 0 || dan_u32(v, "mtu", &r.mtu, e) < 0)
		return e->code;
	if (!r.dst.family && !r.gateway.family && !r.source.family)
		return json_refuse(v, e, "must have a dest, a gateway or a source");
	if (!r.dst.family)
		r.dst = (struct rtnl_ip){ .family = r.gateway.family ? r.gateway.family : r.source.family };
	if (scope > UINT8_MAX)
		return json_refuse(json_get(v, "scope"), e, "must be less than 256");
	r.scope = (uint8_t)scope;
	n->route = mem_realloc(n->route, (n->nroutes + 1) * sizeof *n->route);
	n->route[n->nroutes++] = r;
	return 0;
}

static int dan_neigh(struct net *n, int index, const struct json *v, struct err *e)
{
	struct rtnl_neigh k = { .index = index };
	const char *mac = "";
	uint32_t state = 0, flags = 0;

	if (dan_ip(json_get(v, "ip_address"), &k.ip, e) < 0 || dan_u32(v, "state", &state, e) < 0 ||
	    dan_u32(v, "flags", &flags, e) < 0 || json_str(json_get(v, "hardware_addr"), &mac, e) < 0)
		return e->code;
	if (!k.ip.family)
		return json_refuse(v, e, "must have an ip_address");
	if (rtnl_mac_parse(mac, k.mac) < 0)
		return json_refuse(v, e, "must have a hardware_addr");
	k.has_mac = true;
	k.state = (uint16_t)(state ? state : NUD_PERMANENT);
	k.flags = (uint8_t)flags;
	n->neigh = mem_realloc(n->neigh, (n->nneighs + 1) * sizeof *n->neigh);
	n->neigh[n->nneighs++] = k;
	return 0;
}

static int dan_info(struct net *n, struct net_link *l, const struct json *info, struct err *e)
{
	const struct json *interface = json_get(info, "interface");
	uint32_t mtu = 1500, flags = 0;

	if (dan_addresses(l, json_get(interface, "ip_addresses"), e) < 0 ||
	    dan_u32(interface, "mtu", &mtu, e) < 0 ||
	    dan_u32(interface, "flags", &flags, e) < 0)
		return e->code;
	l->host.mtu = mtu;
	l->host.flags = flags;
	json_each(v, json_get(info, "routes"))
		if (n->nroutes == NET_MAX_ROUTES || dan_route(n, l->host.index, v, e) < 0)
			return n->nroutes == NET_MAX_ROUTES ? json_refuse(v, e, "are too many") : e->code;
	json_each(v, json_get(info, "neighbors"))
		if (n->nneighs == NET_MAX_ROUTES || dan_neigh(n, l->host.index, v, e) < 0)
			return n->nneighs == NET_MAX_ROUTES ? json_refuse(v, e, "are too many") : e->code;
	return 0;
}

static int dan_device(struct net *n, const struct json *v, struct err *e)
{
	const char *name = "", *mac = "", *type = "", *tap = "";
	struct net_link *l;

	if (json_str(json_get(v, "name"), &name, e) < 0 || json_str(json_get(v, "guest_mac"), &mac, e) < 0 ||
	    json_str(json_find(v, "device.type"), &type, e) < 0 ||
	    json_str(json_find(v, "device.tap_name"), &tap, e) < 0)
		return e->code;
	if (strcmp(type, "host-tap"))
		return json_refuse(v, e, "device of type \"%.32s\": only host-tap is supported", type);
	if (!*name || strlen(name) >= IFNAMSIZ)
		return json_refuse(v, e, "must have a name shorter than %d", IFNAMSIZ);
	if (net_add_tap(n, tap, e) < 0)
		return e->code;
	l = &n->link[n->nlinks - 1];
	snprintf(l->host.name, sizeof l->host.name, "%s", name);
	if (*mac && rtnl_mac_parse(mac, l->host.mac) < 0)
		return json_refuse(json_get(v, "guest_mac"), e, "must be a hardware address");
	return dan_info(n, l, json_get(v, "network_info"), e);
}

static int dan_attach(struct net *n, const struct json *root, struct err *e)
{
	const struct json *devices = json_get(root, "devices");
	const char *netns = "/proc/self/ns/net";
	int fd;

	if (json_is(devices, JSON_LIST, e) < 0 || json_str(json_get(root, "netns"), &netns, e) < 0)
		return e->code;
	if ((fd = net_find(netns, e)) < 0 || net_open_any(n, fd, e) < 0)
		return e->code;
	n->is_fixed = true;
	json_each(v, devices)
		if (dan_device(n, v, e) < 0)
			return e->code;
	return 0;
}

int dan_open(struct net *n, const char *file, struct err *e)
{
	AUTO_BUF struct buf b = { 0 };
	AUTO_JSON struct json_doc doc = { 0 };
	int r = path_read(file, DAN_MAX_BYTES, &b, e);

	*n = (struct net){ .ns_fd = -1, .nl.fd = -1 };
	if (r < 0)
		return r;
	if ((r = json_parse(&doc, b.data, b.len, e)) == 0)
		r = dan_attach(n, doc.root, e);
	if (r < 0) {
		net_close(n);
		return err_wrap(e, "%s", file);
	}
	return 0;
}
