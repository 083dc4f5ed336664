#!/bin/bash
# build.sh - builds and tests spore. A list of compiler commands; no make.
#
#   ./build.sh            the product: build/spore, one static file
#   ./build.sh demo       install what is missing, build, clone a micro-VM, run a container in it
#   ./build.sh test       install what is missing, run what decides about a change (what CI calls)
#   ./build.sh check      fast proof, no KVM: two compilers, lint, unit tests, fuzz corpora
#   ./build.sh unit [F]   unit tests (address and undefined-behaviour sanitizers) whose name holds F
#   ./build.sh fuzz NAME [SECONDS]   one fuzz target
#   ./build.sh e2e [CASE] end-to-end tests in the rig (tests/rig)
#   ./build.sh conform [CASE]   the same through containerd with runc and with spore, compared
#   ./build.sh bench      the figures, side by side with others, as a table
#   ./build.sh clean      remove build/
set -euo pipefail
cd "$(dirname "$0")"

OUT=build
VERSION=$(sed -n 's/^## \([0-9][0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)
WARN="-Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Werror"
CSTD="-std=gnu11 -D_GNU_SOURCE -I. -I$OUT/gen"
# No unwind tables: nothing of ours unwinds, and they are a tenth of the file.
COPT="-O2 -fno-asynchronous-unwind-tables -fno-unwind-tables -ffunction-sections -fdata-sections"
LINK="-static -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,relro,-z,now"

say() { echo "build.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# --- ingredients ------------------------------------------------------------------------------

install_packages() {
	local group
	for group in "$@"; do
		configs/build/install.sh "$group"
	done
}

prepare() {
	mkdir -p $OUT/gen $OUT/obj
	DEPS=$(configs/build/deps.sh)
	MUSL="musl-gcc $CSTD -isystem $DEPS/include -isystem $DEPS/include/uapi"
	amalgam/wire/gen.sh $OUT/gen
	write_header version.h "#define SPORE_VERSION \"$VERSION\""
	[ -e $OUT/gen/build_id.h ] || write_header build_id.h '#define SPORE_BUILD_ID "not built"' # check reads it
}

# Rewritten only when it changes.
write_header() { # NAME TEXT
	printf '#pragma once\n%s\n' "$2" >$OUT/gen/$1.new
	cmp -s $OUT/gen/$1.new $OUT/gen/$1 || mv $OUT/gen/$1.new $OUT/gen/$1
	rm -f $OUT/gen/$1.new
}

# Names the sources and assets a binary was made from: templates of another build are not used.
build_id() {
	{
		find amalgam vmm -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
		sha256sum $OUT/kernel.packed $OUT/initramfs.cpio
	} | sha256sum | cut -c1-32
}

# The generated protobuf code is third-party in style: its own objects, its own warnings.
compile_gen() { # OBJDIR COMPILER...
	local dir=$1 c
	shift
	mkdir -p "$dir"
	for c in $OUT/gen/*.pb-c.c; do
		"$@" -w -c "$c" -o "$dir/$(basename "$c" .c).o"
	done
}

# --- the product --------------------------------------------------------------------------------

build_agent() {
	say "agent"
	$MUSL $WARN -Os -fno-asynchronous-unwind-tables -fno-unwind-tables \
		-ffunction-sections -fdata-sections -c amalgam/agent.c -o $OUT/obj/agent.o
	compile_gen $OUT/obj/agent-gen $MUSL -Os -ffunction-sections -fdata-sections
	musl-gcc $LINK -s -o $OUT/agent $OUT/obj/agent.o $OUT/obj/agent-gen/*.o -L"$DEPS/lib" \
		-lprotobuf-c -lseccomp
	check_static $OUT/agent
	guest/initramfs/build.sh $OUT/agent $OUT/initramfs.cpio
}

build_kernel() {
	KERNEL=$(guest/kernel/build.sh)
	if [ ! -e $OUT/kernel.packed ] || [ "$(cat $OUT/kernel.from 2>/dev/null)" != "$KERNEL" ]; then
		$MUSL -O2 -Wall -Wextra -Werror -static -o $OUT/pack guest/kernel/pack.c "$DEPS/lib/liblz4.a"
		$OUT/pack "$KERNEL/vmlinux" $OUT/kernel.packed
		echo "$KERNEL" >$OUT/kernel.from
	fi
}

build_spore() {
	say "spore $VERSION"
	write_header build_id.h "#define SPORE_BUILD_ID \"$(build_id)\""
	$MUSL $WARN $COPT -c amalgam/spore.c -o $OUT/obj/spore.o
	compile_gen $OUT/obj/gen $MUSL $COPT
	$MUSL -c vmm/x86_64/selftest.S -o $OUT/obj/selftest.o
	$MUSL -Wa,-I$OUT -c amalgam/assets.S -o $OUT/obj/assets.o
	musl-gcc $LINK -s -o $OUT/spore.new $OUT/obj/{spore,selftest,assets}.o $OUT/obj/gen/*.o \
		-L"$DEPS/lib" -lprotobuf-c -llz4 -lbearssl
	check_static $OUT/spore.new
	mv $OUT/spore.new $OUT/spore
}

# One file that runs anywhere: no interpreter, no libraries.
check_static() { # FILE
	! readelf -lW "$1" | grep -q INTERP || die "$1 asks for a dynamic loader"
	! readelf -dW "$1" 2>/dev/null | grep -q NEEDED || die "$1 needs shared libraries"
}

build() {
	prepare
	build_agent
	build_kernel
	build_spore
	tests/lint/size.sh $OUT
}

# --- proof ------------------------------------------------------------------------------------

# Every file by itself, both compilers: what a unity build hides (a missing include, a function no
# header declares).
check_files() {
	local f
	say "each file by itself: gcc, clang"
	local strict="$CSTD $WARN -fsyntax-only -isystem $DEPS/include"
	{
		for f in $(find amalgam vmm guest/agent -name '*.c' ! -path amalgam/spore.c ! -path amalgam/agent.c); do
			echo "musl-gcc $strict -isystem $DEPS/include/uapi $f"
			echo "clang $strict $f"
		done
		echo "clang $strict amalgam/spore.c"
		echo "clang $strict amalgam/agent.c"
		for f in guest/kernel/pack.c tests/rig/relay.c tests/rig/probe.c; do
			echo "clang -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -isystem $DEPS/include $f"
		done
	} | xargs -P "$(nproc)" -I{} sh -c '{} || exit 255'
}

lint() {
	local l
	for l in layers style names; do
		say "lint: $l"
		tests/lint/$l.sh || die "tests/lint/$l.sh found the above"
	done
}

# One binary with the whole program and all tests in it; sanitizers need clang and glibc.
build_unit() {
	say "unit tests"
	find tests/unit -name 'test_*.c' | LC_ALL=C sort | sed 's/.*/#include "&"/' >$OUT/gen/unit_list.h
	[ -e $OUT/kernel.packed ] || : >$OUT/kernel.packed
	[ -e $OUT/initramfs.cpio ] || : >$OUT/initramfs.cpio
	[ -e $OUT/gen/build_id.h ] || write_header build_id.h '#define SPORE_BUILD_ID "unit"'
	local san="-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
	local cc="clang $CSTD -isystem $DEPS/include"
	compile_gen $OUT/obj/unit-gen $cc -g -O1
	$cc $WARN -Wno-unused-function $san -c tests/unit/main.c -o $OUT/obj/unit.o
	$cc -c vmm/x86_64/selftest.S -o $OUT/obj/unit-selftest.o
	$cc -Wa,-I$OUT -c amalgam/assets.S -o $OUT/obj/unit-assets.o
	clang $san -o $OUT/unit $OUT/obj/unit.o $OUT/obj/unit-{selftest,assets}.o $OUT/obj/unit-gen/*.o \
		-L"$DEPS/lib-host" -lprotobuf-c -llz4 -lbearssl -lseccomp -lpthread
}

check() {
	check_files
	lint
	build_unit
	$OUT/unit | tap "unit"
	say "fuzz corpora"
	OUT=$OUT DEPS=$DEPS tests/fuzz/run.sh all 0
}

# Print TAP, and fail when it does: a "not ok", a missing plan or fewer tests than planned.
tap() { # SUITE
	awk -v suite="$1" '{ print; fflush() }
		/^ok/ { if (/# SKIP/) skip++; else ok++ } /^not ok/ { bad++ } /^# first attempt/ { again++ } /^1\.\./ { plan = substr($1, 4) }
		END {
			printf "%s: %d passed, %d failed, %d skipped, %s planned, %d tried twice\n", suite, ok, bad,
				skip, plan == "" ? "none" : plan, again
			exit bad || plan == "" || ok + bad + skip != plan || !ok
		}'
}

# What touches KVM once more, on a complete one: the host's may be an emulation that skips some. What
# touches mounts and cgroups, too: as root, and with cgroup version 2 alone, whatever the host has.
unit_in_rig() {
	tests/rig/run --steady -- $OUT/unit vstate vcpu vmm_ kvm cpuid selftest vhost fuse_directory amalgam/resource
}

e2e() {
	tests/e2e/run.sh "$@" | tap "e2e"
}

conform() {
	tests/conform/run.sh "$@" | tap "conform"
}

# What runs in the rig, in two lanes: each keeps one CPU busy. The first one's words come when it is over.
test_in_rig() {
	local lane status=0
	say "the rig, agent and e2e meanwhile go to $OUT/test.log"
	set -m # a process group, for the trap
	(
		tests/rig/selftest.sh | tap "rig"
		unit_in_rig | tap "unit, on the rig's KVM"
		tests/e2e/agent.sh | tap "agent"
		e2e
	) </dev/null >$OUT/test.log 2>&1 &
	lane=$!
	set +m
	trap "kill -- -$lane 2>/dev/null || :" EXIT # interrupted, or killed
	(conform "$CONFORM_SHORT") || status=$?
	wait $lane || status=$?
	cat $OUT/test.log
	[ $status = 0 ] || die "a test has failed: see the lines with \"not ok\""
}

# What a quarter of an hour proves: no distribution as an image, no trees of files.
CONFORM_SHORT='raw_|cases/(basic|exec|io|kill|life|own|spec)'

# --- commands ------------------------------------------------------------------------------------

what=${1-build}
[ $# = 0 ] || shift
case $what in
build)
	install_packages build
	build
	;;
demo)
	install_packages build
	build
	install_packages test
	tests/demo.sh
	;;
check)
	install_packages build test
	prepare
	check
	;;
test)
	install_packages build test
	build
	check
	test_in_rig
	say "all tests passed"
	;;
unit)
	install_packages build test
	prepare
	build_unit
	$OUT/unit "$@" | tap "unit"
	;;
fuzz)
	install_packages build test
	prepare
	OUT=$OUT DEPS=$DEPS tests/fuzz/run.sh "$@"
	;;
e2e)
	install_packages build test
	build
	e2e "$@"
	;;
conform)
	install_packages build test
	build
	conform "$@"
	;;
bench)
	install_packages build test
	build
	tests/bench/run.sh "$@"
	;;
clean) rm -rf $OUT ;;
*)
	sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
