# run.sh - spore run, and the commands that deal with what runs.

run_sh() { in_clone /bin/sh -c "$1"; }

# --- streams --------------------------------------------------------------------------------------

streams_apart() {
	run_sh 'printf "one\n\ttwo\0\377"; printf "three\n\0\r\200" >&2; exit 4'
	status 4
	printf 'one\n\ttwo\0\377' | cmp - out || fail "stdout: $(od -c out)"
	printf 'three\n\0\r\200' | cmp - err || fail "stderr: $(od -c err)"
}
t "stdout and stderr arrive apart and byte for byte" streams_apart

streams_big() {
	head -c 10000000 /dev/urandom >data
	"$SPORE" run --block "$IMG" --read-only -- /bin/cat <data >copy 2>err
	is $? 0 status
	that cmp data copy
	is "$(cat err)" ""
	cat data | "$SPORE" run --block "$IMG" --read-only -- /bin/sh -c 'cat >&2' 2>&1 >/dev/null | cmp data - || fail "through pipes"
}
t "10 MB of noise go in and come out the same, by files and by pipes" streams_big

streams_eof() {
	is "$(printf 'a\nbc' | "$SPORE" run --block "$IMG" --read-only -- /bin/wc -c)" 4 "bytes counted"
	is "$("$SPORE" run --block "$IMG" --read-only -- /bin/wc -c </dev/null)" 0 "bytes counted"
}
t "the command sees the end of its input" streams_eof

# A reader that goes away, a writer that stays: neither keeps spore from ending.
streams_early() {
	"$SPORE" run --block "$IMG" --read-only -- /bin/sh -c 'yes | head -n 200000; exit 3' 2>err | head -n 1 >first
	is "$(cat first)" y
	is "$(cat err)" ""
	mkfifo held
	exec 7<>held
	"$SPORE" run --block "$IMG" --read-only -- /bin/sh -c 'exit 5' <held >out 2>err
	is $? 5 status
}
t "a reader that leaves early and an input that never ends hold nothing up" streams_early

streams_closed() {
	"$SPORE" run --block "$IMG" --read-only -- /bin/echo hi <&- >out 2>err
	is "$? $(cat out) $(cat err)" "0 hi "
	"$SPORE" run --block "$IMG" --read-only -- /bin/sh -c 'echo hi; exit 6' >&- 2>err </dev/null
	is "$? $(cat err)" "6 "
	"$SPORE" run --block "$IMG" --read-only -- /bin/sh -c 'wc -c; exit 7' <&- >&- 2>&-
	is $? 7 status
}
t "standard descriptors may be closed" streams_closed

# --- exit status ----------------------------------------------------------------------------------

exit_codes() {
	local n
	for n in 0 1 37 255; do
		run_sh "exit $n"
		status $n
		out ""
		err ""
	done
}
t "the command's exit status is spore's" exit_codes

exit_signal() {
	in_clone /bin/probe crash
	status 132
	out ""
	err ""
	run_sh 'sh -c "kill -9 \$\$"; echo $?'
	status 0
	out_has 137
}
t "a command that dies of signal n gives 128 + n" exit_signal

not_started() { # STATUS MESSAGE ARGS
	in_clone "${@:3}"
	status "$1"
	out ""
	err "spore: $2"
	one_line_err
}
exit_not_found() {
	not_started 127 'exec: "nosuch": executable file not found in $PATH' nosuch
	not_started 127 'exec: "plain": executable file not found in $PATH' plain # there, but may not be executed
	not_started 127 'exec: "/bin/nosuch": stat /bin/nosuch: no such file or directory' /bin/nosuch
}
t "a command that is not there gives 127 and Docker's words" exit_not_found

exit_not_executable() {
	not_started 126 'exec: "/bin/plain": permission denied' /bin/plain
	not_started 126 'exec: "/etc": permission denied' /etc
	not_started 126 'exec /bin/garbage: exec format error' /bin/garbage
}
t "a command that cannot be executed gives 126 and says why" exit_not_executable

# --- environment, directory, user ---------------------------------------------------------------------

run_env() {
	sp run -e A=1 --env "B=two words" -e C= --block "$IMG" --read-only -- /bin/env
	status 0
	is "$(sort out)" "A=1
B=two words
C=
HOME=/root
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	sp run -e A=1 -e A=2 -e PATH=/bin --block "$IMG" --read-only -- env
	is "$(sort out)" "A=2
HOME=/root
PATH=/bin"
	sp run -e PATH=/nowhere --block "$IMG" --read-only -- env
	status 127
	err 'spore: exec: "env": executable file not found in $PATH'
}
t "the environment is PATH, HOME and what --env says" run_env

run_cwd() {
	local rw
	in_clone /bin/pwd
	out /
	sp run -w /home/user --block "$IMG" --read-only -- /bin/pwd
	out /home/user
	rw=$(image cwd)
	sp run --cwd /new/deep/one --block "$rw" -- /bin/sh -c 'pwd; stat -c "%a %U" .'
	status 0
	out "/new/deep/one
755 root"
	sp run --cwd /bin/sh --block "$rw" -- /bin/pwd
	differ $rc 0 status
	one_line_err
	err_has "/bin/sh"
}
t "--cwd is where the command starts, and is made when it is missing" run_cwd

as_user() { # USER EXPECTED
	sp run -u "$1" --block "$IMG" --read-only -- /bin/sh -c 'echo $(id -u) $(id -g) $(id -G) $HOME'
	status 0
	out "$2"
}
run_user() {
	in_clone /bin/sh -c 'echo $(id -u) $(id -g) $HOME'
	out "0 0 /root"
	as_user user "1000 1000 1000 2000 /home/user"
	as_user 1000 "1000 1000 1000 2000 /home/user"
	as_user user:extra "1000 2000 2000 /home/user"
	as_user 1234:77 "1234 77 77 /"
	sp run -u nobody-here --block "$IMG" --read-only -- /bin/id
	status 125
	out ""
	one_line_err
	err_has nobody-here
}
t "--user takes names and numbers with groups, and refuses a name that is not there" run_user

run_user_rights() {
	sp run -u user --block "$(image rights)" -- /bin/sh -c 'echo no >/etc/x; echo yes >/home/user/x; cat /home/user/x; grep CapEff /proc/self/status'
	out_has yes
	out_has "0000000000000000"
	err_has "Permission denied"
}
t "another user than root has no rights of root" run_user_rights

# --- terminal ----------------------------------------------------------------------------------------

run_tty() {
	on_tty 33 101 "$SPORE run -t --block $IMG --read-only -- /bin/sh -c 'stty size; tty; echo \$TERM; test -t 0 -a -t 1 -a -t 2 && echo three; exit 9'"
	status 9
	out "33 101
/dev/pts/0
xterm
three"
}
t "-t gives the command a terminal of the same size" run_tty

tty_of() { readlink "/proc/$1/fd/0"; }
run_resize() {
	script -qec "stty rows 24 cols 80; exec $SPORE run -t --name sized --block $IMG --read-only -- /bin/sh -c 'trap \"stty size\" WINCH; echo ready; while :; do sleep 0.1; done'" typescript >screen 2>&1 </dev/null &
	await file_has screen ready
	stty -F "$(tty_of "$(supervisor_of sized)")" rows 40 cols 132
	await file_has screen "40 132"
	sp kill sized
	status 0
	wait
	await [ ! -e /run/spore/sandboxes/sized ]
}
t "a terminal that changes its size changes the command's, too" run_resize

run_tty_keys() {
	mkfifo keys
	exec 7<>keys
	script -qec "exec $SPORE run -t --block $IMG --read-only -- /bin/sh -c 'trap \"echo interrupted\" INT; echo ready; read x; echo got \$x; read y; echo end \$?; exit 2'" /dev/null >screen 2>&1 <keys &
	await file_has screen ready
	printf 'word\r' >&7
	await file_has screen "got word"
	printf '\003' >&7
	await file_has screen interrupted
	printf '\004' >&7
	wait $!
	is $? 2 status
}
t "keys reach the command through its terminal, Ctrl-C and Ctrl-D with their meaning" run_tty_keys

run_tty_refused() {
	sp run -t --block "$IMG" --read-only -- /bin/sh
	refused "run: -t, but standard input is no terminal"
	sp run -t -d --block "$IMG" --read-only -- /bin/sh
	refused "run: -t and -d exclude each other"
}
t "-t without a terminal or with -d is refused" run_tty_refused

# --- signals and sudden ends ------------------------------------------------------------------------------

# In the background, as another program would start it: "job" is its pid.
start() { # ARGS OF run
	"$SPORE" run "$@" >job.out 2>job.err </dev/null &
	job=$!
}
end() { # STATUS
	wait $job
	rc=$?
	is $rc "$1" "status (stderr $(cat job.err))"
}

signals_forwarded() {
	start --name sig --block "$IMG" --read-only -- /bin/sh -c \
		'trap "echo got HUP" HUP; trap "echo got INT" INT; trap "echo got USR1" USR1; trap "echo got USR2" USR2; trap "echo got TERM; exit 11" TERM
		echo ready; while :; do sleep 0.05; done'
	await file_has job.out ready
	for s in HUP INT USR1 USR2 TERM; do
		kill -$s $job
		await file_has job.out "got $s"
	done
	end 11
	is "$(cat job.err)" ""
}
t "HUP, INT, USR1, USR2 and TERM go to the command" signals_forwarded

signals_default() {
	start --block "$IMG" --read-only -- /bin/sh -c 'echo ready; exec sleep 1000'
	await file_has job.out ready
	kill -TERM $job
	end 137
}
t "TERM ends a command that does not care for it" signals_default

killed_spore() {
	local vmm
	start --name doomed --block "$IMG" --read-only -- /bin/sh -c 'echo ready; exec sleep 1000'
	await file_has job.out ready
	vmm=$(vmm_of doomed)
	kill -KILL $job
	await gone "$vmm"
	end 137
	sp ps
	status 0
	no doomed
	that [ ! -e /run/spore/sandboxes/doomed ]
}
t "SIGKILL of spore run ends the machine, and the next command clears what is left" killed_spore

killed_vmm() {
	start --name victim --block "$IMG" --read-only -- /bin/sh -c 'echo ready; exec sleep 1000'
	await file_has job.out ready
	kill -KILL "$(vmm_of victim)"
	end 137
	is "$(cat job.err)" "spore: machine process killed by signal 9"
	that [ ! -e /run/spore/sandboxes/victim ]
}
t "SIGKILL of the machine process gives 137 and one sentence" killed_vmm

# --- in the background ---------------------------------------------------------------------------------------

stopped() { file_has "/run/spore/sandboxes/$1/state.json" '"status": "stopped"'; }

shortened() { echo '/bin/sh -c trap "echo ends; exit 42" TERM; echo begins; e...'; }
detached_life() {
	detached bg /bin/sh -c 'trap "echo ends; exit 42" TERM; echo begins; echo oops >&2; while :; do sleep 0.05; done'
	await file_has /run/spore/sandboxes/bg/output.log oops
	sp ps
	status 0
	that grep -qE '^bg +running +[0-9]+ +clone +[0-9]+s  '"$(shortened)"'$' out
	sp ps --json
	that grep -qE '^\[\{"id":"bg","status":"running","pid":[0-9]+,"clone":true,"created_ns":[0-9]+,"exit_code":0,"command":"'"$(shortened | sed 's/"/\\\\"/g')"'","containers":\[\{"id":"bg","status":"running"\}\],"namespace":null\}\]$' out
	sp logs bg
	status 0
	out "begins
oops"
	sp rm bg
	refused 'sandbox "bg" is running; stop it with: spore kill bg, or use --force'
	sp kill bg TERM
	status 0
	out ""
	await stopped bg
	sp ps --json
	out_has '"status":"stopped"'
	out_has '"exit_code":42'
	sp logs bg
	out "begins
oops
ends"
	sp exec bg -- /bin/true
	refused 'sandbox "bg" is not running; see: spore ps'
	sp kill bg
	refused 'sandbox "bg" is not running; see: spore ps'
	sp rm bg
	status 0
	out ""
	sp ps --json
	out "[]"
}
t "a detached container is listed, logs, takes signals, ends, and is removed" detached_life

detached_force() {
	local vmm
	detached bg /bin/sleep 1000
	vmm=$(vmm_of bg)
	sp rm --force bg
	status 0
	out ""
	err ""
	await gone "$vmm"
}
t "rm --force ends what runs" detached_force

detached_fails() {
	sp run -d --name bg --block "$IMG" --read-only -- /bin/nosuch
	status 127
	out ""
	err 'spore: exec: "/bin/nosuch": stat /bin/nosuch: no such file or directory'
	that [ ! -e /run/spore/sandboxes/bg ]
}
t "a detached container that cannot start is reported to the one who asked" detached_fails

detached_vmm_killed() {
	detached bg /bin/sleep 1000
	kill -KILL "$(vmm_of bg)"
	await stopped bg
	sp ps --json
	out_has '"exit_code":137'
	sp rm bg
	status 0
}
t "a detached container whose machine is killed ends with 137" detached_vmm_killed

# A machine process that does nothing any more, as one that its guest has taken over might.
machine_hangs() {
	local vmm
	detached bg /bin/sleep 1000
	vmm=$(vmm_of bg)
	kill -STOP "$vmm"
	sp kill bg
	refused 'sandbox "bg" does not answer; end it with: spore rm --force bg'
	sp rm --force bg
	status 0
	err ""
	await gone "$vmm"
}
t "a machine that does not answer is reported as that, and rm --force ends it" machine_hangs

machine_deaf() {
	local pid
	"$SPORE" run --name deaf --block "$IMG" --read-only -- /bin/sh -c 'echo up; sleep 1000' >deaf.out 2>deaf.err </dev/null &
	pid=$!
	await file_has deaf.out up
	kill -STOP "$(vmm_of deaf)"
	kill -TERM $pid
	sleep 6
	that kill -0 $pid # it may answer yet
	kill -TERM $pid
	wait $pid
	is $? 143 status
	is "$(cat deaf.err)" "" stderr
}
t "a machine that takes no signals is ended by the second" machine_deaf

machine_orphaned() {
	local vmm
	detached bg /bin/sleep 1000
	vmm=$(vmm_of bg)
	kill -STOP "$vmm"
	kill -KILL "$(supervisor_of bg)"
	await gone "$vmm"
	sp rm bg
	status 0
}
t "a machine does not outlive its supervisor, even if it does not look" machine_orphaned

signal_early() {
	local pid sig
	for sig in TERM:143 INT:130; do
		set -m # else the shell makes INT ignored in the background
		"$SPORE" run --no-template --block "$IMG" --read-only -- /bin/sleep 1000 >early.out 2>early.err </dev/null &
		pid=$!
		set +m
		sleep 0.04
		kill -"${sig%:*}" $pid
		wait $pid
		is $? "${sig#*:}" "status after an early ${sig%:*}"
		is "$(cat early.out early.err)" "" output
	done
}
t "a signal before the command runs ends the sandbox" signal_early

detached_supervisor_killed() {
	local vmm
	detached bg /bin/sh -c 'echo said; exec sleep 1000'
	await file_has /run/spore/sandboxes/bg/output.log said
	vmm=$(vmm_of bg)
	kill -KILL "$(supervisor_of bg)"
	await gone "$vmm"
	sp ps
	that grep -qE '^bg +dead ' out
	sp logs bg
	out said
	sp rm bg
	status 0
}
t "a detached container whose supervisor is killed is shown as dead and can be removed" detached_supervisor_killed

name_stillborn() {
	mkdir -p /run/spore/sandboxes/never
	sp run --name never --block "$IMG" --read-only -- /bin/true
	refused 'name "never" is already used; choose another or remove that sandbox with: spore rm --force never'
	touch -d '1 minute ago' /run/spore/sandboxes/never
	sp run --name never --block "$IMG" --read-only -- /bin/echo lives
	status 0
	out lives
}
t "a directory whose sandbox never came to be does not hold its name" name_stillborn

name_used() {
	detached bg /bin/sleep 1000
	sp run --name bg --block "$IMG" --read-only -- /bin/true
	refused 'name "bg" is already used; choose another or remove that sandbox with: spore rm --force bg'
	sp run -d --name bg --block "$IMG" --read-only -- /bin/true
	refused 'name "bg" is already used; choose another or remove that sandbox with: spore rm --force bg'
	sp exec bg -- /bin/echo alive
	out alive
	sp rm --force bg
	sp run --name bg --block "$IMG" --read-only -- /bin/echo free
	out free
}
t "a name that is used is refused, and free again after rm" name_used

unknown_sandbox() {
	local c
	for c in "exec ghost -- /bin/true" "kill ghost" "logs ghost" "rm ghost" "pause ghost" "resume ghost"; do
		sp $c
		refused 'no sandbox or container named "ghost"; see: spore ps'
	done
	sp exec ../bg -- /bin/true
	refused 'no sandbox named ".."; see: spore ps'
	detached bg /bin/sleep 1000
	sp kill bg NOSUCH
	refused 'kill: unknown signal NOSUCH; use a number or a name like TERM'
	sp rm --force bg
}
t "commands that name no sandbox or no signal are refused" unknown_sandbox

# --- exec ------------------------------------------------------------------------------------------------------

exec_variants() {
	detached box /bin/sh -c 'trap "exit 0" TERM; while :; do sleep 0.1; done'
	sp exec box -- /bin/sh -c 'echo to out; echo to err >&2; exit 3'
	status 3
	out "to out"
	err "to err"
	sp exec box /bin/sh -c 'exit 255'
	status 255
	sp exec box -- /bin/probe crash
	status 132
	sp exec box -- nosuch
	status 127
	err 'spore: exec: "nosuch": executable file not found in $PATH'
	sp exec box -- /bin/plain
	status 126
	err 'spore: exec: "/bin/plain": permission denied'
	sp exec -u user -w /home/user -e X=y box -- /bin/sh -c 'echo $(id -u):$(id -g) $PWD $X $HOME'
	status 0
	out "1000:1000 /home/user y /home/user"
	sp exec -u nobody-here box -- /bin/id
	status 125
	one_line_err
	err_has nobody-here
	sp exec box -- /bin/sh -c 'ps -o comm | grep -c sleep; hostname'
	out "1
box"
	sp exec -e NOVALUE box -- /bin/true
	refused "--env NOVALUE: must be NAME=VALUE"
	sp exec box
	refused "exec: give NAME and a command"
	sp exec -t box -- /bin/sh
	refused "exec: -t, but standard input is no terminal"
	on_tty 21 77 "$SPORE exec -t box -- /bin/sh -c 'stty size; echo \$TERM; exit 8'"
	status 8
	out "21 77
xterm"
	head -c 300000 /dev/urandom >data
	"$SPORE" exec box -- /bin/cat <data >copy
	is $? 0 status
	that cmp data copy
	sp rm --force box
}
t "exec runs commands with their own status, user, directory, environment, terminal and streams" exec_variants

exec_ends_with_box() {
	local pid
	detached box /bin/sh -c 'trap "exit 0" TERM; while :; do sleep 0.1; done'
	"$SPORE" exec box -- /bin/sh -c 'echo ready; sleep 1000' >exec.out 2>exec.err </dev/null &
	pid=$!
	await file_has exec.out ready
	sp kill box
	wait $pid
	is $? 137 "status of exec"
	await stopped box
	sp rm box
}
t "exec ends with 137 when its container is killed" exec_ends_with_box

exec_signals() {
	local pid
	detached box /bin/sh -c 'trap "echo init got it" TERM USR1; while :; do sleep 0.1; done'
	"$SPORE" exec box -- /bin/sh -c 'trap "echo got TERM; exit 12" TERM; echo ready; while :; do sleep 0.1; done' >exec.out 2>&1 </dev/null &
	pid=$!
	await file_has exec.out ready
	kill -TERM $pid
	wait $pid
	is $? 12 "status of exec"
	is "$(tail -n 1 exec.out)" "got TERM"
	sp logs box
	out ""
	sp rm --force box
}
t "signals to exec go to its own command" exec_signals

exec_many() {
	local i
	detached box /bin/sleep 1000
	for i in $(seq 8); do
		"$SPORE" exec box -- /bin/sh -c "echo $i; exit $i" >exec.$i 2>&1 </dev/null &
	done
	for i in $(seq 8); do
		await [ -s exec.$i ]
	done
	wait
	is "$(cat exec.? | tr '\n' ' ')" "1 2 3 4 5 6 7 8 "
	sp rm --force box
}
t "8 execs at once do not mix" exec_many

# --- pause ------------------------------------------------------------------------------------------------------

lines() { wc -l </run/spore/sandboxes/frozen/output.log; }
paused() {
	local n
	detached frozen /bin/sh -c 'while :; do echo tick; sleep 0.02; done'
	await [ -s /run/spore/sandboxes/frozen/output.log ]
	sp pause frozen
	status 0
	out ""
	sp ps
	that grep -qE '^frozen +paused ' out
	sleep 0.2
	n=$(lines)
	sleep 0.5
	is "$(lines)" "$n" "lines written while paused"
	sp resume frozen
	status 0
	await [ "$(lines)" -gt "$n" ]
	sp ps
	that grep -qE '^frozen +running ' out
	sp pause frozen
	sp kill frozen
	status 0
	await stopped frozen
	sp ps
	that grep -qE '^frozen +stopped ' out
	sp rm frozen
}
t "pause stops the processes, resume lets them go on, and a paused one can be killed" paused
