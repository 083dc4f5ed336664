# net.sh - a network namespace that somebody made, in a guest.

PROBE=$TREE/build/e2e/probe

# The namespace "pod" as CNI would leave it: eth0 in it, with its other end w0 here.
pod() {
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
	ip -n pod link set eth0 address 02:00:00:00:00:07 up
	ip -n pod route add default via 10.1.0.1
	ip -n pod route add default via fd00:1::1
	pod_state >pod.before
}
pod_state() {
	ip -n pod -o link | sed 's/state [A-Z]*//'
	ip -n pod addr | grep inet | grep -v fe80
	ip -n pod route
	ip -n pod -6 route | grep -v fe80
	tc -n pod qdisc
	ip -n pod -o link | cut -d: -f2 | cut -d@ -f1 | while read -r l; do tc -n pod filter show dev "$l" ingress; done
}
# And it is as it was.
no_pod() {
	pod_state >pod.after
	that diff pod.before pod.after
	ip netns delete pod
	ip link delete w0 2>/dev/null
	await [ ! -e /sys/class/net/w0 ]
}
in_pod() { sp run --net pod --block "$IMG" --read-only -- /bin/sh -c "$1"; }

net_same() {
	pod
	ip -n pod route add 10.9.0.0/16 dev eth0 scope link src 10.1.0.2
	ip -n pod route add 10.8.0.0/16 via 172.16.0.1 dev eth0 onlink metric 7
	ip -n pod neigh add 172.16.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
	ip -n pod link set eth0 mtu 1400
	pod_state >pod.before
	sp run --json-times --net pod --block "$IMG" --read-only -- /bin/sh -c 'ip -o addr show eth0 | grep -v fe80 |
		sed "s/valid_lft.*//; s/.*inet/inet/; s/ flags.*//; s/[^a-z0-9]*$//"; ip route; ip -6 route | grep default
		cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address; ip neigh | sed "s/ used.* probes 0//"; ls /sys/class/net'
	status 0
	err_has '{"clone":true'
	out "inet 10.1.0.2/24 scope global eth0
inet6 fd00:1::2/64 scope global
default via 10.1.0.1 dev eth0 
10.1.0.0/24 dev eth0 scope link  src 10.1.0.2 
10.8.0.0/16 via 172.16.0.1 dev eth0  metric 7 onlink 
10.9.0.0/16 dev eth0 scope link  src 10.1.0.2 
default via fd00:1::1 dev eth0  metric 1024 
1400
02:00:00:00:00:07
172.16.0.1 dev eth0 lladdr 02:00:00:00:00:99 PERMANENT
eth0
lo"
	no_pod
}
t "the guest has the namespace's link, addresses, routes and neighbours" net_same

net_ping() {
	local how
	pod
	for how in "" --no-template; do
		sp run -d $how --name ping --net pod --block "$IMG" --read-only -- /bin/sh -c \
			'ping -c 2 -W 5 10.1.0.1; ping -6 -c 2 -W 5 fd00:1::1; echo done; exec sleep 1000'
		status 0
		await eval '"$SPORE" logs ping | grep -q done'
		is "$("$SPORE" logs ping | grep -c '2 packets received')" 2 "addresses that answered"
		that eval 'busybox ping -c 2 -W 5 10.1.0.2 | grep -q "2 packets received"'
		that eval 'busybox ping -6 -c 2 -W 5 fd00:1::2 | grep -q "2 packets received"'
		net_end ping
	done
	no_pod
}
net_end() { # NAME, of a detached one
	sp kill "$1" KILL
	status 0
	await eval '"$SPORE" ps --json | grep -q stopped'
	sp rm "$1"
	status 0
}
t "host and guest reach one another with IPv4 and IPv6" net_ping

net_tcp() {
	local sum how
	pod
	printf '[hypervisor.spore]\ndisable_vhost_net = true\n' >own.toml
	printf '[hypervisor.spore]\n' >kernel.toml
	head -c 100M /dev/urandom >blob
	head -c 4M blob >small # nc sends a kilobyte at a time
	sum=$(md5sum <blob)
	for how in own kernel; do
		busybox httpd -f -p 10.1.0.1:80 -h . &
		sp run --config $how.toml --net pod --block "$IMG" --read-only -- /bin/sh -c \
			'wget -q -O - http://10.1.0.1/blob | md5sum'
		kill $!
		status 0
		err ""
		out "$sum"
		mkfifo open && exec 7<>open
		busybox nc -l -p 7001 <open | md5sum >got &
		"$SPORE" run --config $how.toml --net pod --block "$IMG" --read-only -- /bin/nc 10.1.0.1 7001 \
			<small >out 2>err
		is $? 0 status
		wait $!
		exec 7>&-
		rm open
		is "$(cat got)" "$(md5sum <small)" "what came"
	done
	no_pod
}
t "a hundred megabytes come in through TCP as they were, and some go out, whoever moves them" net_tcp

net_udp() {
	local bytes mtu want=
	pod
	for bytes in 1 1472 8972 20000; do
		want+="udp $bytes ok"$'\n'"udp $bytes ok"$'\n'
	done
	for mtu in 1500 9000; do
		ip link set w0 mtu $mtu
		ip -n pod link set eth0 mtu $mtu
		pod_state >pod.before
		for bytes in 1 1472 8972 20000; do
			"$PROBE" udp-echo $((9000 + bytes)) &
			"$PROBE" udp-echo $((30000 + bytes)) &
		done
		in_pod 'cat /sys/class/net/eth0/mtu; for n in 1 1472 8972 20000; do
			probe udp-ask ::ffff:10.1.0.1 $((9000 + n)) $n; probe udp-ask fd00:1::1 $((30000 + n)) $n; done'
		status 0
		out "$mtu
${want%?}"
		wait
	done
	no_pod
}
t "datagrams of all sizes come back, with an MTU of 9000 too" net_udp

net_killed() {
	local who
	pod
	for who in vmm_of supervisor_of; do
		"$SPORE" run --name victim --net pod --block "$IMG" --read-only -- /bin/sleep 1000 >out 2>err &
		await file_has /run/spore/sandboxes/victim/state.json '"running"'
		that eval 'tc -n pod filter show dev eth0 ingress | grep -q tap0_spore'
		kill -KILL "$($who victim)"
		wait $! 2>/dev/null
		await eval '! ip -n pod link | grep -q tap'
	done
	in_pod 'ping -c 1 -W 5 10.1.0.1 | grep received'
	out_has "1 packets received"
	no_pod
}
t "a machine or a supervisor that is killed leaves a network that can be used again" net_killed

net_refused() {
	pod
	sp run --net nobody --block "$IMG" -- /bin/true
	refused "--net: network namespace /run/netns/nobody: No such file or directory"
	sp run --net /proc/self/ns/net --block "$IMG" -- /bin/true
	refused "--net: network: the host's own network cannot be a machine's"
	sp run -d --name first --net pod --block "$IMG" --read-only -- /bin/sleep 1000
	status 0
	in_pod /bin/true
	refused "network: another machine is connected to this network namespace"
	that eval 'busybox ping -c 1 -W 5 10.1.0.2 | grep -q "1 packets received"'
	net_end first
	sp run --net none --block "$IMG" --read-only -- /bin/ls /sys/class/net
	out lo
	no_pod
}
t "what cannot be a machine's network is refused" net_refused

net_dns() {
	local img
	pod
	img=$(image dns)
	sp run --net pod --block "$img" -- /bin/cat /etc/resolv.conf
	out "$(grep . /etc/resolv.conf | tr -d '\r')"
	mkdir -p /etc/netns/pod
	printf 'nameserver 10.1.0.1\noptions ndots:1\n' >/etc/netns/pod/resolv.conf
	sp run --net pod --block "$img" -- /bin/cat /etc/resolv.conf
	status 0
	out "nameserver 10.1.0.1
options ndots:1"
	in_pod 'cat /etc/resolv.conf || echo none'
	out none
	rm -r /etc/netns
	no_pod
}
t "a container with a network has the host's name servers, or the namespace's" net_dns

# Every kind of link there is, each with its own other end.
net_kinds() {
	pod
	ip link add base type veth peer name end
	ip link set base up
	ip addr add 10.2.0.1/24 dev end
	ip addr add 10.4.0.1/24 dev end
	ip link set end up
	ip link add link end name end5 type vlan id 5
	ip addr add 10.3.0.1/24 dev end5
	ip link set end5 up
	ip link add link base name net1 netns pod type macvlan mode bridge
	ip link add link w0 name w5 type vlan id 5
	ip addr add 10.5.0.1/24 dev w5
	ip link set w5 up
	ip link add link base name vl5 type vlan id 5
	ip link set vl5 up
	ip link add link vl5 name net2 netns pod type macvlan mode bridge
	ip link add base2 type veth peer name end2
	ip link set base2 up
	ip addr add 10.6.0.1/24 dev end2
	ip link set end2 up
	ip link add link base2 name net3 netns pod type ipvlan mode l2
	ip -n pod addr add 10.2.0.2/24 dev net1
	ip -n pod addr add 10.3.0.2/24 dev net2
	ip -n pod addr add 10.6.0.2/24 dev net3
	for l in net1 net2 net3; do ip -n pod link set $l up; done
	pod_state >pod.before
	in_pod 'ls /sys/class/net; for i in 1 2 3 6; do ping -c 1 -W 5 10.$i.0.1 | grep -o "1 packets received"; done'
	status 0
	out "eth0
lo
net1
net2
net3
1 packets received
1 packets received
1 packets received
1 packets received"
	no_pod
	for l in end5 w5 vl5 base base2; do ip link delete $l 2>/dev/null; done
	return 0
}
t "veth, macvlan, macvlan on a vlan and ipvlan links together" net_kinds
