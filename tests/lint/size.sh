#!/bin/sh
# size.sh BUILDDIR - the budgets of the one file (bytes); prints what is used of each.
dir=${1-build}
bad=0
budget() { # WHAT BYTES LIMIT
	printf '%-34s %9d of %9d\n' "$1" "$2" "$3"
	[ "$2" -le "$3" ] || { echo "size: $1 is over its budget by $(($2 - $3)) bytes" >&2; bad=1; }
}
bytes() { stat -c %s "$1"; }
whole=$(bytes "$dir/spore")
kernel=$(bytes "$dir/kernel.packed")
initramfs=$(bytes "$dir/initramfs.cpio")
budget "whole file" "$whole" $((8 << 20))
budget "without kernel and initramfs" $((whole - kernel - initramfs)) $((3 << 19))
budget "agent" "$(bytes "$dir/agent")" $((600 << 10))
budget "guest kernel, text and data" \
	"$(awk '$1 == "text+data" { print $2 }' "$(cat "$dir/kernel.from")/size.txt")" $((10 << 20))
exit $bad
