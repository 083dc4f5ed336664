# share.sh - roots and volumes that are directories of the host.

# The image's files as a directory: a file system of its own, so with extended attributes and all.
tree() { # NAME
	image "$1" 32 >/dev/null
	mkdir "$WORK/$1"
	mount -o loop "$WORK/$1.ext4" "$WORK/$1" || fail "mount"
	echo "$WORK/$1"
}
no_tree() { umount "$WORK/$1" || fail "umount: $(grep "$WORK" /proc/mounts)"; }
in_tree() { # NAME SCRIPT
	sp run --rootfs "$WORK/$1" -- /bin/sh -c "$2"
}

share_run() {
	local d how
	d=$(tree root)
	for how in "" --no-template; do
		sp run $how --json-times --rootfs "$d" -- /bin/sh -c 'cat /etc/passwd; id -u; pwd; exit 3'
		status 3
		out "root:x:0:0:root:/root:/bin/sh
user:x:1000:1000::/home/user:/bin/sh
0
/"
		err_has "\"clone\":$([ "$how" ] && echo false || echo true)"
	done
	no_tree root
}
t "a directory is a root, in a clone and in a machine that boots" share_run

share_sync() {
	tree root >/dev/null
	in_tree root 'echo on-the-disk >/f && busybox sync && echo synced'
	status 0
	out synced
	# The host itself would have let half a minute go by.
	that grep -q on-the-disk "$WORK/root.ext4"
	no_tree root
}
t "sync in a guest reaches the host's disk" share_sync

share_writes() {
	local d
	d=$(tree root)
	in_tree root 'umask 022; echo one >/new; mkdir -m 751 /dir; echo two >/dir/f; chown 1000:2000 /dir/f
		chmod 4755 /dir/f; ln -s /etc/passwd /link; ln /new /hard; mkfifo -m 640 /fifo; mv /dir/f /dir/g
		touch -d "2001-02-03 04:05:06" /dir/g; mkdir -p /a/b; mv /a /z; rm /etc/group; echo $?'
	status 0
	err ""
	out 0
	is "$(stat -c '%u %g %a %h %s' "$d/new")" "0 0 644 2 4" /new
	is "$(stat -c '%u %g %a' "$d/dir")" "0 0 751" /dir
	is "$(stat -c '%u %g %a %Y' "$d/dir/g")" "1000 2000 4755 $(date -u -d '2001-02-03 04:05:06' +%s)" /dir/g
	is "$(cat "$d/dir/g")" two
	is "$(readlink "$d/link")" /etc/passwd
	is "$(stat -c %i "$d/hard")" "$(stat -c %i "$d/new")" inode
	is "$(stat -c '%a %F' "$d/fifo")" "640 fifo"
	that [ -d "$d/z/b" ]
	that [ ! -e "$d/etc/group" ]
	sp run --rootfs "$d" -u 1000:1000 -- /bin/sh -c 'umask 027; echo x >/home/user/f; echo x >/f'
	err_has "/f: Permission denied"
	is "$(stat -c '%u %g %a' "$d/home/user/f")" "1000 1000 640" "a user's file"
	no_tree root
}
t "what the container writes is on the host, with owner, mode and time" share_writes

share_read_only() {
	local d
	d=$(tree root)
	sp run --rootfs "$d" --read-only -- /bin/sh -c 'echo x >/new; rm /etc/passwd; chmod 777 /etc; mkdir /d; mv /etc /etc2; wc -l </etc/passwd'
	out 2
	is "$(grep -c 'Read-only file system' err)" 5 refusals
	that [ ! -e "$d/new" ]
	that [ -e "$d/etc/passwd" ]
	no_tree root
}
t "a read-only directory refuses every change" share_read_only

share_links() {
	local d
	d=$(tree root)
	echo classified >"$WORK/secret"
	ln -s "$WORK/secret" "$d/abs"
	ln -s ../../../../../../../../../etc/hostname "$d/rel"
	ln -s /etc "$d/dir"
	in_tree root "head -n 1 /dir/passwd; cat /abs; cat /rel; ls / | grep -c tmp/e2e; cd /; cat ../../..$WORK/secret; echo over >/abs"
	no classified
	no "$(hostname)"
	out "root:x:0:0:root:/root:/bin/sh
0"
	is "$(cat "$WORK/secret")" classified
	no_tree root
}
t "a symlink to a file of the host means the container's own" share_links

share_nodes() {
	local d
	d=$(tree root)
	mknod "$d/loop" b 7 0
	mknod "$d/mem" c 1 1
	in_tree root 'mknod /zero c 1 5 && mknod /pipe p; head -c 4 /zero | od -An -tx1; head -c 1 /loop; head -c 1 /mem; (echo through >/pipe &); cat /pipe'
	out " 00 00 00 00
through"
	is "$(stat -c '%F %t:%T' "$d/zero")" "character special file 1:5"
	is "$(grep -c 'not permitted' err)" 2 "refused devices"
	no_tree root
}
t "device nodes are the guest's business, on the host they are only there" share_nodes

share_semantics() {
	local d
	d=$(tree root)
	in_tree root 'probe xattr /etc/passwd; probe mmap /m; probe lock /l; probe flock /l; probe tmpfile /tmp; probe append /a; probe unlinked /u; probe hole /h; probe rename /'
	status 0
	err ""
	out "xattr ok
mmap ok
lock ok
flock ok
tmpfile ok
append ok
unlinked ok
hole ok
rename ok"
	is "$(stat -c %s "$d/m")" 8192 "size of what was mapped"
	is "$(wc -l <"$d/a")" 400 "lines that were appended"
	in_tree root 'touch /f; truncate -s 100000 /f; wc -c </f; df / | tail -n 1 | wc -l; sync; echo $?'
	out "100000
1
0"
	no_tree root
}
t "attributes, mappings, locks, appending and unlinked files are as on a disk" share_semantics

share_many() {
	local d i
	d=$(tree root)
	mkdir "$d/many"
	for i in $(seq 200); do
		echo "file $i" >"$d/many/$i"
	done
	in_tree root 'cd /many; ls | wc -l; cat $(seq 200) | md5sum; mkdir x; for i in $(seq 200); do mkdir x/$i; echo $i >x/$i/f; done; find x | wc -l; rm -r x/1*; find x -type f | wc -l; find . -maxdepth 1 -type f | xargs rm; ls'
	status 0
	err ""
	out "200
$(for i in $(seq 200); do echo "file $i"; done | md5sum)
401
89
x"
	is "$(find "$d/many" -type f | wc -l)" 89 files
	is "$(cat "$d/many/x/200/f")" 200
	no_tree root
}
t "a tree of hundreds of files is read, made and removed" share_many

share_big() {
	local d
	d=$(tree root)
	dd if=/dev/urandom of="$d/big" bs=64k count=64 2>/dev/null
	in_tree root 'md5sum /big; cp /big /copy; dd if=/big of=/part bs=4099 skip=7 count=100 2>/dev/null; md5sum /part'
	out_has "$(md5sum <"$d/big" | cut -d' ' -f1)"
	is "$(md5sum <"$d/copy")" "$(md5sum <"$d/big")" copy
	is "$(md5sum <"$d/part")" "$(dd if="$d/big" bs=4099 skip=7 count=100 2>/dev/null | md5sum)" part
	no_tree root
}
t "megabytes come and go unchanged" share_big

share_together() {
	local d i
	d=$(tree root)
	for i in 1 2 3; do
		sp run -d --name "w$i" --rootfs "$d" -- /bin/sh -c "for k in \$(seq 50); do echo $i \$k >>/log; echo x >/own-$i-\$k; done"
		status 0
	done
	for i in 1 2 3; do
		await file_has "/run/spore/sandboxes/w$i/state.json" stopped
		sp rm "w$i"
		is "$(ls "$d" | grep -c "^own-$i-")" 50 "files of $i"
		is "$(grep -c "^$i " "$d/log")" 50 "lines of $i"
	done
	no_tree root
}
t "several containers write to one directory" share_together

share_clones() {
	local d i
	d=$(tree root)
	for i in $(seq 20); do
		"$SPORE" run -d --name "c$i" --rootfs "$d" --read-only -- /bin/sh -c 'md5sum </bin/busybox; exec sleep 1000' >"o$i" 2>&1 &
	done
	wait $(jobs -p)
	for i in $(seq 20); do
		is "$(cat "o$i")" "c$i" "what run said"
		await file_has "/run/spore/sandboxes/c$i/output.log" "$(md5sum <"$d/bin/busybox")"
	done
	for i in $(seq 20); do
		sp rm --force "c$i"
		status 0
	done
	no_tree root
}
t "twenty clones share one read-only directory at once" share_clones

share_killed() {
	local d p
	d=$(tree root)
	sp run -d --name one --rootfs "$d" -- /bin/sh -c 'while :; do echo x >>/log; done'
	await [ -s "$d/log" ]
	kill -KILL "$(vmm_of one)"
	await file_has /run/spore/sandboxes/one/state.json stopped
	sp rm one
	sp run -d --name two --rootfs "$d" -- /bin/sh -c 'while :; do echo x >>/log; done'
	p=$(vmm_of two)
	kill -KILL "$(supervisor_of two)"
	await gone "$p"
	sp rm two
	await umount "$d"
}
t "a machine or a supervisor that is killed lets the directory go" share_killed

share_bundle() {
	local d
	d=$(tree root)
	mkdir vol
	echo from-host >vol/f
	echo single >file
	chown 1000 vol
	mounts="{\"destination\": \"/vol\", \"type\": \"bind\", \"source\": \"$WORK/vol\", \"options\": [\"rbind\", \"rw\"]},
		{\"destination\": \"/ro\", \"type\": \"bind\", \"source\": \"$WORK/vol\", \"options\": [\"bind\", \"ro\"]},
		{\"destination\": \"/etc/one\", \"type\": \"none\", \"source\": \"$WORK/file\", \"options\": [\"bind\"]}"
	readonly=false caps=$ALL_CAPS
	IMG=$d in_bundle 'cat /vol/f /ro/f /etc/one; echo new >/vol/new; echo x >/ro/x; echo changed >/etc/one; cat /ro/new; stat -c %u /vol; echo 5 >/top'
	status 0
	out "from-host
from-host
single
new
1000"
	err_has "/ro/x: Read-only file system"
	is "$(cat vol/new) $(cat file) $(cat "$d/top")" "new changed 5"
	readonly=true
	IMG=$d in_bundle 'cat /vol/f; echo no >/top'
	err_has "Read-only file system"
	out from-host
	no_tree root
}
t "a bundle has a directory as its root, and directories and files as volumes" share_bundle

share_live() {
	mkdir vol
	echo one >vol/f
	mounts="{\"destination\": \"/tmp/vol\", \"type\": \"bind\", \"source\": \"$WORK/vol\", \"options\": [\"rbind\", \"ro\"]}"
	sp run -d --name live --bundle "$(bundle live 'while :; do cat /tmp/vol/f; sleep 0.2; done')"
	status 0
	await file_has /run/spore/sandboxes/live/output.log one
	echo two >vol/f
	sleep 2.5
	is "$(tail -n 1 /run/spore/sandboxes/live/output.log)" two
	echo three >vol/g
	mv vol/g vol/f
	sleep 2.5
	is "$(tail -n 1 /run/spore/sandboxes/live/output.log)" three
	sp rm --force live
}
t "what changes on the host is seen in a volume soon" share_live

share_wrong() {
	local c
	sp run --rootfs /no/such -- /bin/true
	refused "--rootfs /no/such: No such file or directory; give a directory"
	sp run --rootfs "$IMG" -- /bin/true
	refused "--rootfs $IMG: not a directory; an image goes with --block"
	sp run --rootfs / --block "$IMG" -- /bin/true
	refused "run: --rootfs and --block exclude each other"
	mounts='{"destination": "/vol", "type": "bind", "source": "/no/such"}'
	c=$(bundle wrong true)
	sp run --bundle "$c"
	refused "$c/config.json: mount on /vol: source /no/such: No such file or directory"
	mounts='{"destination": "/vol", "type": "bind", "source": "/run/mount.sock"}'
	python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/run/mount.sock")' 2>/dev/null || return 0
	c=$(bundle wrong true)
	sp run --bundle "$c"
	rm /run/mount.sock
	refused "$c/config.json: mount on /vol: source /run/mount.sock: neither a directory nor a file"
}
t "a directory or volume that cannot be is refused in one line" share_wrong

share_host_root() {
	mount -t tmpfs tmpfs /mnt
	echo hidden >/mnt/file
	sp run --rootfs / --read-only -- /bin/sh -c 'cat /etc/debian_version; cat /mnt/file; ls /proc/1/comm; cat /proc/1/comm'
	umount /mnt
	out "$(cat /etc/debian_version)
/proc/1/comm
sh"
	err_has "/mnt/file: No such file"
}
t "the root of the host can be one, without what is mounted on it" share_host_root

share_exec() {
	local d
	d=$(tree root)
	sp run -d --name ex --rootfs "$d" -- /bin/sleep 1000
	status 0
	sp exec ex -- /bin/sh -c 'echo from exec >/e; cat /etc/passwd | wc -l'
	status 0
	out 2
	is "$(cat "$d/e")" "from exec"
	sp pause ex
	echo later >"$d/later"
	sp resume ex
	sp exec ex -- /bin/cat /later
	out later
	sp kill ex
	await file_has /run/spore/sandboxes/ex/state.json stopped
	sp rm ex
	no_tree root
}
t "commands run beside a container see the same directory" share_exec
