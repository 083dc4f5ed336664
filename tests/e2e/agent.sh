#!/bin/bash
# agent.sh [PART] - the guest agent by itself: an ordinary process in the rig, spoken to over a Unix
# socket by agent_client. Every case whose sentence or function holds PART, as TAP.
#
# Needs build/agent (./build.sh). Outside the rig it compiles the client and enters it.
set -u
cd "$(dirname "$0")/../.."

if [ "${SPORE_AGENT_INSIDE-}" = "" ]; then
	set -e
	mkdir -p build/e2e
	deps=$(configs/build/deps.sh)
	musl-gcc -std=gnu11 -D_GNU_SOURCE -I. -Ibuild/gen -isystem "$deps/include" \
		-isystem "$deps/include/uapi" -O1 -w -static -o build/e2e/agent_client \
		tests/e2e/agent_client.c build/obj/agent-gen/*.o -L"$deps/lib" -lprotobuf-c
	exec tests/rig/run --timeout "${SPORE_E2E_TIMEOUT-1500}" -- \
		env SPORE_AGENT_INSIDE=1 AGENT="${AGENT-build/agent}" \
		CLIENT="${CLIENT-build/e2e/agent_client}" tests/e2e/agent.sh "$@"
fi

ONLY=${1-}
WORK=/tmp/agent
R=$WORK/root # the containers' root file system
SOCK=$WORK/agent.sock
N=0 FAILED=0
mkdir -p $WORK
cp "$AGENT" $WORK/agent
cp "$CLIENT" $WORK/client

# ---- What the cases are written in

why=''
fail() { [ -n "$why" ] || why=$*; return 1; }

# c VERB ARGS...: ask the agent; status, stdout and stderr are kept. Standard input is passed on.
c() {
	timeout 60 $WORK/client $SOCK "$@" >$WORK/out 2>$WORK/err
	rc=$?
}
status() { [ "$rc" = "$1" ] || fail "status $rc, not $1; stderr: $(head -c 300 $WORK/err); stdout: $(head -c 200 $WORK/out)"; }
out() { [ "$(cat $WORK/out)" = "$1" ] || fail "stdout '$(head -c 400 $WORK/out)', not '$1'; stderr: $(head -c 300 $WORK/err)"; }
out_has() { grep -qF -- "$1" $WORK/out || fail "stdout lacks '$1': $(head -c 500 $WORK/out); stderr: $(head -c 300 $WORK/err)"; }
out_lacks() { ! grep -qF -- "$1" $WORK/out || fail "stdout has '$1': $(head -c 400 $WORK/out)"; }
err() { [ "$(cat $WORK/err)" = "$1" ] || fail "stderr '$(head -c 400 $WORK/err)', not '$1'"; }
err_has() { grep -qF -- "$1" $WORK/err || fail "stderr lacks '$1': $(head -c 400 $WORK/err)"; }
refused() { status 99 && err_has "$1"; } # CODE: message
that() { "$@" || fail "not so: $*"; }
await() {
	for _ in $(seq 200); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.05
	done
	fail "waited in vain for: $*"
}

# A specification in $WORK/NAME.json: what the variables say, then forgotten.
reset() {
	ARGS='["true"]' ENV='["PATH=/bin","TERM=xterm"]' CWD=/ USER='{"uid":0,"gid":0}' TTY=false
	CAPS='["CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_KILL","CAP_MKNOD","CAP_SETUID","CAP_SETGID","CAP_SYS_ADMIN"]'
	PROC='' ROOT='' TOP='' LINUX='' NS='' RO=false MOUNTS=''
	MASKED='["/proc/kcore","/proc/acpi","/sys/firmware"]' READONLY='["/proc/sys"]'
}
sh_args() { # SCRIPT: run it by sh
	ARGS="[\"sh\",\"-c\",\"$(printf %s "$1" | sed 's/\\/\\\\/g; s/"/\\"/g; s/	/\\t/g' | awk '{printf "%s%s", s, $0; s="\\n"}')\"]"
}
process() {
	echo "{\"terminal\":$TTY,\"user\":$USER,\"args\":$ARGS,\"env\":$ENV,\"cwd\":\"$CWD\",
\"capabilities\":{\"bounding\":$CAPS,\"effective\":$CAPS,\"permitted\":$CAPS,\"inheritable\":[],\"ambient\":[]}$PROC}"
}
write_process() { process >$WORK/$1.json; reset; }
spec() {
	cat >$WORK/$1.json <<J
{"ociVersion":"1.0.2","process":$(process),"root":{"path":"${ROOT:-$R}","readonly":$RO}$TOP,
"mounts":[
{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","ro"]}$MOUNTS],
"linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"cgroup"}$NS],
"maskedPaths":$MASKED,"readonlyPaths":$READONLY$LINUX}}
J
	reset
}
reset
# Create, start, stream, wait, remove a container with the current specification.
run() { spec x && c run x $WORK/x.json "$@"; }
# One that sleeps until it is removed.
sleeper() { # ID [OPTION...]
	local id=$1
	shift
	ARGS='["sleep","1000"]' && spec "$id"
	c create "$id" $WORK/"$id".json "$@" && status 0 && c start "$id" && status 0
}

state() {
	awk '{ print "mount " $2 " " $3 }' /proc/mounts
	find /sys/fs/cgroup -mindepth 1 -type d
	find /proc/$AGENT_PID/fd -type l -printf 'descriptor %l\n' | sed 's/[0-9]//g' | sort
	awk -v p=$AGENT_PID '$4 == p { print "child " $2 " " $3 }' /proc/[0-9]*/stat 2>/dev/null
	return 0
}
CHANGES='' # set: the case is meant to leave something behind
leaks() { state >$WORK/now; ! diff $WORK/before $WORK/now >$WORK/diff; }
t() {
	N=$((N + 1))
	case "$1 $2 $FILE" in
	*"$ONLY"*) ;;
	*) N=$((N - 1)) && return 0 ;;
	esac
	why='' && reset
	state >$WORK/before
	$2 </dev/null
	if [ -z "$why" ] && [ "$CHANGES" = "" ] && leaks; then
		sleep 1
		leaks && fail "left behind: $(grep '^[<>]' $WORK/diff | head -5 | tr '\n' ';')"
	fi
	[ -d /proc/"$AGENT_PID" ] || fail "the agent has died: $(tail -n 3 $WORK/log)"
	if [ -z "$why" ]; then
		echo "ok $N - $1"
	else
		echo "not ok $N - $1"
		printf '%s\n' "$why" | sed 's/^/# /'
		FAILED=$((FAILED + 1))
		# The next case shall not suffer.
		for id in x y; do timeout 20 $WORK/client $SOCK remove $id 5 2>/dev/null; done
	fi
}

start_agent() {
	rm -f $SOCK
	$WORK/agent --listen unix://$SOCK agent.log=debug agent.hotplug_timeout=1 "$@" >$WORK/log 2>&1 &
	AGENT_PID=$!
	await test -S $SOCK
}
stop_agent() {
	c destroy
	wait $AGENT_PID 2>/dev/null
}

make_root() {
	mkdir -p $R/{bin,usr,etc,tmp,root,home/user,proc,sys,dev,run,var/log,data,closed}
	ln -s ../bin $R/usr/bin # busybox links to where it lies on this machine
	chmod 1777 $R/tmp && chmod 700 $R/closed
	cp /bin/busybox $R/bin/
	/bin/busybox --install -s $R/bin # one process; each fork counts here
	printf 'root:x:0:0:root:/root:/bin/sh\nbroken line\nuser:x:1000:1001::/home/user:/bin/sh\n' >$R/etc/passwd
	printf 'root:x:0:\nstaff:x:1001:\nextra:x:2000:other,user\n' >$R/etc/group
	echo 'not a program' >$R/bin/plain
	printf '\177ELF garbage' >$R/bin/garbage && chmod 755 $R/bin/garbage
	ln -s /etc $R/escape
	echo below >$R/data/file
}
make_root

# ---- The cases

for FILE in tests/e2e/agent/*.sh; do
	. "$FILE"
done
echo "1..$N"
[ "$FAILED" = 0 ]
