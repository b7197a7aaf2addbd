#!/usr/bin/env bash
# Faults at every mutating call, on the local cluster with its installed operator
# (docs/faults.md). What was found goes to target/dev/faults.jsonl; run again, it
# goes on from there, as long as the code is the same.
#   test-faults.sh                           all, some hours
#   FAULTS_SHARD=2/4 test-faults.sh          the second of four parts
#   FAULTS_SECONDS=600 test-faults.sh        what can be done in ten minutes
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

export CARGO_TARGET_DIR=$ROOT/target
export FAULTS_RESUME=${FAULTS_RESUME:-$DEV/faults.jsonl}
# A case that fails says what differs; where the tests' own code stood does not matter.
export RUST_BACKTRACE=0
cd "$ROOT"
cargo test --locked --test faults -- --ignored --nocapture
