#!/usr/bin/env bash
# Runs the data gateway's tests on a PostgreSQL on loopback, and an unmodified
# @supabase/postgrest-js, grpcurl and Schemathesis against it; buf judges the
# definition of its gRPC service, and what it changes of that of the newest release.
# Needs Node with npm, Python with venv, Go, Rust and, as the tests, a PostgreSQL
# server (PG_BIN names its folder, if it is not Debian's).
set -euo pipefail
cd "$(dirname "$0")/.."
clients=$PWD/target/gateway-clients
mkdir -p "$clients"
cp dev/gateway/package.json dev/gateway/package-lock.json dev/gateway/postgrest.mjs "$clients/"
(cd "$clients" && npm ci --no-audit --no-fund --ignore-scripts)
[[ -x $clients/venv/bin/pip ]] || python3 -m venv "$clients/venv"
"$clients/venv/bin/pip" install --quiet --disable-pip-version-check -r dev/gateway/requirements.txt
[[ -x $clients/grpcurl ]] || GOBIN=$clients go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
buf=$clients/node_modules/.bin/buf
"$buf" lint gateway
release=$(git describe --tags --abbrev=0 2>/dev/null || true)
[[ -z $release ]] || "$buf" breaking gateway --against ".git#tag=$release,subdir=gateway"
GATEWAY_CLIENTS=$clients cargo test --locked -p servicedb-gateway --test gateway -- --include-ignored --skip speed:: --nocapture --test-threads 4
