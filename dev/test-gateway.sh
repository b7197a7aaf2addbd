#!/usr/bin/env bash
# Runs the data gateway's tests on a PostgreSQL on loopback, and an unmodified
# @supabase/postgrest-js and Schemathesis against it. Needs Node with npm,
# Python with venv, Rust and, as the tests, a PostgreSQL server (PG_BIN names its
# folder, if it is not Debian's).
set -euo pipefail
cd "$(dirname "$0")/.."
clients=$PWD/target/gateway-clients
mkdir -p "$clients"
cp dev/gateway/package.json dev/gateway/package-lock.json dev/gateway/postgrest.mjs "$clients/"
(cd "$clients" && npm ci --no-audit --no-fund --ignore-scripts)
[[ -x $clients/venv/bin/pip ]] || python3 -m venv "$clients/venv"
"$clients/venv/bin/pip" install --quiet --disable-pip-version-check -r dev/gateway/requirements.txt
GATEWAY_CLIENTS=$clients cargo test --locked -p servicedb-gateway --test gateway -- --include-ignored --skip speed:: --nocapture --test-threads 4
