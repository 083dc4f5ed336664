# exec.sh - further processes in a container.

exec_world() {
	up c1 --env COLOUR=red --cwd /data -- sleep 1000
	x c1 sh -c 'echo $COLOUR; pwd; id; cat /proc/1/comm; echo $HOME $PATH; umask; grep -E "^(CapEff|NoNewPrivs)" /proc/self/status'
	status 0
	x c1 sh -c 'exit 42'
	status 42
	see ctr task exec --exec-id w --cwd /home/user c1 pwd
	out /home/user
	see ctr task exec --exec-id u1 --user user c1 id
	out 'uid=1000(user) gid=1000(user) groups=1000(user)'
	see ctr task exec --exec-id u2 --user 1001:2000 c1 sh -c 'id -u; id -g'
	out '1001
2000'
	see ctr task exec --exec-id u3 --user nobody c1 id
	that [ $rc != 0 ]
}
t "an exec has the container's world, and its own user and directory" exec_world

exec_streams() {
	up c1 -- sleep 1000
	see ctr task exec --exec-id e1 c1 sh -c 'cat; echo err >&2; exit 3' < <(echo in; sleep 2)
	status 3
	head -c 3000000 /dev/urandom >"$WORK/three"
	sums ctr task exec --exec-id e2 c1 cat <"$WORK/three" >/dev/null
	that cmp "$WORK/three" "$WORK/out"
	on_pty "ctr task exec -t --exec-id e3 c1 sh -c 'tty; sleep 1; stty size; exit 4'"
}
t "an exec has its own streams, and a terminal when asked" exec_streams

exec_missing() {
	up c1 -- sleep 1000
	see ctr task exec --exec-id e c1 nonesuch
	that [ $rc != 0 ]
	err_has 'executable file not found in $PATH'
	see ctr task exec --exec-id e c1 /bin/plain
	err_has 'permission denied'
	see ctr task exec --exec-id e c1 echo "the same id again"
	status 0
}
t "an exec of what is no program is refused, and its id is free again" exec_missing

exec_parallel() {
	local n
	up c1 -- sleep 1000
	for n in 1 2 3 4 5 6 7 8; do
		ctr task exec --exec-id "p$n" c1 sh -c "echo from $n; exit $n" >"$WORK/p$n" 2>&1 &
		eval "pid$n=\$!"
	done
	for n in 1 2 3 4 5 6 7 8; do
		eval "wait \$pid$n"
		echo "$? $(cat "$WORK/p$n")"
	done >"$WORK/all"
	cat "$WORK/all"
	is "$(tail -n 1 "$WORK/all")" "8 from 8"
}
t "eight execs at once each have their own output and status" exec_parallel

exec_ids() {
	up c1 -- sleep 1000
	quiet ctr task exec -d --exec-id e1 c1 sleep 1000
	see ctr task exec --exec-id e1 c1 true
	that [ $rc != 0 ]
	err_has 'already exists'
	ctr task ps c1 | wc -l
	see ctr task kill -s KILL --exec-id e1 c1
	see ctr task kill -s KILL --exec-id nonesuch c1
	err_has 'not found'
	exec_down c1 e1
}
t "an exec's id is its own while it runs, and it can be killed by it" exec_ids

exec_after() {
	up c1 -- true
	await stopped c1
	see ctr task exec --exec-id e c1 true
	that [ $rc != 0 ]
	see ctr task exec --exec-id e nonesuch true
	err_has 'not found'
}
t "no exec in a container that has ended, or is not there" exec_after

exec_ends_with() {
	up c1 -- sleep 1000
	ctr task exec --exec-id e1 c1 sh -c 'trap "" TERM; sleep 1000' >/dev/null 2>&1 &
	await eval '[ $(ctr task ps c1 | wc -l) -ge 3 ]'
	see ctr task kill -s KILL c1
	wait $!
	echo "exec $?"
	await stopped c1
}
t "when the first process ends, so do all execs, with 137" exec_ends_with

exec_survives() {
	up c1 -- sh -c 'sleep 3; exit 5'
	x c1 echo quick
	await stopped c1
	ended c1 5
}
t "a container that outlives its execs ends with its own status" exec_survives

exec_zombies() {
	up c1 -- sleep 1000
	x c1 sh -c 'for i in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 1; true'
	x c1 sh -c 'ps | grep -c "\[sleep\]"; true'
}
t "what an exec leaves behind becomes a child of the first process" exec_zombies
