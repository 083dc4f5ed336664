#!/bin/bash
# run.sh - the figures: measures, prints one table, writes build/bench.json. README.md says what is
# compared with what. Asserts nothing; fails only when it could not measure.
#
#   run.sh [quick|table]     quick: few rounds, to see that it works; table: print the last run again
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=build/bench
shm=/dev/shm/spore-bench.$$
trap 'rm -rf $shm' EXIT
rounds=7 inprocess=300 execs=200 clones=200
[ "${1-}" != quick ] || rounds=1 inprocess=30 execs=10 clones=20

say() { echo "bench: $*" >&2; }
fail() { say "$*"; exit 1; }

# --- build what measures -------------------------------------------------------------------------------

compile() {
	local deps cc c
	deps=$(configs/build/deps.sh)
	cc="musl-gcc -std=gnu11 -D_GNU_SOURCE -I. -Ibuild/gen -isystem $deps/include -isystem $deps/include/uapi"
	local warn="-O2 -Wall -Wextra -Wshadow -Werror"
	mkdir -p $OUT/obj
	$cc $warn -static -s -o $OUT/until tests/bench/until.c
	$cc $warn -Wno-unused-function -c tests/bench/clone_host.c -o $OUT/obj/clone_host.o
	$cc -c tests/bench/guest.S -o $OUT/obj/guest.o
	$cc -c vmm/x86_64/selftest.S -o $OUT/obj/selftest.o
	for c in build/gen/*.pb-c.c; do
		$cc -O2 -w -c "$c" -o "$OUT/obj/$(basename "$c" .c).o"
	done
	musl-gcc -static -s -Wl,--wrap=ioctl,--wrap=pthread_create -o $OUT/clone_host $OUT/obj/*.o \
		-L"$deps/lib" -lprotobuf-c -llz4 -lbearssl
}

# --- measure: NAME VALUE lines into $OUT/samples -----------------------------------------------------------

# With a /run in memory, which every host with systemd has and not every container.
on_tmpfs() {
	unshare -m sh -c 'mount -t tmpfs run /run && exec "$@"' sh "$@"
}

# Whoever calls these asks for their status, and then bash does not end them at the first failure.
measure_host() {
	mkdir $shm
	if $OUT/clone_host make $shm 2>$OUT/make.err; then
		where="this machine's own /dev/kvm"
		say "host side of a clone, on $where"
		$OUT/clone_host inprocess $shm $inprocess && on_tmpfs $OUT/clone_host exec $shm $execs &&
			$OUT/clone_host memory $shm $clones
	else
		where="the rig (own /dev/kvm: $(tail -n 1 $OUT/make.err | tr -d '"\\\t'))"
		say "host side of a clone, in $where"
		tests/rig/run --timeout 600 -- tests/bench/inside.sh host $inprocess $execs $clones
	fi
}

measure_sizes() {
	echo "size.spore $(stat -c %s build/spore)"
	echo "size.agent $(stat -c %s build/agent)"
	echo "size.initramfs $(stat -c %s build/initramfs.cpio)"
	echo "size.kernel_packed $(stat -c %s build/kernel.packed)"
	awk '$1 == "text+data" { print "size.kernel_text_data", $2 }' "$(cat build/kernel.from)/size.txt"
}

measure() {
	: >$OUT/samples
	measure_sizes >>$OUT/samples
	measure_host >>$OUT/samples || fail "no host figures"
	say "memory of real clones, in the rig"
	tests/rig/run --timeout 600 -- tests/bench/inside.sh memory >>$OUT/samples || fail "no memory figures"
	say "clone and cold boots, in the deterministic rig: $rounds rounds"
	tests/rig/run --deterministic --timeout 900 -- tests/bench/inside.sh times $rounds >>$OUT/samples ||
		fail "no boot figures"
}

summarise() {
	LC_ALL=C sort -k1,1 -k2,2g $OUT/samples | awk -f tests/bench/stats.awk >$OUT/stats
}

# --- the table -------------------------------------------------------------------------------------------

value() { # NAME [n|min|p50|p99|max]
	awk -v name="$1" -v what="${2-p50}" 'BEGIN { at["n"] = 2; at["min"] = 3; at["p50"] = 4; at["p99"] = 5; at["max"] = 6 }
		$1 == name { print $at[what]; found = 1 } END { if (!found) print "-" }' $OUT/stats
}
calc() { awk "BEGIN { printf \"%.4g\", $1 }" 2>/dev/null || echo -; }

section() { printf '#\t%s\n' "$1"; }

# One row. A value of "-" is a figure that is missing.
row() { # WHAT VALUE UNIT DETAIL [LIMIT]
	local met=''
	if [ $# -gt 4 ]; then
		met=$(awk -v v="$2" -v limit="$5" 'BEGIN { print v == "-" ? "?" : v + 0 <= limit + 0 ? "yes" : "NO" }')
	fi
	printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "${5-}" "$met"
}
spread() { # NAME
	echo "$(value "$1" min)..$(value "$1" max), n=$(value "$1" n)"
}
measured() { # WHAT NAME UNIT [LIMIT]
	row "$1" "$(value "$2")" "$3" "$(spread "$2")" ${4+"$4"}
}
tail_of() { # WHAT NAME UNIT: the p99 stands in the detail
	row "$1" "$(value "$2")" "$3" "p99 $(value "$2" p99), min $(value "$2" min), n=$(value "$2" n)"
}
ratio() { # WHAT A B [LIMIT]
	local a b
	a=$(value "$2") b=$(value "$3")
	row "$1" "$(calc "$a / $b")" x "of the medians; of the minima $(calc "$(value "$2" min) / $(value "$3" min)")" ${4+"$4"}
}

rows() {
	section "Deterministic rig: virtual time, 1 us = 1000 instructions of both guest levels together"
	measured "clone: spore run -> CreateSandbox answered" clone.agent_answering us
	measured "  of it until the machine process is there" clone.vmm_ready us
	measured "  of it until the state is loaded" clone.state_loaded us
	measured "our cold boot -> CreateSandbox answered" cold.agent_answering us
	measured "QEMU microvm cold boot, exec -> 'agent ready' on its console" qemu.console us
	ratio "clone : our cold boot of the same VM" clone.agent_answering cold.agent_answering 0.05
	ratio "clone : QEMU microvm's cold boot" clone.agent_answering qemu.console 0.05
	measured "our cold boot, exec -> 'agent ready' on its console" cold.console us
	ratio "our cold boot : QEMU microvm's, same kernel, same end" cold.console qemu.console 1
	measured "clone: spore run -> container started" clone.container_started us
	section "Host side of a clone, tiny guest, on $where"
	tail_of "bare-ioctl floor, in one process" floor.clone us
	tail_of "ours (vmm_create() and first KVM_RUN), in one process" ours.clone us
	ratio "ours : floor" ours.clone floor.clone 1.3
	tail_of "usual order (in-kernel irqchip and PIT first)" usual.clone us
	tail_of "teardown, ours" ours.teardown us
	tail_of "teardown, floor" floor.teardown us
	tail_of "teardown, usual order" usual.teardown us
	ratio "teardown : clone, ours" ours.teardown ours.clone 0.5
	ratio "teardown : clone, floor" floor.teardown floor.clone
	tail_of "from exec: a process that does nothing" exec-nothing us
	tail_of "from exec: floor" exec-floor us
	tail_of "from exec: supervisor, jailed machine process, clone" exec-clone us
	ratio "from exec, ours : floor" exec-clone exec-floor 1.3
	section "Memory"
	measured "machine process, private, besides guest pages: idle clone (rig)" clone.private_kib KiB 256
	measured "the same, tiny guest" tiny.private_kib KiB 256
	measured "MemFree per idle tiny-guest clone, machine process" memory.vmm_kib KiB 1228.8
	measured "the same with a supervisor of its own" memory.with_supervisor_kib KiB
	measured "guest pages a clone dirtied, resume to idle with a small container (rig)" clone.guest_kib KiB 4096
	measured "the same with busybox, whose 1.6 MiB are read in" busybox.guest_kib KiB
	measured "template on tmpfs, $(value template.guest_mib) MiB guest (rig)" template.held_kib KiB 24576
	section "Size"
	measured "build/spore, the one file" size.spore B 8388608
	measured "agent" size.agent B 614400
	measured "guest kernel, text and data" size.kernel_text_data B 10485760
	measured "guest kernel as packed in the file" size.kernel_packed B
}

print_table() { # reads rows
	awk -F'\t' '
	function fmt(v, unit) {
		if (v == "-") return "missing"
		if (unit == "us") return v >= 1000 ? sprintf("%.2f ms", v / 1000) : sprintf("%.0f us", v)
		if (unit == "B") return sprintf("%.0f B", v)
		if (unit == "x") return v < 0.2 ? sprintf("1/%.1f", 1 / v) : sprintf("%.2f", v)
		return sprintf("%.0f %s", v, unit)
	}
	$1 == "#" { printf "\n%s\n", $2; next }
	{
		limit = $5 == "" ? "" : "<= " fmt($5, $3)
		printf "  %-62s %12s  %-44s %-14s %s\n", $1, fmt($2, $3), "(" $4 ")", limit, $6
	}'
}

json() { # reads rows
	local host
	host="\"kernel\":\"$(uname -r)\",\"cpus\":$(nproc),\"load\":\"$load\",\"host_rows\":\"$where\""
	awk -F'\t' -v host="$host" '
	function num(v) { return v == "" || v == "-" ? "null" : v + 0 }
	BEGIN { printf "{\"host\":{%s},\n\"rows\":[", host }
	$1 != "#" {
		what = $1
		gsub(/"/, "\\\"", what)
		sub(/^ */, "", what)
		printf "%s\n{\"what\":\"%s\",\"value\":%s,\"unit\":\"%s\",\"limit\":%s,\"met\":%s}", sep, what,
			num($2), $3, num($5), $6 == "yes" ? "true" : $6 == "NO" ? "false" : "null"
		sep = ","
	}
	END { printf "\n],\n\"samples\":{" }'
	awk '{ printf "%s\n\"%s\":{\"n\":%s,\"min\":%s,\"p50\":%s,\"p99\":%s,\"max\":%s}", sep, $1, $2, $3, $4, $5, $6
		sep = "," } END { print "\n}}" }' $OUT/stats
}

main() { # [quick|table]
	if [ "${1-}" = table ]; then
		. $OUT/context || fail "there is no last run"
	else
		where='' load=$(cut -d' ' -f1 /proc/loadavg)
		awk -v l="$load" 'BEGIN { exit l > 1 }' ||
			say "load average $load: the host rows will be blurred, they want an idle machine"
		[ -x build/spore ] || fail "build/spore is missing: ./build.sh"
		compile
		tests/e2e/image.sh >/dev/null
		measure
		declare -p where load >$OUT/context
	fi
	summarise
	rows >$OUT/rows
	print_table <$OUT/rows
	json <$OUT/rows >build/bench.json
	printf '\nEvery sample: %s/samples; what is compared with what: tests/bench/README.md\n' $OUT
	awk -F'\t' '$2 == "-" { bad = 1 } END { exit bad }' $OUT/rows || fail "some figures are missing"
}

main "$@" # at the end, so that the file may be edited during a run
exit
