#!/bin/bash
# run.sh - builds and runs the fuzz targets of this folder.
#
#   tests/fuzz/run.sh NAME|all [SECONDS]
#
# Every target first replays its corpus; then, when SECONDS is given and not 0, it looks for more.
# What it finds is kept in $OUT/fuzz/found/NAME, a crash also in $OUT/fuzz/crash/NAME-*, to be
# minimized by hand, turned into a unit test, and into a seed when it says something new.
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=${OUT:-build}
names=${1:?usage: run.sh NAME|all [SECONDS]}
seconds=${2:-0}
DEPS=${DEPS:-$(configs/build/deps.sh)}
mkdir -p "$OUT/fuzz/gen" "$OUT/fuzz/lib" "$OUT/fuzz/crash"

san=-fsanitize=address,undefined
cc="clang -std=gnu11 -D_GNU_SOURCE -g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all
	-I. -I$OUT/fuzz/gen -isystem $DEPS/include"

# protobuf-c and the generated code are part of what is fuzzed: built here, for coverage. They lean on
# NULL + 0, which is why they do not get the undefined-behaviour checks.
build_lib() {
	local f stamp
	amalgam/wire/gen.sh "$OUT/fuzz/gen"
	stamp=$(cat "$OUT"/fuzz/gen/* configs/build/sources.tsv | sha256sum)
	[ "$(cat "$OUT/fuzz/lib/stamp" 2>/dev/null)" != "$stamp" ] || return 0
	rm -f "$OUT"/fuzz/lib/*
	(. configs/build/lib.sh
	 tar -xOf "$(source_path protobuf-c)" --wildcards '*/protobuf-c/protobuf-c.c') \
		>"$OUT/fuzz/lib/protobuf-c.c"
	for f in "$OUT"/fuzz/gen/*.pb-c.c "$OUT/fuzz/lib/protobuf-c.c"; do
		$cc -w -fsanitize=fuzzer-no-link,address -isystem "$DEPS/include/protobuf-c" -c "$f" -o "$OUT/fuzz/lib/$(basename "$f" .c).o"
	done
	ar rcs "$OUT/fuzz/lib/libpb.a" "$OUT"/fuzz/lib/*.o
	echo "$stamp" >"$OUT/fuzz/lib/stamp"
}

build() { # NAME
	$cc -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Werror -Wno-unused-function \
		$san -fsanitize=fuzzer "tests/fuzz/fuzz_$1.c" "$OUT/fuzz/lib/libpb.a" \
		-L"$DEPS/lib-host" -llz4 -lm -o "$OUT/fuzz/fuzz_$1"
}

run() { # NAME
	local corpus=tests/fuzz/corpus/$1 found=$OUT/fuzz/found/$1 files
	mkdir -p "$found"
	files=("$corpus"/*)
	if [ -e "${files[0]}" ]; then
		"$OUT/fuzz/fuzz_$1" -rss_limit_mb=1024 -timeout=10 "${files[@]}" >"$OUT/fuzz/$1.log" 2>&1 ||
			{ tail -n 50 "$OUT/fuzz/$1.log"; echo "not ok - fuzz $1: corpus"; return 1; }
	fi
	if [ "$seconds" != 0 ]; then
		"$OUT/fuzz/fuzz_$1" -rss_limit_mb=1024 -timeout=10 -max_total_time="$seconds" -print_final_stats=1 \
			-artifact_prefix="$OUT/fuzz/crash/$1-" "$found" "$corpus" >"$OUT/fuzz/$1.log" 2>&1 ||
			{ tail -n 50 "$OUT/fuzz/$1.log"; echo "not ok - fuzz $1"; return 1; }
		grep -E 'cov:' "$OUT/fuzz/$1.log" | tail -n 1
	fi
	echo "ok - fuzz $1 (${#files[@]} seeds, $seconds s)"
}

[ "$names" != all ] || names=$(ls tests/fuzz/fuzz_*.c | sed 's,.*/fuzz_,,; s,\.c$,,')
build_lib
status=0
for name in $names; do
	build "$name"
	run "$name" || status=1
done
exit $status
