#!/usr/bin/env bash
# Faults at every mutating call, on the local cluster with its installed operator
# (docs/faults.md). Results are written to target/dev/faults.jsonl; a second run
# continues from there, as long as the code is the same.
#   test-faults.sh                           all, several hours
#   FAULTS_SCENARIOS=client-added,upgrade test-faults.sh   those of some scenarios
#   FAULTS_SHARD=2/4 test-faults.sh          the second of four parts
#   FAULTS_SECONDS=600 test-faults.sh        as many cases as fit into ten minutes
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

export CARGO_TARGET_DIR=$ROOT/target
export FAULTS_RESUME=${FAULTS_RESUME:-$DEV/faults.jsonl}
# A failing case prints the differences; the position in the tests' own code is irrelevant.
export RUST_BACKTRACE=0
cd "$ROOT"
cargo test --locked --test faults -- --ignored --nocapture
