#!/bin/bash
# raw.sh - builds what the suite runs beside containerd's own programs, into build/conform: look, which looks for what
# was left, and raw, which speaks to a shim without containerd. Needs what ./build.sh made (build/gen).
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/conform build/obj/conform

deps=$(configs/build/deps.sh)
warn="-Wall -Wextra -Wshadow -Werror"
musl-gcc -std=gnu11 -D_GNU_SOURCE -O2 $warn -static -s -o build/conform/look tests/conform/look.c
[ -e tests/conform/raw.c ] || exit 0
cc="musl-gcc -std=gnu11 -D_GNU_SOURCE -I. -Ibuild/gen -isystem $deps/include -isystem $deps/include/uapi"
for c in build/gen/*.pb-c.c; do
	o=build/obj/conform/$(basename "$c" .c).o
	[ "$o" -nt "$c" ] || $cc -O2 -w -c "$c" -o "$o"
done
$cc -O1 -g $warn -Wno-unused-function -Wno-format-truncation -c tests/conform/raw.c -o build/obj/conform/raw.o
musl-gcc -static -o build/conform/raw build/obj/conform/*.o -L"$deps/lib" -lprotobuf-c
