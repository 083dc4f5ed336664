#!/bin/bash
# Prints the folder of the test machine's kernel and initramfs, built first if need be:
#
#   rig-HASH/vmlinux    uncompressed: PVH boot, 4 s quicker than unpacking bzImage in emulation
#   rig-HASH/initrd     busybox, init, relay, quirk and the modules needed before the host's are in reach
#   rig-HASH/relay      the host's end of the wire
#   rig-HASH/modules    -> the whole module tree, appears as /lib/modules/$(uname -r)
#   rig-linux-HASH/     the unpacked kernel package, shared by all rig-*
#
# HASH covers what is read here, so an edited init makes a new folder and a running rig keeps its own.
# The kernel is whatever the package archive has on the day of the first build.
set -euE -o pipefail
export LC_ALL=C
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
cache=${SPORE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spore}
package=${SPORE_RIG_KERNEL:-linux-image-amd64}

# In the initramfs, loaded by init in this order; dependencies come by themselves.
boot_modules="virtio_pci virtio_console 9pnet_virtio 9p overlay"
kvm_modules="kvm-amd"
# Device nodes made in advance, opening one loads its module.
nodes="fuse loop tun dm_mod vhost_net vhost_vsock"

fail() {
	echo "rig: $*" >&2
	exit 125
}

trap 'fail "image.sh: line $LINENO: $BASH_COMMAND: failed, see above"' ERR

need() { # COMMAND PACKAGE
	command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ||
		fail "$1 is missing: apt-get install $2"
}

check_tools() {
	[ "$(uname -m)" = x86_64 ] || fail "this is $(uname -m): the test machine needs an x86-64 host"
	need apt-get "apt, on Debian or Ubuntu"
	need dpkg-deb dpkg
	need busybox busybox-static
	need cpio cpio
	need xz xz-utils
	need depmod kmod
	need flock util-linux
	compiler=$(command -v musl-gcc || command -v gcc || command -v cc) ||
		fail "no C compiler: apt-get install musl-tools"
	busybox=$(command -v busybox)
	! ldd "$busybox" >/dev/null 2>&1 || fail "$busybox is dynamic: apt-get install busybox-static"
}

# The real package behind the name, which may be a metapackage.
kernel_package() {
	local real
	case $package in
	linux-image-[0-9]*) echo "$package" ;;
	*)
		real=$(apt-cache depends "$package" 2>/dev/null |
			sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p')
		[ "$real" ] || fail "the package archive has no $package: apt-get update"
		echo "$real"
		;;
	esac
}

# The compressed kernel inside a bzImage: boot protocol fields setup_sects, payload_offset, _length.
extract_vmlinux() { # BZIMAGE VMLINUX
	local sects at len
	sects=$(od -An -tu1 -j497 -N1 "$1")
	at=$(od -An -tu4 -j584 -N4 "$1")
	len=$(od -An -tu4 -j588 -N4 "$1")
	at=$(((sects + 1) * 512 + at))
	# The last four bytes are the size, not part of the stream.
	dd if="$1" of="$2.payload" bs=1M iflag=skip_bytes,count_bytes skip=$at count=$((len - 4)) status=none
	case $(od -An -tx1 -N4 "$2.payload") in
	" fd 37 7a 58") xz -dc <"$2.payload" >"$2" ;;
	" 1f 8b 08"*) gzip -dc <"$2.payload" >"$2" ;;
	" 28 b5 2f fd") zstd -dc <"$2.payload" >"$2" ;;
	*) fail "${1##*/}: unknown compression of the kernel" ;;
	esac
	rm "$2.payload"
}

build_linux() { # INTO
	local real
	real=$(kernel_package)
	echo "rig: fetching $real, once" >&2
	(cd "$1" && apt-get -qq -o APT::Sandbox::User=root download "$real" >&2) ||
		fail "$real did not download: apt-get update, or look at the network"
	dpkg-deb -x "$1"/*.deb "$1/x"
	rm "$1"/*.deb
	release=$(ls "$1/x/lib/modules")
	PATH=$PATH:/usr/sbin:/sbin depmod -b "$1/x" "$release"
	extract_vmlinux "$1/x/boot/vmlinuz-$release" "$1/vmlinux"
	mv "$1/x/lib/modules/$release" "$1/modules"
	mv "$1/x/boot/config-$release" "$1/config"
	echo "$release" >"$1/release"
	rm -r "$1/x"
}

# Paths of the named modules and all they need in the order of loading, each once.
load_order() { # MODULES NAMES
	awk -v want="$2" '
		function name(path) { sub(/.*\//, "", path); sub(/\.ko$/, "", path); return path }
		function visit(path,   d, n, i) {
			if (path in seen) return
			seen[path] = 1
			n = split(deps[path], d, " ")
			for (i = n; i > 0; i--) visit(d[i])
			print path
		}
		{ path = $1; sub(/:$/, "", path); sub(/^[^:]*:/, ""); deps[path] = $0; of[name(path)] = path }
		END { n = split(want, w, " "); for (i = 1; i <= n; i++) visit(of[w[i]]) }
	' "$1/modules.dep"
}

add_modules() { # MODULES NAMES LIST
	local m
	for m in $(load_order "$1" "$2"); do
		cp "$1/$m" "${3%/*}/"
		m=${m##*/}
		echo "${m%.ko}"
	done >"$3"
}

build_image() { # LINUX INTO
	local root=$2/root m
	mkdir -p "$root"/{bin,dev,proc,sys,run,root,modules}
	"$compiler" -D_GNU_SOURCE -std=c11 -O2 -static -o "$2/relay" "$here/relay.c" ||
		fail "relay.c did not compile with $compiler: apt-get install musl-tools"
	# musl has no headers of the kernel; the system's come last, for nothing else.
	"$compiler" -D_GNU_SOURCE -std=c11 -O2 -static -idirafter /usr/include \
		-idirafter "/usr/include/$(uname -m)-linux-gnu" -o "$root/bin/quirk" "$here/quirk.c" ||
		fail "quirk.c did not compile with $compiler: apt-get install linux-libc-dev"
	cp "$here/init" "$root/init"
	chmod 755 "$root/init"
	cp "$2/relay" "$root/relay"
	cp "$busybox" "$root/bin/busybox"
	for m in $("$busybox" --list); do
		[ "$m" = busybox ] || ln -s busybox "$root/bin/$m"
	done
	add_modules "$1/modules" "$boot_modules" "$root/modules/boot"
	add_modules "$1/modules" "$kvm_modules" "$root/modules/kvm"
	awk -v want=" $nodes " 'index(want, " " $1 " ") {
		split(substr($3, 2), n, ":"); print $2, n[1], n[2] }' "$1/modules/modules.devname" \
		>"$root/modules/nodes"
	(cd "$root" && find . | sort | cpio --quiet -o -H newc -R 0:0) >"$2/initrd"
	rm -r "$root"
	ln -s "$1/modules" "$2/modules"
	ln -s "$1/vmlinux" "$2/vmlinux"
}

# Builds into a scratch folder and renames, so a folder that exists is complete.
once() { # FOLDER COMMAND...
	local folder=$1 scratch=$1.tmp
	shift
	[ -e "$folder" ] && return
	rm -rf "$scratch"
	mkdir "$scratch"
	"$@" "$scratch"
	mv -T "$scratch" "$folder"
}

linux_layout=1 # another number when build_linux makes something else
linux=$cache/rig-linux-$(echo "$package $linux_layout" | sha256sum | head -c 12)
rig=$cache/rig-$(echo "$linux" | cat - "$here/image.sh" "$here/init" "$here/"*.c |
	sha256sum | head -c 12)
if [ ! -e "$rig" ]; then
	check_tools
	mkdir -p "$cache" || fail "$cache: cannot make the cache; set SPORE_CACHE to a writable folder"
	exec 9>"$cache/rig.lock"
	flock 9
	once "$linux" build_linux
	once "$rig" build_image "$linux"
fi
echo "$rig"
