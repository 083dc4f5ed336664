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
had=$("$SPORE" factory status)
show factory init
show run --json-times --block "$work/busybox.ext4" --read-only -- \
	/bin/sh -c 'echo "hello from $(uname -sr) on $(hostname), up $(cut -d" " -f1 /proc/uptime) s"'
echo "The same command in a machine that is booted instead of cloned:"
show run --no-template --json-times --block "$work/busybox.ext4" --read-only -- /bin/echo hello
[ "$had" = "vm factory is on" ] || show factory destroy
