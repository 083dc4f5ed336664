# basic.sh - one container: what its process is given and what comes back.

basic_hello() {
	see run $BB c1 echo hello
	status 0
	out hello
	err ""
}
t "a container prints, and nothing else is printed" basic_hello

basic_status() {
	local n
	see run $BB c1 sh -c 'exit 7'
	status 7
	see run $BB c1 sh -c 'sh -c "kill -KILL \$\$"; exit $?'
	status 137
	up c2 -- sleep 1000
	for n in 0 126 127 255; do
		x c2 sh -c "exit $n"
		status $n
	done
	x c2 sh -c 'kill -TERM $$'
	status 143
	x c2 sh -c 'kill -SEGV $$'
	status 139
}
t "an exit status arrives as it is, a signal as 128 and its number" basic_status

basic_missing() {
	see run $BB c1 nonesuch
	status 1
	out ""
	err_has 'executable file not found in $PATH'
	see run $BB c1 /nonesuch
	err_has 'no such file or directory'
}
t "a program that does not exist is refused in words that clients look for" basic_missing

basic_not_executable() {
	see run $BB c1 plain
	err_has 'executable file not found in $PATH'
	see run $BB c1 /bin/plain
	err_has 'permission denied'
	see run $BB c1 /etc
	err_has 'permission denied'
}
t "a file that is no program is refused in words that clients look for" basic_not_executable

# The kernel finds these only when the process is there already: the status, not the words, is what counts.
basic_garbage() {
	run $BB c1 /bin/garbage >"$WORK/out" 2>"$WORK/err"
	rc=$?
	echo "status $rc"
	that [ $rc != 0 ]
	run $BB c1 /bin/orphan >"$WORK/out" 2>"$WORK/err"
	rc=$?
	echo "status $rc"
	that [ $rc != 0 ]
}
t "a file that the kernel will not run ends the container with a status" basic_garbage

basic_image() {
	see run docker.io/library/busybox:user c1
	status 0
	out 'uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)
/home/user
green /bin'
}
t "user, groups, directory, variables and command are the image's" basic_image

basic_env() {
	see run --env A=1 --env 'B=two words' --env EMPTY= --cwd /data $BB c1 sh -c 'pwd; echo "$A|$B|${EMPTY-unset}|$HOME"; env | sort'
	status 0
	out_has '1|two words||'
	see run --cwd /not/there $BB c1 pwd
	status 0
}
t "variables and working directory are as asked for, and the directory is made" basic_env

basic_world() {
	except kernel-files ' /proc/kcore$'
	except oom-score '^oom '
	see run $BB c1 sh -c '
		hostname | wc -c; cat /proc/1/comm; echo pid $$; ls /proc | grep -c "^[0-9]"
		id; umask; ulimit -n; ulimit -c; echo oom $(cat /proc/self/oom_score_adj)
		cat /proc/sys/net/ipv4/ip_unprivileged_port_start
		ls -l /dev | awk "{ print \$1, \$3, \$4, \$NF }" | sort
		ls -ld /dev/pts /dev/shm /dev/mqueue /proc /sys /tmp | awk "{ print \$1, \$3, \$4, \$NF }"
		echo written >/dev/null; head -c 4 /dev/zero | md5sum; head -c 4 /dev/urandom | wc -c
		for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done'
	status 0
	out_has 'pid 1'
}
t "a process sees a small world: itself as 1, a few devices, default limits" basic_world

basic_mounts() {
	except kernel-files '^/proc/(acpi|kcore|keys|latency_stats|timer_list|timer_stats|sched_debug|scsi|sysrq-trigger) |sysrq-trigger: '
	see run $BB c1 sh -c '
		awk "\$2 != \"/\" && \$2 !~ /^.proc./ { split(\$4, o, \",\"); print \$2, \$3, o[1] }" /proc/mounts | sort
		awk "\$2 ~ /^.proc./ { split(\$4, o, \",\"); print \$2, o[1] }" /proc/mounts | sort
		awk "\$2 == \"/\" { split(\$4, o, \",\"); print \$2, o[1] }" /proc/mounts
		for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do head -c 1 $f 2>/dev/null | wc -c; done
		ls -A /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | wc -w
		echo x 2>&1 >/proc/sysrq-trigger; echo 1 2>&1 >/proc/sys/kernel/panic; touch /sys/x 2>&1
		cat /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>&1; true'
	status 0
}
t "what is mounted, masked and read-only in /proc and /sys is the same" basic_mounts

basic_privileges() {
	except kernel-calls '^(keyctl|add_key|kexec|bpf|userfaultfd) '
	see run $BB c1 sh -c 'grep -E "^(Cap|NoNewPrivs|Seccomp:)" /proc/self/status; probe calls'
	out_has 'NoNewPrivs:	1'
	see run --cap-drop CAP_CHOWN --cap-add CAP_SYS_ADMIN --allow-new-privs $BB c1 sh -c '
		grep -E "^(CapEff|NoNewPrivs)" /proc/self/status; chown 1 /tmp 2>&1; mount -t tmpfs none /mnt && echo mounted'
	out_has mounted
	out_has 'Operation not permitted'
	see run --privileged $BB c1 sh -c 'grep -E "^(CapEff|NoNewPrivs|Seccomp:)" /proc/self/status; touch /proc/sys/x 2>&1; ls -d /sys/firmware'
}
t "capabilities, no_new_privs and what they refuse" basic_privileges

basic_seccomp() {
	see run --seccomp $BB c1 sh -c 'grep Seccomp: /proc/self/status; probe calls'
	out_has 'Seccomp:	2'
	out_has 'keyctl EPERM'
}
t "the default seccomp profile refuses what it should" basic_seccomp

basic_limits() {
	except memory-limits '^(6|11): '
	see run $BB c1 probe limits
	status 0
}
t "the resource limits are the same" basic_limits

basic_net() {
	see run $BB c1 sh -c 'ip -o addr | awk "{ print \$2, \$3, \$4 }"; ip route; cat /proc/net/dev | wc -l'
	status 0
}
t "a container without a network has a loopback device, down" basic_net
