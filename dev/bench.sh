#!/usr/bin/env bash
# Measures apply to Ready against the floor, in one run: a bare StatefulSet that
# runs initdb. Prints a table, which stays in target/dev/bench.md.
#   bench.sh                 all, some ten minutes
#   bench.sh --trace         where the time of one database goes
#   bench.sh --samples 1     quickly
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

if ! command -v python3 >/dev/null; then
  [[ $(id -u) == 0 ]] || fail "python3 is missing, and only root can install it"
  # shellcheck disable=SC2034
  python() { DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; apt-get update; apt-get install -y --no-install-recommends python3; how=installed; }
  step "python3" python
fi
# No bytecode into the working tree.
export PYTHONDONTWRITEBYTECODE=1
exec python3 bench/bench.py --image "$IMAGE_REPOSITORY/postgres:$IMAGE_TAG" --output "$DEV" "$@"
