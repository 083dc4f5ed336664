#!/bin/bash
# deps.sh - builds the libraries spore links and prints the folder that holds them:
#   include/    their headers, jsmn.h, and for -isystem: uapi/, the kernel's, which musl lacks
#   lib/        static, musl: for the product
#   lib-host/   static, glibc, clang, -g: for unit tests and fuzzers, as musl has no sanitizers;
#               only where clang is installed
# The folder is named by the hash of all inputs and made whole or not at all; a second run only
# prints.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

clang=$(clang --version 2>/dev/null | head -n 1) || clang=none
out=$CACHE/deps-$(key "$(cat sources.tsv deps.sh)" "$(musl-gcc --version | head -n 1)" "$clang")
done_already() { [ ! -d "$out" ] || { echo "$out"; exit; }; }
done_already
begin deps
done_already			# by the builder we waited for

for name in bearssl lz4 protobuf-c libseccomp; do
	archive=$(source_path $name)
	mkdir "$TMP/$name"
	step "unpacking $name" tar -xf "$archive" -C "$TMP/$name" --strip-components=1
done
jsmn=$(source_path jsmn)

inc=$TMP/out/include
mkdir -p "$inc/protobuf-c" "$inc/uapi"
cp "$TMP"/bearssl/inc/bearssl*.h "$TMP"/lz4/lib/{lz4,lz4hc}.h "$jsmn" "$inc"
cp "$TMP"/protobuf-c/protobuf-c/protobuf-c.h "$inc/protobuf-c"
# /usr/include itself cannot be given to musl-gcc: glibc's headers would shadow musl's.
ln -s /usr/include/{linux,asm-generic,video} "$inc/uapi" # video/edid.h: asm/bootparam.h wants it
ln -s "/usr/include/$(gcc -print-multiarch)/asm" "$inc/uapi/asm"

# Recipes: compile $TMP/NAME with $cc $cflags, leave the library where they started.
build_bearssl() {
	make -C "$TMP/bearssl" -j"$(nproc)" BUILD="$PWD/bearssl" CC=$cc LD=$cc CFLAGS="$cflags" lib
	mv bearssl/libbearssl.a .
}
build_lz4() {
	$cc $cflags -c "$TMP/lz4/lib/lz4.c" "$TMP/lz4/lib/lz4hc.c"
	ar rcs liblz4.a lz4.o lz4hc.o
}
build_protobuf_c() {
	$cc $cflags -I"$TMP/protobuf-c" -c "$TMP/protobuf-c/protobuf-c/protobuf-c.c"
	ar rcs libprotobuf-c.a protobuf-c.o
}
build_libseccomp() {
	# The release tarball brings configure and the gperf output, so no autotools are needed.
	mkdir libseccomp
	cd libseccomp
	"$TMP/libseccomp/configure" --disable-shared CC=$cc CFLAGS="$cflags"
	make -C src -j"$(nproc)" libseccomp.la
	cp src/.libs/libseccomp.a ..
	cp include/seccomp.h "$TMP/libseccomp/include/seccomp-syscalls.h" "$inc"
}
build_into() { # FOLDER
	cflags+=" -ffile-prefix-map=$TMP/=" # or a random name gets into the objects
	mkdir "$TMP/$1" "$TMP/out/$1"
	cd "$TMP/$1"
	for name in bearssl lz4 protobuf_c libseccomp; do
		step "building $1/$name with $cc" build_$name
	done
	mv lib*.a "$TMP/out/$1"
	cd /
}

cc=musl-gcc cflags="-O2 -ffunction-sections -fdata-sections -isystem $inc/uapi"
build_into lib
if [ "$clang" != none ]; then
	cc=clang cflags="-O1 -g -fPIC"
	build_into lib-host
fi

publish "$TMP/out" "$out"
echo "$out"
