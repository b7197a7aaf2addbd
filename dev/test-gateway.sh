#!/usr/bin/env bash
# Runs the data gateway's tests on a PostgreSQL on loopback, and an unmodified
# @supabase/postgrest-js against it. Needs Node with npm, Rust and, as the
# tests, a PostgreSQL server (PG_BIN names its folder, if it is not Debian's).
set -euo pipefail
cd "$(dirname "$0")/.."
clients=$PWD/target/gateway-clients
mkdir -p "$clients"
cp dev/gateway/package.json dev/gateway/package-lock.json dev/gateway/postgrest.mjs "$clients/"
(cd "$clients" && npm ci --no-audit --no-fund --ignore-scripts)
GATEWAY_CLIENTS=$clients cargo test --locked -p servicedb-gateway --test gateway -- --include-ignored --skip speed:: --nocapture --test-threads 4
