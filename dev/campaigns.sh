#!/usr/bin/env bash
# The end-to-end tests that take too long for `make test`, on the local cluster with its installed operator, one after
# another. They damage their own backups in the cluster's store, seal its Vault, cut nodes off and restart the operator.
#   campaigns.sh                       all, about an hour
#   campaigns.sh backup_campaign       those of one file in tests/e2e
#   CAMPAIGN_SEED=7 campaigns.sh backup_campaign    the same moments again
#   CAMPAIGN_MINUTES=25 campaigns.sh scrape_campaign   scrapes for longer than a quarter of an hour
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh

[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster: Vault is sealed, and nodes are cut off"
export CARGO_TARGET_DIR=$ROOT/target RUST_BACKTRACE=0
cd "$ROOT"
# One at a time: each measures or damages what the others use.
for campaign in "${@:-campaign}"; do
  cargo test --locked --test e2e -- --ignored --nocapture --test-threads 1 "$campaign"
done
