#!/bin/bash
# image.sh busybox|debian - prints the folder with an image of the suite, made first if need be:
#
#   conform-busybox-HASH/busybox.tar  an OCI layout by umoci: docker.io/library/busybox:latest, two layers, the
#                                     upper one hides files of the lower; and :user, with another configuration
#   conform-debian-HASH/debian.tar    docker.io/library/debian:latest: a debootstrap with python, one plain layer
#   conform-busybox-HASH/root         the files of busybox:latest, for bundles without containerd
#
# Needs root, as debootstrap and umoci do. About a minute; HASH covers what is read here.
set -euE -o pipefail
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
cache=${SPORE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spore}
umask 022

fail() {
	echo "conform: $*" >&2
	exit 1
}
trap 'fail "image.sh: line $LINENO: $BASH_COMMAND: failed, see above"' ERR

# --- busybox: two static programs of ours beside it --------------------------------------------------

program() { # NAME INTO
	musl-gcc -std=gnu11 -D_GNU_SOURCE -static -s -O2 -Wall -Wextra -Werror \
		-idirafter /usr/include -idirafter "/usr/include/$(uname -m)-linux-gnu" \
		-o "$2/$1" "$here/$1.c"
}

lower_layer() { # ROOT
	mkdir -p "$1"/{bin,etc,tmp,root,home/user,proc,sys,dev,run,var/log,data/sub,opaque,mnt}
	chmod 1777 "$1/tmp"
	chmod 700 "$1/root"
	program probe "$1/bin"
	program fsx "$1/bin"
	cp /bin/busybox "$1/bin/busybox"
	for applet in $(/bin/busybox --list); do
		[ "$applet" = busybox ] || ln -sf busybox "$1/bin/$applet"
	done
	ln -s bin "$1/sbin"
	printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nother:x:1001:1001::/:/bin/sh\n' \
		>"$1/etc/passwd"
	printf 'root:x:0:\nuser:x:1000:\nother:x:1001:\nextra:x:2000:user,other\n' >"$1/etc/group"
	echo 'not a program' >"$1/bin/plain"
	printf '\177ELF garbage' >"$1/bin/garbage"
	printf '#!/bin/no-such-shell\n' >"$1/bin/orphan"
	chmod 755 "$1/bin/garbage" "$1/bin/orphan"
	chown 1000:1000 "$1/home/user"
	echo lower >"$1/data/kept"
	echo lower >"$1/data/hidden"
	echo lower >"$1/data/replaced"
	echo lower >"$1/opaque/old"
	echo deep >"$1/data/sub/file"
	ln "$1/data/kept" "$1/data/hardlink"
	ln -s kept "$1/data/symlink"
	touch -d '2001-02-03 04:05:06' "$1/data/kept"
}

upper_layer() { # ROOT
	rm "$1/data/hidden"
	echo upper >"$1/data/replaced"
	rm -r "$1/opaque"
	mkdir "$1/opaque"
	echo upper >"$1/opaque/new"
	rm -r "$1/data/sub"
}

busybox_image() { # INTO
	local oci=$1/oci bundle=$1/bundle
	umoci init --layout "$oci"
	umoci new --image "$oci:latest"
	umoci unpack --image "$oci:latest" "$bundle"
	lower_layer "$bundle/rootfs"
	umoci repack --refresh-bundle --image "$oci:latest" "$bundle"
	upper_layer "$bundle/rootfs"
	umoci repack --image "$oci:latest" "$bundle"
	umoci config --image "$oci:latest" --config.env PATH=/bin --config.cmd sh
	umoci config --image "$oci:latest" --tag user --config.user user --config.workingdir /home/user \
		--config.env COLOUR=green --config.entrypoint /bin/sh --config.entrypoint -c \
		--clear config.cmd --config.cmd 'id; pwd; echo $COLOUR $PATH'
	umoci gc --layout "$oci"
	tar -C "$oci" -cf "$1/busybox.tar" .
	mv "$bundle/rootfs" "$1/root"
	rm -r "$oci" "$bundle"
}

# --- Debian ----------------------------------------------------------------------------------------

mirror() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm'
}

# A package with a script, a configuration file and a dependency that is there.
local_package() { # ROOT
	local p=$1/tmp/package
	mkdir -p "$p"/{DEBIAN,usr/bin,etc}
	printf '#!/bin/sh\necho "hello from a package"\n' >"$p/usr/bin/hello-local"
	chmod 755 "$p/usr/bin/hello-local"
	echo setting >"$p/etc/hello-local.conf"
	echo /etc/hello-local.conf >"$p/DEBIAN/conffiles"
	printf 'Package: hello-local\nVersion: 1.0\nArchitecture: all\nDepends: bash\n' >"$p/DEBIAN/control"
	printf 'Maintainer: nobody <nobody@example.com>\nDescription: a package of the test suite\n' >>"$p/DEBIAN/control"
	printf '#!/bin/sh\nset -e\nuseradd --system hello-local\n' >"$p/DEBIAN/postinst"
	chmod 755 "$p/DEBIAN/postinst"
	dpkg-deb --root-owner-group -b "$p" "$1/root/hello-local.deb" >/dev/null
	rm -r "$p"
}

blob() { # FILE LAYOUT: prints its digest
	local digest
	digest=$(sha256sum "$1" | cut -d' ' -f1)
	mv "$1" "$2/blobs/sha256/$digest"
	echo "$digest"
}

descriptor() { # KIND DIGEST LAYOUT [MORE]
	printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d%s}' "$1" "$2" \
		"$(stat -c %s "$3/blobs/sha256/$2")" "${4-}"
}

# By hand, because umoci compresses each layer, and unpacking is slow where the image is used.
plain_image() { # ROOT NAME INTO
	local oci=$3.oci layer config manifest
	mkdir -p "$oci/blobs/sha256"
	tar -C "$1" --sort=name --numeric-owner --xattrs -cf "$oci/layer" .
	layer=$(blob "$oci/layer" "$oci")
	printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=%s"],"Cmd":["/bin/bash"]},%s}' \
		/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$layer\"]}" >"$oci/config"
	config=$(blob "$oci/config" "$oci")
	printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
		"$(descriptor config.v1+json "$config" "$oci")" "$(descriptor layer.v1.tar "$layer" "$oci")" >"$oci/manifest"
	manifest=$(blob "$oci/manifest" "$oci")
	printf '{"schemaVersion":2,"manifests":[%s]}' "$(descriptor manifest.v1+json "$manifest" "$oci" \
		",\"annotations\":{\"org.opencontainers.image.ref.name\":\"$2\"}")" >"$oci/index.json"
	echo '{"imageLayoutVersion":"1.0.0"}' >"$oci/oci-layout"
	tar -C "$oci" -cf "$3" .
	rm -r "$oci"
}

debian_image() { # INTO
	local root=$1/debian url
	for url in $(mirror); do
		rm -rf "$root"
		debootstrap --variant=minbase --include=python3-minimal,git bookworm "$root" "$url" >"$1/log" 2>&1 && break
	done
	[ -x "$root/usr/bin/python3" ] || fail "debootstrap failed: $(tail -n 3 "$1/log")"
	local_package "$root"
	# What no case reads: three quarters of it.
	rm -rf "$root"/usr/share/{doc,man,locale,info,zoneinfo,bash-completion,perl,perl5} "$root"/var/cache/apt/* \
		"$root"/var/lib/apt/lists/* "$root"/usr/lib/x86_64-linux-gnu/{gconv,perl,perl5,libperl*} \
		"$root"/var/log/*.log "$root"/usr/lib/git-core/{git,scalar,git-shell,git-http*,git-daemon,git-imap-send} \
		"$root"/usr/lib/git-core/git-{remote-*,sh-i18n--envsubst} "$root"/usr/bin/{git-shell,scalar}
	ln -s ../../bin/git "$root/usr/lib/git-core/git"
	plain_image "$root" latest "$1/debian.tar"
	rm -rf "$root" "$1/log"
}

# -----------------------------------------------------------------------------------------------------

# Builds into a scratch folder and renames, so a folder that exists is complete.
made() { # NAME COMMAND
	local hash folder
	hash=$(cat "$here"/image.sh "$here"/probe.c "$here"/fsx.c | sha256sum | head -c 12)
	folder=$cache/conform-$1-$hash
	echo "$folder"
	[ ! -e "$folder" ] || return 0
	mkdir -p "$cache"
	exec 9>"$cache/conform.lock"
	flock 9
	[ ! -e "$folder" ] || return 0
	[ "$(id -u)" = 0 ] || fail "not root, which umoci and debootstrap want to be"
	echo "conform: making the image of $1, once" >&2
	scratch=$(mktemp -d "$cache/conform-image.XXXXXX")
	trap 'rm -rf "$scratch"' EXIT
	"$2" "$scratch" >&2 9>&-
	chmod 755 "$scratch"
	mv -T "$scratch" "$folder"
}

case ${1-busybox} in
busybox) made busybox busybox_image ;;
debian) made debian debian_image ;;
*) fail "image.sh: no image of $1" ;;
esac
