#!/usr/bin/env bash
# Measures the time from `kubectl apply` of a clone to Ready beside the restore of the same backup alone (pgBackRest, in
# the source's pod, with the source's configuration). Prints a table, which is kept in target/dev/clone.md.
#   clone.sh                                2 GiB, five times, about five minutes
#   CLONE_SAMPLES=1 CLONE_SCALE=5 clone.sh   a quick run
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster: the login is read from its Vault"
[[ -n ${CLONE_ANY_BUILD:-} ]] || of_a_release
# shellcheck source=/dev/null
. "$DEV/vault.env"

samples=${CLONE_SAMPLES:-5} scale=${CLONE_SCALE:-150} # of pgbench: 15 MiB each
namespace=clone-bench-$$
# shellcheck source=lib/pgbench.sh
. lib/pgbench.sh
work=$(mktemp -d)
trap 'rm -rf "$work"; kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true' EXIT

# resource NAME [BOOTSTRAP]: a database.
resource() {
  local bootstrap='{}'
  (($# == 1)) || bootstrap=$2
  cat <<YAML
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: $1}
spec:
  deletionPolicy: Delete
  storage: {size: 8Gi}
  postgres: {parameters: {max_wal_size: 2GB}}
  backup: {store: main, deletionPolicy: Delete, schedule: {full: "0 0 1 1 *", incremental: "", verification: ""}}
  clients: [{serviceAccountName: bench, podSelector: {matchLabels: {app: bench}}}]
  bootstrap: $bootstrap
YAML
}
ready() { in_namespace wait --for=condition=Ready "servicedatabase/$1" --timeout=300s >/dev/null; }

kubectl create namespace "$namespace" >/dev/null
{ resource shop; echo ---; bench_pod; } | in_namespace apply -f - >/dev/null
log_in
at "$(value HOST)" 5432 verify-full "pgbench -q -i -s $scale" >/dev/null 2>&1
size=$(at "$(value HOST)" 5432 verify-full "psql -XAtc 'SELECT pg_database_size(current_database()) / 1048576'")
kubectl servicedb --namespace "$namespace" backup shop --full >/dev/null

scratch=/var/lib/postgresql/data/clone-bench
restore() {
  in_namespace exec shop-db-0 -c database -- sh -c "mkdir -m 700 $scratch &&
    pgbackrest --config=/run/servicedb/archive/pgbackrest.conf --stanza=db --pg1-path=$scratch --log-level-console=off restore"
}
create() { # NAME [BOOTSTRAP]
  resource "$@" | in_namespace apply -f - >/dev/null
  ready "$1"
}
# measured NAME COMMAND …: adds its duration in seconds to a file.
measured() {
  local begin=$EPOCHREALTIME name=$1
  shift
  "$@"
  echo "$(seconds "$begin" "$EPOCHREALTIME")" >>"$work/$name"
}
for ((sample = 0; sample < samples; sample++)); do
  measured restore restore
  in_namespace exec shop-db-0 -c database -- rm -rf "$scratch"
  measured clone create copy '{restore: {source: {name: shop}}}'
  in_namespace delete servicedatabase copy --wait=true >/dev/null
  # A database with nothing to restore: what a start takes anyhow.
  measured empty create empty
  in_namespace delete servicedatabase empty --wait=true >/dev/null
done
paste "$work/clone" "$work/restore" | awk '{print $1 / $2}' >"$work/ratio"
paste "$work/clone" "$work/empty" "$work/restore" | awk '{print $1 / ($2 + $3)}' >"$work/sum"
{
  echo "| $size MiB, $samples times | median |"
  echo "|---|---|"
  echo "| restore alone, s | $(median <"$work/restore") |"
  echo "| an empty database from apply to Ready, s | $(median <"$work/empty") |"
  echo "| a clone from apply to Ready, s | $(median <"$work/clone") |"
  echo "| … beside the restore alone | $(median <"$work/ratio") |"
  echo "| … beside the restore and an empty database's start | $(median <"$work/sum") |"
} | tee "$DEV/clone.md"
