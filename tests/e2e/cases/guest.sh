# guest.sh - guests that end by themselves, and their disks.

# --- ends ---------------------------------------------------------------------------------------------

# Everything is allowed.
in_charge() { # NAME SCRIPT
	local dir
	caps=$ALL_CAPS
	dir=$(bundle "$1" "$2")
	sp run --name "$1" --bundle "$dir"
}

guest_panic() {
	in_charge panic 'echo 1 >/proc/sys/vm/panic_on_oom; echo armed; probe eat 400'
	status 137
	out armed
	one_line_err
	err_has "spore: guest kernel panic: Out of memory: "
}
t "a panic of the guest's kernel is reported in one sentence" guest_panic

guest_panic_log() {
	local dir
	caps=$ALL_CAPS
	dir=$(bundle panic 'echo 1 >/proc/sys/vm/panic_on_oom; echo armed; probe eat 400')
	sp run -d --name bang --bundle "$dir"
	status 0
	await stopped bang
	that grep -q 'Kernel panic - not syncing: Out of memory' /run/spore/sandboxes/bang/console.log
	sp ps --json
	out_has '"exit_code":137'
	sp rm bang
	status 0
}
stopped() { file_has "/run/spore/sandboxes/$1/state.json" '"status": "stopped"'; }
t "the panic's words are in the console log of a detached sandbox" guest_panic_log

# A command of busybox that the guest's kernel runs as the handler of a crash: in no namespace, with the
# agent's root and all rights.
as_guest() { # COMMAND THEN
	in_charge handler "echo '|/run/kata-containers/handler/rootfs/bin/busybox $1' >/proc/sys/kernel/core_pattern
		echo on; probe crash; $2"
}
guest_off() {
	as_guest "reboot -f" "sleep 1000"
	status 137
	out on
	err "spore: guest shut down"
	as_guest "poweroff -f" "sleep 1000" # no hardware for it: Linux halts
	status 137
	out on
	err "spore: guest halted or hangs: its agent is gone; the machine was stopped"
}
t "a guest that reboots or halts ends with one sentence" guest_off

guest_off_inside() {
	in_charge off 'poweroff -f; sleep 1000'
	status 130
	err ""
	in_charge off 'reboot -f; sleep 1000'
	status 129
	err ""
}
t "poweroff and reboot in a container end the container" guest_off_inside

guest_kills_agent() {
	as_guest "kill -9 1" "echo alive"
	status 0
	out_has alive
	as_guest "kill -SEGV 1" "echo alive"
	status 0
	out_has alive
}
t "not even root of the guest ends the agent by a signal" guest_kills_agent

guest_oom() {
	in_clone /bin/sh -c 'probe eat 400; echo $?; echo still here'
	status 0
	out "137
still here"
}
t "a guest that runs out of memory kills the process and goes on" guest_oom

guest_fork_bomb() {
	linux='"resources": {"pids": {"limit": 10}}'
	in_bundle 'for i in $(seq 30); do sleep 1000 & done; true'
	differ $rc 0 status
	err_has "fork"
}
t "a limit of processes holds" guest_fork_bomb

# --- disks ---------------------------------------------------------------------------------------------

disk_keeps() {
	local d
	d=$(image disk)
	sp run --block "$d" -- /bin/sh -c 'echo kept >/var/log/note; mkdir /deep; ln -s /var/log/note /deep/link'
	status 0
	sp run --block "$d" -- /bin/sh -c 'cat /deep/link; echo more >>/var/log/note'
	status 0
	out kept
	sp run --block "$d" --read-only -- /bin/cat /var/log/note
	out "kept
more"
	that e2fsck -fn "$d" >fsck 2>&1
}
t "what is written to a disk is there in the next run, and the filesystem is clean" disk_keeps

disk_killed() {
	local d vmm
	d=$(image disk)
	sp run -d --name k --block "$d" -- /bin/sh -c 'echo safe >/note; sync; echo synced; while :; do echo x >>/junk; done'
	status 0
	await file_has /run/spore/sandboxes/k/output.log synced
	kill -KILL "$(vmm_of k)"
	await [ ! -e "/proc/$(vmm_of k)" ]
	sp rm --force k
	sp run --block "$d" -- /bin/cat /note
	status 0
	out safe
}
t "what was synced survives the sudden end of the machine" disk_killed

disk_read_only() {
	in_clone /bin/sh -c 'touch /x; echo $?; grep -c " / ext4 ro" /proc/mounts'
	out "1
1"
	err_has "Read-only file system"
	cp "$IMG" before.ext4
	caps=$ALL_CAPS
	in_bundle 'mount -o remount,rw /; dev=$(sed -n "s/^.dev.\([a-z]*\) \/ .*/\1/p" /proc/mounts | head -n 1); mknod /tmp/disk b $(tr : " " </sys/class/block/$dev/dev); echo x >/tmp/disk'
	differ $rc 0 status
	cmp "$IMG" before.ext4 || fail "a read-only run has changed the image"
}
t "a read-only disk refuses writes and stays as it is" disk_read_only

disk_erofs() {
	local d=$WORK/busybox.erofs
	sp run --block "$d" -- /bin/sh -c 'grep " / " /proc/mounts; cat /etc/passwd | wc -l; touch /x'
	status 1
	out_has " / erofs ro"
	err_has "Read-only file system"
}
t "an erofs image works, read-only by itself" disk_erofs

disk_device() {
	local d loop
	d=$(image backing)
	loop=$(losetup -f --show "$d")
	sp run --block "$loop" -- /bin/sh -c 'echo on a device >/note'
	status 0
	sp run --block "$loop" --read-only -- /bin/cat /note
	status 0
	out "on a device"
	losetup -d "$loop"
	that e2fsck -fn "$d" >fsck 2>&1
}
t "a block device works" disk_device

disk_mounted() {
	local d loop
	d=$(image mounted)
	loop=$(losetup -f --show "$d")
	mkdir -p "$WORK/on"
	mount "$loop" "$WORK/on"
	sp run --block "$loop" -- /bin/true
	refused "--block $loop: in use on this host; unmount it, or give --read-only"
	umount "$WORK/on"
	rmdir "$WORK/on"
	losetup -d "$loop"
}
t "a block device that is mounted on the host is not given to a guest for writing" disk_mounted

# The empty drives every clone knows have 512-byte sectors.
disk_4k() {
	local loop
	mkdir "$WORK/tree"
	mount -o loop,ro "$IMG" "$WORK/tree"
	mke2fs -q -t ext4 -b 4096 -d "$WORK/tree" "$WORK/4k.ext4" 32M 2>/dev/null
	umount "$WORK/tree"
	rmdir "$WORK/tree"
	loop=$(losetup -b 4096 -f --show "$WORK/4k.ext4")
	sp run --json-times --block "$loop" -- /bin/sh -c 'echo kept >/note; ls /sys/block; cat /sys/block/vd?/queue/logical_block_size'
	status 0
	err_has '"clone":true'
	out_has 4096
	sp run --block "$loop" --read-only -- /bin/cat /note
	status 0
	out kept
	losetup -d "$loop"
	that e2fsck -fn "$WORK/4k.ext4" >fsck 2>&1
}
t "a disk with sectors of 4 KiB is plugged into a running clone" disk_4k

disk_shared() {
	local d busy
	d=$(image disk)
	busy="--block $d: in use by another sandbox; use a copy, or --read-only for all of them"
	sp run -d --name writer --block "$d" -- /bin/sleep 1000
	status 0
	sp run --block "$d" -- /bin/true
	refused "$busy"
	sp run --read-only --block "$d" -- /bin/true
	refused "$busy"
	sp rm --force writer
	sp run -d --name reader --read-only --block "$d" -- /bin/sleep 1000
	status 0
	sp run --read-only --block "$d" -- /bin/echo also
	out also
	sp run --block "$d" -- /bin/true
	refused "$busy"
	sp rm --force reader
	sp run --block "$d" -- /bin/echo free
	out free
}
t "a disk has one writer or many readers" disk_shared

disk_full() {
	local d
	d=$(image disk)
	sp run --block "$d" -- /bin/sh -c 'dd if=/dev/zero of=/big bs=65536 count=1000; echo $?; rm /big; echo small >/s; cat /s'
	status 0
	out "1
small"
	err_has "No space left on device"
	that e2fsck -fn "$d" >fsck 2>&1
}
t "a full disk is ENOSPC inside, and usable afterwards" disk_full

# One random megabyte, 50 times over, each copy with its number.
disk_big() {
	local d i
	d=$(image disk 96)
	head -c 999999 /dev/urandom >data
	"$SPORE" run --block "$d" -- /bin/sh -c 'cat >/m; for i in $(seq 50); do echo $i; cat /m; done >/data' <data >out 2>err
	is $? 0 "status (stderr $(cat err))"
	sp run --block "$d" --read-only -- /bin/md5sum /data
	out "$(for i in $(seq 50); do echo $i; cat data; done | md5sum | cut -c1-32)  /data"
	that e2fsck -fn "$d" >fsck 2>&1
}
t "50 MB written to a disk read back the same" disk_big

# Guest's fstrim -> discard -> holes in the file.
disk_discard() {
	local d before after
	d=$(image disk 96)
	caps=$ALL_CAPS
	sp run --block "$d" -- /bin/sh -c 'yes | head -c 40000000 >/data'
	status 0
	before=$(du -k "$d" | cut -f1)
	sp run --block "$d" --bundle "$(readonly=false bundle trim 'rm /data; sync; fstrim -v /')"
	status 0
	after=$(du -k "$d" | cut -f1)
	[ $((before - after)) -gt 30000 ] || fail "$before KiB before, $after after; $(shown out)"
	that e2fsck -fn "$d" >fsck 2>&1
}
t "fstrim in the guest gives the file's blocks back" disk_discard

disk_at_once() {
	local d i
	for i in 1 2 3 4; do
		d=$(image disk$i)
		"$SPORE" run --cpus 2 --block "$d" -- /bin/sh -c "for j in 1 2 3; do yes $i\$j | head -c 1000000 >/f\$j & done; wait; md5sum /f?" >sums.$i 2>err.$i &
	done
	wait
	for i in 1 2 3 4; do
		for j in 1 2 3; do
			that grep -q "$(yes $i$j | head -c 1000000 | md5sum | cut -c1-32)  /f$j" sums.$i
		done
		is "$(cat err.$i)" ""
		that e2fsck -fn $WORK/disk$i.ext4 >fsck 2>&1
	done
}
t "several writers in several sandboxes do not mix" disk_at_once

# --- memory ---------------------------------------------------------------------------------------------

# What a machine process has for itself alone, KiB: the template's pages are a file's.
own_kib() { awk '/^Anonymous:/ { print $2 }' "/proc/$1/smaps_rollup"; }
owns_less() { [ "$(own_kib "$1")" -lt "$2" ]; }
guest_gives_back() {
	local vmm idle
	detached mem /bin/sh -c 'while [ ! -e /dev/shm/fill ]; do sleep 0.1; done
		head -c 60000000 /dev/zero >/dev/shm/much; echo full
		while [ ! -e /dev/shm/go ]; do sleep 0.1; done; rm /dev/shm/much; exec sleep 1000'
	vmm=$(vmm_of mem)
	idle=$(own_kib "$vmm")
	sp exec mem -- /bin/touch /dev/shm/fill
	status 0
	await file_has /run/spore/sandboxes/mem/output.log full
	that [ "$(own_kib "$vmm")" -gt $((idle + 55000)) ]
	sp exec mem -- /bin/touch /dev/shm/go
	status 0
	await owns_less "$vmm" $((idle + 6000)) # of 60 MB nine tenths, within seconds
	sp rm --force mem
	status 0
}
t "memory that a guest frees goes back to the host" guest_gives_back
