#!/usr/bin/env bash
# Measures the load on Vault after it was unsealed, with a fleet that waits for new credentials:
# requests of all clients per second, counted in Vault's audit log.
# Prints a table, which is kept in target/dev/fleet.md.
#   fleet.sh [databases]     50 by default, about ten minutes
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster: it seals Vault"
. "$DEV/vault.env"
of_a_release

databases=${1:-50}
namespace=servicedb-fleet
SEALED=60
AUDIT=fleet

vault() { "$BIN/vault" "$@"; }
clean() {
  vault audit disable "$AUDIT" >/dev/null 2>&1 || true
  kubectl delete namespace "$namespace" --wait=false --ignore-not-found >/dev/null 2>&1 || true
}
unsealed() { vault operator unseal "$(jq -r '.keys_base64[0]' "$DEV/vault-init.json")" >/dev/null; }
trap 'unsealed || true; clean' EXIT

resources() { kubectl -n "$namespace" get servicedatabases -o json; }
number() { resources | jq "[.items[] | select($1)] | length"; }
ready='any(.status.conditions[]?; .type == "Ready" and .status == "True")'
# The others finish in time, or the step reports how many did not.
all() {
  local condition=$1 patience=$2 begin=$SECONDS
  until (($(number "$condition") == databases)); do
    ((SECONDS - begin < patience)) || fail "only $(number "$condition") of $databases after $patience s"
    sleep 1
  done
}

kubectl delete namespace "$namespace" --ignore-not-found >/dev/null
kubectl create namespace "$namespace" >/dev/null
printf '%d databases are made …\n' "$databases"
for ((number = 1; number <= databases; number++)); do
  cat <<YAML
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: fleet-$number, namespace: $namespace}
spec:
  deletionPolicy: Delete
  storage: {size: 256Mi}
  resources: {requests: {cpu: 10m, memory: 64Mi}}
---
YAML
done | kubectl apply -f - >/dev/null
all "$ready" 1200

printf 'Vault is sealed for %d s, and every database is asked for new credentials …\n' "$SEALED"
vault audit enable -path="$AUDIT" file file_path=stdout >/dev/null
vault operator seal >/dev/null
kubectl -n "$namespace" annotate servicedatabases --all servicedb.dev/rotate=after-the-seal >/dev/null
sleep "$SEALED"
since=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ) begin=$EPOCHREALTIME
unsealed
all '.status.credentials.rotateRequest == "after-the-seal"' 900
took=$(seconds "$begin" "$EPOCHREALTIME")
still_ready=$(number "$ready")

{
  printf 'Of %d databases that asked for new credentials while Vault was sealed for %d s, all had them %s s after it was unsealed; %d are Ready.\n\n' \
    "$databases" "$SEALED" "$took" "$still_ready"
  kubectl -n vault logs vault-0 --since-time="$since" | grep '^{' |
    jq -rs '
      [.[] | select(.type == "request" and (.time // "") != "")] as $all
      | ($all | group_by(.time[0:19]) | map(length) | sort) as $rates
      | ($all | [.[] | select(.request.path | startswith("auth/"))] | length) as $logins
      | "| Requests to Vault | |", "|---|---|",
        "| in all | \($all | length) |",
        "| for each database | \(($all | length) / '"$databases"' * 10 | round / 10) |",
        "| of them logins and looks at tokens | \($logins) |",
        "| most in one second | \($rates[-1] // 0) |",
        "| median of the seconds with any | \($rates[($rates | length / 2 | floor)] // 0) |",
        "| seconds with any | \($rates | length) |"'
} | tee "$DEV/fleet.md"
