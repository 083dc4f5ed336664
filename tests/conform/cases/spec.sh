# spec.sh - what only an OCI specification of our own can ask for, with a root given by its path. And resources.

spec_plain() {
	in_spec 'hostname; id; ls /; touch /x 2>&1; env; cat /proc/self/status | grep -E "^(CapEff|NoNewPrivs)"; exit 9'
	status 9
	out_has specified
	out_has 'Read-only file system'
}
t "a specification with a root directory instead of mounts runs" spec_plain

spec_root() {
	rm -rf "$WORK/own"
	cp -a "$WORK/root" "$WORK/own"
	root=$WORK/own readonly=false in_spec 'echo made >/made; rm /data/kept; mkdir -p /a/b; chown 1000 /a; ln -s x /a/link'
	caps='"CAP_CHOWN"' root=$WORK/own readonly=false in_spec 'chown 1000:1000 /a/b; chmod 4711 /made'
	status 0
	cat "$WORK/own/made"
	stat -c '%A %u:%g %N' "$WORK/own/made" "$WORK/own/a" "$WORK/own/a/b" "$WORK/own/a/link" | sed "s,$WORK,,"
	that [ ! -e "$WORK/own/data/kept" ]
}
t "what is written to a root directory is on the host" spec_root

spec_user() {
	user='"uid": 1000, "gid": 1001, "additionalGids": [5, 7, 2000], "umask": 63' cwd=/home/user \
		in_spec 'id -u; id -g; id -G; umask; pwd; cat /root/x 2>&1; ls /root 2>&1; kill -0 1 && echo me'
	status 0
	out_has 'Permission denied'
	out_has 0077
	caps='"CAP_NET_BIND_SERVICE","CAP_CHOWN"' user='"uid": 1000, "gid": 1000' \
		in_spec 'grep ^Cap /proc/self/status'
}
t "user, groups, umask and what a user may not" spec_user

spec_rlimits() {
	process='"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
		{"type": "RLIMIT_CPU", "soft": 50, "hard": 60}], "oomScoreAdj": 321' \
		in_spec 'ulimit -n; ulimit -Hn; ulimit -c; ulimit -t; cat /proc/self/oom_score_adj; for i in $(seq 90); do
			eval "exec $((i + 10))</dev/null" 2>/dev/null || { echo refused; break; }; done'
	out_has 77
	out_has 321
}
t "resource limits and the OOM score are set" spec_rlimits

spec_sysctl() {
	linux='"sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "9999", "net.core.somaxconn": "77"}' \
		in_spec 'cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn'
	out '1
9999
77'
	cat /proc/sys/kernel/msgmax
}
t "sysctls are the container's" spec_sysctl

spec_paths() {
	linux='"maskedPaths": ["/etc/passwd", "/data", "/not/there"], "readonlyPaths": ["/proc/sys", "/not/there"]' \
		in_spec 'cat /etc/passwd | wc -c; ls -A /data; echo 1 2>&1 >/proc/sys/kernel/panic; ls -ld /data | cut -c1-10'
	status 0
}
t "paths are masked and read-only, and missing ones do not matter" spec_paths

spec_devices() {
	mounts='{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "mode=1777", "size=1m"]}' \
		caps='"CAP_MKNOD"' linux='"devices": [{"path": "/dev/nothing", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 7, "gid": 8}],
		"resources": {"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]}' \
		in_spec 'ls -ln /dev/nothing | awk "{ print \$1, \$3, \$4, \$5, \$6 }"; echo x >/dev/nothing && echo written
			head -c 2000000 /dev/zero >/dev/shm/big 2>/dev/null || echo full; wc -c </dev/shm/big
			mknod /tmp/disk b 7 0 2>&1'
	out_has written
	out_has full
}
t "devices are made, and a tmpfs has its size" spec_devices

spec_hooks() {
	except hook-status '^"status":"(created|running)"$'
	hook() { echo "[{\"path\": \"/bin/sh\", \"args\": [\"sh\", \"-c\", $(json "$1")], \"env\": [\"HOOK=1\"]}]"; }
	top="\"hooks\": {\"prestart\": $(hook "cat >$WORK/hook.prestart"), \"createRuntime\": $(hook "cat >$WORK/hook.create; env >$WORK/hook.env"),
		\"poststart\": $(hook "cat >$WORK/hook.poststart"), \"poststop\": $(hook "cat >$WORK/hook.poststop")},
		\"annotations\": {\"com.example.key\": \"value\"}" \
		in_spec 'echo inside'
	out inside
	await test -s "$WORK/hook.poststop"
	for h in prestart create poststart poststop; do
		echo "$h $(tr ',{}' '\n\n\n' <"$WORK/hook.$h" | grep -oE '^"(ociVersion|id|status|pid|bundle|root|annotations|com.example.key)"' | sort | tr '\n' ' ')"
		that grep -q '"id":"spec"' "$WORK/hook.$h"
		that grep -q 'com.example.key' "$WORK/hook.$h"
		grep -oE '"status":"[a-z]*"' "$WORK/hook.$h"
	done
	that grep -qE '"pid":[1-9]' "$WORK/hook.create"
	grep -vE '^(PWD|SHLVL|_|OLDPWD)=' "$WORK/hook.env"
}
t "hooks run on the host with the state on their input and an environment of their own" spec_hooks

spec_hook_pid() {
	except network '^(= [01]|[01])$'
	top="\"hooks\": {\"createRuntime\": [{\"path\": \"/bin/sh\", \"args\": [\"sh\", \"-c\", $(json "p=\$(grep -oE '\"pid\":[0-9]+' | cut -d: -f2); readlink /proc/\$p/ns/net >$WORK/net; nsenter -t \$p -n ip link add dummy7 type dummy 2>>$WORK/net; readlink /proc/self/ns/net >>$WORK/net")]}]}" \
		in_spec 'ip -o link | grep -c dummy7'
	is "$(sort -u "$WORK/net" | wc -l)" 2 "network namespaces"
}
t "the pid a hook is given leads to the network the container gets" spec_hook_pid

spec_hook_fails() {
	top='"hooks": {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no good >&2; exit 3"]}]}' \
		with_spec spec 'echo never' >/dev/null
	ctr run --rm --runtime "$RT" --config "$WORK/spec-spec.json" spec >"$WORK/out" 2>"$WORK/err"
	rc=$?
	echo $rc
	that [ $rc != 0 ]
	out ""
	err_has hook
}
t "a hook that fails stops the container before it runs" spec_hook_fails

spec_seccomp() {
	linux='"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
		{"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}]}' \
		in_spec 'mkdir /tmp/x 2>&1; touch /tmp/x && echo touched; hostname x; echo $?'
	out_has 'not supported'
}
t "a filter of system calls is obeyed" spec_seccomp

spec_namespaces() {
	namespaces='{"type": "pid"}, {"type": "mount"}, {"type": "network"}' hostname='' \
		in_spec 'echo $$; cat /proc/net/dev | wc -l'
	out_has 1
}
t "namespaces that are not asked for are not needed" spec_namespaces

spec_bad() {
	local what
	for what in '{}' 'not json' '{"ociVersion":"1.0.2","process":{"args":[],"cwd":"/","user":{"uid":0,"gid":0}},"root":{"path":"/tmp/conform/root"},"linux":{}}'; do
		echo "$what" >"$WORK/bad.json"
		ctr run --rm --runtime "$RT" --config "$WORK/bad.json" bad >"$WORK/out" 2>"$WORK/err"
		rc=$?
		that [ $rc != 0 ]
		echo "$rc $(wc -l <"$WORK/err")"
	done
	root=/not/there in_spec true >/dev/null
	that [ $rc != 0 ]
	cwd=relative in_spec true >/dev/null
	that [ $rc != 0 ]
}
t "a specification that makes no sense is refused" spec_bad

# --- resources ------------------------------------------------------------------------------------------

CGROUPS=type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro

res_memory() {
	ctr events >"$WORK/events" &
	watcher=$!
	sleep 1
	see run --memory-limit 33554432 --mount $CGROUPS $BB c1 sh -c 'cd /sys/fs/cgroup; cd ./$(cut -d: -f3 /proc/self/cgroup) 2>/dev/null; cat memory.max; probe eat 10; probe eat 64; echo "eater $?"'
	out_has 33554432
	out_has 'ate 10 MiB'
	out_has 'eater 137'
	see run --memory-limit 33554432 $BB c2 probe eat 64
	status 137
	sleep 1
	kill $watcher
	grep -oE '/tasks/exit |"exit_status":[0-9]*' "$WORK/events" | uniq
	# runc's shim hears of it beside the exit, and tells it before or after.
	[[ $RT != *spore* ]] || is "$(grep -oE '/tasks/(oom|exit) ' "$WORK/events" | uniq | tr -d '\n')" \
		'/tasks/oom /tasks/exit /tasks/oom /tasks/exit ' "what was told"
}
t "memory over the limit is not had: 137, and an event before the exit" res_memory

res_cpu() {
	see run --cpus 0.5 --mount $CGROUPS $BB c1 sh -c 'cd /sys/fs/cgroup; cd ./$(cut -d: -f3 /proc/self/cgroup) 2>/dev/null; cat cpu.max; while :; do :; done & sleep 3; kill $!; awk "/nr_throttled/ { print (\$2 > 5) }" cpu.stat'
	out '50000 100000
1'
	see run --cpu-shares 512 --cpu-period 50000 --cpu-quota 20000 --mount $CGROUPS $BB c1 sh -c 'cd /sys/fs/cgroup; cd ./$(cut -d: -f3 /proc/self/cgroup) 2>/dev/null; cat cpu.max cpu.weight'
}
t "--cpus is what the container's cgroup says, and it is held to it" res_cpu

res_pids() {
	linux='"resources": {"pids": {"limit": 8}, "memory": {"limit": 67108864, "reservation": 33554432}, "cpu": {"shares": 2048}}' \
		mounts='{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}' \
		in_spec 'cd /sys/fs/cgroup; cat pids.max memory.max memory.low cpu.weight; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 2 & done 2>/tmp/err
			grep -c fork /tmp/err'
	out_has 67108864
}
t "a limit of processes, and the cgroup's own files" res_pids
