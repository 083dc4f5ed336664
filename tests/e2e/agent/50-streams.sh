# Terminals, direct streams, and the end of output.

tty() {
	TTY=true PROC=',"consoleSize":{"height":33,"width":77}' && sh_args 'tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo all; ls -l /dev/console | cut -c1; cat /proc/self/stat | cut -d" " -f7' && run && status 0
	out_has /dev/pts/0 && out_has "33 77" && out_has all && out_has c && out_has 34816
}
t "a terminal: size, all three streams, console, controlling" tty

tty_input() {
	TTY=true && sh_args 'read x; echo "got $x"; read y; echo "then $y"' && spec x && c create x $WORK/x.json && c start x
	(sleep 1; printf 'first\nsecond\n'; sleep 1) | c io x "" tty && out_has "got first" && out_has "then second" && c remove x
}
t "a terminal: input, echoed" tty_input

tty_resize() {
	TTY=true && sh_args 'trap "stty size; exit 0" WINCH; echo up; while :; do sleep 0.1; done' && spec x && c create x $WORK/x.json && c start x
	sleep 1
	c resize x "" 50 132 && status 0 && c io x "" tty && out_has "50 132" && c remove x
	sleeper x && c resize x "" 50 132 && refused "resize terminal: " && c remove x
}
t "a terminal: resize" tty_resize

tty_exec() {
	sleeper x
	TTY=true && sh_args 'tty; exit 9' && write_process p && c exec x e1 $WORK/p.json && status 9 && out_has /dev/pts/
	c remove x
}
t "a terminal for an exec" tty_exec

close_stdin() {
	sh_args 'cat >/dev/null; exit 4' && spec x && c create x $WORK/x.json && c start x
	c close-stdin x "" && status 0 && c wait x "" && status 4
	c close-stdin x "" && status 0 # once more, after the end: nothing to close
	c close-stdin nothing "" && err_has "nothing" && c remove x
}
t "CloseStdin is the end of input" close_stdin

tty_missing() {
	TTY=true && spec x && sed -i '/devpts/d' $WORK/x.json && c create x $WORK/x.json && refused "terminal: /dev/pts/ptmx: No such file or directory"
}
t "a terminal without devpts is refused" tty_missing

big_out() {
	sh_args 'head -c 20000000 /dev/zero | tr "\0" x' && run && status 0
	that [ "$(wc -c <$WORK/out)" = 20000000 ] && that [ "$(tr -d x <$WORK/out | wc -c)" = 0 ]
}
t "20 MB of output arrive whole" big_out

big_in() {
	head -c 5000000 /dev/urandom >$WORK/in
	ARGS='["md5sum"]' && spec x && c run x $WORK/x.json <$WORK/in && status 0 && out "$(md5sum <$WORK/in)"
	rm $WORK/in
}
t "5 MB of input arrive whole" big_in

slow_reader() {
	sh_args 'head -c 300000 /dev/zero | tr "\0" y; echo end >&2' && spec x && c create x $WORK/x.json && c start x
	sleep 2 # the pipe is full, the writer waits
	c io x "" && err end && that [ "$(wc -c <$WORK/out)" = 300000 ]
	c remove x
}
t "a reader that comes late loses nothing" slow_reader

after_exit() {
	sh_args 'echo last words; exit 2' && spec x && c create x $WORK/x.json && c start x && c wait x "" && status 2
	sleep 1
	c io x "" && status 2 && out "last words" && c remove x
}
t "output can be read after the end" after_exit

background() {
	local start
	sleeper x
	sh_args 'echo hi; sleep 100 & exit 6' && write_process p
	start=$(cut -d. -f1 /proc/uptime)
	c exec x e1 $WORK/p.json && status 6 && out hi
	that [ $(($(cut -d. -f1 /proc/uptime) - start)) -lt 20 ]
	c remove x
}
t "a child left in the background does not hold the output open" background

closed_stdin() {
	sh_args 'exec <&-; sleep 1; echo done' && spec x && head -c 200000 /dev/zero | c run x $WORK/x.json
	c remove x
	true
}
t "input nobody reads does no harm" closed_stdin

# direct PORT: the stream with this number, in the background; output to $WORK/dPORT
direct() { (timeout 60 $WORK/client $SOCK direct "$1" >$WORK/d"$1" 2>&1; touch $WORK/d"$1".end) & }

direct_streams() {
	rm -f $WORK/d[0-9]*
	(echo typed; sleep 1) | direct 7001 &
	direct 7002 </dev/null
	direct 7003 </dev/null
	sleep 1
	sh_args 'cat; echo err >&2; exit 8' && run ports=7001,7002,7003 && status 8
	await test -e $WORK/d7002.end -a -e $WORK/d7003.end
	that [ "$(cat $WORK/d7002)" = typed ] && that [ "$(cat $WORK/d7003)" = err ]
}
t "direct streams, connected before the request" direct_streams

direct_late() {
	rm -f $WORK/d[0-9]*
	sh_args 'echo out; echo err >&2' && spec x
	(timeout 60 $WORK/client $SOCK create x $WORK/x.json ports=0,7012,7013 >/dev/null 2>$WORK/create.err; echo $? >$WORK/create.rc) &
	sleep 1
	that test ! -e $WORK/create.rc
	direct 7012 </dev/null
	direct 7013 </dev/null
	await test -s $WORK/create.rc && that [ "$(cat $WORK/create.rc)" = 0 ]
	c start x && c wait x "" && status 0
	await test -e $WORK/d7012.end -a -e $WORK/d7013.end
	that [ "$(cat $WORK/d7012 $WORK/d7013 | tr '\n' ' ')" = "out err " ]
	c remove x && rm -f $WORK/create.*
}
t "direct streams, connected after the request" direct_late

direct_absent() {
	spec x && c create x $WORK/x.json ports=0,7022,0 && refused "NOT_FOUND: no connection from host port 7022 came within 10000 ms"
}
t "a direct stream that never comes fails the request" direct_absent

direct_mixed() {
	rm -f $WORK/d[0-9]*
	direct 7032 </dev/null
	sleep 1
	ARGS='["sleep","1000"]' && spec x && c create x $WORK/x.json ports=0,7032,0 && status 0 && c start x
	(timeout 20 $WORK/client $SOCK io x "" >/dev/null 2>$WORK/io.err) &
	sleep 1
	c kill x "" 9
	await grep -q "ReadStdout: FAILED_PRECONDITION: stream is direct (port 7032)" $WORK/io.err
	c remove x
}
t "a direct stream cannot be read by request" direct_mixed

direct_tty() {
	rm -f $WORK/d[0-9]*
	(sleep 2; echo hello; sleep 1) | direct 7041 &
	direct 7042 </dev/null
	sleep 1
	TTY=true && sh_args 'read x; echo "tty got $x"' && run ports=7041,7042,0 && status 0
	await test -e $WORK/d7042.end && that grep -q "tty got hello" $WORK/d7042
}
t "a terminal over direct streams" direct_tty

direct_tty_one() {
	rm -f $WORK/d[0-9]*
	(sleep 2; echo both; sleep 2) | direct 7051 &
	sleep 1
	TTY=true && sh_args 'read x; echo "one got $x"' && run ports=7051,7051,0 && status 0
	await test -e $WORK/d7051.end && that grep -q "one got both" $WORK/d7051
}
t "a terminal over one direct stream" direct_tty_one

direct_gone() {
	rm -f $WORK/d[0-9]*
	(timeout 2 $WORK/client $SOCK direct 7062 </dev/null >/dev/null 2>&1) &
	sleep 1
	sh_args 'i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.02; done; echo x >/tmp/finished' && run ports=0,7062,0 && status 0
	that test -e $R/tmp/finished && rm -f $R/tmp/finished
}
t "a host that goes does not stop the process" direct_gone

direct_big() {
	rm -f $WORK/d[0-9]*
	direct 7072 </dev/null
	sleep 1
	sh_args 'head -c 20000000 /dev/zero | tr "\0" z' && run ports=0,7072,0 && status 0
	await test -e $WORK/d7072.end && that [ "$(wc -c <$WORK/d7072)" = 20000000 ]
}
t "20 MB over a direct stream" direct_big

direct_exec() {
	rm -f $WORK/d[0-9]*
	sleeper x
	direct 7082 </dev/null
	sleep 1
	sh_args 'echo by exec; sleep 100 & exit 3' && write_process p && c exec x e1 $WORK/p.json ports=0,7082,0 && status 3
	await test -e $WORK/d7082.end && that [ "$(cat $WORK/d7082)" = "by exec" ]
	c remove x
}
t "exec over a direct stream, with a child left behind" direct_exec
