# net.sh - containers with a network: a namespace that was made before, links that come between Create and Start.

# The namespace "pod", with eth0 in it and its other end w0 here.
wire() {
	ip netns delete pod 2>/dev/null # of a case that went wrong
	ip link delete w0 2>/dev/null
	ip netns add pod
	ip link add w0 type veth peer name eth0 netns pod
	ip addr add 10.1.0.1/24 dev w0
	ip addr add fd00:1::1/64 dev w0 nodad
	ip link set w0 up
	ip -n pod addr add 10.1.0.2/24 dev eth0
	ip -n pod addr add fd00:1::2/64 dev eth0 nodad
	ip -n pod link set lo up
	ip -n pod link set eth0 mtu 1450 address 02:00:00:00:00:07 up
	ip -n pod route add default via 10.1.0.1
	ip -n pod route add 10.9.0.0/16 dev eth0 scope link src 10.1.0.2
}
no_wire() {
	is "$(tc -n pod qdisc | grep -c ingress)" 0 "queues left"
	is "$(ip -n pod -o link | wc -l)" 2 links
	ip netns delete pod
	ip link delete w0 2>/dev/null
	await [ ! -e /sys/class/net/w0 ]
}
LOOK_NET='cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address
	ip -o addr show eth0 | grep -v fe80 | awk "{ print \$3, \$4 }"; ip route; ls /sys/class/net'

net_joined() {
	wire
	see run --with-ns network:/run/netns/pod "$BB" c1 sh -c "$LOOK_NET; ping -c 2 -W 5 10.1.0.1 | grep received
		ping -6 -c 2 -W 5 fd00:1::1 | grep received"
	status 0
	out_has "2 packets received"
	no_wire
}
t "a container in a namespace somebody made has its links, addresses and routes" net_joined

net_reached() {
	wire
	up c1 --with-ns network:/run/netns/pod -- httpd -f -p 80 -h /bin
	await busybox wget -q -O "$WORK/got" http://10.1.0.2/busybox
	busybox wget -q -O - "http://[fd00:1::2]/busybox" | md5sum
	x c1 md5sum /bin/busybox
	down c1
	no_wire
}
t "a server in a container is reached at the namespace's addresses" net_reached

# A plugin as CNI has them, in the places where ctr looks.
cni() {
	mkdir -p /opt/cni/bin /etc/cni/net.d
	cat >/opt/cni/bin/wire <<-'SH'
		#!/bin/bash
		case $CNI_COMMAND in
		ADD)
			n="nsenter --net=$CNI_NETNS ip"
			$n link add "$CNI_IFNAME" type veth peer name cni0 netns 1
			$n addr add 10.4.0.2/24 dev "$CNI_IFNAME"
			$n link set "$CNI_IFNAME" address 02:00:00:00:00:09 up
			$n route add default via 10.4.0.1
			ip addr add 10.4.0.1/24 dev cni0
			ip link set cni0 up
			echo '{"cniVersion":"0.4.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],
				"ips":[{"version":"4","address":"10.4.0.2/24","interface":0}]}'
			;;
		DEL) ip link delete cni0 ;;
		VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.4.0"]}' ;;
		esac >&1 2>>/tmp/cni.log
		exit 0
	SH
	chmod 755 /opt/cni/bin/wire
	echo '{"cniVersion":"0.4.0","name":"wire","plugins":[{"type":"wire"}]}' >/etc/cni/net.d/10-wire.conflist
}
no_cni() {
	ip link delete cni0 2>/dev/null
	rm -rf /opt/cni /etc/cni /tmp/cni.log /var/lib/cni
	await [ ! -e /sys/class/net/cni0 ]
}

net_cni() {
	cni
	see run --cni "$BB" c1 sh -c "ip -o addr show eth0 | grep -v fe80 | awk '{ print \$3, \$4 }'; ip route
		cat /sys/class/net/eth0/address; ping -c 2 -W 5 10.4.0.1 | grep received"
	status 0
	out_has "2 packets received"
	no_cni
}
t "links that a plugin makes between Create and Start are in the container" net_cni

net_killed() {
	wire
	up c1 --with-ns network:/run/netns/pod -- sleep 1000
	kill -KILL "$(shim_of c1)"
	await eval '[ -z "$(shim_of c1)" ]'
	await eval '[ "$(state_of c1)" != RUNNING ]'
	down c1
	forget_fifos
	await eval '! tc -n pod qdisc | grep -q ingress'
	no_wire
}
t "a shim that is killed leaves the namespace as it was" net_killed

# Not compared: one kernel can be in its own network, and two containers in one.
net_refused() {
	local spec
	[[ $RT != *.runc.* ]] || return 0
	run --net-host "$BB" c1 true >"$WORK/out" 2>"$WORK/err"
	differ $? 0
	err_has "no network namespace in the specification: the host's own network cannot be a machine's"
	ctr c rm c1 >/dev/null 2>&1
	run --with-ns network:/proc/1/ns/net "$BB" c1 true >"$WORK/out" 2>"$WORK/err"
	differ $? 0
	err_has "the host's own network cannot be a machine's"
	wire
	up c2 --with-ns network:/run/netns/pod -- sleep 1000
	run --with-ns network:/run/netns/pod "$BB" c3 true >"$WORK/out" 2>"$WORK/err"
	differ $? 0
	err_has "another machine is connected to this network namespace"
	that eval 'busybox ping -c 1 -W 5 10.1.0.2 | grep -q "1 packets received"'
	down c2
	no_wire
}
t "the host's network and that of another machine are refused" net_refused
