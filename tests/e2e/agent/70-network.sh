# Links, addresses, routes.

new_link() { ip link add dummy7 type dummy && ip link set dummy7 address 02:00:00:00:00:07; }
del_link() { ip link del eth7 2>/dev/null || ip link del dummy7; }

interface() {
	new_link
	c interface eth7 02:00:00:00:00:07 1400 10.7.0.2/24 fd07::2/64 && status 0
	that ip link show eth7 >/dev/null 2>&1
	ip addr show dev eth7 >$WORK/out
	out_has "mtu 1400" && out_has 10.7.0.2/24 && out_has fd07::2/64 && out_has "<BROADCAST,NOARP,UP,LOWER_UP>"
	c interface eth7 02:00:00:00:00:07 1300 10.7.0.3/24 && ip addr show dev eth7 >$WORK/out
	out_has 10.7.0.3/24 && out_lacks 10.7.0.2 && out_lacks fd07::2 && out_has "mtu 1300"
	c interfaces && out_has "eth7 02:00:00:00:00:07 mtu 1300 10.7.0.3/24" && out_has "lo "
	del_link
}
t "UpdateInterface: found by address, named, configured, replaced" interface

interface_swap() {
	new_link && ip link add eth7 type dummy && ip link set eth7 address 02:00:00:00:00:08
	c interface eth7 02:00:00:00:00:07 1500 && status 0
	that [ "$(cat /sys/class/net/eth7/address)" = 02:00:00:00:00:07 ]
	ip link del eth7
	for l in /sys/class/net/spore-tmp*; do ip link del "${l##*/}"; done
}
t "UpdateInterface: a name that is taken is taken over" interface_swap

interface_bad() {
	c interface eth7 02:00:00:00:00:99 1500 && refused "DEADLINE_EXCEEDED: no link with hardware address 02:00:00:00:00:99"
	c interface eth7 zz 1500 && refused 'INVALID_ARGUMENT: hardware address "zz"'
	new_link
	c interface "a/b" 02:00:00:00:00:07 1500 && refused "INVALID_ARGUMENT: interface a/b: interface name"
	c interface eth7 02:00:00:00:00:07 1500 10.0.0.999/24 && refused 'interface eth7: address 10.0.0.999: address "10.0.0.999"'
	c interface eth7 02:00:00:00:00:07 1500 10.0.0.9/33 && refused 'mask "33" of 10.0.0.9'
	del_link
}
t "UpdateInterface: what cannot be says why" interface_bad

routes() {
	new_link && c interface eth7 02:00:00:00:00:07 1500 10.7.0.2/24 fd07::2/64
	c routes "|10.7.0.1|eth7||0" "10.9.0.0/16||eth7|10.7.0.2|1280" "fd09::/64|fd07::1|eth7||0" && status 0
	out_has "default via 10.7.0.1 dev eth7" && out_has "10.9.0.0/16 via  dev eth7 src 10.7.0.2 mtu 1280" && out_has "fd09::/64 via fd07::1 dev eth7"
	c routes "10.8.0.0/16|10.7.0.1|eth7||0" && out_has 10.8.0.0/16 && out_lacks 10.9.0.0 && out_lacks default
	c list-routes && out_has "10.8.0.0/16 via 10.7.0.1 dev eth7" && out_has 10.7.0.0/24
	c routes "10.8.0.0/16|10.7.0.1|nolink||0" && refused 'route to 10.8.0.0/16: no interface "nolink"'
	c routes "10.8.0.0/99|10.7.0.1|eth7||0" && refused 'INVALID_ARGUMENT: route to 10.8.0.0/99: address'
	c routes "10.8.0.0/16|99.9.9.9|eth7||0" && refused 'route to 10.8.0.0/16: '
	del_link
}
t "UpdateRoutes replaces all, links first; ListRoutes" routes

neighbors() {
	new_link && c interface eth7 02:00:00:00:00:07 1500 10.7.0.2/24
	c neighbor 10.7.0.9 eth7 02:00:00:00:00:99 && status 0
	ip neigh show dev eth7 >$WORK/out && out_has "10.7.0.9 lladdr 02:00:00:00:00:99 PERMANENT"
	c neighbor 10.7.0.9 nolink 02:00:00:00:00:99 && refused 'neighbour 10.7.0.9: no interface "nolink"'
	del_link
}
t "AddARPNeighbors" neighbors
