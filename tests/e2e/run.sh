#!/bin/bash
# run.sh [PART] - the end-to-end tests: makes the images, then runs inside.sh in the rig.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/e2e/image.sh

# Time inside goes with instructions, so that a slow or busy machine changes no result. With
# SPORE_E2E_RIG="--smp 2" the same cases run on CPUs that are truly parallel.
exec tests/rig/run ${SPORE_E2E_RIG---steady} --mem 6144 --timeout "${SPORE_E2E_TIMEOUT-3600}" -- \
	tests/e2e/inside.sh "$@"
