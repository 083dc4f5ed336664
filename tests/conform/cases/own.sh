# own.sh - spore's own commands, and the containers that containerd has made. Nothing to compare: runc has none.

own() { [[ $RT == *spore* ]]; }

own_one() {
	own || return 0
	up c1 -- sh -c 'echo it is c1 >/who; trap "exit 5" TERM; while :; do sleep 0.1; done'
	sleep 0.5
	sp ps
	status 0
	that grep -qE '^default\.c1 +running .* containerd: c1 in default \(c1 running\)$' out
	sp ps --json
	out_has '"containers":[{"id":"c1","status":"running"}],"namespace":"default"}'
	for name in c1 default.c1 default.c1/c1; do
		sp exec "$name" -- sh -c 'cat /who; exit 3'
		status 3
		out 'it is c1'
	done
	sp pause default.c1
	status 0
	is "$(state_of c1)" PAUSED
	sp ps
	that grep -qE '^default\.c1 +paused .*\(c1 paused\)$' out
	sp exec c1 true
	refused 'container "c1" is paused'
	sp pause c1
	status 125
	err_has 'container "c1": cannot pause'
	sp resume c1
	status 0
	is "$(state_of c1)" RUNNING
	quiet ctr task pause c1
	sp ps
	that grep -qE '^default\.c1 +paused ' out
	sp resume c1
	sp logs c1
	refused "container \"c1\" is containerd's, and so is its output; for example: ctr -n default task attach c1"
	for name in c1 default.c1 default.c1/c1; do
		sp rm --force "$name"
		refused "sandbox \"default.c1\" is containerd's; remove its containers there, for example: ctr -n default task rm --force c1"
	done
	sp kill c1 TERM
	status 0
	await stopped c1
	sp ps
	that grep -qE '^default\.c1 .*\(c1 stopped\)$' out
	sp kill c1
	status 125
	err_has 'container "c1": process already finished'
	ended c1 5 >/dev/null
	sp ps
	no c1
	sp kill c1
	refused 'no sandbox or container named "c1"; see: spore ps'
}
t "spore's commands know a container by its id, by its sandbox's name and by both, and containerd hears of it" own_one

own_several() {
	own || return 0
	up c1 -- sleep 1000
	up c2 --annotation io.kubernetes.cri.sandbox-id=c1 -- sh -c 'trap "exit 6" TERM; while :; do sleep 0.1; done'
	sp ps
	that grep -qE '\(c1 running, c2 running\)$' out
	sp exec default.c1 true
	refused 'sandbox "default.c1" has 2 containers; name one: default.c1/c1, default.c1/c2'
	sp exec default.c1/c3 true
	refused 'sandbox "default.c1" has no container "c3"; it has default.c1/c1, default.c1/c2'
	sp exec c2 -- sh -c 'tr "\0" " " </proc/1/cmdline'
	out_has trap
	sp exec default.c1/c1 -- sh -c 'tr "\0" " " </proc/1/cmdline'
	out 'sleep 1000 '
	sp pause c2
	is "$(state_of c1) $(state_of c2)" "RUNNING PAUSED"
	sp ps
	that grep -qE '^default\.c1 +running .*\(c1 running, c2 paused\)$' out
	sp resume c2
	sp kill default.c1/c2 TERM
	await stopped c2
	is "$(state_of c1)" RUNNING
	ended c2 6 >/dev/null
	sp exec default.c1 -- echo alone
	out alone
	down c2
	down c1
}
t "of several containers in a sandbox the one that is named is meant" own_several

own_is_dead() { sp ps && grep -qE '^default\.c1 +dead ' out; }
own_shim_killed() {
	own || return 0
	up c1 -- sleep 1000
	trap 'kill -CONT "$(containerd_pid)"' EXIT
	kill -STOP "$(containerd_pid)"
	kill -KILL "$(shim_of c1)"
	await own_is_dead
	sp ps
	that [ -e /run/spore/sandboxes/default.c1/cgroup.json ]
	kill -CONT "$(containerd_pid)"
	await [ ! -e /run/spore/sandboxes/default.c1 ]
	down c1
	forget_fifos
}
t "what a killed shim left is there until containerd has it removed, whoever looks meanwhile" own_shim_killed
