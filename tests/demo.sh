#!/bin/bash
# demo.sh - a template, a clone, a container with real output, and how long each stage took. On
# /dev/kvm where that can run a guest, else in the rig; says which.
set -euo pipefail
cd "$(dirname "$0")/.."

tests/e2e/image.sh >/dev/null
show() { echo "+ spore $*" >&2; "$SPORE" "$@"; }

if [ "${1-}" != inside ]; then
	if build/spore check >/dev/null 2>&1; then
		echo "demo: on this machine's own /dev/kvm"
		exec tests/demo.sh inside
	fi
	echo "demo: $(build/spore check | head -n 1)"
	echo "demo: so it runs in the rig, a software CPU with nested virtualization (10 to 100 times slower)"
	exec tests/rig/run --mem 4096 --timeout 300 -- tests/demo.sh inside
fi

work=$(mktemp -d /tmp/spore-demo.XXXXXX)
trap 'rm -rf "$work"' EXIT
cp build/spore build/e2e/busybox.ext4 "$work"
SPORE=$work/spore

# timed FILE COMMAND...: spore run --json-times; its line on stderr, the times, goes to FILE too.
timed() {
	local to=$1
	shift
	show run --json-times --block "$work/busybox.ext4" --read-only "$@" 2> >(tee "$to" >&2)
	wait $! # for tee
}
# stages FILE: "agent answered after N ms, ..." from the times.
stages() {
	awk -F'[,:{}]' '/^\{"clone":/ {
		for (i = 2; i < NF; i++)
			at[$i] = $(i + 1) / 1000
		printf "agent answered after %.0f ms, first output of the container after %.0f ms\n",
			at["\"agent_answering_us\""], at["\"first_output_us\""]
	}' "$1"
}

had=$("$SPORE" factory status)
show factory init
timed "$work/clone" -- \
	/bin/sh -c 'echo "hello from $(uname -sr) on $(hostname), up $(cut -d" " -f1 /proc/uptime) s"'
echo "The same command in a machine that is booted instead of cloned:"
timed "$work/boot" --no-template -- \
	/bin/sh -c 'echo "hello from $(uname -sr) on $(hostname), up $(cut -d" " -f1 /proc/uptime) s"'
[ "$had" = "vm factory is on" ] || show factory destroy
cat <<END

In short, from the start of spore:
  clone: $(stages "$work/clone")
  boot:  $(stages "$work/boot")
"up N s" of a clone is the age of its template when that was saved, plus its own.
END
