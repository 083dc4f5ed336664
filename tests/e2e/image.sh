#!/bin/bash
# image.sh - makes build/e2e/busybox.ext4: a root filesystem of one static binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/e2e

# A root filesystem of one static binary, as small as they come.
if [ ! -e build/e2e/busybox.ext4 ] || [ tests/e2e/image.sh -nt build/e2e/busybox.ext4 ]; then
	root=build/e2e-root
	rm -rf $root
	mkdir -p $root/{bin,etc,tmp,root,home/user,proc,sys,dev,run,var/log}
	chmod 1777 $root/tmp
	cp /bin/busybox $root/bin/
	for applet in $(/bin/busybox --list); do
		[ "$applet" = busybox ] || ln -sf busybox $root/bin/"$applet"
	done
	ln -sf bin $root/sbin
	printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >$root/etc/passwd
	printf 'root:x:0:\nuser:x:1000:\nextra:x:2000:user\n' >$root/etc/group
	echo 'not a program' >$root/bin/plain
	printf '\177ELF garbage' >$root/bin/garbage
	chmod 755 $root/bin/garbage
	rm -f build/e2e/busybox.ext4.new
	mke2fs -q -t ext4 -O ^has_journal -d $root build/e2e/busybox.ext4.new 16M
	mv build/e2e/busybox.ext4.new build/e2e/busybox.ext4
	rm -rf $root
fi
