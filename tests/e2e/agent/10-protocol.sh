# The protocol: what is answered before, around and in spite of everything else.

start_agent

health() { c check && status 0 && out SERVING; }
t "Health.Check answers SERVING" health

version() { c version && status 0 && out_has "0.0.1 spore-"; }
t "Health.Version names protocol and agent" version

details() {
	c details && status 0 && out_has "init=0 seccomp=1" && out_has storage=mmioblk &&
		out_has storage=overlayfs && out_has storage=watchable-bind && out_has feature=spore-clone-v1 && out_has feature=slot-bind
}
t "GetGuestDetails lists storages and features" details

unimplemented() { c call SetPolicy && refused "UNIMPLEMENTED: "; }
t "a method it does not have is UNIMPLEMENTED" unimplemented

too_early() { spec x && c create x $WORK/x.json && refused "FAILED_PRECONDITION: there is no sandbox"; }
t "no container before the sandbox" too_early

garbage() {
	head -c 65536 /dev/urandom | timeout 5 nc -U $SOCK >/dev/null 2>&1 ||
		head -c 65536 /dev/urandom | timeout 5 busybox nc local:$SOCK >/dev/null 2>&1
	c check && status 0
}
t "random bytes on the socket hurt nobody" garbage

once() {
	c call CreateSandbox # an empty request is a valid one: this agent is used up now
	status 0 && c call CreateSandbox && refused "FAILED_PRECONDITION: sandbox exists already"
}
CHANGES=1
t "CreateSandbox comes once" once
stop_agent

start_agent
clone_entropy() {
	c clone 31 && refused "INTERNAL: create sandbox: clone: a clone needs 32 bytes of entropy, got 31"
	c call CreateSandbox && refused "FAILED_PRECONDITION: sandbox is not usable any more"
	c check && status 0 && out NOT_SERVING
}
t "a clone without enough entropy is refused, for good" clone_entropy
stop_agent

start_agent
clone() { c clone 32 && status 0 && c check && out SERVING; }
t "a clone with entropy is a sandbox" clone
stop_agent

start_agent
sandbox() { c sandbox sb pod-name "nameserver 10.0.0.53" && status 0 && that grep -q 10.0.0.53 /etc/resolv.conf; }
t "CreateSandbox binds the DNS settings over /etc/resolv.conf" sandbox
CHANGES=''
[ "$ONLY" = "" ] || c sandbox sb pod-name

ids() {
	local id
	for id in .. . a/b "a b" "$(printf 'a%.0s' $(seq 129))" ""; do
		spec x
		c create "$id" $WORK/x.json && refused "INVALID_ARGUMENT: container id" || return
	done
}
t "container ids that are no names are refused" ids

bad_spec() {
	ROOT=relative && spec x && c create x $WORK/x.json &&
		refused 'INVALID_ARGUMENT: root.path "relative" is not absolute'
}
t "a specification with a relative root is refused" bad_spec

unknown() {
	c start nobody && refused 'INVALID_ARGUMENT: container "nobody" not found'
	c remove nobody && refused INVALID_ARGUMENT:
	c kill nobody "" 9 && refused INVALID_ARGUMENT:
	c stats nobody && refused INVALID_ARGUMENT:
	c pause nobody && refused INVALID_ARGUMENT:
}
t "an unknown container is INVALID_ARGUMENT" unknown

taken() {
	sleeper x
	spec y && c create x $WORK/y.json && refused 'ALREADY_EXISTS: container "x" exists already'
	c start x && refused 'FAILED_PRECONDITION: container "x" is not in state created'
	write_process p && c exec x "$(printf 'a%.0s' $(seq 129))" $WORK/p.json && refused INVALID_ARGUMENT:
	c io x nothing && refused_io
	c remove x && status 0
}
refused_io() { err_has 'NOT_FOUND: container "x" has no process "nothing"'; }
t "a name that is taken, a state that does not fit" taken

again() {
	ARGS='["echo","one"]' && run && out one && status 0
	ARGS='["echo","two"]' && run && out two && status 0
}
t "an id can be used again after removal" again

random() {
	c reseed 64 && status 0
	c reseed 0 && refused "INVALID_ARGUMENT: entropy: 0 bytes"
	c reseed 5000 && refused "INVALID_ARGUMENT: entropy: 5000 bytes"
}
t "ReseedRandomDev takes 1 to 4096 bytes" random

settime() {
	local was now
	was=$(date +%s)
	c settime $((was + 3600)) 5 && status 0
	now=$(date +%s)
	c settime "$was" 0
	that [ $((now - was)) -ge 3600 ] && c settime 5 1000000 && refused INVALID_ARGUMENT:
}
t "SetGuestDateTime moves the clock" settime

online() { c online 0 1 && status 0 && c online 1 1 && refused "INTERNAL: 1 CPUs did not come online"; }
t "OnlineCPUMem says which CPUs did not come" online

metrics() {
	c metrics && status 0 && out_has 'kata_guest_meminfo{item="memtotal"}' && out_has kata_agent_scrape_count &&
		out_has 'kata_agent_proc_status{item="vmrss"}'
}
t "GetMetrics is Prometheus text" metrics

log_port() {
	(timeout 30 $WORK/client $SOCK watch-log 3000 >$WORK/log.out 2>&1; touch $WORK/log.end) &
	sleep 1
	run && await test -e $WORK/log.end
	that grep -q 'msg="log attached"' $WORK/log.out && that grep -q 'msg="container created" container="x"' $WORK/log.out
	rm -f $WORK/log.out $WORK/log.end
	run && status 0 # with the reader gone
}
t "the log goes to who connects to its port" log_port

small() {
	local kib
	kib=$(awk '/^Private_Dirty/ { print $2 }' /proc/"$AGENT_PID"/smaps_rollup)
	that [ "$kib" -lt 512 ]
}
t "the agent holds less than 512 KiB of memory of its own" small
