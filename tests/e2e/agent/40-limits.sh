# Namespaces, cgroups, seccomp: what holds a container in.

pid1() { sh_args 'echo $$; ps | wc -l' && run && out "1
4"; }
t "a pid namespace of its own" pid1

shared_ns() {
	sh_args 'readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; hostname' && run && cp $WORK/out $WORK/one
	sh_args 'readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; hostname' && run && cp $WORK/out $WORK/two
	that cmp -s $WORK/one $WORK/two && out_has pod-name
	that [ "$(readlink /proc/self/ns/uts)" != "$(sed -n 2p $WORK/one)" ]
}
t "ipc and uts are the pod's, and its name" shared_ns

shared_pid() {
	ARGS='["sleep","1000"]' && spec x && c create x $WORK/x.json pidns && c start x
	ARGS='["ps"]' && spec y && c run y $WORK/y.json pidns && out_has "sleep 1000"
	ARGS='["sleep","2000"]' && spec y && c create y $WORK/y.json pidns && c start y
	ARGS='["ps"]' && write_process p && c exec x e1 $WORK/p.json && out_has "sleep 2000"
	c remove y && status 0 && c remove x && status 0
	ARGS='["sh","-c","echo $$"]' && spec y && c run y $WORK/y.json pidns && out 1
}
t "a shared pid namespace belongs to its first container" shared_pid

orphans() {
	ARGS='["sleep","1000"]' && spec x && c create x $WORK/x.json pidns && c start x
	sh_args 'sleep 3000 & exit 4' && spec y && c create y $WORK/y.json pidns && c start y && c wait y "" && status 4
	await sh -c '[ -z "$(cat /sys/fs/cgroup/y/cgroup.procs)" ]'
	c remove y && c remove x
}
t "in a shared pid namespace nobody outlives his container" orphans

userns() {
	NS=',{"type":"user"}' LINUX=',"uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]'
	chown -R 100000:100000 $R/tmp
	sh_args 'cat /proc/self/uid_map; id -u; touch /tmp/mine; cat /dev/zero | head -c 2 | wc -c; hostname' && run
	status 0 && out_has "0     100000      65536" && out_has "pod-name"
	that [ "$(stat -c %u $R/tmp/mine)" = 100000 ]
	rm -f $R/tmp/mine && chown -R 0:0 $R/tmp
	NS=',{"type":"user"}' && spec x && c create x $WORK/x.json && refused "user namespace without id mappings"
}
t "a user namespace with mappings" userns

userns_exec() {
	NS=',{"type":"user"}' LINUX=',"uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]'
	sleeper x
	sh_args 'id -u; readlink /proc/self/ns/user; readlink /proc/1/ns/user' && write_process p && c exec x e1 $WORK/p.json && status 0
	that [ "$(head -n 1 $WORK/out)" = 0 ] && that [ "$(sort -u $WORK/out | wc -l)" = 2 ]
	c remove x
}
t "exec joins a user namespace" userns_exec

timens() {
	NS=',{"type":"time"}' LINUX=',"timeOffsets":{"boottime":{"secs":1000000,"nanosecs":0}}'
	sh_args 'cut -d. -f1 /proc/uptime' && run && status 0
	that [ "$(cat $WORK/out)" -ge 1000000 ]
	that [ "$(cut -d. -f1 /proc/uptime)" -lt 1000000 ]
}
t "a time namespace with an offset" timens

netns() {
	NS=',{"type":"network"}' && sh_args 'ls /sys/class/net; readlink /proc/self/ns/net' && run && out_lacks "$(readlink /proc/self/ns/net)"
	sh_args 'readlink /proc/self/ns/net' && run && out "$(readlink /proc/self/ns/net)"
}
t "the pod's network, unless one of its own is asked for" netns

bad_ns() {
	spec x && sed -i 's|{"type":"mount"}|{"type":"mount","path":"/proc/1/ns/mnt"}|' $WORK/x.json && c create x $WORK/x.json &&
		refused "UNIMPLEMENTED: joining a mount namespace by path"
	NS=',{"type":"network","path":"/proc/1/ns/ipc"}' && spec x && c create x $WORK/x.json &&
		refused "/proc/1/ns/ipc is no network namespace"
}
t "namespaces that cannot be joined" bad_ns

sysctl() {
	LINUX=',"sysctl":{"kernel.msgmax":"9999","net.ipv4.ip_unprivileged_port_start":"80"}' && sh_args 'cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start' && run &&
		out "9999
80"
	that [ "$(cat /proc/sys/kernel/msgmax)" = 8192 ]
	echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start
	LINUX=',"sysctl":{"kernel.panic":"1"}' && spec x && c create x $WORK/x.json &&
		refused 'sysctl "kernel.panic" is not in a separate kernel namespace'
	LINUX=',"sysctl":{"net.ipv4.nothing":"1"}' && spec x && c create x $WORK/x.json && refused 'sysctl net.ipv4.nothing = "1"'
}
t "sysctls of namespaces, and only those" sysctl

limits() {
	LINUX=',"resources":{"memory":{"limit":67108864,"reservation":33554432,"swap":100663296},"cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0"},"pids":{"limit":50},"unified":{"memory.high":"60000000"}}'
	sh_args 'cd /sys/fs/cgroup; cat memory.max memory.low memory.swap.max memory.high cpu.weight cpu.max cpuset.cpus pids.max' && run && status 0
	out "67108864
33554432
33554432
59998208
39
50000 100000
0
50"
}
t "memory, swap, cpu, pids and unified limits" limits

bad_limits() {
	LINUX=',"resources":{"memory":{"limit":67108864,"swap":1}}' && spec x && c create x $WORK/x.json &&
		refused "INVALID_ARGUMENT: cgroup: memory+swap limit 1 does not cover memory limit 67108864"
	LINUX=',"resources":{"unified":{"../memory.max":"1"}}' && spec x && c create x $WORK/x.json && refused 'unified resource "../memory.max" must be a file name'
	LINUX=',"resources":{"unified":{"no.such":"1"}}' && spec x && c create x $WORK/x.json && refused 'cgroup: set no.such to 1: '
	LINUX=',"cgroupsPath":"/a/../../b"' && spec x && c create x $WORK/x.json && refused 'INVALID_ARGUMENT: cgroup path "/a/../../b" is not allowed'
}
t "limits that cannot be" bad_limits

cgroup_path() {
	LINUX=',"cgroupsPath":"kubepods.slice:cri:abc"' && ARGS='["sleep","1000"]' && spec x && c create x $WORK/x.json
	that test -d /sys/fs/cgroup/kubepods.slice/cri-abc && c remove x && that test ! -d /sys/fs/cgroup/kubepods.slice
	LINUX=',"cgroupsPath":"/kubepods/pod1/c"' && spec x && c create x $WORK/x.json && that test -d /sys/fs/cgroup/kubepods/pod1/c
	LINUX=',"cgroupsPath":"/kubepods/pod1/c"' && spec y && c create y $WORK/y.json && refused "FAILED_PRECONDITION: cgroup /kubepods/pod1/c is in use"
	c remove x
}
t "the place of the cgroup; it is nobody else's" cgroup_path

pids_limit() { LINUX=',"resources":{"pids":{"limit":3}}' && sh_args 'sleep 5 & sleep 5 & sleep 5 & echo all' && run && err_has "fork" && out_lacks all; }
t "a fork too many fails" pids_limit

oom() {
	LINUX=',"resources":{"memory":{"limit":16777216,"swap":16777216}}'
	sh_args 'x=$(head -c 40000000 /dev/zero | tr "\0" x); echo survived' && spec x && c create x $WORK/x.json && c start x
	c io x "" && out_lacks survived && err_has oom_killed
	that [ "$rc" -ge 1 ]
	c oom && status 0 && out x && c remove x
}
t "out of memory: killed, told to GetOOMEvent and to waiters" oom

update() {
	LINUX=',"resources":{"memory":{"limit":67108864},"pids":{"limit":50}}' && sleeper x
	echo '{"memory":{"limit":134217728},"cpu":{"quota":20000}}' >$WORK/r.json && c update x $WORK/r.json && status 0
	that [ "$(cat /sys/fs/cgroup/x/memory.max /sys/fs/cgroup/x/pids.max | tr '\n' ' ')" = "134217728 50 " ]
	that [ "$(cat /sys/fs/cgroup/x/cpu.max)" = "20000 100000" ]
	echo '{"cpu":{"cpus":"99"}}' >$WORK/r.json && c update x $WORK/r.json && refused "cgroup: set cpuset.cpus to 99"
	c remove x
}
t "UpdateContainer changes what is named and nothing else" update

stats() {
	LINUX=',"resources":{"memory":{"limit":67108864},"pids":{"limit":50}}' && sleeper x && c stats x && status 0 &&
		out_has "memory_limit 67108864" && out_has "pids 1" && out_has "pids_limit 50"
	that [ "$(sed -n 's/^cpu //p' $WORK/out)" -gt 0 ] && that [ "$(sed -n 's/^memory //p' $WORK/out)" -gt 0 ] &&
		that [ "$(sed -n 's/^maps //p' $WORK/out)" -gt 10 ]
	c remove x
}
t "StatsContainer" stats

pause() {
	sh_args 'i=0; while :; do i=$((i+1)); echo $i >/tmp/count; sleep 0.05; done' && spec x && c create x $WORK/x.json && c start x
	await test -s $R/tmp/count
	c pause x && status 0 && that grep -q "frozen 1" /sys/fs/cgroup/x/cgroup.events
	a=$(cat $R/tmp/count) && sleep 0.5 && that [ "$(cat $R/tmp/count)" = "$a" ]
	write_process p && c exec x e1 $WORK/p.json && refused 'FAILED_PRECONDITION: container "x" is paused'
	c resume x && status 0 && sleep 0.5 && that [ "$(cat $R/tmp/count)" != "$a" ]
	c pause x && c kill x "" 9 && status 0 && c wait x "" && status 137
	c remove x && rm -f $R/tmp/count
}
t "pause, resume, and the killing of a paused one" pause

seccomp() {
	LINUX=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{"names":["mkdir","mkdirat","not_yet_a_syscall"],"action":"SCMP_ACT_ERRNO","errnoRet":95},{"names":["rmdir"],"action":"SCMP_ACT_ERRNO"}]}'
	sh_args 'mkdir /tmp/d; rmdir /tmp/d; grep -E "^Seccomp:|NoNewPrivs" /proc/self/status' && run
	err_has "Operation not supported" && err_has "Operation not permitted" && out "NoNewPrivs:	0
Seccomp:	2"
}
t "seccomp: errno, its default, unknown names; without no_new_privs" seccomp

seccomp_args() {
	LINUX=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["kill"],"action":"SCMP_ACT_ERRNO","errnoRet":42,"args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}]}' PROC=',"noNewPrivileges":true'
	sh_args 'trap "echo usr2" USR2; kill -USR1 $$; kill -USR2 $$; grep -E "^Seccomp:|NoNewPrivs" /proc/self/status' && run
	err_has "No message of desired type" && out "usr2
NoNewPrivs:	1
Seccomp:	2"
}
t "seccomp: arguments" seccomp_args

seccomp_kill() {
	LINUX=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]}'
	sh_args 'mkdir /tmp/d' && run && status 159
	LINUX=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]}' && sleeper x
	ARGS='["mkdir","/tmp/d"]' && write_process p && c exec x e1 $WORK/p.json && status 159 && c remove x
}
t "seccomp: kill is status 159, in exec too" seccomp_kill

seccomp_strict() {
	LINUX=',"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["execve","capset","exit","exit_group","write","writev","arch_prctl","set_tid_address","brk","mmap","mprotect","getuid","ioctl","rt_sigaction","rt_sigprocmask","prctl","getpid","open","read","fstat","close","newfstatat","readlink","getrandom","prlimit64","set_robust_list","rseq","access","munmap","uname"],"action":"SCMP_ACT_ALLOW"}]}'
	ARGS='["echo","through"]' && run && status 0 && out through
}
t "seccomp: a profile that allows little more than execve" seccomp_strict

seccomp_bad() {
	LINUX=',"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}' && spec x && c create x $WORK/x.json &&
		refused "UNIMPLEMENTED: seccomp: action SCMP_ACT_NOTIFY is not supported"
}
t "seccomp: what cannot be done is refused" seccomp_bad
