#!/bin/bash
# run.sh [PART] - the suite that runs the same through containerd with every runtime and compares: fetches the
# tools, makes the images and the raw client, then runs inside.sh in the rig. See tests/README.md.
#
#   SPORE_CONFORM_RUNTIMES   names of shims, as in io.containerd.NAME.v2; the first one is the measure
#   SPORE_CONFORM_RIG        options of the rig; default --steady
#   SPORE_CONFORM_TIMEOUT    seconds until it is given up
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(tests/conform/tools.sh)
images=$(tests/conform/image.sh busybox)
# Not grep -q, which hangs up on cat: a failure, to pipefail.
! (echo tests/conform/cases/debian.sh && cat tests/conform/cases/debian.sh) | grep -E "${1-}" >/dev/null ||
	SPORE_CONFORM_DEBIAN=$(tests/conform/image.sh debian)
export SPORE_CONFORM_DEBIAN
tests/conform/raw.sh

export SPORE_CONFORM_RUNTIMES=${SPORE_CONFORM_RUNTIMES-runc spore}
exec tests/rig/run ${SPORE_CONFORM_RIG---steady} --mem 6144 --timeout "${SPORE_CONFORM_TIMEOUT-3600}" -- \
	tests/conform/inside.sh "$tools" "$images" "$@"
