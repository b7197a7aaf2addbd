#!/usr/bin/env bash
# Measures the pooler against a bare PgBouncer of the same image with the same configuration and
# certificates, in the same pod, and against direct connections; and the longest query while the
# lead is handed over. Prints a table, which is kept in target/dev/pooler.md.
#   pooler.sh                 all, about ten minutes
#   POOLER_SAMPLES=3 POOLER_SECONDS=5 POOLER_SWITCHOVERS=3 pooler.sh   a quick run
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
[[ -n ${POOLER_ANY_BUILD:-} ]] || of_a_release
# shellcheck source=/dev/null
. "$DEV/vault.env"

samples=${POOLER_SAMPLES:-5} seconds=${POOLER_SECONDS:-10} switchovers=${POOLER_SWITCHOVERS:-10}
namespace=pooler-bench-$$
# shellcheck source=lib/pgbench.sh
. lib/pgbench.sh
trap 'kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true' EXIT

kubectl create namespace "$namespace" >/dev/null
in_namespace apply -f - >/dev/null <<YAML
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: shop}
spec:
  instances: 3
  deletionPolicy: Delete
  storage: {size: 1Gi}
  pooler: {instances: 1, poolSize: 20, maxClientConnections: 1200}
  clients: [{serviceAccountName: bench, podSelector: {matchLabels: {app: bench}}}]
---
# The bare PgBouncer has a port of its own.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: bare}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/component: pooler}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: bench}}}]}]
---
$(bench_pod)
YAML
log_in
printf '\\set id random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :id;\n' | client 'cat >/tmp/read.sql'
printf 'INSERT INTO written (client) VALUES (:client_id);\n' | client 'cat >/tmp/write.sql'
printf 'SELECT 1;\n\\sleep 30 s\n' | client 'cat >/tmp/idle.sql'
# bench HOST:PORT ARGUMENTS: pgbench, by TLS. The bare PgBouncer is reached by its address.
bench() {
  local host=${1%:*} port=${1#*:} mode=verify-full
  [[ $host != [0-9]* ]] || mode=require
  shift
  at "$host" "$port" "$mode" "$*"
}
direct=$(value HOST):5432 pooled=$(value POOLER_HOST):5432
bench "$direct" 'pgbench -q -i -s 1 --no-vacuum 2>&1 && psql -qc "CREATE TABLE written (id bigserial PRIMARY KEY, client int)"' >/dev/null 2>&1

# The bare one, beside the pooler's own.
pooler=$(in_namespace get pod -l app.kubernetes.io/component=pooler -o jsonpath='{.items[0].metadata.name}')
address=$(in_namespace get pod "$pooler" -o jsonpath='{.status.podIP}')
in_namespace exec "$pooler" -- sh -c 'mkdir -p /run/servicedb/bare && sed "s/^listen_port = .*/listen_port = 6433/; s|^unix_socket_dir = .*|unix_socket_dir = /run/servicedb/bare|; s/^peer_id = .*/peer_id = 0/; /^\[peers\]/,/^\[pgbouncer\]/{/ = host/d}" /run/servicedb/pgbouncer.ini >/run/servicedb/bare.ini && { pgbouncer -q /run/servicedb/bare.ini >/dev/null 2>&1 & echo $! >/run/servicedb/bare.pid; } && sleep 1'
# To both by address, so that they differ in nothing else.
bare=$address:6433 ours=$address:6432

ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }
# rate HOST:PORT ARGUMENTS: transactions a second.
rate() { bench "$1" "pgbench -n -T $seconds ${*:2} 2>/dev/null" | sed -n 's/^tps = \([0-9.]*\).*/\1/p'; }

for ((sample = 0; sample < samples; sample++)); do
  for who in ours bare direct; do
    rate "${!who}" -S -M prepared -c 16 -j 2 >>"$DEV/pooler-$who.txt.new"
  done
  for who in pooled direct; do
    rate "${!who}" -f /tmp/read.sql -C -c 8 -j 2 >>"$DEV/pooler-connect-$who.txt.new"
  done
done
# The median of the ratios of each sample: both of a sample met the same load of the machine.
ratios() { paste "$DEV/pooler-$1.txt.new" "$DEV/pooler-$2.txt.new" | awk '{print $1 / $2}' | median | xargs printf '%.2f'; }
of() { median <"$DEV/pooler-$1.txt.new"; }

# Memory: proportional set size in KiB with a thousand idle clients, of each PgBouncer and of its parent.
pid_ours='$(pidof pgbouncer | tr " " "\n" | grep -vx "$(cat /run/servicedb/bare.pid)")' pid_bare='$(cat /run/servicedb/bare.pid)'
pid_parent='$(pidof servicedb)'
memory() { in_namespace exec "$pooler" -- sh -c "for p in $1; do cat /proc/\$p/smaps_rollup; done" | awk '/^Pss:/ {sum += $2} END {print sum}'; }
for who in ours bare; do
  bench "${!who}" 'timeout 40 pgbench -n -f /tmp/idle.sql -c 1000 -j 2 -t 1 >/dev/null 2>&1 || true' &
  sleep 30
  process=pid_$who
  memory "${!process}" >"$DEV/pooler-memory-$who.txt.new"
  wait
done
parent=$(memory "$pid_parent") own=$(of memory-ours) other=$(of memory-bare)

# Planned switchovers under 63 clients, a third with each protocol: the longest transaction in each switchover.
bench "$pooled" 'rm -f /tmp/log.*; for m in simple extended prepared; do pgbench -n -f /tmp/write.sql -M $m -c 21 -j 1 -R 100 -T 100000 -l --log-prefix=/tmp/log.$m >/tmp/out.$m 2>&1 & done; wait' &
load=$!
sleep 5
for ((number = 0; number < switchovers; number++)); do
  since=$(date +%s)
  kubectl servicedb --namespace "$namespace" switchover shop >/dev/null
  in_namespace wait --for=condition=Ready servicedatabase/shop --timeout=120s >/dev/null
  sleep 2
  longest "$since" 3 >>"$DEV/pooler-stall.txt.new"
done
end_load "$load"
failed=$(client "cat /tmp/out.*" | grep -c 'aborted\|ERROR\|FATAL' || true)

{
  echo "| | |"
  echo "|---|---|"
  echo "| longest query in a planned switchover, median of $switchovers | $(of stall) s |"
  echo "| … worst | $(sort -n "$DEV/pooler-stall.txt.new" | tail -n 1) s |"
  echo "| … errors | $failed |"
  echo "| throughput, 16 clients, -S prepared, against a bare PgBouncer | $(ratios ours bare) |"
  echo "| … against direct connections | $(ratios ours direct) |"
  echo "| new connections a second, against direct ones | $(ratios connect-pooled connect-direct) |"
  echo "| PgBouncer's memory with 1000 idle clients, against a bare one | $(ratio "$own" "$other") ($own KiB) |"
  echo "| memory of its parent | $parent KiB |"
} | tee "$DEV/pooler.md"
rm -f "$DEV"/pooler-*.txt.new
