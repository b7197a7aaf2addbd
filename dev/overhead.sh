#!/usr/bin/env bash
# Measures what the optional parts of a database cost its clients: pgbench with the part and without it, in turns on the
# same server, and the memory of the pod's processes besides PostgreSQL. Prints a table, which is kept in
# target/dev/overhead.md.
#   overhead.sh                  all, about twelve minutes
#   OVERHEAD_SAMPLES=2 OVERHEAD_SECONDS=5 overhead.sh   a quick run
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
[[ -n ${OVERHEAD_ANY_BUILD:-} ]] || of_a_release
[[ -z ${CONTEXT:-} ]] || fail "only on the local cluster: it reads the metrics from the node"
# shellcheck source=/dev/null
. "$DEV/vault.env"

samples=${OVERHEAD_SAMPLES:-5} seconds=${OVERHEAD_SECONDS:-10}
# shellcheck disable=SC2034 # by lib/pgbench.sh
namespace=overhead-$$
# shellcheck source=lib/pgbench.sh
. lib/pgbench.sh
work=$(mktemp -d)
clean() {
  [[ -z ${scraper:-} ]] || kill "$scraper" 2>/dev/null || true
  rm -rf "$work"
  kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true
}
trap clean EXIT

kubectl create namespace "$namespace" >/dev/null
in_namespace apply -f - >/dev/null <<YAML
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: shop}
spec:
  deletionPolicy: Delete
  storage: {size: 4Gi}
  backup: {enabled: false}
  postgres: {parameters: {pg_stat_statements.track: none, max_wal_size: 1GB}}
  clients:
  - {serviceAccountName: bench, podSelector: {matchLabels: {app: bench}}}
  - {serviceAccountName: own, podSelector: {matchLabels: {app: bench}}, access: {mode: ReadWrite}}
---
$(bench_pod)
YAML
log_in
host=$(value HOST)
at "$host" 5432 verify-full 'pgbench -q -i -s 20' >/dev/null 2>&1
in_namespace wait --for=condition=Ready servicedatabase/shop --timeout=120s >/dev/null
own=$(vault kv get -format=json -mount=secret "dev/$namespace/shop/clients/own/runtime" | jq .data.data)
of_own() { jq -r --arg key "SHOP_DB_$1" '.[$key]' <<<"$own"; }
{ printf '*:*:*:%s:%s\n' "$(value USER)" "$(value PASSWORD)"; printf '*:*:*:%s:%s\n' "$(of_own USER)" "$(of_own PASSWORD)"; } |
  client 'umask 077; cat >/tmp/pgpass'

# database SQL: as the superuser, in the pod.
database() { in_namespace exec shop-db-0 -c database -- psql -X -q -At -h /run/postgresql -d postgres -c "$1"; }
# spec PATCH SETTING VALUE: changes the resource, and waits until the server has the setting.
spec() {
  in_namespace patch servicedatabase shop --type=merge -p "$1" >/dev/null
  wait_for 60 "$2 = $3" has "$2" "$3"
}
has() { [[ $(database "SHOW $1") == $2* ]]; }

# Each part, on and off.
statements_on() { spec '{"spec": {"postgres": {"parameters": {"pg_stat_statements.track": "top"}}}}' pg_stat_statements.track top; }
statements_off() { spec '{"spec": {"postgres": {"parameters": {"pg_stat_statements.track": "none"}}}}' pg_stat_statements.track none; }
audit_on() { spec '{"spec": {"audit": {"classes": ["Ddl", "Role"]}}}' pgaudit.log 'ddl'; }
audit_off() { spec '{"spec": {"audit": null}}' pgaudit.log none; }
address=$(in_namespace get pod shop-db-0 -o jsonpath='{.status.podIP}')
scrapes_on() {
  while :; do curl -sf -o /dev/null "http://$address:8010/metrics" || true; sleep 1; done &
  scraper=$!
}
scrapes_off() { kill "$scraper" && wait "$scraper" 2>/dev/null || scraper=; }
archive_on() { spec '{"spec": {"backup": {"enabled": true, "store": "main", "schedule": {"full": "0 0 1 1 *", "incremental": "", "verification": ""}}}}' archive_command test; }
archive_off() { spec '{"spec": {"backup": {"enabled": false}}}' archive_command /bin/true; }
everything_on() { statements_on && audit_on && scrapes_on; }
everything_off() { scrapes_off; audit_off && statements_off; }
own_on() { user=$(of_own USER); }
own_off() { user=$(value USER); }
own_off

rate() {
  client "export PGPASSFILE=/tmp/pgpass PGSSLROOTCERT=/tmp/ca.crt PGSSLMODE=verify-full PGHOST=$host PGUSER=$user PGDATABASE=$(value NAME)
    pgbench -n -M prepared -c 8 -j 2 -T $seconds ${1:-} 2>/dev/null" | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
}
# In kB, of the agent and Patroni, and of the archiver's processes beside PostgreSQL's.
memory() {
  in_namespace exec shop-db-0 -c database -- sh -c 'for p in /proc/[0-9]*; do
    case $(tr "\0" " " <$p/cmdline 2>/dev/null) in
    "/usr/local/bin/servicedb agent "*) kind=agent ;;
    *patroni*) kind=patroni ;;
    *pgbackrest*) kind=archive ;;
    *) continue ;;
    esac
    awk -v kind=$kind "/^Pss:/ {print kind, \$2}" $p/smaps_rollup 2>/dev/null
  done' | awk -v wanted="$1" 'wanted ~ $1 {sum += $2} END {printf "%.1f\n", sum / 1024}'
}

rate >/dev/null
parts=(scrapes statements audit everything archive own)
for ((sample = 0; sample < samples; sample++)); do
  for part in "${parts[@]}"; do
    # In turns: a machine that becomes slower meanwhile favours neither.
    for state in $( ((sample % 2)) && echo on off || echo off on); do
      [[ $state == off ]] || "${part}_on"
      rate >>"$work/$part-$state"
      if [[ $part-$state == archive-on ]]; then
        rate >/dev/null &
        peak=0
        for ((second = 0; second < seconds; second++)); do
          now=$(memory archive)
          peak=$(awk -v a="$peak" -v b="$now" 'BEGIN {print (a > b ? a : b)}')
          sleep 0.5
        done
        wait $!
        echo "$peak" >>"$work/archive-peak"
        sleep 20
        memory archive >>"$work/archive-rest"
      fi
      [[ $part-$state != everything-on ]] || memory 'agent patroni' >>"$work/pod"
      [[ $state == off ]] || "${part}_off"
    done
  done
done

# The median of the ratios of each sample.
ratio() { paste "$work/$1-on" "$work/$1-off" | awk '{print $1 / $2}' | median | xargs printf '%.3f'; }
line() { printf '| %s | %s | %s |\n' "$@"; }
{
  echo "pgbench (TPC-B, 8 clients, prepared, scale 20, one instance), $samples × $seconds s with and without, in turns; $(median <"$work/scrapes-off" | xargs printf '%.0f') transactions a second without all"
  echo
  line 'With' 'Rate, beside without' 'Target'
  line --- --- ---
  line 'a scrape each second' "$(ratio scrapes)" ''
  line '`pg_stat_statements` at work' "$(ratio statements)" ''
  line '`pgaudit` with Ddl and Role' "$(ratio audit)" ''
  line 'these three together' "$(ratio everything)" 0.97
  line 'WAL archived to the store' "$(ratio archive)" 0.90
  line 'a login of its own for the client' "$(ratio own)" 0.98
  echo
  line 'Memory of the pod (proportional)' MiB 'Target, MiB'
  line --- --- ---
  line 'agent and Patroni, while scraped' "$(median <"$work/pod")" 46
  line 'archiving, at rest' "$(median <"$work/archive-rest")" 12
  line 'archiving, at its peak' "$(sort -n "$work/archive-peak" | tail -1)" 64
} | tee "$DEV/overhead.md"
