#!/bin/sh
# gen.sh OUTDIR - C for the messages of proto/*.proto, as OUTDIR/<name>.pb-c.[ch].
#
# The result is not committed. It is compiled as units of its own, with warnings off, and our code
# sees it as "agent.pb-c.h" with -I OUTDIR.
set -eu
out=${1:?usage: gen.sh OUTDIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
protoc-c --proto_path="$here/proto" --c_out="$out" "$here"/proto/*.proto
# GNU C predefines `linux` as 1; Spec has a field of that name.
sed -i '/^PROTOBUF_C__BEGIN_DECLS/i #undef linux\n' "$out/oci.pb-c.h"
