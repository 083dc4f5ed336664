# lib.sh - what the end-to-end cases are written in. Sourced inside the rig by inside.sh.
#
#   t "sentence that is true when it passes" function
#   sp ARGS...           run spore; its status, stdout and stderr are kept
#   in_clone ARGS...     the same for: run --block (the shared image) --read-only -- ARGS
#   status N; out TEXT; out_has TEXT; err TEXT; err_has TEXT       what they must have been
#   refused TEXT         status 125, nothing on stdout, and exactly this one line on stderr
#   no TEXT              neither stream has it
#   that COMMAND...      must succeed
#   await COMMAND...     must succeed within 30 s; not looked at again after that
#   image NAME [MIB]     a writable copy of the busybox image (grown to MIB); prints its path
#   bundle NAME SCRIPT   an OCI bundle that runs SCRIPT in a shell; see there; prints its directory
#   detached NAME ARGS   spore run -d in a clone with the shared image
#
# A case is a function that runs in a subshell of its own, so what it sets and where it goes is its
# own. Its first broken expectation ends it. After it leaks() must find nothing new. A template is
# always there when a case begins.

SPORE=$WORK/spore
IMG=$WORK/busybox.ext4
TEMPLATE=/run/spore/template
CASE_LIMIT_S=100
N=0
FAILED=0

fail() {
	[ -s "$WORK/why" ] || echo "$*" >"$WORK/why"
	exit 1
}

# --- what a case says ------------------------------------------------------------------------------

sp() {
	"$SPORE" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
	rc=$?
}

in_clone() { sp run --block "$IMG" --read-only -- "$@"; }

shown() { head -c 400 "$WORK/$1" | tr '\n\0' '|0'; }
status() { [ "$rc" = "$1" ] || fail "status $rc, not $1; stdout: $(shown out); stderr: $(shown err)"; }
same() { # NAME TEXT: a final newline is not looked at
	[ "$(cat "$WORK/$1" 2>/dev/null)" = "$2" ] ||
		fail "std$1 is '$(shown "$1")', not '$2'; status $rc; stderr: $(shown err)"
}
has() { grep -qF -- "$2" "$WORK/$1" || fail "std$1 lacks '$2': $(shown "$1"); status $rc; stderr: $(shown err)"; }
out() { same out "$1"; }
err() { same err "$1"; }
out_has() { has out "$1"; }
err_has() { has err "$1"; }
no() { ! grep -F -- "$1" "$WORK/out" "$WORK/err" || fail "'$1' was printed: $(shown out) $(shown err)"; }
one_line_err() { [ "$(wc -l <"$WORK/err")" = 1 ] || fail "stderr is not one line: $(shown err)"; }
refused() {
	status 125
	out ""
	one_line_err
	err "spore: $1"
}
that() { "$@" || fail "not so: $*"; }
is() { [ "$1" = "$2" ] || fail "${3-value} is '$1', not '$2'"; }
differ() { [ "$1" != "$2" ] || fail "${3-values} do not differ: '$1'"; }

await() {
	for _ in $(seq 300); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	fail "waited in vain for: $*"
}
gone() { ! kill -0 "$1" 2>/dev/null; }
file_has() { grep -qF -- "$2" "$1" 2>/dev/null; }

# --- what a case starts from -------------------------------------------------------------------------

image() {
	cp "$IMG" "$WORK/$1.ext4"
	if [ -n "${2-}" ]; then
		truncate -s "$2M" "$WORK/$1.ext4"
		resize2fs "$WORK/$1.ext4" >/dev/null 2>&1 || fail "resize2fs"
	fi
	echo "$WORK/$1.ext4"
}

json() { # TEXT as a JSON string
	local s=${1//\\/\\\\}
	s=${s//\"/\\\"}
	s=${s//$'\t'/\\t}
	printf '"%s"' "${s//$'\n'/\\n}"
}

ALL_CAPS='"CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_DAC_READ_SEARCH","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_SETGID"'
ALL_CAPS+=',"CAP_SETUID","CAP_SETPCAP","CAP_NET_ADMIN","CAP_NET_RAW","CAP_SYS_CHROOT","CAP_SYS_PTRACE","CAP_SYS_ADMIN"'
ALL_CAPS+=',"CAP_SYS_BOOT","CAP_SYS_NICE","CAP_SYS_RESOURCE","CAP_SYS_TIME","CAP_MKNOD","CAP_SETFCAP"'

NAMESPACES='{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}'

# The variables are JSON members to add: $process, $linux, $top with their names; $mounts a list. $caps
# (default none), $namespaces, $user, $cwd, $hostname, $readonly replace what is there.
bundle() { # NAME SCRIPT
	local dir=$WORK/bundle-$1
	mkdir -p "$dir"
	cat >"$dir/config.json" <<-JSON
		{ "ociVersion": "1.0.2",
		"process": { "args": ["/bin/sh", "-c", $(json "$2")], "cwd": "${cwd-/}",
			"env": ["PATH=/bin"], "user": { ${user-"\"uid\": 0, \"gid\": 0"} },
			"capabilities": { "bounding": [${caps-}], "effective": [${caps-}], "permitted": [${caps-}] }
			${process:+,$process} },
		"root": { "path": "$IMG", "readonly": ${readonly-true} },
		"hostname": "${hostname-bundled}",
		"mounts": [ { "destination": "/proc", "type": "proc", "source": "proc" },
			{ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
			{ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
			{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] },
			{ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" } ${mounts:+,$mounts} ],
		"linux": { "namespaces": [ ${namespaces-$NAMESPACES} ] ${linux:+,$linux} } ${top:+,$top} }
	JSON
	echo "$dir"
}
in_bundle() { # SCRIPT: run it in a bundle
	local dir
	dir=$(bundle "case$N" "$1")
	sp run --bundle "$dir"
}

detached() { # NAME ARGS...
	local name=$1
	shift
	sp run -d --name "$name" --block "$IMG" --read-only -- "$@"
	status 0
	out "$name"
	err ""
}
vmm_of() { sed -n 's/^  "pid": \([0-9]*\),$/\1/p' "/run/spore/sandboxes/$1/state.json"; }
supervisor_of() { sed -n 's/^  "supervisor": \([0-9]*\),$/\1/p' "/run/spore/sandboxes/$1/state.json"; }
console_of() { cat "/run/spore/sandboxes/$1/console.log"; }
memory_file() { echo $TEMPLATE/*/memory; }
state_file() { echo $TEMPLATE/*/state; }

# A pseudo terminal of our own, by script(1); its size is what stty says.
on_tty() { # ROWS COLS COMMAND: output in "out", status in rc
	mkfifo keys && exec 7<>keys # open, so that no end of input is typed
	script -qec "stty rows $1 cols $2; $3" /dev/null >out 2>err <&7
	rc=$?
	exec 7>&- && rm keys
	tr -d '\r' <out >out.plain
	mv out.plain out
}

# --- what must be as it was ----------------------------------------------------------------------------

spore_pids() { find /proc/[0-9]*/exe -maxdepth 0 -lname "$SPORE" 2>/dev/null | cut -d/ -f3; }

# Everything a sandbox might leave behind, one thing per line.
state() {
	local p
	for p in $(spore_pids); do
		echo "process $(tr '\0' ' ' 2>/dev/null <"/proc/$p/cmdline")"
	done
	find /run/spore -mindepth 1 ! -path /run/spore/sandboxes | sed 's/\/[0-9a-f]\{64\}/\/TEMPLATE/' | sort
	find /run /dev /tmp -maxdepth 1 ! -name '.*' | sort
	awk '{ print "mount " $2 " " $3 }' /proc/mounts
	find /sys/fs/cgroup -mindepth 1 -type d | sed 's/^/cgroup /'
	losetup -a 2>/dev/null
	awk '$8 ~ "/run/spore" { print "socket " $8 }' /proc/net/unix
	# What the rig's own kernel complains about: a crash, a system call the jail does not allow.
	dmesg | grep -E 'segfault|audit|general protection|WARNING|BUG|Out of memory' | sed 's/^/kernel /'
	return 0
}

leaks() {
	state >"$WORK/state.now"
	diff "$WORK/state.before" "$WORK/state.now" >"$WORK/state.diff" || return 1
}

have_template() {
	[ -e $TEMPLATE ] && [ -n "$(ls $TEMPLATE)" ] || "$SPORE" factory init >"$WORK/init" 2>&1 ||
		sed 's/^/# spore factory init: /' "$WORK/init" /run/spore/template.log
}

# After a case that went wrong: whatever it left must not fail the next one too.
clean_up() {
	kill -KILL $(spore_pids) 2>/dev/null
	sleep 0.3
	rm -rf /run/spore/sandboxes/*
	"$SPORE" factory destroy >/dev/null 2>&1
	[ ! -e /dev/kvm.away ] || mv -f /dev/kvm.away /dev/kvm
}

# --- running them -----------------------------------------------------------------------------------

# A misspelt expectation must not pass.
command_not_found_handle() { fail "no such command: $1"; }

# The function in a subshell and process group of its own, for at most CASE_LIMIT_S.
run_case() { # FUNCTION
	local case dog
	: >"$WORK/why"
	rm -f "$WORK/whole"
	set -m
	(
		set +m
		cd "$WORK" || exit
		"$1"
		: >"$WORK/whole"
	) &
	case=$!
	(
		sleep $CASE_LIMIT_S
		echo "not over after $CASE_LIMIT_S s" >>"$WORK/why"
		kill -KILL -- -$case
	) &
	dog=$!
	set +m
	wait $case 2>/dev/null
	kill -KILL -- -$dog 2>/dev/null
	wait $dog 2>/dev/null
	[ -e "$WORK/whole" ] || [ -s "$WORK/why" ] || echo "the case ended before its last line" >"$WORK/why"
}

# One attempt; the reason of a failure is in $WORK/why.
try() {
	have_template
	state >"$WORK/state.before"
	run_case "$1"
	[ ! -s "$WORK/why" ] || return
	# A process that was just killed may need a moment to be gone.
	leaks || { sleep 0.5; leaks; } || { sleep 2; leaks; } ||
		echo "left behind: $(grep '^[<>]' "$WORK/state.diff" | head -8 | tr '\n' ';')" >"$WORK/why"
}

# A failure is shown and tried once more: an emulated CPU has faults of its own (tests/rig/quirk.c is about
# the worst). What fails twice has failed; what fails once is counted in the summary, to be looked at.
t() {
	local start took
	case "$1 $2 $FILE" in
	*"$ONLY"*) ;;
	*) return 0 ;;
	esac
	N=$((N + 1))
	start=$(cut -d' ' -f1 /proc/uptime)
	try "$2"
	if [ -s "$WORK/why" ]; then
		echo "# first attempt of \"$1\": $(head -c 600 "$WORK/why" | tr '\n' ' ')"
		clean_up
		tidy
		try "$2"
	fi
	took=$(awk -v a="$start" '{ printf "%.1f", $1 - a }' /proc/uptime)
	if [ ! -s "$WORK/why" ]; then
		echo "ok $N - $1 # ${took}s"
	else
		echo "not ok $N - $1 # ${took}s"
		sed 's/^/# /' "$WORK/why"
		tail -n 5 /run/spore/sandboxes/*/console.log 2>/dev/null | sed 's/^/# console: /'
		FAILED=$((FAILED + 1))
		clean_up
	fi
	tidy
}

# What the case made.
tidy() {
	awk -v dir="$WORK/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | xargs -r umount -l
	find "$WORK" -mindepth 1 -maxdepth 1 ! -name spore ! -name "busybox.*" \
		-exec rm -rf {} +
}
