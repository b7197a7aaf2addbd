#!/usr/bin/env bash
# Plans changes of every kind under 64 clients of the pooler (a third with each protocol) and one that logs in
# all the time: twenty switchovers, a parameter that restarts three instances, new pods for all of them, a drained
# node, five rotations. No transaction and no login may fail, and each acknowledged row is there once. Prints the
# longest transaction of each kind; the table is kept in target/dev/pooler-changes.md.
#   pooler-changes.sh         all, about ten minutes
#   SWITCHOVERS=2 ROTATIONS=1 pooler-changes.sh   a quick run
set -euo pipefail
cd "$(dirname "$0")"
. lib/common.sh
# shellcheck source=/dev/null
. "$DEV/vault.env"

switchovers=${SWITCHOVERS:-20} rotations=${ROTATIONS:-5}
namespace=pooler-changes-$$
# shellcheck source=lib/pgbench.sh
. lib/pgbench.sh
drained=
end() {
  [[ -z $drained ]] || kubectl uncordon "$drained" >/dev/null 2>&1 || true
  kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true
}
trap end EXIT

kubectl create namespace "$namespace" >/dev/null
in_namespace apply -f - >/dev/null <<YAML
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: shop}
spec:
  instances: 3
  deletionPolicy: Delete
  storage: {size: 1Gi}
  pooler: {instances: 2, poolSize: 12}
  clients: [{serviceAccountName: bench, podSelector: {matchLabels: {app: bench}}}]
---
$(bench_pod)
YAML
log_in
pooled=$(value POOLER_HOST)
at "$pooled" 5432 verify-full 'psql -qc "CREATE TABLE written (protocol int, client int, number int, PRIMARY KEY (protocol, client, number))"'
# A client numbers its rows: one that is lost is a gap, one that is there twice is an error.
printf '\\set number :number + 1\nINSERT INTO written VALUES (:protocol, :client_id, :number);\n' | client 'cat >/tmp/write.sql'

modes=(simple extended prepared) clients=(22 21 21) runs=0 load=
# With the login that the record has at that moment; the former is valid until the next rotation.
give_login() {
  record=$(vault kv get -format=json -mount=secret "dev/$namespace/shop/runtime" | jq .data.data)
  printf '*:*:*:%s:%s\n' "$(value USER)" "$(value PASSWORD)" | client 'umask 077; cat >/tmp/login.new && cp /tmp/login.new /tmp/pgpass && mv /tmp/login.new /tmp/login'
}
begin_load() {
  local work='' of
  for of in 0 1 2; do
    work+="pgbench -n -f /tmp/write.sql -D number=0 -D protocol=$((runs * 3 + of)) -M ${modes[of]} -c ${clients[of]} -j 1 -R 60 -T 100000 -l --log-prefix=/tmp/log.$runs.$of >/tmp/out.$runs.$of 2>&1 & "
  done
  at "$pooled" 5432 verify-full "$work wait" &
  load=$!
  runs=$((runs + 1))
  sleep 5
}
give_login
begin_load
at "$pooled" 5432 verify-full 'count=0; until [ -e /tmp/over ]; do
  umask 077; cp /tmp/login /tmp/pass; export PGPASSFILE=/tmp/pass PGUSER=$(cut -d: -f4 /tmp/pass)
  psql -XqAtc "SELECT 1" >/dev/null 2>>/tmp/refused || echo "refused $(date +%T)" >>/tmp/refused; count=$((count + 1)); echo $count >/tmp/logins; sleep 0.1; done' &
logins=$!

settled() { in_namespace wait --for=condition=Ready servicedatabase/shop --timeout=300s >/dev/null; }
# change KIND COMMAND…: the longest transaction meanwhile, as a line of KIND.
change() {
  local kind=$1 since
  shift
  since=$(date +%s)
  "$@" >/dev/null
  settled
  sleep 2
  longest "$since" 3 >>"$DEV/changes-$kind.txt.new"
  echo "    $kind: $(tail -n 1 "$DEV/changes-$kind.txt.new") s"
}
patch() { in_namespace patch servicedatabase/shop --type merge --patch "$1"; }
pods() { in_namespace get pods -l app.kubernetes.io/component=database -o jsonpath='{range .items[*]}{.metadata.uid}{"\n"}{end}' | sort; }
primary() { in_namespace get servicedatabase/shop -o jsonpath='{.status.primary}'; }
# until_is WHAT COMMAND…: within five minutes.
until_is() {
  local what=$1 end=$((SECONDS + 300))
  shift
  until "$@"; do
    ((SECONDS < end)) || fail "$what: not within five minutes"
    sleep 1
  done
}
switchover() { kubectl servicedb --namespace "$namespace" switchover shop; }
shows() { [[ $(in_namespace exec "$(primary)" -c database -- psql -XqAtc "SHOW max_connections" 2>/dev/null) == "$1" ]]; }
parameter() {
  patch '{"spec": {"postgres": {"parameters": {"max_connections": "93"}}}}'
  until_is "the parameter" shows 93
}
are_new() { local now; now=$(pods) && [[ $(wc -l <<<"$now") == 3 && -z $(comm -12 <(echo "$before") <(echo "$now")) ]]; }
rollout() {
  before=$(pods)
  patch '{"spec": {"resources": {"requests": {"cpu": "60m"}}}}'
  until_is "three new pods" are_new
}
drain() {
  drained=$(in_namespace get pod "$(primary)" -o jsonpath='{.spec.nodeName}')
  kubectl drain "$drained" --pod-selector "servicedb.dev/name=shop,app.kubernetes.io/component=database" --delete-emptydir-data --timeout=120s
  sleep 3
  kubectl uncordon "$drained"
  drained=
}
rotation() {
  kubectl servicedb --namespace "$namespace" rotate shop
  give_login
}

rm -f "$DEV"/changes-*.txt.new
for ((number = 0; number < switchovers; number++)); do change switchover switchover; done
change parameter parameter
change rollout rollout
change drain drain
# The two logins of a service alternate: a client follows its record before the next rotation.
for ((number = 0; number < rotations; number++)); do
  end_load "$load"
  begin_load
  change rotation rotation
done
end_load "$load"
client 'touch /tmp/over'
wait "$logins"

failed=$(client 'cat /tmp/out.*' | grep -c 'aborted\|ERROR\|FATAL' || true)
refused=$(client 'cat /tmp/refused 2>/dev/null' | grep -c '^refused' || true)
made=$(client 'cat /tmp/logins') acknowledged=$(client 'cat /tmp/log.*' | wc -l)
query() { at "$pooled" 5432 verify-full "psql -XqAtc \"$1\""; }
rows=$(query 'SELECT count(*) FROM written')
gaps=$(query 'SELECT coalesce(sum(last - rows), 0) FROM (SELECT count(*) AS rows, max(number) AS last FROM written GROUP BY protocol, client) AS of_a_client')
line() { echo "| longest transaction, $1 | $(median <"$DEV/changes-$2.txt.new") s | $(sort -n "$DEV/changes-$2.txt.new" | tail -n 1) s |"; }
{
  echo "| | median | worst |"
  echo "|---|---|---|"
  line "$switchovers switchovers" switchover
  line "a parameter that restarts three instances" parameter
  line "three new pods" rollout
  line "a drained node" drain
  line "$rotations rotations" rotation
  echo "| failed transactions of $rows | $failed | |"
  echo "| refused logins of $made | $refused | |"
  echo "| acknowledged rows that are lost | $gaps | |"
} | tee "$DEV/pooler-changes.md"
rm -f "$DEV"/changes-*.txt.new
client 'cat /tmp/out.* /tmp/refused 2>/dev/null' | grep 'aborted\|ERROR\|FATAL\|refused' | sort | uniq -c | head -n 20 || true
((acknowledged <= rows)) || fail "$acknowledged rows were acknowledged, and there are $rows"
[[ $failed == 0 && $refused == 0 && $gaps == 0 ]]
