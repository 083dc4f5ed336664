# lib.sh - what the end-to-end cases are written in. Sourced inside the rig by inside.sh.
#
#   t "sentence that is true when it passes" function
#   sp ARGS...           run spore; its status, stdout and stderr are kept
#   status N; out TEXT; out_has TEXT; err TEXT; err_has TEXT       what they must have been
#   that COMMAND...      must succeed
#   image [NAME]         a fresh writable copy of the busybox image; prints its path
#
# After every case leaks() must find nothing new. A case fails at its first broken expectation; later
# ones of the same case are not looked at.

SPORE=$WORK/spore
IMG=$WORK/busybox.ext4
N=0
FAILED=0

why=''
fail() { [ -n "$why" ] || why=$*; return 1; }

sp() {
	"$SPORE" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
	rc=$?
}

status() { [ "$rc" = "$1" ] || fail "status $rc, not $1; stderr: $(head -c 400 "$WORK/err")"; }
out() { [ "$(cat "$WORK/out")" = "$1" ] || fail "stdout is '$(head -c 400 "$WORK/out")', not '$1'; stderr: $(head -c 300 "$WORK/err")"; }
err() { [ "$(cat "$WORK/err")" = "$1" ] || fail "stderr is '$(head -c 400 "$WORK/err")', not '$1'"; }
out_has() { grep -qF -- "$1" "$WORK/out" || fail "stdout lacks '$1': $(head -c 400 "$WORK/out")"; }
err_has() { grep -qF -- "$1" "$WORK/err" || fail "stderr lacks '$1': $(head -c 400 "$WORK/err")"; }
one_line_err() { [ "$(wc -l <"$WORK/err")" = 1 ] || fail "stderr is not one line: $(cat "$WORK/err")"; }
that() { "$@" || fail "not so: $*"; }

# Wait at most 30 s (of the rig's time) until a command succeeds.
await() {
	for _ in $(seq 300); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	fail "waited in vain for: $*"
}

image() {
	cp "$IMG" "$WORK/${1-copy}.ext4"
	echo "$WORK/${1-copy}.ext4"
}

# Everything a sandbox might leave behind, one thing per line.
state() {
	for p in /proc/[0-9]*; do
		[ "$(readlink "$p/exe" 2>/dev/null)" = "$SPORE" ] && echo "process $(tr '\0' ' ' <"$p/cmdline")"
	done
	ls /run/spore/sandboxes 2>/dev/null | sed 's/^/sandbox /'
	ls -d /run/spore-root-* 2>/dev/null
	awk '{ print "mount " $2 " " $3 }' /proc/mounts
	find /sys/fs/cgroup -mindepth 1 -type d | sed 's/^/cgroup /'
	losetup -a 2>/dev/null
	awk '$8 ~ "/run/spore" { print "socket " $8 }' /proc/net/unix
	ls /run/spore/template/.build-* 2>/dev/null
	return 0
}

leaks() {
	state >"$WORK/state.now"
	diff "$WORK/state.before" "$WORK/state.now" >"$WORK/state.diff" || return 1
}

t() {
	N=$((N + 1))
	case " $ONLY " in
	"  ") ;;
	*) case "$1 $2 $FILE" in *"$ONLY"*) ;; *) N=$((N - 1)) && return 0 ;; esac ;;
	esac
	why=''
	start=$(cut -d' ' -f1 /proc/uptime)
	state >"$WORK/state.before"
	$2
	if [ -z "$why" ]; then
		# A process that was just killed may need a moment to be gone.
		leaks || { sleep 0.5; leaks; } || { sleep 2; leaks; } ||
			why="left behind: $(grep '^[<>]' "$WORK/state.diff" | head -5 | tr '\n' ';')"
	fi
	took=$(awk -v a="$start" '{ printf "%.1f", $1 - a }' /proc/uptime)
	if [ -z "$why" ]; then
		echo "ok $N - $1 # ${took}s"
	else
		echo "not ok $N - $1"
		echo "$why" | sed 's/^/# /'
		FAILED=$((FAILED + 1))
	fi
}
