#!/bin/bash
# inside.sh [PART] - runs in the rig: every case whose sentence, function or file holds PART, as TAP.
# Files are copied to memory first, so that 9p does not blur what is tested.
cd "$(dirname "$0")/../.." || exit
TREE=$PWD
ONLY=${1-}
WORK=/tmp/e2e
mkdir -p $WORK /run/mount # umount(8) makes the latter
losetup -f >/dev/null 2>&1 # makes /dev/loop*
ip netns add x && ip netns delete x # makes /run/netns
cp build/spore build/e2e/busybox.* $WORK/
. tests/e2e/lib.sh
for FILE in tests/e2e/cases/*.sh; do
	. "$FILE"
done
echo "1..$N"
[ "$FAILED" = 0 ]
