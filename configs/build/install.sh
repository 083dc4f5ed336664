#!/bin/sh
# install.sh build|test - installs the packages of one section of packages.txt that are missing.
# Prints nothing and touches no network when none is.
set -eu

die() { echo "install.sh: $*" >&2; exit 1; }

section=${1:-}
case $section in build|test) ;; *) die "usage: install.sh build|test" ;; esac

list=$(dirname "$0")/packages.txt
command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
	die "this is not a Debian system; install what section [$section] of $list names by hand"

missing=
wanted=$(awk -v s="[$section]" '/^\[/ { on = $1 == s; next } on && NF && !/^#/ { print $1 }' "$list")
for p in $wanted; do
	case $(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) in
	installed) ;;
	*) missing="$missing $p" ;;
	esac
done
[ -n "$missing" ] || exit 0

[ "$(id -u)" = 0 ] || die "not root; run as root: apt-get install$missing"
echo "installing$missing" >&2

# --no-remove: a package that would push out one of the machine's own is an error, not a surprise.
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A third-party list that cannot be reached must not stop us, so only the install decides.
apt-get -qq update >"$log" 2>&1 || :
apt-get -qq -y --no-install-recommends --no-remove install $missing >>"$log" 2>&1 </dev/null ||
	{ tail -n 20 "$log" >&2; die "apt-get could not install$missing"; }
