#!/usr/bin/env bash
# Measures a rotation of all clients of one database, each with a login of its own: the time until every record in
# Vault has the new one, and the requests to Vault of operator and agent, counted in Vault's audit log, then and at rest.
# Prints a table, which is kept in target/dev/clients.md.
#   clients.sh [clients]     50 by default, about a quarter of an hour
#   clients.sh campaign      instead: six clients at work through twenty rotations, two failovers, a removal, a sealed
#                            Vault and a clone; no login of theirs is refused. About ten minutes
#   CLIENTS_REST=20 clients.sh   without what is asked at rest
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
if [[ ${1:-} == campaign ]]; then
  cd "$ROOT"
  exec cargo test --locked --test e2e -- --ignored --nocapture client_campaign
fi
[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster: it reads Vault's audit log"
# shellcheck source=/dev/null
. "$DEV/vault.env"
[[ -n ${CLIENTS_ANY_BUILD:-} ]] || of_a_release

clients=${1:-50}
namespace=servicedb-clients
AUDIT=clients
# Longer than the operator's resync, so that the measurement at rest includes its requests.
REST=${CLIENTS_REST:-120}

vault() { "$BIN/vault" "$@"; }
clean() {
  vault audit disable "$AUDIT" >/dev/null 2>&1 || true
  kubectl delete namespace "$namespace" --wait=false --ignore-not-found >/dev/null 2>&1 || true
}
trap clean EXIT

resource() { kubectl -n "$namespace" get servicedatabase shop -o json; }
# Waits until a condition on the resource holds.
until_it() {
  local condition=$1 patience=$2 begin=$SECONDS
  until resource | jq -e "$condition" >/dev/null; do
    ((SECONDS - begin < patience)) || fail "not within $patience s: $condition"
    sleep 0.2
  done
}
now() { date -u +%Y-%m-%dT%H:%M:%S.%NZ; }
# The requests of the operator and of the agents since a time.
requests() { kubectl -n vault logs vault-0 --since-time="$1" | { grep '^{' || true; } | jq -s '[.[] | select(.type == "request")] | length'; }
# Those of the operator for the records, policies and roles of the clients.
for_clients() {
  kubectl -n vault logs vault-0 --since-time="$1" | { grep '^{' || true; } | jq -s --arg namespace "$namespace" '[.[]
    | select(.type == "request" and ((.auth.policies // []) | any(startswith("servicedb-operator."))))
    | select(.request.path | contains("\($namespace)/shop/clients/") or contains("\($namespace).shop.client."))] | length'
}

kubectl delete namespace "$namespace" --ignore-not-found >/dev/null
kubectl create namespace "$namespace" >/dev/null
jq -n --argjson clients "$clients" '{
  apiVersion: "servicedb.dev/v1alpha1", kind: "ServiceDatabase", metadata: {name: "shop"},
  spec: {
    deletionPolicy: "Delete", storage: {size: "1Gi"},
    clients: [range($clients) | {serviceAccountName: "client-\(.)", access: {mode: "ReadOnly"}}]
  }
}' | kubectl -n "$namespace" apply -f - >/dev/null
begin=$EPOCHREALTIME
# At its generation, every client has its login in Vault.
generation() { printf '([.status.clients[]? | select(.generation == %d and .rights == "Applied")] | length) == %d' "$1" "$clients"; }
until_it "$(generation 1)" 600
created=$(seconds "$begin" "$EPOCHREALTIME")

vault audit enable -path="$AUDIT" file file_path=stdout >/dev/null
sleep 20
since=$(now)
sleep "$REST"
rest=$(requests "$since") of_clients=$(for_clients "$since")

since=$(now) begin=$EPOCHREALTIME
kubectl -n "$namespace" annotate servicedatabase shop servicedb.dev/rotate=measured >/dev/null
until_it "$(generation 2)" 300
rotated=$(seconds "$begin" "$EPOCHREALTIME")
sleep 2
sent=$(requests "$since")

{
  printf '| One database, %d clients with a login of their own | |\n|---|---|\n' "$clients"
  printf '| applied, until all logins are in Vault and all rights granted | %s s |\n' "$created"
  printf '| rotation of the application and of all clients | %s s |\n' "$rotated"
  printf '| … requests to Vault for it | %d |\n' "$sent"
  printf '| requests to Vault at rest, in %d s | %d |\n' "$REST" "$rest"
  printf '| … of the operator for the clients (one for each and resync) | %d |\n' "$of_clients"
} | tee "$DEV/clients.md"
