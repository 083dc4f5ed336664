#!/bin/bash
# bench.sh [ROUNDS] - the figures of containers through containerd, every runtime beside the first: medians of ROUNDS
# (3) in the deterministic rig, where a microsecond is a thousand instructions of host and guest together, so that
# load does not matter. Prints a table with ratios; asserts nothing.
#
#   bench.sh inside TOOLS IMAGES ROUNDS     the same in the rig: "RUNTIME NAME VALUE" lines
set -u
cd "$(dirname "$0")/../.." || exit

# --- outside -----------------------------------------------------------------------------------------

table() { # reads the samples
	sort -k1,1 -k2,2 -k3,3g | awk -v first="${SPORE_CONFORM_RUNTIMES%% *}" '
		function median(n) { return v[int((n + 1) / 2)] }
		function flush() { if (n) { value[name, runtime] = median(n); seen[runtime] = 1; names[name] = 1 } n = 0 }
		$1 != runtime || $2 != name { flush(); runtime = $1; name = $2 }
		{ v[++n] = $3 }
		END {
			flush()
			printf "%-34s", ""
			for (r in seen) printf "%14s", r
			for (r in seen) if (r != first) printf "%14s", r " : " first
			print ""
			for (k in names) {
				line = sprintf("%-34s", k)
				for (r in seen) line = line sprintf("%14s", value[k, r])
				for (r in seen) if (r != first)
					line = line sprintf("%14s", value[k, first] > 0 ? sprintf("%.2f", value[k, r] / value[k, first]) : "-")
				print line | "sort"
			}
		}'
}

if [ "${1-}" != inside ]; then
	set -e
	tools=$(tests/conform/tools.sh)
	images=$(tests/conform/image.sh busybox)
	tests/conform/raw.sh
	export SPORE_CONFORM_RUNTIMES=${SPORE_CONFORM_RUNTIMES-runc spore}
	mkdir -p build/bench
	tests/rig/run --deterministic --mem 6144 --timeout 1800 -- \
		tests/conform/bench.sh inside "$tools" "$images" "${1-3}" >build/bench/conform.samples
	table <build/bench/conform.samples
	exit
fi

# --- in the rig ----------------------------------------------------------------------------------------

TREE=$PWD TOOLS=$2 IMAGES=$3 ROUNDS=$4 ONLY=bench WORK=/tmp/conform
. tests/e2e/lib.sh
. tests/conform/lib.sh
set_up >&2

sample() { echo "$NAME $1 $2"; } # WHAT VALUE
timed() { # WHAT COMMAND...: microseconds; a failure is no sample
	local what=$1 start=${EPOCHREALTIME/./}
	shift
	"$@" >"$WORK/out" 2>"$WORK/err" </dev/null || { echo "bench: $NAME $what: $(head -c 200 "$WORK/err")" >&2 && return; }
	sample "$what" $((${EPOCHREALTIME/./} - start))
}

# The shim's program by itself: how long containerd waits for it.
shim_program() {
	local shim dir=$WORK/bundle
	case $NAME in
	runc) shim=$WORK/bin/containerd-shim-runc-v2 ;;
	*) shim=/usr/local/bin/containerd-shim-$NAME-v2 ;;
	esac
	mkdir -p "$dir/rootfs"
	cp "$(with_spec b true)" "$dir/config.json"
	[ -p "$dir/log" ] || mkfifo "$dir/log"
	exec 8<>"$dir/log"
	cd "$dir" || return
	local args=(-namespace bench -address /run/containerd/containerd.sock -publish-binary /bin/true -id b)
	TTRPC_ADDRESS=/run/containerd/containerd.sock.ttrpc timed shim.start_us "$shim" "${args[@]}" start
	sample shim.idle_pss_kib "$(awk '/^Pss:/ { print $2 }' "/proc/$(shim_of b)/smaps_rollup")"
	kill -KILL "$(shim_of b)"
	timed shim.delete_us "$shim" "${args[@]}" -bundle "$dir" delete
	cd "$TREE" || return
	exec 8>&-
	rm -rf "$dir" /run/containerd/s/*
}

commands() {
	timed ctr.run_rm_true_us run $BB b1 true
	timed ctr.run_detached_us ctr run -d --runtime "$RT" $BB b2 sleep 1000
	timed ctr.exec_true_us ctr task exec --exec-id e1 b2 true
	timed ctr.metrics_us ctr task metrics b2
	sample shim.running_pss_kib "$(awk '/^Pss:/ { print $2 }' "/proc/$(shim_of b2)/smaps_rollup")"
	ctr task kill -s KILL b2
	await stopped b2
	timed ctr.task_delete_us ctr task rm b2
	timed ctr.container_delete_us ctr c rm b2
}

# Inside one container, timed from outside by execs; what an empty exec takes is in ctr.exec_true_us. Reads
# are through a buffer, as programs do; "first" is by a task that has not seen the file, the host has.
files() {
	local n=0 what
	ctr run -d --runtime "$RT" $BB b3 sleep 1000
	for what in 'make_10k:mkdir /many && fsx many 10000 /many >/dev/null && cd /many && tar cf /many.tar .' \
		'untar_10k:mkdir /u && tar xf /many.tar -C /u' 'find_10k:find /many | wc -l' 'stat_10k:ls -lR /many >/dev/null' \
		'remove_10k:rm -r /u' 'write_64m:head -c 67108864 /dev/zero >/big; sync' \
		'read_64m_first:dd if=/big of=/dev/null bs=64k' 'read_64m_again:dd if=/big of=/dev/null bs=64k' \
		'find_10k_first:find /many | wc -l'; do
		case $what in
		read_64m_first* | find_10k_first*)
			ctr task rm -f b3 >/dev/null
			ctr task start -d b3
			;;
		esac
		timed "fs.${what%%:*}_us" ctr task exec --exec-id f$((n++)) b3 sh -c "${what#*:}"
	done
	ctr task rm -f b3 >/dev/null
	ctr c rm b3
}

for NAME in "${RUNTIMES[@]}"; do
	RT=io.containerd.$NAME.v2
	run $BB warm true
	for _ in $(seq "$ROUNDS"); do
		commands
		shim_program
	done
	files
done
stop_containerd TERM
