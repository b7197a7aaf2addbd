#!/usr/bin/env bash
# Measures the time from apply to Ready against the floor (a bare StatefulSet that runs initdb), in
# one run. Prints a table, which is kept in target/dev/bench.md. Then measures the pooler, major upgrades,
# backups, the gateway and migration layouts, and at last the time without writes after a fault (outage.sh).
#   bench.sh                 all, about forty minutes, and half an hour for the faults
#   bench.sh --no-outage     only the first table
#   bench.sh --backups       archiving, backup and restore alone: about fifteen minutes (local cluster only)
#   bench.sh --gateway       the data gateway beside pgbench alone: five minutes (no cluster)
#   bench.sh --trace         the phases of one database's start
#   bench.sh --samples 1     a quick run
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
# The ratios are of one build and one run; PostgreSQL is Debian's.
gateway() {
  mkdir -p "$DEV"
  (cd "$ROOT" && cargo test --locked --release -p servicedb-gateway --test gateway -- --ignored --nocapture speed::) | tee "$DEV/gateway.md"
}
if [[ ${1:-} == --gateway ]]; then
  gateway
  exit
fi
of_a_release

if ! command -v python3 >/dev/null; then
  [[ $(id -u) == 0 ]] || fail "python3 is missing, and only root can install it"
  # shellcheck disable=SC2034
  python() { DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; apt-get update; apt-get install -y --no-install-recommends python3; how=installed; }
  step "python3" python
fi
# No bytecode into the working tree.
export PYTHONDONTWRITEBYTECODE=1
backups() {
  python3 bench/backups.py --image "$IMAGE_REPOSITORY/postgres:$IMAGE_TAG" --storage "$CACHE/buildah" --output "$DEV"
}
outage=1
given=()
while (($#)); do
  case $1 in
  --no-outage) outage=0 ;;
  --backups) backups; exit ;;
  --trace | -h | --help) outage=0 given+=("$1") ;;
  --samples) export OUTAGE_SAMPLES=${2:-} && given+=("$1" "${2:-}") && shift ;;
  --samples=*) export OUTAGE_SAMPLES=${1#*=} && given+=("$1") ;;
  *) given+=("$1") ;;
  esac
  (($# == 0)) || shift
done
python3 bench/bench.py --image "$IMAGE_REPOSITORY/postgres:$IMAGE_TAG" --output "$DEV" ${given[@]+"${given[@]}"}
((outage)) || exit 0
./pooler.sh
[[ -n ${CONTEXT:-} ]] || ./upgrade.sh
[[ -n ${CONTEXT:-} ]] || backups
gateway
# A thousand migrations of each tool's layout, read beside Servicedb's own.
(cd "$ROOT" && cargo test --quiet --release --test migrate -- --ignored --nocapture thousand_files)
exec ./outage.sh
