# io.sh - the three streams, terminals and logs.

io_stdin() {
	# ctr loses an end of input that comes before the task is there, so it comes late.
	see run $BB c1 cat < <(echo one; echo two; sleep 3)
	status 0
	out 'one
two'
	head -c 5000000 /dev/urandom >"$WORK/five"
	sums run $BB c1 sh -c 'md5sum; exit 3' <"$WORK/five" >/dev/null
	status 3
	out "$(md5sum <"$WORK/five")"
}
t "standard input arrives whole, 5 MB too, and ends" io_stdin

io_large() {
	sums run $BB c1 sh -c 'yes 0123456789abcdef | head -c 10000000; yes error | head -c 10000000 >&2; exit 5'
	status 5
	is "$(md5sum <"$WORK/err")" "$(yes error | head -c 10000000 | md5sum)"
}
t "10 MB on each output arrive whole" io_large

io_binary() {
	sums run $BB c1 probe bytes 100000
	status 0
	head -c 100000 /dev/urandom >"$WORK/in"
	sums run $BB c1 cat < <(cat "$WORK/in"; sleep 3) >/dev/null
	that cmp "$WORK/in" "$WORK/out"
}
t "every byte value passes both ways untouched" io_binary

io_both() {
	see run $BB c1 sh -c 'echo out; echo err >&2; echo more; exec >&-; echo late >&2'
	out 'out
more'
	err 'err
late'
}
t "output and errors stay apart, and one may be closed first" io_both

io_tail() {
	up c1 -- sleep 1000
	for n in 1 2 3 4 5; do
		sums ctr task exec --exec-id "t$n" c1 sh -c 'seq 20000; echo the end'
		is "$(tail -n 1 "$WORK/out")" "the end"
	done
}
t "the last line before the exit is never lost" io_tail

io_orphan() {
	see run $BB c1 probe orphan 1000
	status 3
	out parent
}
t "a container whose child holds the output ends with its first process" io_orphan

io_orphan_exec() {
	up c1 -- sleep 1000
	x c1 probe orphan 1
	status 3
	out_has parent
}
t "an exec whose child holds the output for a second gets its own status" io_orphan_exec

io_null() {
	see run --null-io $BB c1 sh -c 'echo lost; echo lost >&2; cat; exit 4'
	status 4
	out ""
	err ""
}
t "with --null-io nothing comes and nothing blocks" io_null

io_file() {
	rm -rf "$WORK/logs"
	see run --log-uri "file://$WORK/logs/deep/log" $BB c1 sh -c 'echo to the log; echo errors too >&2'
	status 0
	out ""
	see sort "$WORK/logs/deep/log"
	stat -c '%a' "$WORK/logs/deep/log" "$WORK/logs/deep"
	see run --log-uri "file://$WORK/logs/deep/log" $BB c1 echo again
	see sort "$WORK/logs/deep/log"
	out_has again
}
t "--log-uri file:// appends both outputs to a file it makes" io_file

io_logger() {
	see run --log-uri "binary://$WORK/bin/logger.sh?file=$WORK/logged" $BB c1 sh -c 'echo to the logger; echo errors >&2'
	status 0
	await grep -q 'err: errors' "$WORK/logged"
	await grep -q '^to the logger' "$WORK/logged"
	see sh -c "grep -v '^end$' $WORK/logged | sort"
	out_has 'logger of c1 in default'
	out_has 'to the logger'
	out_has 'err: errors'
}
t "--log-uri binary:// gives a program both outputs, three descriptors and two variables" io_logger

io_logger_missing() {
	run --log-uri "binary:///not/there" $BB c1 true >"$WORK/out" 2>"$WORK/err"
	echo $? # each has its own words
	that grep -qi 'no such file or directory' "$WORK/err"
}
t "a logger that does not exist is an error" io_logger_missing

io_scheme() {
	run --log-uri "gopher://x" $BB c1 true >"$WORK/out" 2>"$WORK/err"
	rc=$?
	echo $rc
	err_has 'unknown STDIO scheme'
}
t "an unknown scheme of the log is refused by name" io_scheme

io_tty() {
	on_pty "ctr run --rm -t --runtime $RT $BB c1 sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && echo all; exit 6'"
	on_pty "ctr run --rm -t --runtime $RT $BB c1 sh -c 'sleep 1; stty size; stty -a | grep -o \" echo \"'" >"$WORK/size"
	cat "$WORK/size"
	that grep -q '33 77' "$WORK/size"
}
t "-t gives a terminal of the caller's size" io_tty

io_tty_input() {
	cd "$WORK" || return
	mkfifo keys
	exec 7<>keys
	(sleep 3; echo "echo typed \$((40 + 2))"; sleep 1; echo 'exit 9') >keys &
	script -qec "ctr run --rm -t --runtime $RT $BB c1 sh" /dev/null <&7 >"$WORK/out" 2>&1
	echo "= $?"
	exec 7>&-
	that grep -q 'typed 42' "$WORK/out"
}
t "what is typed on a terminal reaches the shell, and its echo comes back" io_tty_input

io_tty_large() {
	up c1 -- sleep 1000
	on_pty "ctr task exec -t --exec-id e c1 sh -c 'seq 100000'" | md5sum
}
t "a terminal loses nothing of a large output" io_tty_large

io_attach() {
	up c1 -- sh -c 'while read line; do echo "got $line"; [ "$line" != end ] || exit 8; done'
	see ctr task attach c1 < <(sleep 1; echo one; sleep 1; echo end; sleep 1)
	status 8
	out 'got one
got end'
	state_of c1 # ctr removes a task that ended while it was attached
}
t "task attach reaches a detached container both ways" io_attach

io_detached_full() {
	up c1 -- sh -c 'sleep 3; yes | head -c 1000000' # the ctr that started it reads no more
	sleep 5
	state_of c1
	sums timeout 60 ctr task attach c1 </dev/null
	is "$(wc -c <"$WORK/out")" 1000000
}
t "a detached container that writes much waits, and loses nothing" io_detached_full
