# guest.sh - guests that end by themselves, and their disks.

# --- ends ---------------------------------------------------------------------------------------------

# Everything is allowed, and the process ids are the guest's own.
in_charge() { # SCRIPT
	caps=$ALL_CAPS
	namespaces='{"type": "mount"}, {"type": "cgroup"}'
	in_bundle "$1"
}

guest_panic() {
	in_charge 'echo 1 >/proc/sys/vm/panic_on_oom; echo armed; probe eat 400'
	status 137
	out armed
	one_line_err
	err_has "spore: guest kernel panic: Out of memory: "
}
t "a panic of the guest's kernel is reported in one sentence" guest_panic

guest_panic_log() {
	local dir
	caps=$ALL_CAPS
	namespaces='{"type": "mount"}, {"type": "cgroup"}'
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

guest_off() { # HOW
	in_charge "echo on; $1 -f; sleep 1000"
	status 137
	out on
	err "spore: guest shut down"
}
guest_poweroff() {
	guest_off poweroff
	guest_off reboot
}
t "a guest that powers off or reboots ends with one sentence" guest_poweroff

guest_kills_agent() {
	in_charge 'kill -9 1; kill -SEGV 1; ls /proc/1/root >/dev/null && echo alive'
	status 0
	out alive
}
t "not even an all-powerful container ends the agent by a signal" guest_kills_agent

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
	cp "$IMG" locked.ext4
	chattr +i locked.ext4 2>/dev/null || chmod 444 locked.ext4
	sp run --block "$IMG" --read-only -- /bin/sh -c 'blockdev --getro /dev/vda 2>/dev/null || ls /dev/vda'
	chattr -i locked.ext4 2>/dev/null
	cmp "$IMG" locked.ext4 || fail "a read-only run has changed the image"
}
t "a read-only disk refuses writes and stays as it is" disk_read_only

disk_erofs() {
	local d=$WORK/busybox.erofs
	sp run --block "$d" -- /bin/sh -c 'grep " / " /proc/mounts; cat /etc/passwd | wc -l; touch /x'
	status 1
	that grep -q '^/dev/vda / erofs ro' out
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

disk_big() {
	local d
	d=$(image disk 96)
	head -c 50000000 /dev/urandom >data
	"$SPORE" run --block "$d" -- /bin/sh -c 'cat >/data' <data >out 2>err
	is $? 0 "status (stderr $(cat err))"
	"$SPORE" run --block "$d" --read-only -- /bin/cat /data >back
	is $? 0 status
	that cmp data back
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
