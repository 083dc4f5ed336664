#!/bin/bash
# Proves what README.md promises about `run`, as TAP. About four minutes on two cores.
set -u
export LC_ALL=C
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
run=$here/run
cache=${SPORE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spore}
image=$("$here/image.sh") || exit
work=$(mktemp -d "$cache/rig-selftest.XXXXXX") # not in /tmp, which is fresh inside
trap 'rm -rf "$work"' EXIT
mkdir "$work/tmp"
cd "$work" || exit
n=0 failed=0

# ok DESCRIPTION COMMAND... : the command says whether it holds
ok() {
	local what=$1 not=
	shift
	"$@" >"$work/why" 2>&1 || not="not "
	echo "${not}ok $((++n)) - $what"
	[ "$not" ] || return 0
	failed=$((failed + 1))
	sed 's/^/# /' "$work/why" | tail -n 20
}

# gives STATUS COMMAND... : runs it with output in ./out and ./err
gives() {
	local want=$1 got
	shift
	"$@" >out 2>err
	got=$?
	[ $got = "$want" ] && return
	echo "status $got, not $want"
	cat err
	return 1
}

has() { # FILE TEXT
	grep -qF -- "$2" "$1" && return
	echo "no '$2' in $1:"
	cat "$1"
	return 1
}

one_line() { # FILE TEXT
	[ "$(wc -l <"$1")" = 1 ] || { echo "not one line:" && cat "$1" && return 1; }
	has "$1" "$2"
}

# ---- status and errors

ok "exit status 0" gives 0 "$run" -- true </dev/null
ok "exit status 7" gives 7 "$run" -- sh -c 'exit 7' </dev/null
ok "death by signal 9 is status 137" gives 137 "$run" -- sh -c 'kill -9 $$' </dev/null
ok "a command that is not there is status 127" gives 127 "$run" -- "$work/none" </dev/null
ok "... and is named" one_line err "$work/none"
ok "a command that is no program is status 126" gives 126 "$run" -- /etc/passwd </dev/null
ok "an unknown option is status 125" gives 125 "$run" --frob -- true
ok "... and is named in one line" one_line err --frob
ok "no command is status 125" gives 125 "$run" --smp 1
ok "a missing QEMU is status 125" env PATH=/nonexistent /bin/bash -c \
	'"$0" -- true >out 2>err; [ $? = 125 ]' "$run"
ok "... and its package is named in one line" one_line err qemu-system-x86
ok "QEMU that cannot start is status 125" gives 125 "$run" --mem 99999999 -- true
ok "... and its words are shown" has err "messages of QEMU"
not_inside() {
	local dir
	dir=$(TMPDIR=/tmp mktemp -d) || return
	(cd "$dir" && "$run" -- true) </dev/null 2>err
	[ $? = 125 ] && one_line err "$dir"
	dir=$?$(rmdir "$dir")
	[ "$dir" = 0 ]
}
ok "a current directory that is not inside is status 125, named in one line" not_inside

# ---- bytes

for i in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
	for j in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do printf "\\x$i$j"; done
done >bytes
head -c 20000000 /dev/urandom | cat bytes - >big
tac -s x big >big2

both_streams() {
	gives 0 "$run" -- sh -c 'cat "$1" >&2 & cat "$0"; wait' "$work/big" "$work/big2" &&
		cmp out big && cmp err big2
}
ok "20 MB of any bytes on stdout and on stderr, each exact" both_streams </dev/null

through() {
	gives 0 "$run" -- sh -c 'cat; echo end >&2' <big && cmp out big && has err end
}
ok "20 MB of any bytes through stdin, with its end" through
ok "stdin from a pipe that ends later" gives 0 sh -c \
	'(echo a; sleep 8; echo b) | "$0" -- cat' "$run"
ok "... arrives" cmp out <(printf 'a\nb\n')
ok "a closed stdin reads as empty" gives 0 sh -c '"$0" -- wc -c <&-' "$run"
ok "... indeed" has out 0
ok "a command that ignores its stdin ends" gives 3 "$run" -- sh -c 'exit 3' </dev/zero
ok "a reader that leaves ends the command with SIGPIPE" bash -c \
	'"$0" -- yes </dev/zero | head -n 1; s=("${PIPESTATUS[@]}"); echo "${s[@]}"; [ "${s[0]}" = 141 ]' "$run"
ok "processes left in the background do not hold the machine" \
	gives 0 "$run" -- sh -c 'sleep 1000 & (trap "" TERM; sleep 1000) & echo gone' </dev/null
ok "... and the output is whole" cmp out <(echo gone)

# ---- arguments, environment, place

args=('' ' ' "it's" '"q"' $'two\nlines' 'back\slash' '$HOME `id` *' $'\xff\x01\t' '' "$(head -c 100000 /dev/zero | tr '\0' x)" '')
exact_args() {
	gives 0 "$run" -- printf '%s\0' "${args[@]}" && cmp out <(printf '%s\0' "${args[@]}")
}
ok "arguments with quotes, newlines, nothing and 100 kB" exact_args </dev/null

exact_env() {
	local long
	long=$PATH:$(printf '/%09999d:' 1 2 3 4 5 6 7 8 9)
	env -i PATH="$long" HOME=/h LANG='' TERM="a'b" SPORE_A=$'x\n\ny ' SPORE_=1 OTHER=no \
		XDG_CACHE_HOME="${cache%/spore}" "$run" -- env -0 </dev/null >out
	printf '%s\0' "PATH=$long" HOME=/h LANG= "TERM=a'b" SPORE_A=$'x\n\ny ' SPORE_=1 |
		sort -z | cmp - <(sort -z out)
}
[ -z "${SPORE_CACHE-}" ] && ok "environment: the allowed part, exact" exact_env

mkdir 'a b'
place() {
	(cd 'a b' && gives 0 "$run" -- sh -c 'pwd; id -u; hostname; uname -r') || return
	cmp 'a b/out' <(printf '%s\n' "$work/a b" 0 rig "$(cat "$(readlink -f "$image/modules")/../release")")
}
ok "same directory, root, own name and kernel" place </dev/null

tree() {
	gives 0 "$run" -- sh -euc '
		touch /usr/new /tmp/t /run/r /dev/shm/s; test -e /usr/new
		! touch /run/rig/host/x 2>/dev/null
		test "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs; mkdir /sys/fs/cgroup/a
		test "$(stat -f -c %T /tmp)" = tmpfs
		test -c /dev/kvm -a -c /dev/ptmx -a -e /dev/fd/0 -a -e /proc/1 -a -e /sys/kernel
		test "$(cat /sys/class/net/lo/carrier)" = 1
		test -e "/lib/modules/$(uname -r)/modules.dep"
		: <>/dev/net/tun; : <>/dev/fuse; : <>/dev/loop-control; : <>/dev/vhost-vsock; : <>/dev/vhost-net
		test -e /dev/loop0; : <>/dev/mapper/control' && [ ! -e /usr/new ]
}
ok "the tree: writable, apart from the host's, with its file systems and nodes" tree </dev/null

modules() {
	gives 0 "$run" -- sh -euc '
		modprobe -a veth bridge sch_ingress cls_u32 act_mirred vhost_net vhost_vsock vsock \
			vsock_loopback loop ext4 erofs dm_thin_pool fuse nf_tables nft_nat nft_masq nft_ct \
			nft_compat ip_tables iptable_nat iptable_filter ip6_tables xt_MASQUERADE xt_comment \
			xt_mark xt_multiport xt_conntrack xt_addrtype macvlan macvtap ipvlan dummy tun virtiofs
		cut -d" " -f1 /proc/modules'
}
ok "the modules of the network, storage and CNI load" modules </dev/null

# ---- KVM

ok "what keeps interrupts from coming twice is in place" gives 0 "$run" -- \
	test -e /sys/fs/bpf/rig-kvm_inj_virq -a -e /sys/fs/bpf/rig-kvm_entry </dev/null

cc -O1 -o probe "$here/probe.c" || exit
ok "a VM with a split irqchip runs instructions" gives 0 "$run" -- ./probe vm </dev/null
kvm_facts() {
	gives 0 "$run" -- ./probe caps && has out "nested_paging Y" && has out "cap.SPLIT_IRQCHIP 0x1" &&
		has out "cap.IOEVENTFD 0x1"
}
ok "nested paging, split irqchip, ioeventfd" kvm_facts </dev/null

# ---- ends

timeout_report() {
	gives 124 "$run" --timeout 40 --keep-log log -- sh -c \
		'echo last words; echo "<2>kernel words" >/dev/kmsg; exec sleep 1000' &&
		has out "last words" && has err "killed after 40 s" && has err "last words" &&
		has err "kernel words" && has log "kernel words"
}
ok "a hung machine is killed at its timeout: 124, both tails, log" timeout_report </dev/null
ok "a stalled reader does not outlive the timeout" bash -c \
	'"$0" --timeout 30 -- yes </dev/null 2>err | sleep 40; [ "${PIPESTATUS[0]}" = 124 ]' "$run"
panic() {
	gives 125 "$run" -- sh -c 'echo before; echo c >/proc/sysrq-trigger; sleep 1000' &&
		has err "stopped before the command ended" && has err "sysrq triggered crash"
}
ok "a kernel panic: 125 and the console's tail" panic </dev/null

# killed SIGNAL STATUS : run and QEMU are gone soon after the signal, nothing is left
killed() {
	TMPDIR=$work/tmp env --default-signal=INT "$run" -- sh -c 'echo up; exec sleep 1000' \
		</dev/null >out 2>err &
	local pid=$! qemu status
	for _ in $(seq 900); do
		[ -s out ] && break
		sleep 0.1
	done
	qemu=$(cat "/proc/$pid/task/$pid/children")
	has "/proc/${qemu% }/comm" qemu || return
	kill "-$1" $pid
	wait $pid
	status=$?
	for _ in $(seq 10); do
		grep -qs '^State:.[^Z]' "/proc/${qemu% }/status" || break
		sleep 0.1
	done
	! grep -s '^State:.[^Z]' "/proc/${qemu% }/status" || { echo "QEMU lives" && return 1; }
	[ -z "$(ls -A tmp)" ] || { echo "left in tmp: $(ls -A tmp)" && return 1; }
	[ $status = "$2" ] || { echo "status $status" && return 1; }
}
ok "SIGINT ends run and QEMU, leaves nothing" killed INT 130
ok "SIGTERM ends run and QEMU, leaves nothing" killed TERM 143
ok "SIGKILL of run takes QEMU along, leaves nothing" killed KILL 137

together() {
	local pids=() i
	for i in 1 2 3; do
		"$run" --mem 1024 -- sh -c "echo $i; exit $i" </dev/null >"out$i" &
		pids+=($!)
	done
	for i in 1 2 3; do
		wait "${pids[i - 1]}"
		[ $? = $i ] && has "out$i" $i || return
	done
}
ok "three at once" together

# ---- deterministic mode

# same FILE FILE : two durations within 3 %
same() {
	echo "$(cat "$1") $(cat "$2") ns"
	awk -v a="$(cat "$1")" -v b="$(cat "$2")" 'BEGIN { exit !(a > 0 && a - b < a * .03 && b - a < a * .03) }'
}
deterministic() { # PROBE
	"$run" --deterministic -- ./probe "$1" 50000000 </dev/null >d1 &&
		"$run" --deterministic -- ./probe "$1" 50000000 </dev/null >d2 && same d1 d2
}
ok "a loop takes the same virtual time twice, within 3 %" deterministic loop
ok "... in a VM inside as well" deterministic vmloop

echo "1..$n"
[ $failed = 0 ]
