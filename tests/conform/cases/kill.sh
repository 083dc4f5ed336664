# kill.sh - shims, machines and containerd that end when they should not.

kill_shim() {
	up c1 -- sleep 1000
	quiet ctr task exec -d --exec-id e c1 sleep 1001
	is "$(shim_of c1 | wc -l)" 1 "number of shims"
	kill -KILL "$(shim_of c1)"
	await eval '! ctr task ls | grep -q c1'
	see ctr task rm c1
	see ctr c rm c1
	forget_fifos
	see run $BB c1 echo again
	out again
}
t "a shim that is killed leaves nothing, and its id is free" kill_shim

kill_shim_attached() {
	run $BB c1 sh -c 'echo first; sleep 1000' >"$WORK/out" 2>"$WORK/err" &
	await grep -q first "$WORK/out"
	kill -KILL "$(shim_of c1)"
	wait %1
	echo "status $?"
	down c1
	forget_fifos
}
t "who waits for a container whose shim is killed gets an end" kill_shim_attached

kill_task() {
	up c1 -- sleep 1000
	kill -KILL "$(pid_of c1)"
	await stopped c1
	ended c1 137
}
t "the task's process killed from outside is an exit with 137" kill_task

kill_task_attached() {
	run $BB c1 sh -c 'echo first; sleep 1000' >"$WORK/out" 2>"$WORK/err" &
	await grep -q first "$WORK/out"
	kill -KILL "$(pid_of c1)"
	wait %1
	echo "status $?"
	cat "$WORK/out"
}
t "who waits for a task whose process is killed gets 137 and the output so far" kill_task_attached

restarted() { # SIGNAL
	up c1 -- sh -c 'echo $$ >/tmp/pid; while read line; do echo "got $line"; done'
	up c2 -- sh -c 'trap "exit 6" TERM; while :; do sleep 0.1; done'
	local pid shim
	pid=$(pid_of c1)
	shim=$(shim_of c1)
	stop_containerd "$1"
	sleep 1
	that kill -0 "$shim"
	start_containerd
	is "$(pid_of c1)" "$pid" "the task's pid"
	is "$(shim_of c1)" "$shim" "the shim"
	state_of c1
	x c1 sh -c 'echo exec works; exit 3'
	status 3
	see timeout -s KILL 8 ctr task attach c1 < <(sleep 1; echo hello; sleep 2)
	out_has 'got hello'
	quiet ctr task pause c1
	quiet ctr task resume c1
	quiet ctr task metrics c1
	quiet ctr task kill c2
	await stopped c2
	ended c2 6
	see ctr task rm -f c1
}
kill_containerd_term() { restarted TERM; }
t "containers outlive a restart of containerd, and everything works on them" kill_containerd_term
kill_containerd_kill() { restarted KILL; }
t "containers outlive containerd's sudden end, and everything works on them" kill_containerd_kill

kill_away() {
	up c1 -- sh -c 'sleep 2; echo last words; exit 5'
	stop_containerd KILL
	sleep 4
	start_containerd
	state_of c1
	ended c1 5
}
t "the status of who ends while containerd is away is not lost" kill_away

kill_away_shim() {
	up c1 -- sleep 1000
	local shim
	shim=$(shim_of c1)
	stop_containerd KILL
	kill -KILL "$shim"
	start_containerd
	sleep 1
	see ctr task ls
	see ctr c rm c1
	forget_fifos
}
t "a shim killed while containerd is away leaves nothing once it is back" kill_away_shim

kill_client() {
	run $BB c1 sh -c 'echo started; sleep 1000' >"$WORK/out" 2>&1 &
	await grep -q started "$WORK/out"
	made c1
	kill -KILL $!
	sleep 0.5
	state_of c1
	x c1 echo still there
	out 'still there'
}
t "a container outlives the client that ran it" kill_client

# A client's command is under way when containerd is killed; then that is back. What came of the command is a matter
# of chance, but the client does not hang.
killed_during() { # MS COMMAND...
	local client ms=$1
	shift
	"$@" >"$WORK/out" 2>&1 </dev/null &
	client=$!
	sleep "0.$(printf %03d "$ms")"
	stop_containerd KILL
	await gone $client
	start_containerd
}
# runc's `start` that nobody listens to any more leaves a shim which nobody knows.
forget_shim() { # ID
	kill -KILL $(shim_of "$1") 2>/dev/null
	rm -rf "/run/containerd/io.containerd.runtime.v2.task/default/$1" "$CD/root/io.containerd.runtime.v2.task/default/$1"
}
kill_containerd_during() {
	local ms
	up c1 -- sleep 1000
	for ms in 80 160 240; do
		killed_during $ms ctr run -d --runtime "$RT" $BB r$ms sleep 1000
		ctr task ls >"$WORK/out" || fail "after run: ctr task ls"
		down r$ms
		ctr snapshot rm r$ms 2>/dev/null # made before there was a container to hold it
		[[ $RT != *.runc.* ]] || forget_shim r$ms
	done
	for ms in 60 120; do
		killed_during $ms ctr task exec -d --exec-id e$ms c1 sleep 1001
		exec_down c1 e$ms
		x c1 echo "after exec"
		killed_during $ms ctr task pause c1
		ctr task resume c1 2>/dev/null
		killed_during $ms ctr task metrics c1
		that ctr task metrics c1 >/dev/null
		ctr task pause c1
		killed_during $ms ctr task resume c1
		ctr task resume c1 2>/dev/null
		state_of c1
	done
	killed_during 100 ctr task kill -s KILL c1
	ctr task kill -s KILL c1 2>/dev/null
	await stopped c1
	killed_during 100 ctr task rm c1
	down c1
	forget_fifos
}
t "containerd killed while a command is served: all can be seen and removed" kill_containerd_during

# Every 20 ms of a start and an end. What comes of each is a matter of chance; that it can be removed is not.
kill_everywhere() {
	local ms id
	for ms in 20 60 100 140 180 220 260; do
		id=k$ms
		ctr run --rm --runtime "$RT" $BB $id true >/dev/null 2>&1 &
		sleep "0.$(printf %03d $ms)"
		kill -KILL $(shim_of $id) 2>/dev/null
		wait $!
		down $id
	done
	forget_fifos
	see run $BB c1 echo fine
	out fine
}
t "a shim killed at any time of a short life leaves nothing" kill_everywhere
