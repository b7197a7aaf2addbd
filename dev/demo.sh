#!/usr/bin/env bash
# A demonstration with five databases; can be run again. Each act shows a user's
# commands and their results. No secret is printed.
set -euo pipefail
cd "$(dirname "$0")"
given=${VAULT_ADDR:-}
. lib/common.sh
# shellcheck source=/dev/null
. "$DEV/vault.env"
cd "$ROOT"

N=game-platform
SERVICES=(auth user chat game notification)
WAIT=300
# Vault's address for pods: see install.sh.
address=https://vault.vault.svc:8200
[[ -z ${CONTEXT:-} || -z $given ]] || address=$given
work=$(mktemp -d)
begun=$EPOCHREALTIME

bold='' dim='' plain=''
if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi

number=0
act() { # HEADLINE LOOK-AT…: what to look at if it fails
  headline=$1
  shift
  look_at=("$@")
  number=$((number + 1))
  printf '\n%s── %d. %s ──%s\n' "$bold" "$number" "$headline" "$plain"
}
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s# %s%s\n' "$dim" "$*" "$plain"; }
try() { show "$*"; "$@"; }

ended() {
  local code=$?
  rm -rf "$work"
  if ((code)); then
    printf '\n%sact %d failed: %s%s\nwhat to look at:\n' "$bold" "$number" "${headline:-the beginning}" "$plain" >&2
    printf '  %s\n' "${look_at[@]}" "kubectl -n servicedb-system logs deploy/servicedb-operator --tail=50" \
      "(with: export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH)" >&2
  fi
  exit "$code"
}
trap ended EXIT
look_at=()

k() { kubectl -n "$N" "$@"; }
in_chat() { k exec -i deploy/chat -- "$@"; }

# Each database's name and the reason of its condition Ready.
reasons() { k get sdb "$@" --no-headers -o 'custom-columns=N:.metadata.name,S:.status.conditions[?(@.type=="Ready")].status,R:.status.conditions[?(@.type=="Ready")].reason' 2>/dev/null; }

# wait_ready NAME…: one line that is updated, or, without a terminal, one line per change.
wait_ready() {
  local from=$EPOCHREALTIME deadline=$((SECONDS + WAIT)) line before='' ready total
  while true; do
    line=$(reasons "$@" | awk '{printf "%s%s %s", (NR > 1 ? ", " : ""), $1, ($2 == "True" ? "Ready" : $3 == "<none>" ? "…" : $3)}' || true)
    ready=$(grep -o ' Ready' <<<"$line" | wc -l || true)
    total=$#
    ((total)) || total=${#SERVICES[@]}
    if [[ -t 1 ]]; then
      printf '\r\e[K%s s  %s' "$(seconds "$from" "$EPOCHREALTIME")" "${line:0:$(($(tput cols 2>/dev/null || echo 100) - 10))}"
    elif [[ $line != "$before" ]]; then
      printf '%s s  %s\n' "$(seconds "$from" "$EPOCHREALTIME")" "$line"
    fi
    before=$line
    ((ready < total)) || break
    if ((SECONDS >= deadline)); then
      printf '\n\n%d of %d are Ready after %d s:\n' "$ready" "$total" "$WAIT"
      k get sdb "$@" -o 'custom-columns=NAME:.metadata.name,REASON:.status.conditions[?(@.type=="Ready")].reason,MESSAGE:.status.conditions[?(@.type=="Ready")].message'
      k get pods
      return 1
    fi
    sleep 0.5
  done
  [[ ! -t 1 ]] || printf '\r\e[K'
  say "Ready after $(seconds "$from" "$EPOCHREALTIME") s"
}

say "the cluster: export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH"

act 'Five services declare their databases' "kubectl apply -k examples/game-platform"
try kubectl apply -k examples/game-platform

act 'They come up: PostgreSQL, credentials in Vault, schema migrated' \
  "kubectl -n $N describe sdb" "kubectl -n $N get pods,jobs,events" "kubectl -n $N logs chat-db-0"
wait_ready
try kubectl get sdb -A

act 'The chat service reads its credentials from Vault' \
  "kubectl -n $N describe deploy/chat pod -l app=chat" "kubectl -n $N exec deploy/chat -- /chat/credentials.sh" \
  "kubectl -n $N get sdb chat -o yaml" "kubectl -n vault logs vault-0"
show "kubectl -n $N get sdb chat -o jsonpath='{.status.credentials}'"
k get sdb chat -o 'jsonpath={.status.credentials}'
echo
role=$(k get sdb chat -o 'jsonpath={.status.credentials.vaultRole}')
path=$(k get sdb chat -o 'jsonpath={.status.credentials.vaultPath}')
[[ -n $role && -n $path ]] || fail "the status of chat does not say its Vault role and path"
say "a pod of the chat service: ServiceAccount chat, label app=chat, psql and curl in it (dev/demo/chat.yaml)"
k create configmap chat-vault --dry-run=client -o yaml --from-literal="address=$address" --from-literal="role=$role" --from-literal="path=$path" \
  --from-file="ca.crt=${VAULT_CACERT:-/etc/ssl/certs/ca-certificates.crt}" | k apply -f - >/dev/null
kubectl kustomize dev/demo | sed "s|\$CLIENT_IMAGE|$IMAGE_REPOSITORY/client:$IMAGE_TAG|" | kubectl apply -f - >/dev/null
k rollout status deploy/chat --timeout=120s >/dev/null
show "kubectl -n $N exec deploy/chat -- /chat/credentials.sh"
in_chat /chat/credentials.sh </dev/null

act 'It connects over TLS, writes a message and reads it' \
  "kubectl -n $N exec -it deploy/chat -- /chat/sql.sh" "kubectl -n $N logs chat-db-0"
show "kubectl -n $N exec -i deploy/chat -- /chat/sql.sh <<< '…'"
in_chat /chat/sql.sh <<'SQL'
\conninfo
SELECT session_user, current_user, current_database(), current_setting('server_version') AS server;
SQL
# The first five queries of the service, with their example values. Each run of
# the demo opens a channel of its own, so it can run again.
conversation() {
  awk -v channel="$channel" -v first="$1" -v last="$2" '
    /^-- name: / {name = $3; n++; with = ""; next}
    /^-- with: / {with = substr($0, 10); gsub(/c4a70000-0000-4000-8000-000000000001/, channel, with); next}
    /^--/ || /^$/ || n == 0 || n > last || n < first {next}
    {statement = statement $0 "\n"}
    /;$/ {printf "\\echo -- %s\nPREPARE q%d AS\n%sEXECUTE q%d(%s);\n\n", name, n, statement, n, with; statement = ""}
  ' examples/game-platform/chat/queries.sql
}
channel=$(cat /proc/sys/kernel/random/uuid)
say "the first queries of examples/game-platform/chat/queries.sql: a channel, two members, a message"
show "kubectl -n $N exec -i deploy/chat -- /chat/sql.sh < queries.sql"
conversation 1 5 | in_chat /chat/sql.sh

act 'The same credentials are refused by the database of another service' \
  "kubectl -n $N exec -i deploy/chat -- /chat/sql.sh host=game-db.$N.svc dbname=game_db" "kubectl -n $N logs game-db-0"
refused() {
  show "kubectl -n $N exec deploy/chat -- /chat/sql.sh $*"
  if in_chat /chat/sql.sh "$@" <<<'SELECT current_database();' >"$work/answer" 2>&1; then
    cat "$work/answer"
    echo "chat's credentials were accepted there"
    return 1
  fi
  sed '/^command terminated/d' "$work/answer"
  # A refusal counts only if a server is running.
  if grep -qE 'could not translate host name|Connection refused' "$work/answer"; then
    echo "not refused by a server: there was none"
    return 1
  fi
}
# Where the cluster enforces NetworkPolicies, the pod does not even reach the server.
reaches() { in_chat timeout 3 bash -c "</dev/tcp/game-db.$N.svc/5432" </dev/null 2>/dev/null; }
let_in=0
if ! reaches; then
  say "its NetworkPolicy lets in the pods of its own clients alone; for a moment, chat's pods are let in, too:"
  try kubectl -n "$N" patch sdb game --type=json -p '[{"op": "add", "path": "/spec/clients/-", "value": {"serviceAccountName": "visitor", "podSelector": {"matchLabels": {"app": "chat"}}}}]'
  let_in=1
  wait_for 60 "chat's pod reaches game-db" reaches
fi
refused "host=game-db.$N.svc" "dbname=game_db"
say "its certificate is of another authority than chat's; and a client that does not look at it:"
refused "host=game-db.$N.svc" "dbname=game_db" "sslmode=require" "sslrootcert="
say "nor does chat's own server let it see more than chat_db:"
refused "dbname=postgres"
((let_in == 0)) || kubectl apply -k examples/game-platform >/dev/null

act "A database's pod is deleted: the data stays, the others do not notice" \
  "kubectl -n $N describe pod chat-db-0" "kubectl -n $N logs chat-db-0" "kubectl -n $N describe sdb chat"
# Signs of a disturbance: another uid, a restart, a Ready that was lost in between.
state() {
  k get pods -l servicedb.dev/scope --no-headers -o 'custom-columns=N:.metadata.name,U:.metadata.uid,R:.status.containerStatuses[0].restartCount,S:.status.conditions[?(@.type=="Ready")].lastTransitionTime' | sort
  k get sdb --no-headers -o 'custom-columns=N:.metadata.name,U:.metadata.uid,R:.status.conditions[?(@.type=="Ready")].status,S:.status.conditions[?(@.type=="Ready")].lastTransitionTime' | sed 's/^/sdb\//' | sort
}
state >"$work/before"
uid=$(k get pod chat-db-0 -o 'jsonpath={.metadata.uid}')
from=$EPOCHREALTIME
try kubectl -n "$N" delete pod chat-db-0
back() { local now; now=$(k get pod chat-db-0 -o 'jsonpath={.metadata.uid} {.status.conditions[?(@.type=="Ready")].status}') && [[ $now != "$uid"* && $now == *True ]]; }
wait_for 120 "a new pod chat-db-0 that is Ready" back
say "a new pod serves $(seconds "$from" "$EPOCHREALTIME") s after the command"
wait_ready chat
say "the message is there:"
show "kubectl -n $N exec -i deploy/chat -- /chat/sql.sh < queries.sql"
conversation 5 5 | in_chat /chat/sql.sh | tee "$work/messages"
grep -q 'anyone up for a match' "$work/messages" || fail "the message is gone"
state >"$work/after"
echo
printf '%-22s %-10s %-10s %s\n' '' 'SAME UID' 'RESTARTS' 'READY SINCE'
disturbed=0
while read -r name before_uid before_restarts before_since after_uid after_restarts after_since; do
  same=yes
  [[ $before_uid == "$after_uid" ]] || same=no
  note=$after_since
  if [[ $before_uid$before_restarts$before_since != "$after_uid$after_restarts$after_since" ]]; then
    note="$after_since (before: $before_since)"
    [[ $name == chat-db-0 || $name == sdb/chat ]] || disturbed=1
  fi
  [[ $after_restarts =~ ^[0-9]+$ ]] || after_restarts=-
  printf '%-22s %-10s %-10s %s\n' "$name" "$same" "$after_restarts" "$note"
done < <(join "$work/before" "$work/after")
if ((disturbed)) || [[ $(wc -l <"$work/before") != $(wc -l <"$work/after") ]]; then
  fail "another database than chat was disturbed: see the table"
fi

act 'The same data over REST, with the rights of the caller' \
  "kubectl servicedb gateway chat -n $N" "kubectl -n $N logs deploy/chat-db-gateway" "kubectl -n $N describe sdb chat"
try kubectl -n "$N" patch sdb chat --type=merge -p '{"spec":{"gateway":{"instances":1}}}'
k wait --for=jsonpath='{.status.gateway.instances}'=1/1 sdb/chat --timeout=120s >/dev/null
try kubectl servicedb gateway chat -n "$N"
say "chat's pod has a token for this gateway; it asks for the newest message, and for its channel with it"
newest='chat_messages?select=body,sent_at,channel:chat_channels(name)&order=sent_at.desc&limit=1'
show "kubectl -n $N exec deploy/chat -- /chat/rest.sh '$newest'"
in_chat /chat/rest.sh "$newest" </dev/null | tee "$work/rest"
grep -q 'anyone up for a match' "$work/rest" || fail "the message is not in the answer"

# An installation of yours may have no store.
if [[ -s $DEV/store.env ]]; then
  act 'A row is deleted by mistake, and comes back from a backup' \
    "kubectl -n $N get sdb chat -o jsonpath='{.status.backup}'" "kubectl servicedb backups chat -n $N" "kubectl -n $N logs chat-back-db-0"
  try kubectl -n "$N" patch sdb chat --type=merge -p '{"spec":{"backup":{"store":"main"}}}'
  say "the first backup starts by itself, once WAL is archived"
  try kubectl -n "$N" wait --for=condition=BackedUp sdb/chat --timeout=300s
  say "a message that the backup does not have, and right after it, a mistake"
  as_owner() { kubectl servicedb psql chat -n "$N" -- -qAtc "$1"; }
  channel=$(cat /proc/sys/kernel/random/uuid)
  conversation 1 5 | in_chat /chat/sql.sh >/dev/null
  messages=$(as_owner 'SELECT count(*) FROM chat_messages')
  sleep 1
  moment=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)
  sleep 1
  show "kubectl servicedb psql chat -n $N -- -c 'DELETE FROM chat_messages'"
  as_owner 'DELETE FROM chat_messages'
  say "$(as_owner 'SELECT count(*) FROM chat_messages') messages of $messages are left; a minute after its first write a segment of WAL is archived"
  show "kubectl apply -f - # chat-back: chat as it was at $moment"
  kubectl apply -f - <<YAML
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: chat-back, namespace: $N}
spec:
  storage: {size: 1Gi}
  deletionPolicy: Delete
  bootstrap: {restore: {source: {name: chat}, target: {time: "$moment"}}}
YAML
  try kubectl -n "$N" wait --for=condition=Ready sdb/chat-back --timeout=300s
  k get sdb chat-back -o 'jsonpath={.status.restored}{"\n"}'
  found=$(kubectl servicedb psql chat-back -n "$N" -- -qAtc 'SELECT count(*) FROM chat_messages')
  say "chat-back has $found messages; what is missing can be copied back, as with pg_dump -t"
  [[ $found == "$messages" ]] || fail "chat-back has $found messages, and chat had $messages"
  try kubectl -n "$N" delete sdb chat-back --wait=false
fi

printf '\n%s── done in %s s ──%s\n' "$bold" "$(seconds "$begun" "$EPOCHREALTIME")" "$plain"
cat <<NEXT
To continue by hand:
  export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH
  kubectl -n $N describe sdb chat              conditions, events
  kubectl servicedb status chat -n $N          all of it on a page
  kubectl servicedb psql chat -n $N            a shell in the database
  kubectl -n $N exec chat-db-0 -- servicedb check
  kubectl -n $N patch sdb chat --type=merge -p '{"spec":{"instances":3}}'   two replicas, no restart
  . $DEV/vault.env; vault kv list secret/dev/$N
  kubectl -n $N delete sdb chat                its volume and credentials stay: deletionPolicy is Retain
  kubectl delete -k examples/game-platform     and with the namespace its volumes go
  make clean                                   ends the cluster
NEXT
