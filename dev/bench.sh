#!/usr/bin/env bash
# Measures apply to Ready against the floor, in one run: a bare StatefulSet that
# runs initdb. Prints a table, which stays in target/dev/bench.md. Then how long nobody
# can write when something breaks (outage.sh).
#   bench.sh                 all, some ten minutes, and half an hour for what breaks
#   bench.sh --no-outage     without what breaks
#   bench.sh --trace         where the time of one database goes
#   bench.sh --samples 1     quickly
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
of_a_release

if ! command -v python3 >/dev/null; then
  [[ $(id -u) == 0 ]] || fail "python3 is missing, and only root can install it"
  # shellcheck disable=SC2034
  python() { DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; apt-get update; apt-get install -y --no-install-recommends python3; how=installed; }
  step "python3" python
fi
# No bytecode into the working tree.
export PYTHONDONTWRITEBYTECODE=1
outage=1
given=()
while (($#)); do
  case $1 in
  --no-outage) outage=0 ;;
  --trace | -h | --help) outage=0 given+=("$1") ;;
  --samples) export OUTAGE_SAMPLES=${2:-} && given+=("$1" "${2:-}") && shift ;;
  --samples=*) export OUTAGE_SAMPLES=${1#*=} && given+=("$1") ;;
  *) given+=("$1") ;;
  esac
  (($# == 0)) || shift
done
python3 bench/bench.py --image "$IMAGE_REPOSITORY/postgres:$IMAGE_TAG" --output "$DEV" ${given[@]+"${given[@]}"}
((outage == 0)) || exec ./outage.sh
