# bundle.sh - OCI bundles: what config.json says is what the process gets.

bundle_basics() {
	hostname=other
	process='"terminal": false'
	in_bundle 'hostname; pwd; id -u; id -g; echo $PATH; cat /proc/1/comm; grep -c . /proc/self/cgroup; exit 21'
	status 21
	err ""
	out "other
/
0
0
/bin
sh
1"
}
t "hostname, directory, user, environment and status are the bundle's" bundle_basics

bundle_mounts() {
	mounts='{"destination": "/tmp/a", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid","noexec","size=1m","mode=700"]},
		{"destination": "/tmp/b", "type": "bind", "source": "/proc/version", "options": ["bind","ro"]},
		{"destination": "/tmp/c", "type": "bind", "source": "/dev", "options": ["rbind","rw"]}'
	in_bundle 'grep " /tmp/a " /proc/mounts; stat -c %a /tmp/a; cp /bin/busybox /tmp/a 2>/dev/null || echo full; cat /tmp/b | cut -c1-5; echo x >/tmp/b; grep -c " /tmp/c " /proc/mounts'
	status 0
	that grep -qE '^tmpfs /tmp/a tmpfs rw,nosuid,noexec,relatime,size=1024k,mode=700' out
	out_has "
700
full
Linux
1"
	err_has "/tmp/b: Read-only file system"
}
t "mounts have their options" bundle_mounts

bundle_rlimits() {
	process='"rlimits": [ {"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0} ],
		"oomScoreAdj": 321, "noNewPrivileges": true'
	user='"uid": 5, "gid": 6, "umask": 63, "additionalGids": [7, 8]'
	in_bundle 'ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; id -G; umask; grep -E "NoNewPrivs|CapEff" /proc/self/status'
	status 0
	out "77
99
0
321
6 7 8
0077
CapEff:	0000000000000000
NoNewPrivs:	1"
}
t "rlimits, OOM score, no_new_privs, groups and umask are set" bundle_rlimits

bundle_caps() {
	caps='"CAP_CHOWN","CAP_SYS_ADMIN"'
	in_bundle 'grep Cap /proc/self/status; mkdir /tmp/m && mount -t tmpfs x /tmp/m && echo mounted; mknod /tmp/n c 1 3'
	out_has "CapPrm:	0000000000200001"
	out_has "CapEff:	0000000000200001"
	out_has "CapBnd:	0000000000200001"
	out_has mounted
	err_has "Operation not permitted"
	caps=
	in_bundle 'mkdir /tmp/m && mount -t tmpfs x /tmp/m'
	differ $rc 0 status
	err_has "permission denied"
}
t "capabilities are exactly those named" bundle_caps

SYSCALLS='"architectures": ["SCMP_ARCH_X86_64"], "syscalls":'
bundle_seccomp_kill() {
	linux="\"seccomp\": {\"defaultAction\": \"SCMP_ACT_ALLOW\", $SYSCALLS [ {\"names\": [\"mkdir\",\"mkdirat\"], \"action\": \"SCMP_ACT_KILL_PROCESS\"} ]}"
	in_bundle 'echo before; exec mkdir /tmp/x'
	status 159
	out before
	err ""
	in_bundle 'mkdir /tmp/x; echo $?; [ -e /tmp/x ] || echo none'
	status 0
	out_has "159
none"
}
t "a system call that seccomp kills gives 159" bundle_seccomp_kill

bundle_seccomp_errno() {
	linux="\"seccomp\": {\"defaultAction\": \"SCMP_ACT_ALLOW\", $SYSCALLS [
		{\"names\": [\"kill\"], \"action\": \"SCMP_ACT_ERRNO\", \"errnoRet\": 3, \"args\": [ {\"index\": 1, \"value\": 10, \"op\": \"SCMP_CMP_EQ\"} ]},
		{\"names\": [\"chmod\",\"fchmod\",\"fchmodat\"], \"action\": \"SCMP_ACT_ERRNO\", \"args\": [ {\"index\": 1, \"value\": 2048, \"valueTwo\": 2048, \"op\": \"SCMP_CMP_MASKED_EQ\"} ]} ]}"
	in_bundle 'trap "echo usr2" USR2; trap "echo usr1" USR1; kill -USR2 $$; kill -USR1 $$; touch /tmp/f; chmod 700 /tmp/f && echo chmod; chmod 4700 /tmp/f || echo refused'
	out "usr2
chmod
refused"
	err_has "No such process"
	err_has "Operation not permitted"
}
t "seccomp looks at arguments and returns the error named" bundle_seccomp_errno

bundle_seccomp_bad() {
	linux="\"seccomp\": {\"defaultAction\": \"SCMP_ACT_WONDER\"}"
	in_bundle 'echo no'
	status 125
	out ""
	one_line_err
	err_has SCMP_ACT_WONDER
}
t "a seccomp profile that cannot be is refused" bundle_seccomp_bad

bundle_paths() {
	caps=$ALL_CAPS
	linux='"maskedPaths": ["/proc/meminfo", "/proc/irq", "/nothing"], "readonlyPaths": ["/proc/sys", "/tmp"]'
	in_bundle 'wc -c </proc/meminfo; ls /proc/irq | wc -l; echo 1 >/proc/sys/vm/overcommit_memory; echo x >/tmp/x; echo $?'
	status 0
	out "0
0
1"
	err_has "/proc/sys/vm/overcommit_memory: Read-only file system"
	err_has "/tmp/x: Read-only file system"
}
t "masked paths are empty and read-only paths refuse writes" bundle_paths

bundle_root() {
	readonly=true in_bundle 'touch /x; echo $?'
	out 1
	err_has "Read-only file system"
	image rw >/dev/null
	readonly=false
	IMG=$WORK/rw.ext4 in_bundle 'touch /x && ls /x'
	out /x
	status 0
	IMG=$WORK/rw.ext4 in_bundle 'ls /x'
	out /x
}
t "the root is read-only or writable as the bundle says" bundle_root

bundle_sysctl() {
	linux='"sysctl": {"net.ipv4.ip_default_ttl": "33", "kernel.msgmax": "1234"}'
	in_bundle 'cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax'
	status 0
	out "33
1234"
	linux='"sysctl": {"kernel.no_such": "1"}'
	in_bundle 'echo no'
	status 125
	out ""
	one_line_err
	err_has kernel
}
t "sysctls are set, and one that does not exist is an error" bundle_sysctl

bundle_memory() {
	linux='"resources": {"memory": {"limit": 16777216}}'
	in_bundle 'cat /sys/fs/cgroup/memory.max; exec probe eat 64'
	status 137
	out 16777216
	err ""
	in_bundle 'probe eat 8'
	status 0
	out "ate 8 MiB"
}
t "a container over its memory limit is killed: 137" bundle_memory

bundle_limits() {
	linux='"resources": {"cpu": {"quota": 20000, "period": 100000, "shares": 512}, "pids": {"limit": 12}, "unified": {"memory.high": "50331648"}}'
	in_bundle 'cd /sys/fs/cgroup; cat cpu.max cpu.weight pids.max memory.high; echo 1 2>/dev/null >cpu.max || echo ro'
	status 0
	out "20000 100000
20
12
50331648
ro"
}
t "cgroup limits stand in the cgroup's files" bundle_limits

# 10:200 is tun, which may be opened by anybody and is not on the list of what every container may use.
bundle_devices() {
	caps='"CAP_MKNOD"'
	linux='"devices": [ {"path": "/dev/mine", "type": "c", "major": 10, "minor": 200, "fileMode": 438, "uid": 9, "gid": 10} ],
		"resources": {"devices": [ {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rm"} ]}'
	in_bundle 'stat -c "%F %t:%T %a %u:%g" /dev/mine; : </dev/mine && echo readable; (: >/dev/mine) || echo not writable; ls /dev/null /dev/tty /dev/urandom | wc -l'
	out "character special file a:c8 666 9:10
readable
not writable
3"
	err_has "can't create /dev/mine: Operation not permitted"
}
t "devices are made, and used only as allowed" bundle_devices

bundle_hooks() {
	top='"hooks": {"startContainer": [ {"path": "/bin/sh", "args": ["sh", "-c", "cat >/tmp/hook; pwd >>/tmp/hook; echo $HOOKED >>/tmp/hook"], "env": ["PATH=/bin", "HOOKED=yes"]} ]}'
	in_bundle 'cat /tmp/hook'
	status 0
	out_has '"status":'
	is "$(tail -n 1 out)" yes
	top='"hooks": {"startContainer": [ {"path": "/bin/false"} ]}'
	in_bundle 'echo no'
	status 125
	out ""
	one_line_err
	err_has hook
}
t "a startContainer hook runs in the container before the command, and its failure is one" bundle_hooks

bundle_tty() {
	local dir
	mounts='{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}'
	process='"terminal": true, "consoleSize": {"height": 10, "width": 20}'
	dir=$(bundle tty 'tty; ls -l /dev/console | cut -c1; stty size')
	on_tty 31 62 "$SPORE run --bundle $dir"
	status 0
	out "/dev/pts/0
c
31 62"
}
t "terminal: true gives a terminal that is also /dev/console" bundle_tty

bundle_namespaces() {
	namespaces="$NAMESPACES, {\"type\": \"network\"}"
	in_bundle 'ls /sys/class/net; echo $$; cat /proc/self/cgroup; ls /proc | grep -c "^[0-9]"'
	status 0
	out_has "lo
1
0::/
"
}
t "namespaces are the container's own" bundle_namespaces
