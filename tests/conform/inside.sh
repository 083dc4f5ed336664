#!/bin/bash
# inside.sh TOOLS IMAGES [PART] - runs in the rig: every case whose sentence, function or file matches PART, a regular
# expression, under each of $SPORE_CONFORM_RUNTIMES, as TAP. Everything it uses is copied to memory first.
cd "$(dirname "$0")/../.." || exit
TREE=$PWD
TOOLS=$1
IMAGES=$2
ONLY=${3-}
WORK=/tmp/conform
. tests/e2e/lib.sh
. tests/conform/lib.sh
set_up
for FILE in tests/conform/cases/*.sh; do
	. "$FILE"
done
echo "1..$N"
stop_containerd TERM
[ "$FAILED" = 0 ]
