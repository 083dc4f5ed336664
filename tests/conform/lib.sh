# lib.sh - what the cases are written in, on top of tests/e2e/lib.sh (status, out, err, out_has, that, is, await,
# fail ...), whose running of cases it replaces. Sourced inside the rig by inside.sh.
#
#   t "sentence that is true when it passes" function
#
# The function is run once under each runtime, in a subshell of its own. What it prints is compared: the
# first runtime is the measure. So a case prints all that a user sees, and expects (status, out ...) what
# both might get wrong. After each run leaks() must find nothing new; what up() and made() told of is removed before.
#
#   see COMMAND...          run it with the case's standard input and print "= STATUS", its output, its errors
#   sums COMMAND...         the same, but of the outputs only size and checksum
#   run OPTIONS IMAGE ID COMMAND...        ctr run --rm under the runtime
#   up ID OPTIONS -- COMMAND...            ctr run -d of the busybox image; must succeed
#   x ID COMMAND...         see: ctr task exec with a fresh exec id
#   quiet COMMAND...        must succeed, says nothing
#   on_pty COMMAND          a line for a shell, run on a terminal; what is on the screen, and the status
#   state_of ID             RUNNING, STOPPED ...
#   pid_of ID, shim_of ID   the task's process and the shim's on the host
#   made ID                 there is a container to be removed after the case (up does it itself)
#   down ID                 remove it now
#   ended ID STATUS         remove what has ended with STATUS
#   exec_down ID EXEC-ID    end and remove a detached exec; else its fifos stay
#   forget_fifos            the client that made them is gone, or its container went without it
#   with_spec ID SCRIPT     an OCI config.json that runs SCRIPT in a shell; prints its path. Variables: see there
#   except LABEL ERE        lines that match are not compared in this case: DIFFERENCES.md must have the LABEL

read -ra RUNTIMES <<<"$SPORE_CONFORM_RUNTIMES"
CD=$WORK/cd
BB=docker.io/library/busybox:latest
DEB=docker.io/library/debian:latest
CASE_LIMIT_S=${SPORE_CONFORM_LIMIT-100}
E=0

# --- what a case says ------------------------------------------------------------------------------

# What only the runtime's name or a number makes different.
normal() { # FILE
	sed -E -e 's/containerd-mount[0-9]+/containerd-mountN/; s/running task found: task [^ ]* not found:/running task found:/' -e "s/io\.containerd\.${RT##*containerd.}/RUNTIME/g" \
		-e 's/OCI runtime (create|exec|start|pause|resume) failed: //; s/runc (create|exec) failed: //; s/^(ctr: .*)exec failed: /\1/' \
		-e 's/unable to start container process: //; s/^time="[^"]*" //' "$1"
}
tell() {
	echo "= $rc"
	cat "$WORK/out"
	[ ! -s "$WORK/err" ] || normal "$WORK/err" | sed 's/^/! /'
}
see() {
	"$@" >"$WORK/out" 2>"$WORK/err"
	rc=$?
	tell
}
sums() {
	"$@" >"$WORK/out" 2>"$WORK/err"
	rc=$?
	echo "= $rc"
	(cd "$WORK" && wc -c out err && md5sum out err)
}
quiet() {
	"$@" >"$WORK/out" 2>"$WORK/err" || fail "status $? of $*: $(head -c 400 "$WORK/err")"
}
except() { # LABEL ERE
	grep -qF "| \`$1\` |" "$TREE/tests/conform/DIFFERENCES.md" || fail "DIFFERENCES.md lacks $1"
	echo "$2" >>"$WORK/except"
}

run() { ctr run --rm --runtime "$RT" "$@"; }
made() { echo "${2-default} $1" >>"$WORK/made"; }
up() { # ID OPTIONS -- COMMAND...
	local id=$1 options=()
	shift
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	made "$id"
	quiet ctr run -d --runtime "$RT" "${options[@]}" "$BB" "$id" "$@"
}
x() { # ID COMMAND...
	local id=$1
	shift
	see ctr task exec --exec-id "x$((E++))" "$id" "$@"
}
on_pty() { # COMMAND: on a terminal of 33 rows and 77 columns; what is on the screen, then "= STATUS"
	(cd "$WORK" && on_tty 33 77 "$1" && cat out && echo "= $rc")
}
ended() { # ID STATUS
	see ctr task rm "$1"
	[ "$2" = 0 ] || err_has "exit code $2"
}
exec_gone() { ! ctr task rm --exec-id "$2" "$1" 2>&1 | grep -q stopped; } # its status is the exec's
exec_down() { # ID EXEC-ID
	local f
	ctr task kill -s KILL --exec-id "$2" "$1" >/dev/null 2>&1
	await exec_gone "$1" "$2"
	for f in /run/containerd/fifo/*/"$2"-stdout; do # ctr does not, for an exec that another ctr made
		rm -rf "${f%/*}"
	done
}
forget_fifos() {
	rm -rf /run/containerd/fifo/*
	[[ $RT != *.runc.* ]] || rm -f /run/containerd/s/* # its delete does not remove the socket of a killed shim
}
state_of() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }'; }
stopped() { [ "$(state_of "$1")" = STOPPED ]; }
pid_of() { ctr task ls | awk -v id="$1" '$1 == id { print $2 }'; }
shim_of() { # by its arguments, as it was started for the container
	local p
	for p in /proc/[0-9]*; do
		[[ $(tr '\0' ' ' 2>/dev/null <"$p/cmdline") == *containerd-shim*" -id $1 "* ]] && echo "${p#/proc/}"
	done
	return 0
}
down() { # ID [NAMESPACE]
	ctr -n "${2-default}" task rm -f "$1" >/dev/null 2>&1
	ctr -n "${2-default}" c rm "$1" >/dev/null 2>&1
}

NAMESPACES='{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}, {"type": "cgroup"}'

# $process, $linux, $top: JSON members to add; $mounts a list; $args a JSON list instead of SCRIPT. A bundle's root
# is the busybox image's files in a directory, given to the runtime by its path.
with_spec() { # ID SCRIPT
	local file=$WORK/spec-$1.json args=${args-"[\"/bin/sh\",\"-c\",$(json "$2")]"}
	cat >"$file" <<-JSON
		{ "ociVersion": "1.0.2",
		"process": { "args": $args, "cwd": "${cwd-/}", "env": ["PATH=/bin"],
			"user": { ${user-"\"uid\": 0, \"gid\": 0"} }, "noNewPrivileges": ${nnp-true},
			"capabilities": { "bounding": [${caps-}], "effective": [${caps-}], "permitted": [${caps-}] }
			${process:+,$process} },
		"root": { "path": "${root-$WORK/root}", "readonly": ${readonly-true} },
		"hostname": "${hostname-specified}",
		"mounts": [ { "destination": "/proc", "type": "proc", "source": "proc" },
			{ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
			{ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" } ${mounts:+,$mounts} ],
		"linux": { "cgroupsPath": "/default/$1", "namespaces": [ ${namespaces-$NAMESPACES} ] ${linux:+,$linux} }
			${top:+,$top} }
	JSON
	echo "$file"
}
in_spec() { # SCRIPT: see it run
	see ctr run --rm --runtime "$RT" --config "$(with_spec spec "$1")" spec
}

# --- containerd --------------------------------------------------------------------------------------

containerd_pid() { cat "$WORK/containerd.pid"; }
start_containerd() {
	setsid containerd -c "$CD/config.toml" >>"$CD/log" 2>&1 </dev/null &
	echo $! >"$WORK/containerd.pid"
	for _ in $(seq 100); do
		ctr version >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "# containerd did not start: $(tail -n 3 "$CD/log")"
}
stop_containerd() { # SIGNAL
	kill "-$1" "$(containerd_pid)" 2>/dev/null
	while kill -0 "$(containerd_pid)" 2>/dev/null; do
		sleep 0.05
	done
}

set_up() {
	local f
	# umount(8) makes the first
	mkdir -p $WORK/bin $CD /run/mount /run/containerd/fifo
	losetup -f >/dev/null 2>&1 # makes /dev/loop*
	ip netns add x && ip netns delete x # makes /run/netns
	cp "$TOOLS"/bin/* $WORK/bin/
	cp build/spore $WORK/spore
	cp -a "$IMAGES/root" $WORK/root
	ln -s $WORK/root/bin/fsx $WORK/bin/fsx
	cp build/conform/* $WORK/bin/
	ln -sf $WORK/spore /usr/local/bin/containerd-shim-spore-v2
	cp tests/conform/logger.sh $WORK/bin/
	PATH=$WORK/bin:$PATH
	cat >$CD/config.toml <<-TOML
		version = 2
		root = "$CD/root"
		state = "/run/containerd"
		disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
			"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs",
			"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
	TOML
	start_containerd
	for f in busybox ${SPORE_CONFORM_DEBIAN:+debian}; do
		[ $f = busybox ] || IMAGES=$SPORE_CONFORM_DEBIAN
		ctr image import --base-name docker.io/library/$f "$IMAGES/$f.tar" >$CD/import 2>&1 ||
			sed 's/^/# import: /' $CD/import
	done
	for f in "${RUNTIMES[@]}"; do
		[ "$f" != spore ] || $WORK/spore factory init >/dev/null || echo "# no template"
	done
	RT=io.containerd.runc.v2
	# So that the folders which stay for ever are there.
	for f in default other; do
		ctr -n $f run --rm --runtime $RT --rootfs $WORK/root first /bin/true >/dev/null
	done
}

# --- what must be as it was ----------------------------------------------------------------------------

# Everything a container might leave behind, one thing per line.
state() {
	look /run/containerd/fifo 1 2 /run/containerd/s 1 1 /run/containerd/io.containerd.runtime.v2.task 2 2 \
		/run/containerd/runc 2 2 $CD/root/io.containerd.runtime.v2.task 2 2 \
		$CD/root/io.containerd.snapshotter.v1.overlayfs/snapshots 1 1 /run/spore/sandboxes 1 1 \
		/run 1 1 /dev 1 1 /tmp 1 1
}

# What is there and was not. What has gone is no leak: ctr forgets some fifos late.
leaks() {
	state >"$WORK/state.now"
	diff "$WORK/state.before" "$WORK/state.now" | grep '^>' >"$WORK/state.diff"
	[ ! -s "$WORK/state.diff" ]
}

# After a run that went wrong: whatever it left must not fail the next one too.
clean_up() {
	local ns id p
	kill -0 "$(containerd_pid)" 2>/dev/null || start_containerd
	for ns in default other $(ctr ns ls -q); do
		for id in $(ctr -n "$ns" c ls -q); do
			down "$id" "$ns"
		done
	done
	for p in $(find /proc/[0-9]*/exe -maxdepth 0 \( -lname '*containerd-shim*' -o -lname "$WORK/spore" \) 2>/dev/null |
		cut -d/ -f3); do
		kill -KILL "$p" 2>/dev/null
	done
}

# --- running them -----------------------------------------------------------------------------------

# In a function of its own, which run_case() calls in the case's subshell.
whole_case() {
	local name ns
	: >"$WORK/made"
	: >"$WORK/except"
	"$CASE" >"$WORK/seen.$TURN" </dev/null
	while read -r ns name; do
		down "$name" "$ns"
	done <"$WORK/made"
}

# One attempt under one runtime; the reason of a failure is in $WORK/why.
try_one() { # FUNCTION
	CASE=$1
	state >"$WORK/state.before"
	run_case whole_case
	[ ! -s "$WORK/why" ] || return
	leaks || { sleep 0.3; leaks; } || { sleep 2; leaks; } ||
		echo "left behind: $(grep '^>' "$WORK/state.diff" | head -8 | tr '\n' ';')" >"$WORK/why"
}

# Under each runtime, and the same seen everywhere.
try() { # FUNCTION
	local runtime start
	TURN=0 TOOK=
	for runtime in "${RUNTIMES[@]}"; do
		start=$(cut -d' ' -f1 /proc/uptime)
		RT=io.containerd.$runtime.v2
		tidy 'seen.*'
		try_one "$1"
		TOOK+=" $runtime $(awk -v a="$start" '{ printf "%.1f", $1 - a }' /proc/uptime)s"
		if [ -s "$WORK/why" ]; then
			sed -i "1s/^/under $runtime: /" "$WORK/why"
			tail -n 12 "$WORK/seen.$TURN" | cut -c1-200 >"$WORK/tail"
			sed 's/^/ seen: /' "$WORK/tail" >>"$WORK/why"
			return
		fi
		if [ -s "$WORK/except" ]; then
			grep -avEf "$WORK/except" "$WORK/seen.$TURN" >"$WORK/compared"
			mv "$WORK/compared" "$WORK/seen.$TURN"
		fi
		if [ $TURN != 0 ] && ! cmp -s "$WORK/seen.0" "$WORK/seen.$TURN"; then
			{
				echo "under $runtime something else is seen (-) than under ${RUNTIMES[0]} (+):"
				diff -a -U1 "$WORK/seen.$TURN" "$WORK/seen.0" | sed 1,2d | cut -c1-300 | head -40
			} >"$WORK/why"
			return
		fi
		TURN=$((TURN + 1))
	done
}

t() {
	[[ "$1 $2 $FILE" =~ $ONLY ]] || return 0
	N=$((N + 1))
	try "$2"
	if [ -s "$WORK/why" ]; then
		echo "# first attempt of \"$1\": $(head -c 900 "$WORK/why" | tr '\n' '~')"
		clean_up
		tidy
		try "$2"
	fi
	if [ ! -s "$WORK/why" ]; then
		echo "ok $N - $1 #$TOOK"
	else
		echo "not ok $N - $1 #$TOOK"
		sed 's/^/# /' "$WORK/why"
		FAILED=$((FAILED + 1))
		clean_up
	fi
	[ -z "${SPORE_CONFORM_LOUD-}" ] || sed 's/^/#   /' "$WORK/seen.0"
	tidy
}

tidy() { # [PATTERN to keep]
	find "$WORK" -mindepth 1 -maxdepth 1 ! -name "${1-spore}" ! -name spore ! -name bin ! -name cd ! -name root ! -name containerd.pid \
		-exec rm -rf {} +
}
