# fs.sh - the root filesystem and mounts as a program sees them.

fs_layers() {
	see run $BB c1 sh -c 'fsx list /data; ls -A /opaque; cat /data/replaced; ls /data/hidden /data/sub 2>&1; stat -c "%y %h" /data/kept; readlink /data/symlink; ls -id /data/kept /data/hardlink | awk "{ print \$1 }" | uniq | wc -l'
	out_has upper
	out_has '2001-02-03 04:05:06'
	is "$(tail -n 1 "$WORK/out")" 1 "inodes of a file with two names"
}
t "layers show what they add, replace and hide" fs_layers

fs_whiteouts() {
	see run $BB c1 sh -c 'rm /data/kept /opaque/new; rm -r /opaque; mkdir /opaque; ls -A /opaque; cat /data/hardlink; mv /home /house; ls /house
		mv /etc/passwd /etc/p; cat /etc/p | wc -l; ls /etc/passwd 2>&1; ln /etc/group /etc/g; echo x >>/etc/g; tail -n 1 /etc/group; rmdir /data 2>&1; rm -rf /data; ls -d /data 2>&1; mkdir /data; ls -A /data'
	status 0
}
t "files of the image are removed, moved, linked and made again" fs_whiteouts

fs_calls() {
	see run $BB c1 sh -c 'mkdir /work; for v in xattr names sockets locks sparse map times; do
		echo "-- $v"; case $v in names | sockets) d=/work/$v; mkdir $d ;; *) d=/work/file-$v; : >$d ;; esac; probe $v $d; done'
	status 0
	out_has 'exclusive EEXIST'
	out_has "'map' through the file"
}
t "links, renames, attributes, locks, sockets, holes, maps and times behave" fs_calls

fs_users() {
	see run $BB c1 sh -c 'mkdir -m 700 /secret; echo s >/secret/s; mkdir -m 2775 /shared; chgrp 2000 /shared; echo r >/readable; chmod 604 /readable
		sleep 1000 & su user -c "
			cat /secret/s; ls /secret; cat /readable; id -G; touch /shared/mine && ls -ln /shared/mine | cut -c1-10,14-29
			touch /etc/x; rm /tmp/../readable; mkdir /shared/d && stat -c %A /shared/d; echo x >/tmp/mine; chmod 600 /tmp/mine; chown root /tmp/mine" 2>&1
		su other -c "cat /tmp/mine; rm -f /tmp/mine; echo y >/shared/d/y; cat /shared/mine" 2>&1; kill $!; stat -c "%U %a" /tmp/mine; ls /shared/d'
	out_has 'Permission denied'
}
t "permissions are those of the user who asks" fs_users

fs_readonly() {
	see run --read-only $BB c1 sh -c 'touch /x 2>&1; rm /data/kept 2>&1; echo x 2>&1 >>/etc/passwd; touch /tmp/x 2>&1; cat /data/kept; touch /dev/shm/x && echo shm; mkdir /run/x && echo run'
	out_has 'Read-only file system'
	see run --read-only --mount type=tmpfs,dst=/tmp,options=size=1m:mode=1777 $BB c1 sh -c 'touch /tmp/x && echo tmp; head -c 3000000 /dev/zero >/tmp/y; wc -c </tmp/y; grep " /tmp " /proc/mounts | cut -d" " -f2,3'
	out_has tmp
}
t "--read-only: nothing is written, but to mounts" fs_readonly

fs_bind() {
	mkdir -p "$WORK/share/dir"
	echo host >"$WORK/share/file"
	echo one >"$WORK/single"
	up c1 --mount "type=bind,src=$WORK/share,dst=/share,options=rbind:rw" --mount "type=bind,src=$WORK/share,dst=/ro,options=rbind:ro" \
		--mount "type=bind,src=$WORK/single,dst=/deep/made/file,options=bind:rw" -- sleep 1000
	x c1 sh -c 'cat /share/file /ro/file /deep/made/file; echo guest >/share/new; echo x 2>&1 >/ro/new; echo two >/deep/made/file; mkdir /share/d; ln -s file /share/link; chmod 640 /share/new; chown 1000:2000 /share/new'
	out_has 'Read-only file system'
	cat "$WORK/share/new" "$WORK/single"
	stat -c '%a %u:%g %F' "$WORK/share/new" "$WORK/share/d" "$WORK/share/link"
	echo changed >"$WORK/share/file"
	echo grown >>"$WORK/share/new"
	rm -r "$WORK/share/d"
	mv "$WORK/share/link" "$WORK/share/dir/link"
	x c1 sh -c 'cat /share/file /ro/file /share/new; ls -R /share; mkdir /share/d && echo again'
	out_has changed
	out_has grown
	out_has again
}
t "bind mounts show both sides the same files at once" fs_bind

fs_bind_more() {
	mkdir -p "$WORK/a" "$WORK/b"
	mount -t tmpfs inner "$WORK/a"
	mkdir "$WORK/a/sub"
	echo in >"$WORK/a/sub/file"
	see run --mount "type=bind,src=$WORK/a,dst=/a,options=rbind:ro" --mount "type=bind,src=$WORK/b,dst=/a/sub,options=rbind:rw" $BB c1 sh -c 'ls /a /a/sub; touch /a/sub/new && echo ok; touch /a/new 2>&1'
	ls "$WORK/b"
	umount "$WORK/a"
	run --mount "type=bind,src=$WORK/not/there,dst=/a,options=rbind:ro" $BB c1 true >"$WORK/out" 2>"$WORK/err" &&
		fail "a missing source was mounted"
	err_has 'o such file or directory'
}
t "a mount lies over another, and a missing source is refused" fs_bind_more

# The same operations on the host are the measure, too.
fs_fsx() {
	local seed
	mkdir -p "$WORK/host" "$WORK/share"
	for seed in 1 2; do
		fsx file $seed 1500 "$WORK/host/file"
	done >"$WORK/want"
	up c1 --mount "type=bind,src=$WORK/share,dst=/share,options=rbind:rw" -- sleep 1000
	for dir in / /tmp /share; do
		see ctr task exec --exec-id f c1 sh -c "fsx file 1 1500 $dir/fsx && fsx file 2 1500 $dir/fsx"
		status 0
		out "$(cat "$WORK/want")"
	done
	is "$(md5sum <"$WORK/share/fsx")" "$(md5sum <"$WORK/host/file")"
}
t "random reads, writes, maps, holes and truncations of a file give what they give on the host" fs_fsx

fs_trees() {
	local seed
	mkdir -p "$WORK/share"
	up c1 --mount "type=bind,src=$WORK/share,dst=/share,options=rbind:rw" -- sleep 1000
	for seed in 1 2 3; do
		mkdir "$WORK/host$seed" "$WORK/share/$seed"
		(fsx tree $seed 1500 "$WORK/host$seed" && fsx list "$WORK/host$seed") >"$WORK/want"
		see ctr task exec --exec-id a c1 sh -c "mkdir -p /trees/$seed && fsx tree $seed 1500 /trees/$seed && fsx list /trees/$seed"
		out "$(cat "$WORK/want")"
		see ctr task exec --exec-id b c1 sh -c "fsx tree $seed 1500 /share/$seed && fsx list /share/$seed"
		out "$(cat "$WORK/want")"
		fsx list "$WORK/share/$seed" >"$WORK/host.list"
		that cmp "$WORK/host.list" <(tail -n +2 "$WORK/want")
	done | grep operations
}
t "random makes, links, renames and removals give the tree they give on the host" fs_trees

fs_many() {
	up c1 -- sleep 1000
	x c1 sh -c 'mkdir /many; fsx many 10000 /many; cd /many; find . -type f | wc -l; tar cf /many.tar .; wc -c </many.tar; mkdir /again; tar xf /many.tar -C /again
		fsx list /again | md5sum; fsx list /many | md5sum; grep -rl "file 777$" /again; rm -rf /many; ls -d /many 2>&1; find /again | wc -l'
	out_has '10000 files'
}
t "a tree of 10000 files is made, packed, unpacked, searched and removed" fs_many

fs_big() {
	see run $BB c1 sh -c 'yes "a line of a large file" | head -c 30000000 >/big; md5sum /big; cp /big /big2; cmp /big /big2 && echo same; dd if=/big bs=1000 skip=12345 count=3 2>/dev/null | md5sum; truncate -s 10 /big; cat /big; df / | tail -n 1 | awk "{ print NF }"; sync'
	out_has same
}
t "a large file is written, copied, read in the middle and cut" fs_big

fs_shared() {
	mkdir -p "$WORK/share"
	up c1 --mount "type=bind,src=$WORK/share,dst=/share,options=rbind:rw" -- sleep 1000
	up c2 --mount "type=bind,src=$WORK/share,dst=/share,options=rbind:rw" -- sleep 1000
	for n in 1 2 3; do
		x c1 sh -c "echo from one $n >>/share/log; mv /share/log /share/log$n; mkdir /share/d$n"
		x c2 sh -c "cat /share/log$n; echo from two $n >>/share/log$n; mv /share/log$n /share/log; rmdir /share/d$n"
	done
	x c1 cat /share/log
	out_has 'from two 3'
}
t "two containers share a directory and see each other's changes" fs_shared
