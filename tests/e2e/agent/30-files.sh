# What a container sees of the file system, and what it does not.


default_dev() {
	sh_args 'cd /dev; ls -1; readlink stdin; readlink ptmx; echo x >/dev/null; head -c 4 /dev/zero | wc -c; echo x >/dev/full' && run
	out_has full && out_has urandom && out_has tty && out_has /proc/self/fd/0 && out_has pts/ptmx && out_has 4 &&
		err_has "No space left on device"
}
t "default devices and links" default_dev

device() {
	LINUX=',"devices":[{"path":"/dev/mine","type":"c","major":1,"minor":5,"fileMode":416,"uid":7,"gid":8},{"path":"/dev/sub/fifo","type":"p"}]'
	sh_args 'ls -ln /dev/mine | cut -c1-40; head -c 3 /dev/mine | wc -c; test -p /dev/sub/fifo && echo fifo' && run
	out_has "crw-r-----" && out_has "7        8" && out_has 3 && out_has fifo
}
t "devices of the specification: owner, mode, in directories that are made" device

device_denied() {
	sh_args 'mknod /tmp/kmsg c 1 11 && echo made; head -c 1 /tmp/kmsg; rm /tmp/kmsg' && run &&
		out_has made && err_has "Operation not permitted"
	LINUX=',"resources":{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"rm"}]}'
	sh_args 'mknod /tmp/kmsg c 1 11; head -c 1 /tmp/kmsg >/dev/null && echo read; echo x >/tmp/kmsg || echo no write; rm /tmp/kmsg' && run &&
		out "read
no write"
}
t "devices nobody allowed cannot be used, not even made by hand" device_denied

masked() {
	sh_args 'wc -c </proc/kcore; ls /sys/firmware | wc -l; echo 1 >/proc/sys/kernel/panic' && run
	out "0
0" && err_has "Read-only file system"
}
t "masked and read-only paths" masked

ro_root() { RO=true && sh_args 'echo x >/new; echo y >/dev/shm-test && echo dev is not' && run && err_has "/new: Read-only file system" && out "dev is not"; }
t "read-only root, writable mounts in it" ro_root

rw_root() { sh_args 'echo x >/new && cat /new && rm /new' && run && out x; }
t "writable root" rw_root

binds() {
	mkdir -p $WORK/src/sub && echo content >$WORK/src/file && echo sub >$WORK/src/sub/f
	MOUNTS=",{\"destination\":\"/mnt/a\",\"type\":\"bind\",\"source\":\"$WORK/src\",\"options\":[\"rbind\",\"ro\",\"nosuid\",\"nodev\",\"noexec\"]},
{\"destination\":\"/mnt/file\",\"type\":\"bind\",\"source\":\"$WORK/src/file\",\"options\":[\"bind\"]}"
	sh_args 'cat /mnt/a/file /mnt/file /mnt/a/sub/f; echo x >/mnt/a/n; echo more >>/mnt/file; grep " /mnt/" /proc/mounts' && run
	out_has content && out_has sub && out_has "/mnt/a tmpfs ro,nosuid,nodev,noexec" && err_has "Read-only file system"
	that grep -q more $WORK/src/file
	rm -rf $R/mnt
}
t "bind mounts: directory read-only, single file, targets are made" binds

recursive() {
	mkdir -p $WORK/src/inner && mount -t tmpfs inner $WORK/src/inner
	MOUNTS=",{\"destination\":\"/mnt/ro\",\"type\":\"none\",\"source\":\"$WORK/src\",\"options\":[\"rbind\",\"ro\"]},
{\"destination\":\"/mnt/rro\",\"type\":\"none\",\"source\":\"$WORK/src\",\"options\":[\"rbind\",\"rro\"]}"
	sh_args 'echo x >/mnt/ro/inner/x && echo not recursive; echo x >/mnt/rro/inner/y || echo recursive' && run
	out "not recursive
recursive"
	umount $WORK/src/inner && rm -rf $R/mnt
}
t "ro is one mount, rro the whole tree" recursive

options() {
	MOUNTS=',{"destination":"/mnt","type":"tmpfs","source":"tmpfs","options":["noatime","nodiratime","nosymfollow","mode=0711","size=1m","uid=5"]}'
	sh_args 'grep " /mnt " /proc/mounts; stat -c "%a %u" /mnt; ln -s /etc/passwd /mnt/l; cat /mnt/l' && run
	out_has "noatime,nodiratime,nosymfollow" && out_has size=1024k && out_has "711 5" && err_has "Too many levels"
	rmdir $R/mnt
}
t "mount flags and a filesystem's own options" options

bad_options() {
	MOUNTS=',{"destination":"/mnt","type":"tmpfs","source":"tmpfs","options":["sise=1m"]}' && spec x && c create x $WORK/x.json &&
		refused "mount tmpfs on /mnt: tmpfs: sise=1m: " && err_has "Unknown parameter 'sise'"
	MOUNTS=',{"destination":"/mnt","type":"nofs","source":"x","options":[]}' && spec x && c create x $WORK/x.json &&
		refused 'mount x on /mnt: filesystem type "nofs": No such device'
	MOUNTS=',{"destination":"/mnt","type":"bind","source":"/nowhere","options":["bind"]}' && spec x && c create x $WORK/x.json &&
		refused 'mount /nowhere on /mnt: bind source /nowhere: No such file or directory'
	MOUNTS=',{"destination":"/","type":"tmpfs","source":"x","options":[]}' && spec x && c create x $WORK/x.json &&
		refused 'INVALID_ARGUMENT: mount destination "/" is not allowed'
	rmdir $R/mnt 2>/dev/null
	true
}
t "mounts that cannot be say which and why, in the kernel's words" bad_options

copy_up() {
	MOUNTS=',{"destination":"/data","type":"tmpfs","source":"tmpfs","options":["tmpcopyup","mode=755"]}'
	mkdir -p $R/data/dir && ln -sf file $R/data/dir/link && chown 12:34 $R/data/file && chmod 640 $R/data/file
	sh_args 'cat /data/file; stat -c "%u:%g %a" /data/file; readlink /data/dir/link; echo new >/data/new' && run
	out "below
12:34 640
file"
	that test ! -e $R/data/new
	rm -rf $R/data/dir
}
t "tmpcopyup" copy_up

propagation() {
	mkdir -p $WORK/prop && mount -t tmpfs prop $WORK/prop && mount --make-shared $WORK/prop && mkdir -p $WORK/prop/m $WORK/prop/n
	MOUNTS=",{\"destination\":\"/mnt/s\",\"type\":\"bind\",\"source\":\"$WORK/prop\",\"options\":[\"rbind\",\"rslave\"]},
{\"destination\":\"/mnt/p\",\"type\":\"bind\",\"source\":\"$WORK/prop\",\"options\":[\"rbind\",\"rprivate\"]}"
	sh_args 'echo up; read x; ls /mnt/s/m /mnt/p/m' && spec x && c create x $WORK/x.json && c start x
	mount -t tmpfs late $WORK/prop/m && touch $WORK/prop/m/late
	echo | c io x "" && out "up
/mnt/p/m:

/mnt/s/m:
late"
	c remove x
	umount $WORK/prop/m $WORK/prop && rm -rf $R/mnt
}
t "a slave mount sees what is mounted later, a private one does not" propagation

symlinks() {
	MOUNTS=',{"destination":"/escape/inside","type":"tmpfs","source":"tmpfs","options":[]}'
	sh_args 'grep -c " /etc/inside " /proc/mounts' && run && status 0 && out 1
	that test -d $R/etc/inside -a ! -e /etc/inside
	rmdir $R/etc/inside
	ln -s ../../../../../../../tmp/out $R/up
	MOUNTS=',{"destination":"/up","type":"tmpfs","source":"tmpfs","options":[]}'
	sh_args 'grep -c " /tmp/out " /proc/mounts' && run && out 1
	rm -rf $R/up $R/tmp/out
	ln -s /missing/dir $R/dangling
	MOUNTS=',{"destination":"/dangling/deep","type":"tmpfs","source":"tmpfs","options":[]}'
	sh_args 'grep -c " /missing/dir/deep " /proc/mounts' && run && out 1
	rm -rf $R/dangling $R/missing
}
t "symlinks of the image stay in the image" symlinks

proc_rules() {
	MOUNTS=',{"destination":"/proc/sys/kernel","type":"tmpfs","source":"tmpfs","options":[]}' && spec x && c create x $WORK/x.json &&
		refused '"/proc/sys/kernel" cannot be mounted because it is inside /proc'
	echo "processor : many" >$WORK/cpuinfo
	MOUNTS=",{\"destination\":\"/proc/cpuinfo\",\"type\":\"bind\",\"source\":\"$WORK/cpuinfo\",\"options\":[\"bind\",\"ro\"]}"
	sh_args 'cat /proc/cpuinfo' && run && out "processor : many"
	ln -s /tmp $R/notproc
	MOUNTS=',{"destination":"/notproc","type":"proc","source":"proc","options":[]}' && spec x && c create x $WORK/x.json &&
		refused '/notproc must not be a symlink'
	rm $R/notproc
}
t "/proc may be covered only by what is meant to, and is no symlink" proc_rules

disk() {
	[ -e $WORK/disk.img ] || { mke2fs -q -t ext4 -d $R $WORK/disk.img 24M >/dev/null 2>&1; }
	LOOP=$(losetup -f --show $WORK/disk.img)
}
idmap() {
	disk && mkdir -p $WORK/owned && mount "$LOOP" $WORK/owned # tmpfs cannot do it on 6.1
	touch $WORK/owned/f && chown 1000:1000 $WORK/owned/f
	MOUNTS=",{\"destination\":\"/mnt\",\"type\":\"bind\",\"source\":\"$WORK/owned\",\"options\":[\"bind\"],\"uidMappings\":[{\"containerID\":1000,\"hostID\":4000,\"size\":1}],\"gidMappings\":[{\"containerID\":1000,\"hostID\":4000,\"size\":1}]}"
	sh_args 'stat -c "%u:%g" /mnt/f' && run && out 4000:4000
	MOUNTS=",{\"destination\":\"/mnt\",\"type\":\"bind\",\"source\":\"$WORK/owned\",\"options\":[\"bind\",\"idmap\"]}" && spec x &&
		c create x $WORK/x.json && refused "idmapped mount: user namespace without id mappings"
	umount $WORK/owned && losetup -d "$LOOP" && rmdir $R/mnt
}
t "an idmapped mount shows other owners" idmap

cgroup_ns() { sh_args 'cat /proc/self/cgroup; ls /sys/fs/cgroup | grep -c cgroup.procs; mkdir /sys/fs/cgroup/x' && run && out "0::/
1" && err_has "Read-only file system"; }
t "a cgroup namespace rooted at the container" cgroup_ns

overlay_storage() {
	mkdir -p $WORK/low && cp -a $R/. $WORK/low/
	ROOT=/run/kata-containers/x/rootfs
	sh_args 'echo hi >/new; cat /new' && spec x
	c run x $WORK/x.json "storage=overlayfs|overlay|overlay|/run/kata-containers/x/rootfs|lowerdir=$WORK/low,upperdir=$WORK/up,workdir=$WORK/wk"
	status 0 && out hi && that test -e $WORK/up/new -a ! -e $WORK/low/new
	rm -rf $WORK/low $WORK/up $WORK/wk
}
t "storage overlayfs as root file system" overlay_storage

block_storage() {
	disk
	ROOT=/run/kata-containers/x/rootfs RO=true && sh_args 'grep " / " /proc/mounts' && spec x
	c run x $WORK/x.json "storage=mmioblk|$LOOP|ext4|/run/kata-containers/x/rootfs|ro"
	status 0 && out_has "$LOOP / ext4 ro"
	losetup -d "$LOOP"
}
t "storage mmioblk as read-only root file system" block_storage

block_missing() {
	spec x && c create x $WORK/x.json "storage=mmioblk|/dev/vdz|ext4|/run/kata-containers/x/m" &&
		refused 'storage mmioblk for /run/kata-containers/x/m: /dev/vdz: No such file or directory'
	spec x && c create x $WORK/x.json "storage=mmioblk|slot:250|ext4|/run/kata-containers/x/m" && refused 'bind slot 250'
	spec x && c create x $WORK/x.json "storage=mmioblk|/dev/null|ext4|/run/kata-containers/x/m" && refused '/dev/null is no block device'
	spec x && c create x $WORK/x.json "storage=mmioblk|../x|ext4|/run/kata-containers/x/m" && refused INVALID_ARGUMENT:
	spec x && c create x $WORK/x.json "storage=blk-ccw|0|ext4|/run/kata-containers/x/m" && refused 'UNIMPLEMENTED: storage blk-ccw'
	spec x && c create x $WORK/x.json "storage=bind|/tmp||relative" && refused 'INVALID_ARGUMENT: storage mount point "relative"'
}
t "storages that cannot be: each says why, the missing disk after its time" block_missing

garbage_disk() {
	head -c 1048576 /dev/urandom >$WORK/garbage.img && LOOP=$(losetup -f --show $WORK/garbage.img)
	spec x && c create x $WORK/x.json "storage=mmioblk|$LOOP|ext4|/run/kata-containers/x/m" &&
		refused "mount $LOOP on /run/kata-containers/x/m: ext4: "
	losetup -d "$LOOP"
}
t "a disk of garbage is refused" garbage_disk

ephemeral() {
	MOUNTS=',{"destination":"/shm","type":"bind","source":"/run/kata-containers/sandbox/e","options":["rbind"]}'
	sh_args 'grep " /shm " /proc/mounts' && spec x
	c run x $WORK/x.json "storage=ephemeral|tmpfs|tmpfs|/run/kata-containers/sandbox/e|size=3m"
	out_has size=3072k
	rmdir $R/shm
}
t "storage ephemeral" ephemeral

local_dir() {
	MOUNTS=',{"destination":"/vol","type":"bind","source":"/run/kata-containers/sandbox/l","options":["rbind"]}'
	sh_args 'stat -c "%a %g" /vol; touch /vol/f' && spec x
	c run x $WORK/x.json "storage=local|local|local|/run/kata-containers/sandbox/l|mode=0775,fsgid=4321" && status 0 && out "2775 4321"
	that test ! -e /run/kata-containers/sandbox/l
	rmdir $R/vol
}
t "storage local, gone with its container" local_dir

resize_tmpfs() {
	MOUNTS=',{"destination":"/shm","type":"bind","source":"/run/kata-containers/sandbox/e","options":["rbind"]}'
	ARGS='["sleep","1000"]' && spec x && c create x $WORK/x.json "storage=ephemeral|tmpfs|tmpfs|/run/kata-containers/sandbox/e|size=3m" && c start x
	c volume /run/kata-containers/sandbox/e && status 0 && out_has "1 total 3145728"
	c resize-tmpfs /run/kata-containers/sandbox/e size=5m && status 0 && c volume /run/kata-containers/sandbox/e && out_has "1 total 5242880"
	c volume /nowhere && refused "volume /nowhere: No such file or directory"
	c remove x && rmdir $R/shm
}
t "GetVolumeStats and UpdateEphemeralMounts" resize_tmpfs

device_request() {
	disk
	LINUX=',"devices":[{"path":"/dev/xvda","type":"b","major":250,"minor":99}],"resources":{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":250,"minor":99,"access":"rwm"}]}'
	sh_args 'head -c 2048 /dev/xvda | tail -c 968 | head -c 2 | od -An -tx1' && spec x
	c run x $WORK/x.json "device=mmioblk|$LOOP|/dev/xvda" && status 0 && out " 53 ef"
	spec x && c create x $WORK/x.json "device=mmioblk|$LOOP|/dev/other" && refused 'INVALID_ARGUMENT: device /dev/other is not in the specification'
	spec x && c create x $WORK/x.json "device=vfio-pci|/dev/x|/dev/y" && refused 'UNIMPLEMENTED: device type "vfio-pci"'
	losetup -d "$LOOP"
}
t "a device gets the numbers it has in the guest" device_request

undo() {
	LINUX=',"seccomp":{"defaultAction":"SCMP_ACT_NOTIFY"}' && spec x
	c create x $WORK/x.json "storage=ephemeral|tmpfs|tmpfs|/run/kata-containers/x/e|size=1m" &&
		refused 'UNIMPLEMENTED: seccomp: action SCMP_ACT_NOTIFY is not supported'
	that sh -c '! grep -q kata-containers/x/e /proc/mounts' && that test ! -d /sys/fs/cgroup/x
}
t "a creation that fails late takes everything back" undo

copy_file() {
	local d=/run/kata-containers/shared
	c copy $d/a/f 0100640 10 0 hello && status 0 && that test ! -e $d/a/f
	c copy $d/a/f 0100640 10 5 world && status 0 && that [ "$(cat $d/a/f)" = helloworld ]
	that [ "$(stat -c %a $d/a/f)" = 640 ]
	c copy $d/dir 0040750 0 0 "" && that [ "$(stat -c %a $d/dir)" = 750 ]
	c copy $d/link 0120777 3 0 a/f && that [ "$(cat $d/link)" = helloworld ]
	rm -rf $d
}
t "CopyFile: files in pieces, directories, links" copy_file

copy_out() {
	local d=/run/kata-containers/shared
	c copy /etc/evil 0100644 1 0 x && refused 'INVALID_ARGUMENT: CopyFile: /etc/evil is not below /run/kata-containers'
	c copy /run/kata-containers/../evil 0100644 1 0 x && refused INVALID_ARGUMENT:
	c copy $d/link 0120777 4 0 /etc && status 0 && c copy $d/link/evil 0100644 1 0 x && status 99
	c copy $d/f 0100644 1 5 x && refused "INVALID_ARGUMENT: CopyFile $d/f: 1 bytes at 5 do not fit into 1"
	c copy $d/n 0020644 1 0 x && refused "file type of mode"
	that test ! -e /etc/evil -a ! -e /run/evil
	rm -rf $d
}
t "CopyFile leads nowhere else" copy_out

termination_log() {
	touch $WORK/term
	MOUNTS=",{\"destination\":\"/dev/termination-log\",\"type\":\"bind\",\"source\":\"$WORK/term\",\"options\":[\"bind\"]}"
	sh_args 'echo last words >/dev/termination-log' && spec x && c create x $WORK/x.json && c start x && c wait x ""
	c log x && status 0 && out "last words" && c remove x
}
t "GetDiagnosticData returns the termination log" termination_log
