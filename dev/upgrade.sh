#!/usr/bin/env bash
# Measures a major upgrade from 17 to 18 as the clients of the pooler see it: a database of two instances with 1 GiB in
# 100 tables, upgraded and taken back several times under pgbench. Prints a table, which is kept in
# target/dev/upgrade.md: the longest transaction during each upgrade, pg_upgrade's own time with --link on the same
# data (from the rehearsal before it), the failed transactions, and the time until the replica streams again.
#   upgrade.sh                                      five times, about twenty minutes
#   UPGRADE_SAMPLES=1 UPGRADE_MEBIBYTES=64 upgrade.sh   a quick run
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster: the login is read from its Vault"
[[ -n ${UPGRADE_ANY_BUILD:-} ]] || of_a_release
# shellcheck source=/dev/null
. "$DEV/vault.env"

samples=${UPGRADE_SAMPLES:-5} mebibytes=${UPGRADE_MEBIBYTES:-1024} tables=100
namespace=upgrade-bench-$$
# shellcheck source=lib/pgbench.sh
. lib/pgbench.sh
trap 'kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true' EXIT

kubectl create namespace "$namespace" >/dev/null
in_namespace apply -f - >/dev/null <<YAML
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: shop}
spec:
  instances: 2
  deletionPolicy: Delete
  postgres: {version: "17", parameters: {max_wal_size: 2GB}}
  storage: {size: 8Gi}
  backup: {enabled: false}
  pooler: {instances: 1, poolSize: 10}
  clients: [{serviceAccountName: bench, podSelector: {matchLabels: {app: bench}}}]
---
$(bench_pod)
YAML
log_in
printf 'INSERT INTO written (client) VALUES (:client_id);\n' | client 'cat >/tmp/write.sql'

# A row of each table takes about a kibibyte.
rows=$((mebibytes * 1024 / tables))
{
  printf 'CREATE TABLE written (id bigserial PRIMARY KEY, client int);\n'
  for ((table = 0; table < tables; table++)); do
    printf "CREATE TABLE t%d (id int PRIMARY KEY, body text); ALTER TABLE t%d ALTER body SET STORAGE PLAIN;\n" "$table" "$table"
    printf "INSERT INTO t%d SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, %d) n;\n" "$table" "$rows"
  done
} | at "$(value HOST)" 5432 verify-full 'psql -qX -v ON_ERROR_STOP=1' >/dev/null
size=$(at "$(value HOST)" 5432 verify-full "psql -XAtc 'SELECT pg_database_size(current_database()) / 1048576'")

status() { in_namespace get servicedatabase shop -o jsonpath="{.status.$1}"; }
whole() {
  local begin=$SECONDS
  until [[ $(status instances) == 2/2 && $(status 'conditions[?(@.type=="SynchronousReplication")].status') == True ]]; do
    ((SECONDS - begin < 600)) || fail "the instances do not serve: $(status upgrade.message)"
    sleep 0.2
  done
}

whole
in_namespace patch servicedatabase shop --type merge -p '{"spec": {"postgres": {"version": "18"}}}' >/dev/null
at "$(value POOLER_HOST)" 5432 verify-full 'rm -f /tmp/log.*; for m in simple extended prepared; do pgbench -n -f /tmp/write.sql -M $m -c 3 -j 1 -R 60 -T 100000 -l --log-prefix=/tmp/log.$m >/tmp/out.$m 2>&1 & done; wait' &
load=$!
sleep 5
rm -f "$DEV"/upgrade-*.txt.new
for ((sample = 0; sample < samples; sample++)); do
  since=$(date +%s)
  kubectl servicedb --namespace "$namespace" upgrade shop --yes >"$DEV/upgrade-said.txt.new" || fail "$(cat "$DEV/upgrade-said.txt.new")"
  switched=$(date -d "$(status upgrade.switchedAt)" +%s.%6N)
  whole
  echo "$(seconds "$switched" "$EPOCHREALTIME")" >>"$DEV/upgrade-whole.txt.new"
  sleep 2
  longest "$since" 1 >>"$DEV/upgrade-longest.txt.new"
  sed -n 's/.* in \([0-9]*\) s, of which pg_upgrade took \([0-9]*\) s.*/\1 \2/p' "$DEV/upgrade-said.txt.new" | head -n 1 >>"$DEV/upgrade-rehearsal.txt.new"
  since=$(date +%s)
  kubectl servicedb --namespace "$namespace" upgrade shop --back --yes >/dev/null
  whole
  sleep 2
  longest "$since" 1 >>"$DEV/upgrade-back.txt.new"
done
end_load "$load"
failed=$(client "cat /tmp/out.*" | grep -c 'aborted\|ERROR\|FATAL' || true)

of() { median <"$DEV/upgrade-$1.txt.new"; }
worst() { sort -n "$DEV/upgrade-$1.txt.new" | tail -n 1; }
{
  echo "| $size MiB in $tables tables, $samples times | median | worst |"
  echo "|---|---|---|"
  echo "| longest transaction through the pooler during an upgrade, s | $(of longest) | $(worst longest) |"
  echo "| … on the way back, s | $(of back) | $(worst back) |"
  echo "| the rehearsal, with its base backup, s | $(cut -d ' ' -f 1 "$DEV/upgrade-rehearsal.txt.new" | median) | |"
  echo "| … pg_upgrade --link in it, s | $(cut -d ' ' -f 2 "$DEV/upgrade-rehearsal.txt.new" | median) | |"
  echo "| until the replica streams again, s | $(of whole) | $(worst whole) |"
  echo "| failed transactions | $failed | |"
} | tee "$DEV/upgrade.md"
rm -f "$DEV"/upgrade-*.txt.new
