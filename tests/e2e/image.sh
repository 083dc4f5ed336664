#!/bin/bash
# image.sh - makes build/e2e/busybox.ext4, a root filesystem of two static binaries, and the same as
# busybox.erofs.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/e2e

out=build/e2e/busybox
[ $out.ext4 -nt tests/e2e/image.sh ] && [ $out.ext4 -nt tests/e2e/probe.c ] && [ -e $out.erofs ] && [ -e build/e2e/probe ] && exit
root=build/e2e-root
rm -rf $root
mkdir -p $root/{bin,etc,tmp,root,home/user,proc,sys,dev,run,var/log}
chmod 1777 $root/tmp
musl-gcc -static -s -O2 -Wall -Wextra -Werror -o $root/bin/probe tests/e2e/probe.c
cp $root/bin/probe build/e2e/probe # for the other end of a wire
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
chown -R 0:0 $root
chown 1000:1000 $root/home/user
rm -f $out.ext4.new $out.erofs.new
mke2fs -q -t ext4 -O ^has_journal -d $root $out.ext4.new 16M
mkfs.erofs --quiet $out.erofs.new $root 2>/dev/null || mkfs.erofs $out.erofs.new $root >/dev/null
mv $out.erofs.new $out.erofs
mv $out.ext4.new $out.ext4
rm -rf $root
