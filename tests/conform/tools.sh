#!/bin/bash
# tools.sh - prints the folder with Debian's containerd, ctr, runc shim and runc, fetched first if need be:
#
#   conform-tools-HASH/bin/    containerd ctr containerd-shim-runc-v2 runc
#
# They are unpacked, not installed: a site's own container engine would be in the way, and a test has no
# business to start a daemon on the machine that builds.
set -euE -o pipefail
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
cache=${SPORE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spore}

fail() {
	echo "conform: $*" >&2
	exit 1
}
trap 'fail "tools.sh: line $LINENO: $BASH_COMMAND: failed, see above"' ERR

tools=$cache/conform-tools-$(sha256sum "$here/tools.sh" | head -c 12)
if [ ! -e "$tools" ]; then
	mkdir -p "$cache"
	exec 9>"$cache/conform.lock"
	flock 9
fi
if [ ! -e "$tools" ]; then
	echo "conform: fetching containerd and runc, once" >&2
	scratch=$(mktemp -d "$cache/conform-tools.XXXXXX")
	trap 'rm -rf "$scratch"' EXIT
	mkdir "$scratch/bin"
	(cd "$scratch" && apt-get -qq -o APT::Sandbox::User=root download containerd runc >&2) ||
		fail "containerd and runc did not download: apt-get update, or look at the network"
	for deb in "$scratch"/*.deb; do
		dpkg-deb -x "$deb" "$scratch/x"
	done
	mv "$scratch"/x/usr/bin/{containerd,ctr,containerd-shim-runc-v2} "$scratch"/x/usr/sbin/runc "$scratch/bin"
	rm -r "$scratch"/x "$scratch"/*.deb
	chmod 755 "$scratch"
	mv -T "$scratch" "$tools"
fi
echo "$tools"
