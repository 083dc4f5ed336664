#!/bin/sh
# build.sh AGENT OUT.cpio - the initramfs: the agent as /init, the directories it mounts on, and the
# console the kernel opens for it. The same input gives the same bytes; needs neither root nor cpio.
#
# Format: Documentation/driver-api/early-userspace/buffer-format.rst, "newc".
set -eu
export LC_ALL=C
agent=${1:?usage: build.sh AGENT OUT.cpio}
out=${2:?usage: build.sh AGENT OUT.cpio}
ino=0

pad() { # BYTES so far: zeros up to the next multiple of 4
	case $(($1 % 4)) in
	1) printf '\0\0\0' ;;
	2) printf '\0\0' ;;
	3) printf '\0' ;;
	esac
}
header() { # NAME MODE SIZE RMAJOR RMINOR; owner, times and device are 0
	ino=$((ino + 1))
	printf '070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x' \
		$ino $(($2)) 0 0 1 0 "$3" 0 0 "$4" "$5" $((${#1} + 1)) 0
	printf '%s\0' "$1"
	pad $((110 + ${#1} + 1))
}

{
	for dir in dev etc proc run sys; do
		header $dir 0040755 0 0 0
	done
	header dev/console 0020600 0 5 1
	size=$(wc -c <"$agent")
	header init 0100555 "$size" 0 0
	cat "$agent"
	pad "$size"
	header 'TRAILER!!!' 0 0 0 0
} >"$out.new"
mv "$out.new" "$out"
