#!/bin/bash
# run.sh [PART] - the end-to-end tests: makes the images, then runs inside.sh in the rig.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/e2e/image.sh

exec tests/rig/run --mem 6144 --timeout "${SPORE_E2E_TIMEOUT-1800}" -- tests/e2e/inside.sh "$@"
