#!/usr/bin/env bash
# Measures the time without writes after a fault, and whether data is lost with repeated
# faults (tests/outage). Tables are kept in target/dev, the logs of all pods in
# target/dev/outage-logs.
#   outage.sh                      each kind of fault five times, about half an hour: outage.md
#   OUTAGE_SAMPLES=1 outage.sh     a quick run
#   OUTAGE_ONLY='memory,pod deleted' outage.sh   a part
#   OUTAGE_SAMPLES=10 OUTAGE_ONLY='API server hangs' outage.sh   about 25 minutes
#   outage.sh soak                 a fault every 20 s for half an hour: soak.md
#   outage.sh changes              the spec changed once a second, twenty times: changes.md
#   CHANGES_RUNS=1 CHANGES_SEED=7 outage.sh changes
#   SOAK_MINUTES=3 SOAK_SEED=7 SOAK_FAULT_SECONDS=20 outage.sh soak
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
. lib/process.sh

case ${1:-measure} in
measure) name=write_outages_are_measured ;;
soak) name=faults_one_after_another_lose_nothing ;;
changes) name=changes_once_a_second_lose_nothing ;;
*) sed -n 's/^#   //p' outage.sh >&2; exit 2 ;;
esac

# The test may be killed before it has repaired the node.
mend() {
  local node
  [[ -z ${CONTEXT:-} ]] || return 0
  for node in "${NODE_NAMES[@]}"; do
    [[ $node == "$NODE" ]] || ip link set "$(node_netns "$node")" up || true
    running "$node-kubelet" || ./fault.sh kubelet-start "$node" || true
  done
}
trap 'code=$?; mend; exit "$code"' EXIT

of_a_release
rm -rf "$DEV/outage-logs"
# Optimised, like services, so that it leaves the machine to the database.
export CARGO_TARGET_DIR=$ROOT/target RUST_BACKTRACE=0
(cd "$ROOT" && cargo test --locked --release --test outage -- --ignored --exact "$name" --nocapture)
