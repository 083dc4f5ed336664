#!/bin/sh
# style.sh - small mistakes a compiler does not see. Each line of output is one of them.
cd "$(dirname "$0")/../.." || exit
bad=0
ours=$(find amalgam vmm guest tests -name '*.[ch]' | LC_ALL=C sort)
complain() { # TEXT, stdin = places
	grep . | sed "s/\$/: $1/" | grep . && bad=1
}
# One idea per file: past 850 lines it is two. Tests may have more to say.
complain "too long; split it" <<X
$(wc -l $ours | awk '$2 != "total" && $1 > ($2 ~ /^tests/ ? 1300 : 850) { print $2 }')
X
complain "trailing white space" <<X
$(grep -nE '[ 	]+$' $ours | cut -d: -f1,2)
X
complain "longer than 112 columns" <<X
$(for f in $ours; do expand "$f" | awk -v f="$f" 'length > 112 { print f ":" FNR }'; done)
X
complain "header without #pragma once" <<X
$(grep -L '^#pragma once' $(echo "$ours" | grep '\.h$'))
X
complain "use err.h, log.h: strings for people are made in one place" <<X
$(grep -nE '\b(perror|strcpy|strcat|gets|system|popen|tmpnam|mktemp) ?\(' $(echo "$ours" | grep -v '^tests/') | cut -d: -f1,2)
X
complain "a bare TODO helps nobody: open an issue" <<X
$(grep -nwE 'TODO|FIXME|XXX' $ours | cut -d: -f1,2)
X
exit $bad
