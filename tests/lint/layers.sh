#!/bin/sh
# layers.sh - who may include whom (amalgam/README.md). Prints each include that points upwards.
# A folder may always include itself; generated headers (no slash in the name) are anybody's.
cd "$(dirname "$0")/../.." || exit
find amalgam vmm guest -name '*.[chS]' | LC_ALL=C sort | xargs awk '
BEGIN {
	allow["amalgam/base"] = ""
	allow["amalgam/wire"] = "amalgam/base"
	allow["amalgam/config"] = "amalgam/base amalgam/wire vmm/layout.h"
	allow["amalgam/image"] = "amalgam/base amalgam/wire"
	allow["amalgam/resource"] = "amalgam/base amalgam/wire amalgam/config amalgam/image"
	allow["vmm"] = "amalgam/base"
	allow["amalgam/hv"] = "amalgam/base amalgam/config amalgam/resource amalgam/assets.h vmm/ctl.h"
	allow["amalgam/runtime"] = "amalgam/base amalgam/wire amalgam/config amalgam/image amalgam/resource amalgam/hv vmm/ctl.h"
	allow["amalgam/shim"] = allow["amalgam/cli"] = allow["amalgam/runtime"] " amalgam/runtime"
	allow["amalgam/cli"] = allow["amalgam/cli"] " amalgam/shim/shim.h"
	allow["guest/agent"] = "amalgam/base amalgam/wire"
	allow["guest/kernel"] = ""
	allow["amalgam"] = "*" # the unity roots
}
function folder(p) {
	sub(/\/[^\/]*$/, "", p)
	while (!(p in allow) && sub(/\/[^\/]*$/, "", p))
		;
	return p
}
/^[ \t]*#[ \t]*include[ \t]*".*\// {
	split($0, q, "\"")
	from = folder(FILENAME)
	to = folder(q[2])
	if (from == to || allow[from] == "*")
		next
	if (index(" " allow[from] " ", " " to " ") || index(" " allow[from] " ", " " q[2] " "))
		next
	printf "%s:%d: %s must not include %s\n", FILENAME, FNR, from, q[2]
	bad = 1
}
END { exit bad }'
