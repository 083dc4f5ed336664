#!/bin/bash
# build.sh - builds the guest kernel and prints the folder that holds it:
#   vmlinux      stripped ELF; bootable as it is, input of pack.c
#   config       the complete configuration
#   System.map   addresses -> names, because the kernel carries no symbols
#   size.txt     what it weighs
# The folder is named by the hash of all inputs and made whole or not at all; a second run only
# prints. The same inputs give the same bytes. Takes 6 minutes on 2 cores and 2 GB of disk.
set -euo pipefail
cd "$(dirname "$0")"
. ../../configs/build/lib.sh

# Bytes of text + data that size.txt is checked against. Nearly 4 MiB of the text are the filler
# that page table isolation puts around the entry code; pack.c leaves it out.
budget=$((10 << 20))

fragment=$PWD/x86_64.config

# Kconfig knows no comments behind a value, and takes "is not set" only as a whole line.
wanted() {
	sed -nE 's/^(CONFIG_\w+=("[^"]*"|[^"[:space:]]+)).*/\1/p
		s/^(# CONFIG_\w+ is not set).*/\1/p' "$fragment"
}

archive=$(source_path linux)
out=$CACHE/kernel-$(key "$(wanted)" "$(cat build.sh)" "$(sha256 "$archive")" \
	"$(gcc --version | head -n 1)" "$(ld --version | head -n 1)")
done_already() { [ ! -d "$out" ] || { echo "$out"; exit; }; }
done_already
begin kernel
done_already			# by the builder we waited for

# What would otherwise leak from this machine into the image.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_USER=spore KBUILD_BUILD_HOST=spore LC_ALL=C TZ=UTC
unset MAKEFLAGS ARCH CROSS_COMPILE KCFLAGS KCONFIG_CONFIG
kmake() { make -C "$TMP/src" O="$TMP/obj" -j"$(nproc)" "$@"; }

# Symbols that did not come out as wanted: Kconfig drops without a word what it does not know and
# what depends on something that is off. ("Is not set" and not mentioned are the same.)
refused() {
	awk -F'[ =]' 'NR == FNR { have[$0]; if (!/^#/) on[$1]; next }
		/^#/ ? ($2 in on) : !($0 in have) { print /^#/ ? $2 : $1 }' "$TMP/obj/.config" "$1"
}

mkdir "$TMP/src" "$TMP/obj" "$TMP/out"
step "unpacking ${archive##*/}" tar -xf "$archive" -C "$TMP/src" --strip-components=1
wanted >"$TMP/obj/fragment"
step "configuring" kmake KCONFIG_ALLCONFIG="$TMP/obj/fragment" allnoconfig
refused=$(refused "$TMP/obj/fragment")
[ -z "$refused" ] || die "x86_64.config: Kconfig did not take" $refused
step "compiling, some minutes" kmake vmlinux

strip --strip-all -o "$TMP/out/vmlinux" "$TMP/obj/vmlinux"
cp "$TMP/obj/.config" "$TMP/out/config"
cp "$TMP/obj/System.map" "$TMP/out"
size "$TMP/out/vmlinux" | awk -v budget=$budget 'NR == 2 {
	printf "text %d\ndata %d\nbss %d\ntext+data %d\nbudget %d\n", $1, $2, $3, $1 + $2, budget
}' >"$TMP/out/size.txt"
weight=$(awk '$1 == "text+data" { print $2 }' "$TMP/out/size.txt")
[ "$weight" -le $budget ] || die "text and data are $weight bytes, the budget is $budget"

publish "$TMP/out" "$out"
echo "$out"
