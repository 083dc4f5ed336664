# lib.sh - what deps.sh and guest/kernel/build.sh share: messages, the cache, source archives.
# Sourced. Standard output belongs to the result (a path); what is said goes to standard error.
# It is in no cache key: it decides where things lie, not what is in them.

CACHE=${SPORE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spore}
SOURCES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/sources.tsv
ME=${0##*/}

say() { echo "$ME: $*" >&2; }
die() { say "$*"; exit 1; }

# step WHAT CMD...: one line on the screen, all output in $LOG, which finish() names on failure.
STEP=
step() {
	STEP=$1
	shift
	say "$STEP"
	# CMD may be a function: "|| die" would switch off its "set -e", and without the subshell
	# finish() would run while standard error still is the log.
	("$@") >>"$LOG" 2>&1 </dev/null
	STEP=
}

# begin NAME, as the first thing: $LOG, and $TMP beside the result so that a rename publishes it.
# The log stays behind when a step fails; the half-built folder never does.
begin() {
	lock "$1"
	LOG=$CACHE/$1.log
	: >"$LOG"
	TMP=$(mktemp -d "$CACHE/$1.XXXXXX")
	trap finish EXIT
}
finish() {
	local status=$?
	rm -rf "$TMP"
	if [ $status = 0 ]; then
		rm -f "$LOG"
	elif [ -n "$STEP" ]; then
		say "$STEP failed; see $LOG"
	fi
}

# publish FOLDER NAME: the finished folder appears in the cache in one instant.
publish() {
	chmod 755 "$1"
	mv -T "$1" "$2"
}

# lock NAME: held until this process ends, so that a second builder waits and then finds the result.
lock() {
	mkdir -p "$CACHE"
	exec {LOCK}>"$CACHE/$1.lock"
	flock -n "$LOCK" || { say "waiting for another builder of $1"; flock "$LOCK"; }
}

# key STRING...: 16 hex digits that change when any input does.
key() { printf '%s\n' "$@" | sha256sum | cut -c1-16; }

sha256() { sha256sum "$1" | cut -d' ' -f1; }

# source_field NAME COLUMN
source_field() { awk -F'\t' -v n="$1" -v c="$2" '$1 == n { print $c }' "$SOURCES"; }

# source_path NAME: prints where the archive lies; fetched if need be, always verified.
source_path() {
	local name=$1 archive want how path have
	archive=$(source_field "$name" 3)
	want=$(source_field "$name" 4)
	how=$(source_field "$name" 5)
	case $how in
	"file "*) path=${how#file } ;;
	"apt "*)
		path=$CACHE/sources/$archive
		[ -e "$path" ] || fetch_apt "${how#apt }" "$path"
		;;
	*) die "$SOURCES: $name: do not know how to get it" ;;
	esac
	[ -r "$path" ] || die "$name: $path is missing; run configs/build/install.sh build"
	have=$(sha256 "$path")
	if [ "$have" != "$want" ]; then
		# The distribution replaces its kernel source on every security update and drops
		# the old one. apt has checked the signature; the kernel's cache key has this hash.
		[ "$name" = linux ] && [ "${SPORE_STRICT_SOURCES:-0}" != 1 ] ||
			die "$path: SHA-256 is $have, sources.tsv says $want"
		say "warning: $path is not the tested $(source_field "$name" 2); using it"
	fi
	echo "$path"
}

# fetch_apt PACKAGE FILE: the .orig tarball through apt, from the machine's own mirrors. Their
# lists are copied with "deb" made "deb-src" and given to apt as its only ones; /etc stays as is.
fetch_apt() {
	local package=$1 file=$2 apt=$CACHE/sources/apt f
	mkdir -p "$apt/lists/partial" "$apt/parts" "$apt/get"
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -r "$f" ] && sed -n 's/^[ \t]*deb[ \t]/deb-src /p' "$f"
	done >"$apt/parts/all.list"
	for f in /etc/apt/sources.list.d/*.sources; do
		[ -r "$f" ] && sed -E 's/^Types:.*/Types: deb-src/I' "$f" && echo
	done >"$apt/parts/all.sources"
	set -- -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/parts" \
		-o Dir::State::lists="$apt/lists" -o APT::Sandbox::User= \
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
	if [ ! -e "$apt/updated" ]; then
		say "fetching the list of source packages"
		# A third-party list without sources is no failure: the download decides.
		apt-get "$@" update >"$apt/log" 2>&1 </dev/null || :
		: >"$apt/updated"
	fi
	say "fetching ${file##*/}"
	# --tar-only: the Debian delta is not needed, and the mirror may drop it sooner.
	(cd "$apt/get" && apt-get "$@" source --download-only --tar-only "$package") \
		>>"$apt/log" 2>&1 </dev/null || :
	if [ ! -e "$apt/get/${file##*/}" ]; then
		rm -f "$apt/updated"	# the list may be too old
		die "cannot fetch ${file##*/}; see $apt/log"
	fi
	mv "$apt/get/${file##*/}" "$file"
}
