# life.sh - kill, pause, delete, and what containerd says meanwhile.

life_kill() {
	up c1 -- sh -c 'trap "echo got it; exit 21" TERM; while :; do sleep 0.1; done'
	sleep 1
	see ctr task kill c1
	await stopped c1
	ended c1 21
	see ctr c rm c1
	up c2 -- sh -c 'trap "" TERM; while :; do sleep 0.1; done'
	sleep 1
	see ctr task kill c2
	sleep 1
	state_of c2
	see ctr task kill -s SIGKILL c2
	await stopped c2
	see ctr task kill -s KILL c2
	err_has 'not found'
	ended c2 137
}
t "a signal reaches the handler, KILL ends, and the dead cannot be killed" life_kill

life_kill_all() {
	up c1 -- sh -c 'sleep 1000 & sleep 1001 & trap "exit 3" TERM; while :; do sleep 0.1; done'
	quiet ctr task exec -d --exec-id e c1 sleep 1002
	see ctr task kill --all -s KILL c1
	await stopped c1
	exec_down c1 e
	ended c1 137
}
t "kill --all ends every process of the container" life_kill_all

life_signal_all() {
	local each='for s in USR1 TERM; do trap "echo $s >>/tmp/$0" $s; done; echo >>/tmp/up; while :; do sleep 0.1; done'
	up c1 -- sh -c "sh -c '$each' one & sh -c '$each' two & trap 'echo USR1 >>/tmp/zero' USR1; while :; do sleep 0.1; done"
	quiet ctr task exec -d --exec-id e c1 sh -c "$each" exec
	await eval '[ "$(ctr task exec --exec-id up c1 wc -l /tmp/up)" = "3 /tmp/up" ]'
	sleep 1
	see ctr task kill --all -s USR1 c1
	sleep 1
	x c1 sh -c 'cd /tmp; for f in zero one two exec; do echo $f: $(cat $f); done'
	see ctr task kill -s USR1 c1
	see ctr task kill --all -s TERM --exec-id e c1
	sleep 1
	x c1 sh -c 'cd /tmp; for f in zero one two exec; do echo $f: $(cat $f); done'
	exec_down c1 e
}
t "kill --all brings any signal to every process, execs and children" life_signal_all

life_signals() {
	local s
	up c1 -- sh -c 'for s in HUP INT QUIT USR1 USR2 WINCH; do trap "echo $s >>/tmp/seen" $s; done; while :; do sleep 0.1; done'
	sleep 1
	for s in HUP SIGINT QUIT USR1 12 WINCH; do
		see ctr task kill -s $s c1
		sleep 0.5
	done
	x c1 cat /tmp/seen
	see ctr task kill -s NONESUCH c1
	that [ $rc != 0 ]
}
t "signals by name and number arrive as themselves" life_signals

life_pause() {
	up c1 -- sh -c 'while :; do cut -d" " -f1 /proc/uptime >/tmp/tick; sleep 0.05; done'
	see ctr task pause c1
	status 0
	state_of c1
	is "$(state_of c1)" PAUSED
	see ctr task exec --exec-id e c1 true
	that [ $rc != 0 ]
	see ctr task pause c1
	that [ $rc != 0 ]
	quiet ctr task metrics c1
	see ctr task resume c1
	state_of c1
	x c1 sh -c 'a=$(cat /tmp/tick); sleep 1; [ "$a" != "$(cat /tmp/tick)" ] && echo it goes on'
	out_has 'it goes on'
	see ctr task resume c1
	that [ $rc != 0 ]
}
t "a paused container stands still, says so, refuses execs, and goes on" life_pause

life_pause_kill() {
	up c1 -- sleep 1000
	quiet ctr task pause c1
	see ctr task kill -s KILL c1
	await stopped c1
	ended c1 137
}
t "a paused container can be killed" life_pause_kill

life_ps() {
	up c1 -- sleep 1000
	quiet ctr task exec -d --exec-id e1 c1 sleep 1001
	ctr task ps c1 >"$WORK/ps"
	that grep -q "^$(pid_of c1) " "$WORK/ps"
	head -n 1 "$WORK/ps"
	that grep -q '{"exec_id":"e1"}\|exec_id:.e1.\|e1' "$WORK/ps"
	that [ -e "/proc/$(pid_of c1)/ns/net" ]
	exec_down c1 e1
}
t "ps lists the processes, the task's own pid among them, and the exec's id" life_ps

life_net() {
	up c1 -- sleep 1000
	that [ "$(readlink "/proc/$(pid_of c1)/ns/net")" != "$(readlink /proc/self/ns/net)" ]
	ip netns add c2
	up c2 --with-ns network:/run/netns/c2 -- sleep 1000
	that [ "$(readlink "/proc/$(pid_of c2)/ns/net")" = "net:[$(stat -Lc %i /run/netns/c2)]" ]
	see run $BB c3 sh -c 'ip -o link | grep -c lo:'
	down c2
	ip netns delete c2
}
t "the task's pid is in the container's network namespace" life_net

life_metrics() {
	local name value
	up c1 --memory-limit 67108864 -- sh -c 'probe eat 20; while :; do :; done'
	sleep 2
	quiet ctr task metrics c1
	awk '{ print $1 }' "$WORK/out" | grep -E '^(ID|METRIC|memory.usage_in_bytes|memory.limit_in_bytes|cpuacct.usage|pids.current|memory.usage|memory.usage_limit|cpu.usage_usec)$' | sort
	value() { awk -v n="$1" '$1 == n { print $2 }' "$WORK/out"; }
	name=$(value memory.usage)
	that [ "${name:-$(value memory.usage_in_bytes)}" -gt 100000 ]
	that [ "$(value memory.usage_limit)$(value memory.limit_in_bytes)" = 67108864 ]
	value=$(value cpu.usage_usec)
	quiet ctr task metrics c1
	that [ "$(value cpu.usage_usec)" -gt "$value" ]
	that [ "$value" -gt 100000 ]
	quiet ctr task metrics --format json c1
	grep -oE '"(cpu|memory|pids|usage_usec|usage|current)"' "$WORK/out" | sort -u
}
t "metrics: memory with its limit, pids, and CPU time that grows" life_metrics

life_delete() {
	up c1 -- sleep 1000
	see ctr task rm c1
	that [ $rc != 0 ]
	err_has 'failed precondition'
	see ctr c rm c1
	that [ $rc != 0 ]
	see ctr task rm -f c1
	see ctr task rm c1
	err_has 'not found'
	see ctr task kill c1
	err_has 'not found'
	see ctr c rm c1
	see ctr c rm c1
}
t "what runs is not deleted without force, and what is deleted is gone" life_delete

life_twice() {
	up c1 -- sleep 1000
	see ctr task start -d c1
	that [ $rc != 0 ]
	see ctr run -d --runtime "$RT" $BB c1 true
	that [ $rc != 0 ]
	err_has 'already exists'
	state_of c1
}
t "a container is not started or made twice" life_twice

life_again() {
	made c1
	quiet ctr c create --runtime "$RT" $BB c1 sleep 1000
	see ctr task start -d c1
	x c1 sh -c 'echo kept >/file; mkdir /dir; rm /data/kept; ln -s x /link'
	quiet ctr task rm -f c1
	see ctr task start -d c1
	x c1 sh -c 'cat /file; ls -d /dir /data/kept /link 2>&1'
	out_has kept
	quiet ctr task rm -f c1
}
t "what a container wrote is there when it is started again" life_again

life_namespaces() {
	made c1
	made c1 other
	quiet ctr -n other image import --base-name docker.io/library/busybox "$IMAGES/busybox.tar"
	ctr -n other image ls -q | grep -qxF "$BB" || fail "not imported: $(head -c 300 "$WORK/out")"
	quiet ctr run -d --runtime "$RT" $BB c1 sleep 1000
	quiet ctr -n other run -d --runtime "$RT" $BB c1 sleep 1001
	see ctr task exec --exec-id e c1 sh -c 'ps | grep -c "sleep 1000"'
	see ctr -n other task exec --exec-id e c1 sh -c 'ps | grep -c "sleep 1001"'
	quiet ctr task rm -f c1
	see ctr -n other task exec --exec-id f c1 echo still here
	out 'still here'
	down c1 other
	ctr -n other image rm $BB docker.io/library/busybox:user >/dev/null
	ctr -n other content prune references >/dev/null 2>&1
	sleep 1
}
t "one id in two namespaces is two containers" life_namespaces

life_long() {
	local id ns
	id=$(printf 'c%.0s' $(seq 76))
	up "$id" -- sleep 1000
	x "$id" echo inside
	out inside
	see ctr task kill -s KILL "$id"
	see run $BB "${id}c" true
	that [ $rc != 0 ]
}
t "an id may have 76 characters" life_long

life_ten() {
	local n
	for n in 0 1 2 3 4 5 6 7 8 9; do
		ctr run --rm --runtime "$RT" $BB "ten$n" sh -c "echo $n; sleep 1; exit $n" >"$WORK/ten$n" 2>&1 &
		eval "pid$n=\$!"
	done
	for n in 0 1 2 3 4 5 6 7 8 9; do
		eval "wait \$pid$n"
		echo "$? $(cat "$WORK/ten$n")"
	done
}
t "ten containers start and end at once" life_ten

life_pid_file() {
	made c1
	quiet ctr run -d --pid-file "$WORK/pid" --runtime "$RT" $BB c1 sleep 1000
	is "$(cat "$WORK/pid")" "$(pid_of c1)"
	that [ -d "/proc/$(cat "$WORK/pid")" ]
}
t "--pid-file names the task's process" life_pid_file

life_events() {
	local watcher
	ctr events >"$WORK/events" &
	watcher=$!
	sleep 1
	see run $BB c1 sh -c 'exit 3'
	up c2 -- sleep 1000
	ctr task exec --exec-id e c2 sh -c 'exit 4'
	quiet ctr task pause c2
	quiet ctr task resume c2
	quiet ctr task kill -s KILL c2
	await stopped c2
	ctr task rm c2
	ctr c rm c2
	run $BB c3 nonesuch >/dev/null 2>&1
	sleep 2
	kill $watcher
	grep -o ' /tasks/[a-z-]* ' "$WORK/events"
	grep '/tasks/exit' "$WORK/events" | grep -oE '"(container_id|id|exit_status)":[^,}]*'
	that [ "$(grep -c '/tasks/exit' "$WORK/events")" = 3 ]
}
t "events come in order, with ids and statuses, and none for what never started" life_events

life_ls() {
	up c1 -- sleep 1000
	ctr task ls | awk '{ print $1, $3 }'
	ctr c ls | awk '{ print $1, $2, $3 }' | sed "s/$RT/RUNTIME/"
	ctr c info c1 | grep -c '"ociVersion"'
	quiet ctr task kill -s KILL c1
	await stopped c1
	ctr task ls | awk '{ print $1, $3 }'
}
t "task ls and container ls show what is there" life_ls
