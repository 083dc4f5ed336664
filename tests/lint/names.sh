#!/bin/sh
# names.sh - every function and object at file scope has a name of its own in the whole program, so that
# the unity build is free of accidents and a grep finds one place. main() excepted.
cd "$(dirname "$0")/../.." || exit
command -v ctags >/dev/null || { echo "names: needs universal-ctags" >&2; exit 1; }
find amalgam vmm guest -name '*.c' | LC_ALL=C sort | xargs ctags -x --c-kinds=fv --_xformat='%N %F' 2>/dev/null |
	sort -u | awk '$1 != "main" { n[$1]++; where[$1] = where[$1] " " $2 }
		END { for (s in n) if (n[s] > 1) { print s " is defined in" where[s]; bad = 1 } exit bad }'
