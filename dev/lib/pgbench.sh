# What the scripts share that run pgbench in a pod: sourced after common.sh and vault.env, with namespace set.

in_namespace() { kubectl --namespace "$namespace" "$@"; }

# The pod, as YAML: psql and pgbench of the database's image, admitted as the client "bench".
bench_pod() {
  cat <<YAML
apiVersion: v1
kind: Pod
metadata: {name: bench, labels: {app: bench}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 999, fsGroup: 999, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: bench
    image: $IMAGE_REPOSITORY/postgres:$IMAGE_TAG
    imagePullPolicy: IfNotPresent
    command: [sleep, infinity]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
YAML
}

# client COMMAND: in the pod.
client() { in_namespace exec -i bench -- sh -c "$1"; }

# Waits for the database shop and the pod, and writes the pod's files: the login and the authority.
log_in() {
  in_namespace wait --for=condition=Ready servicedatabase/shop pod/bench --timeout=300s >/dev/null
  record=$(vault kv get -format=json -mount=secret "dev/$namespace/shop/runtime" | jq .data.data)
  printf '*:*:*:%s:%s\n' "$(value USER)" "$(value PASSWORD)" | client 'umask 077; cat >/tmp/pgpass'
  value CA | client 'cat >/tmp/ca.crt'
}
# value KEY: of the record in Vault.
value() { jq -r --arg key "SHOP_DB_$1" '.[$key]' <<<"$record"; }

# at HOST PORT SSLMODE COMMAND: in the pod, with the login.
at() { client "export PGPASSFILE=/tmp/pgpass PGSSLROOTCERT=/tmp/ca.crt PGSSLMODE=$3 PGHOST=$1 PGPORT=$2 PGUSER=$(value USER) PGDATABASE=$(value NAME); $4"; }

# longest SINCE DIGITS: the longest transaction in the logs of pgbench that ended since then, in seconds with so many
# decimals. Columns of a log: client, transaction, microseconds, script, second, microsecond, lag.
longest() { client "cat /tmp/log.*" | awk -v since="$1" -v digits="$2" '$5 >= since && $3 > longest {longest = $3} END {printf "%." digits "f\n", longest / 1e6}'; }
# end_load PID: ends pgbench in the pod, and waits for the process that runs it. A shell has its background processes
# ignore SIGINT.
end_load() {
  client 'kill $(pidof pgbench) || true'
  wait "$1" || true
}

median() { sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
