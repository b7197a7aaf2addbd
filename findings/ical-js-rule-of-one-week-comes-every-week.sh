#!/usr/bin/env bash
# One would guess: a recurrence rule of iCalendar (RFC 5545), which says how each of its parts counts, gives the same days with each library that takes it, as far as its start is the first of them.
# ical.js 2.2.1 against python-dateutil 2.9.0.post0, npm's rrule 2.8.1 and rrule-temporal 2.2.8: to ical.js a yearly Monday of week 20 is every Monday after the first, the 15th of each month (YEARLY;BYMONTHDAY=15) is once a year, the first of Monday and Wednesday (BYSETPOS=1) is both and the last Sunday of March and October is two (issue 1039, open, has BYSETPOS), and a week without a weekday never comes, which is seven days to dateutil and rrule and the start's weekday to rrule-temporal; none with an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q python-dateutil==2.9.0.post0
npm init -y >/dev/null
npm install --no-audit --no-fund --silent ical.js@2.2.1 rrule@2.8.1 rrule-temporal@2.2.8
cat >rules.txt <<'TXT'
20260302T090000Z FREQ=WEEKLY;INTERVAL=2;BYDAY=MO
20260511T090000Z FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO
20260115T090000Z FREQ=YEARLY;BYMONTHDAY=15
20260302T090000Z FREQ=WEEKLY;BYDAY=MO,WE;BYSETPOS=1
20261025T090000Z FREQ=YEARLY;BYMONTH=3,10;BYDAY=SU;BYSETPOS=-1
20260305T090000Z FREQ=YEARLY;BYWEEKNO=10
TXT
cat >days.py <<'PY'
import itertools, sys
from dateutil.rrule import rrulestr
for line in sys.stdin:
    start, rule = line.split()
    days = itertools.islice(rrulestr(f"DTSTART:{start}\nRRULE:{rule}"), 4)
    print("dateutil|" + " ".join(day.strftime("%a-%Y-%m-%d") for day in days))
PY
cat >days.mjs <<'JS'
import { readFileSync } from 'node:fs';
import ICAL from 'ical.js';
import rrule from 'rrule';
import { RRuleTemporal } from 'rrule-temporal';
const tell = (name, days) => console.log(`${name}|${days.slice(0, 4).map((day) => `${day.toUTCString().slice(0, 3)}-${day.toISOString().slice(0, 10)}`).join(' ')}`);
for (const line of readFileSync(0, 'utf8').trimEnd().split('\n')) {
  const [start, rule] = line.split(' ');
  const text = `DTSTART:${start}\nRRULE:${rule}`;
  tell('rrule', rrule.rrulestr(text).all((day, i) => i < 4));
  tell('rrule-temporal', new RRuleTemporal({ rruleString: text }).all((day, i) => i < 4).map((day) => new Date(day.epochMilliseconds)));
  const days = ICAL.Recur.fromString(rule).iterator(ICAL.Time.fromDateTimeString(start.replace(/(....)(..)(..)T(..)(..)(..)Z/, '$1-$2-$3T$4:$5:$6Z')));
  const found = [];
  for (let day; found.length < 4 && (day = days.next()); ) found.push(day.toJSDate());
  tell('ical.js', found);
}
JS
while read -r line; do
  echo "${line#* }, from ${line:0:8}"
  { node days.mjs <<<"$line"; venv/bin/python days.py <<<"$line"; } >answers.txt
  awk -F'|' '{ who[$2] = who[$2] " " $1 } END { for (days in who) print "  " (days == "" ? "never" : days) ":" who[days] }' answers.txt | LC_ALL=C sort
done <rules.txt | tee found.txt
expected=$(cat <<'TXT'
FREQ=WEEKLY;INTERVAL=2;BYDAY=MO, from 20260302
  Mon-2026-03-02 Mon-2026-03-16 Mon-2026-03-30 Mon-2026-04-13: rrule rrule-temporal ical.js dateutil
FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO, from 20260511
  Mon-2026-05-11 Mon-2027-05-17 Mon-2028-05-15 Mon-2029-05-14: rrule rrule-temporal dateutil
  Mon-2026-05-18 Mon-2026-05-25 Mon-2026-06-01 Mon-2026-06-08: ical.js
FREQ=YEARLY;BYMONTHDAY=15, from 20260115
  Thu-2026-01-15 Fri-2027-01-15 Sat-2028-01-15 Mon-2029-01-15: ical.js
  Thu-2026-01-15 Sun-2026-02-15 Sun-2026-03-15 Wed-2026-04-15: rrule rrule-temporal dateutil
FREQ=WEEKLY;BYDAY=MO,WE;BYSETPOS=1, from 20260302
  Mon-2026-03-02 Mon-2026-03-09 Mon-2026-03-16 Mon-2026-03-23: rrule rrule-temporal dateutil
  Mon-2026-03-02 Wed-2026-03-04 Mon-2026-03-09 Wed-2026-03-11: ical.js
FREQ=YEARLY;BYMONTH=3,10;BYDAY=SU;BYSETPOS=-1, from 20261025
  Sun-2026-10-25 Sun-2027-03-28 Sun-2027-10-31 Sun-2028-03-26: ical.js
  Sun-2026-10-25 Sun-2027-10-31 Sun-2028-10-29 Sun-2029-10-28: rrule rrule-temporal dateutil
FREQ=YEARLY;BYWEEKNO=10, from 20260305
  Thu-2026-03-05 Fri-2026-03-06 Sat-2026-03-07 Sun-2026-03-08: rrule dateutil
  Thu-2026-03-05 Thu-2027-03-11 Thu-2028-03-09 Thu-2029-03-08: rrule-temporal
  never: ical.js
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
