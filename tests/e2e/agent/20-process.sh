# A process: how it starts, as whom, where, and how it ends.

echo_it() { ARGS='["echo","hello"]' && run && status 0 && out hello && err ""; }
t "output and exit status 0" echo_it

code() { sh_args 'exit 7' && run && status 7; }
t "exit status 7" code

streams() { sh_args 'echo out; echo err >&2' && run && status 0 && out out && err err; }
t "stdout and stderr are two" streams

stdin() { ARGS='["cat"]' && spec x && printf 'some input' | c run x $WORK/x.json && status 0 && out "some input"; }
t "stdin arrives and ends" stdin

no_path() {
	ARGS='["nope"]' && spec x && c create x $WORK/x.json && refused 'exec: "nope": executable file not found in $PATH'
	c remove x && refused 'container "x"'
}
t "a command not in PATH: the known words, and no container" no_path

no_file() {
	ARGS='["/bin/nope"]' && spec x && c create x $WORK/x.json &&
		refused 'exec: "/bin/nope": stat /bin/nope: no such file or directory'
}
t "a path that does not exist: the known words" no_file

no_exec() {
	ARGS='["/bin/plain"]' && spec x && c create x $WORK/x.json && refused 'exec: "/bin/plain": permission denied'
	ARGS='["plain"]' && spec x && c create x $WORK/x.json &&
		refused 'exec: "plain": executable file not found in $PATH'
	ARGS='["/bin"]' && spec x && c create x $WORK/x.json && refused 'exec: "/bin": permission denied'
}
t "a file that may not be executed: the known words" no_exec

bad_format() {
	ARGS='["garbage"]' && spec x && c create x $WORK/x.json
	c start x && refused 'exec /bin/garbage: exec format error'
	c wait x "" && status 126 && c remove x
}
t "a file that is no program: exec format error, status 126" bad_format

started_once() {
	ARGS='["garbage"]' && spec x && c create x $WORK/x.json && c start x
	c start x && refused 'FAILED_PRECONDITION: container "x" is not in state created'
	c remove x && status 0
}
t "a container whose start failed cannot be started again" started_once

environment() {
	ENV='["PATH=/nowhere:/bin","A=1","B=x y"]' && sh_args 'echo $A,$B,$HOME,$PATH' && run &&
		out "1,x y,/root,/nowhere:/bin"
}
t "environment as given, HOME from passwd" environment

home() {
	USER='{"uid":1000,"gid":1001}' && sh_args 'echo $HOME' && run && out /home/user
	USER='{"uid":5555,"gid":1}' && sh_args 'echo $HOME' && run && out /
	ENV='["PATH=/bin","HOME=/given"]' && sh_args 'echo $HOME' && run && out /given
}
t "HOME of the user, / for nobody, left alone when given" home

default_path() { ENV='[]' && ARGS='["id","-u"]' && run && status 0 && out 0; }
t "no PATH at all: the usual directories are searched" default_path

ids_() {
	USER='{"uid":1000,"gid":1001,"additionalGids":[2000,3000]}' && sh_args 'id -u; id -g; id -G' && run &&
		out "1000
1001
1001 2000 3000"
}
t "uid, gid and additional groups" ids_

names() {
	sh_args 'id -u; id -g; id -G' && run user=user && out "1000
1001
1001 2000"
	sh_args 'id -u; id -g; id -G' && run user=user:extra,staff && out "1000
2000
2000 1001"
}
t "user and groups by the names of the image" names

no_user() {
	spec x && c create x $WORK/x.json user=nobody &&
		refused 'INVALID_ARGUMENT: unable to find user nobody: no matching entries in passwd file'
	spec x && c create x $WORK/x.json user=user:wheel &&
		refused 'unable to find group wheel: no matching entries in group file'
}
t "names the image does not know: the known words" no_user

cwd() { CWD=/var/log && sh_args pwd && run && out /var/log; }
t "working directory" cwd

cwd_made() { CWD=/made/for/this && sh_args 'pwd; rmdir /made/for/this /made/for /made' && run && status 0 && out /made/for/this; }
t "a working directory the image lacks is made" cwd_made

cwd_denied() {
	USER='{"uid":1000,"gid":1000}' CAPS='[]' CWD=/closed && spec x && c create x $WORK/x.json &&
		refused 'PERMISSION_DENIED: chdir to cwd ("/closed") set in config.json failed: permission denied'
}
t "a working directory the user may not enter: the known words" cwd_denied

cwd_file() {
	CWD=/etc/passwd && spec x && c create x $WORK/x.json &&
		refused 'chdir to cwd ("/etc/passwd") set in config.json failed: not a directory'
}
t "a working directory that is none" cwd_file

breakout() {
	local fd
	for fd in 3 4 5 6 7 8 9 10; do
		CWD=/proc/self/fd/$fd && spec x && c create x $WORK/x.json && status 99 || return
	done
	sh_args 'ls /proc/self/fd | wc -l' && run && out 4 # 0 1 2 and the directory itself
}
t "no descriptor of the agent's is left, as working directory or otherwise" breakout

umask_() {
	sh_args 'umask' && run && out 0022
	USER='{"uid":0,"gid":0,"umask":63}' && sh_args 'umask' && run && out 0077
}
t "umask 0022 unless given" umask_

rlimit() {
	PROC=',"rlimits":[{"type":"RLIMIT_NOFILE","soft":100,"hard":200},{"type":"RLIMIT_CORE","soft":0,"hard":0}]' &&
		sh_args 'ulimit -Sn; ulimit -Hn; ulimit -c' && run && out "100
200
0"
}
t "rlimits" rlimit

oom_score() { PROC=',"oomScoreAdj":321' && sh_args 'cat /proc/self/oom_score_adj' && run && out 321; }
t "oom_score_adj" oom_score

nnp() {
	PROC=',"noNewPrivileges":true' && sh_args 'grep NoNewPrivs /proc/self/status' && run && out "NoNewPrivs:	1"
	sh_args 'grep NoNewPrivs /proc/self/status' && run && out "NoNewPrivs:	0"
}
t "no_new_privs" nnp

caps() {
	CAPS='["CAP_CHOWN","CAP_KILL","CAP_NOT_YET"]' && sh_args 'grep ^Cap /proc/self/status' && run && out "CapInh:	0000000000000000
CapPrm:	0000000000000021
CapEff:	0000000000000021
CapBnd:	0000000000000021
CapAmb:	0000000000000000"
}
t "capabilities of root; an unknown one is left out" caps

user_caps() {
	USER='{"uid":1000,"gid":1000}' CAPS='["CAP_KILL"]' && sh_args 'grep -E "CapEff|CapBnd" /proc/self/status' && run &&
		out "CapEff:	0000000000000000
CapBnd:	0000000000000020"
	USER='{"uid":1000,"gid":1000}'
	process | sed 's/"capabilities":{.*}}/X/; s/"capabilities":{[^}]*}/"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"],"inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]}/' >$WORK/amb
	sh_args 'grep -E "CapEff|CapAmb" /proc/self/status'
	USER='{"uid":1000,"gid":1000}' && spec x
	sed -i 's/"inheritable":\[\],"ambient":\[\]/"inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]/' $WORK/x.json
	c run x $WORK/x.json && out "CapEff:	0000000000000020
CapAmb:	0000000000000020"
}
t "capabilities of a user: none, unless ambient" user_caps

scheduler() {
	PROC=',"scheduler":{"policy":"SCHED_BATCH","nice":5}' && sh_args 'cut -d" " -f19,41 /proc/self/stat' && run && out "5 3"
	PROC=',"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0}' && sh_args 'ionice' && run && out_has idle
}
t "scheduler and io priority" scheduler

signals() {
	ARGS='["sleep","1000"]' && spec x && c create x $WORK/x.json && c start x
	c kill x "" 15 && status 0 && c wait x "" && status 137
	c kill x "" 15 && status 0 # has ended already
	c remove x
	sh_args 'trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done' && spec x && c create x $WORK/x.json && c start x
	sleep 1
	c kill x "" 15 && status 0 && c wait x "" && status 5 && c remove x
	sleeper x && c kill x "" 65 && refused INVALID_ARGUMENT: && c kill x "" 9 && c wait x "" && status 137 && c remove x
}
t "SIGTERM reaches a handler, and kills an init that has none" signals

kill_all() {
	sh_args 'sleep 1000 & sleep 1000 & sleep 1000' && spec x && c create x $WORK/x.json && c start x
	await sh -c '[ $(wc -l </sys/fs/cgroup/x/cgroup.procs) -ge 3 ]'
	c kill x "" 9 && c wait x "" && status 137
	await sh -c '[ -z "$(cat /sys/fs/cgroup/x/cgroup.procs)" ]'
	c remove x && status 0
}
t "SIGKILL to init ends all processes" kill_all

waiters() {
	sleeper x
	for i in 1 2 3; do
		(timeout 60 $WORK/client $SOCK wait x "" >/dev/null 2>&1; echo $? >$WORK/w$i) &
	done
	sleep 1
	c kill x "" 9
	await test -s $WORK/w1 -a -s $WORK/w2 -a -s $WORK/w3
	that [ "$(cat $WORK/w1 $WORK/w2 $WORK/w3 | tr '\n' ' ')" = "137 137 137 " ]
	c wait x "" && status 137
	rm -f $WORK/w[123] && c remove x
}
t "several may wait, also after the end" waiters

remove_running() { sleeper x && c remove x 10 && status 0; }
t "a running container can be removed" remove_running

exec_() {
	sleeper x
	sh_args 'hostname; cat /proc/1/cmdline | tr "\0" " "; exit 3' && write_process p
	c exec x e1 $WORK/p.json && status 3 && out "pod-name
sleep 1000 "
	ARGS='["cat"]' && write_process p && echo typed | c exec x e2 $WORK/p.json && out typed
	c remove x
}
t "exec runs in the container: name, pids, streams, status" exec_

exec_same() {
	sleeper x
	for ns in mnt pid ipc uts cgroup net; do
		sh_args "readlink /proc/1/ns/$ns; readlink /proc/self/ns/$ns" && write_process p && c exec x e$ns $WORK/p.json
		that [ "$(sort -u $WORK/out | wc -l)" = 1 ] || return
	done
	ARGS='["cat","/proc/self/cgroup"]' && write_process p && c exec x ecg $WORK/p.json && out "0::/"
	c remove x
}
t "exec joins every namespace and the cgroup" exec_same

exec_user() {
	sleeper x
	USER='{"uid":1000,"gid":1001}' CWD=/tmp && sh_args 'id -u; pwd; echo $HOME' && write_process p
	c exec x e1 $WORK/p.json && out "1000
/tmp
/home/user"
	ARGS='["id","-u"]' && write_process p && c exec x e2 $WORK/p.json user=user && out 1000
	c remove x
}
t "exec as another user, elsewhere" exec_user

exec_errors() {
	sleeper x
	ARGS='["nope"]' && write_process p && c exec x e1 $WORK/p.json &&
		refused 'exec: "nope": executable file not found in $PATH'
	c wait x e1 && status 127
	ARGS='["/bin/plain"]' && write_process p && c exec x e2 $WORK/p.json && refused 'exec: "/bin/plain": permission denied'
	c wait x e2 && status 126
	ARGS='["sleep","1000"]' && write_process p && (timeout 60 $WORK/client $SOCK exec x e3 $WORK/p.json >/dev/null 2>&1 &)
	await sh -c '[ $(wc -l </sys/fs/cgroup/x/cgroup.procs) = 2 ]'
	write_process p && c exec x e3 $WORK/p.json && refused 'ALREADY_EXISTS: exec id "e3" is taken'
	c kill x e3 9 && c wait x e3 && status 137
	c kill x "" 9 && c wait x ""
	write_process p && c exec x e4 $WORK/p.json && refused 'FAILED_PRECONDITION: container "x" is not running'
	c remove x && status 0
}
t "exec that cannot be: the known words, status, codes" exec_errors

exec_many() {
	sleeper x
	ARGS='["true"]' && write_process p
	for i in $(seq 40); do
		c exec x many$i $WORK/p.json && status 0 || return
	done
	c wait x many40 && status 0
	c io x many1 && err_has NOT_FOUND # forgotten
	c remove x
}
t "of many that have ended only some are remembered" exec_many

hook() {
	TOP=',"annotations":{"a":"b\"c"},"hooks":{"startContainer":[{"path":"/bin/sh","args":["sh","-c","cat >/tmp/state; echo $V >>/tmp/state"],"env":["V=from-hook","PATH=/bin"]}]}'
	sh_args 'cat /tmp/state; rm /tmp/state' && run && status 0 && out_has '"id":"x","status":"created","pid":1,' &&
		out_has '"annotations":{"a":"b\"c"}' && out_has from-hook
}
t "a startContainer hook gets the state and runs before the program" hook

hook_fails() {
	TOP=',"hooks":{"startContainer":[{"path":"/bin/false"}]}' && ARGS='["echo","not"]' && spec x &&
		c create x $WORK/x.json && status 0
	c start x && refused 'error running startContainer hook: /bin/false: exit status 1' && c remove x
	TOP=',"hooks":{"startContainer":[{"path":"/bin/sleep","args":["sleep","100"],"timeout":1}]}' && spec x &&
		c create x $WORK/x.json && c start x &&
		refused 'DEADLINE_EXCEEDED: error running startContainer hook: /bin/sleep ran past its timeout of 1s'
	c remove x
}
t "a hook that fails or hangs fails the start" hook_fails
