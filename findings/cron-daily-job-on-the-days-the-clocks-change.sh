#!/usr/bin/env bash
# One would guess: a daily job at 02:30 runs once on the day that the clocks go forward and once on the day that they go back, or else all libraries leave out or double the same run.
# Berlin, "30 2 * * *": on 28 March 2027 no run (Go robfig/cron 3.0.1, CronJob's; Rust cron 0.15.0), one at 03:00 (croner 3.0.1, npm's croner 11.0.1, croniter 7.0.0) or one at 03:30 (cron-parser 5.10.6, APScheduler 3.11.1); on 31 October two (robfig, cron, croniter, APScheduler) or one (both croners, cron-parser).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR
/usr/bin/python3 -m venv venv
venv/bin/pip install -q croniter==7.0.0 apscheduler==3.11.1
mkdir -p go rust/src
npm init -y >/dev/null
npm install --no-audit --no-fund --silent croner@11.0.1 cron-parser@5.10.6
# Each program takes a day and says the UTC offsets and times of the runs on it.
cat >next.py <<'PY'
import datetime, sys, zoneinfo
from apscheduler.triggers.cron import CronTrigger
from croniter import croniter
zone, expression = zoneinfo.ZoneInfo("Europe/Berlin"), "30 2 * * *"
day = datetime.date.fromisoformat(sys.argv[1])
begin = datetime.datetime.combine(day, datetime.time(0, 10), zone)

def scheduler():
    trigger, last = CronTrigger.from_crontab(expression, timezone=zone), begin
    while True:
        last = trigger.get_next_fire_time(last, last)
        yield last

def utc(time):
    return time.astimezone(datetime.timezone.utc).astimezone(zone)

for name, times in (("croniter", croniter(expression, begin, ret_type=datetime.datetime)), ("APScheduler", scheduler())):
    runs = [utc(next(times)) for _ in range(3)]
    print(name + ":", *(run.strftime("%H:%M%z") for run in runs if run.date() == day))
PY
cat >next.mjs <<'JS'
import { Cron } from 'croner';
import parser from 'cron-parser';
const [day, tz, expression] = [process.argv[2], 'Europe/Berlin', '30 2 * * *'];
const begin = new Date(`${day}T00:00:00Z`);
const local = (date) => {
  const part = Object.fromEntries(new Intl.DateTimeFormat('en-GB', { timeZone: tz, year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', timeZoneName: 'longOffset' })
    .formatToParts(date).map(({ type, value }) => [type, value]));
  return { day: `${part.year}-${part.month}-${part.day}`, time: `${part.hour}:${part.minute}${part.timeZoneName.replace(/GMT|:/g, '')}` };
};
const tell = (name, dates) => console.log([`${name}:`, ...dates.map(local).filter((run) => run.day === day).map((run) => run.time)].join(' '));
tell("npm's croner", new Cron(expression, { timezone: tz, paused: true }).nextRuns(3, begin));
const parsed = parser.CronExpressionParser.parse(expression, { currentDate: begin, tz });
tell('cron-parser', [1, 2, 3].map(() => parsed.next().toDate()));
JS
cat >go/main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
)

func main() {
	schedule, err := cron.ParseStandard("CRON_TZ=Europe/Berlin 30 2 * * *")
	if err != nil {
		panic(err)
	}
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", os.Args[1]+" 00:10", zone)
	if err != nil {
		panic(err)
	}
	fmt.Print("robfig:")
	for range 3 {
		if at = schedule.Next(at); at.Format("2006-01-02") == os.Args[1] {
			fmt.Print(at.Format(" 15:04-0700"))
		}
	}
	fmt.Println()
}
GO
(cd go && go mod init demo && go get github.com/robfig/cron/v3@v3.0.1 && go build -o demo .) >go.log 2>&1 || { cat go.log; exit 1; }
cat >rust/Cargo.toml <<'TOML'
[package]
name = "demo"
version = "0.1.0"
edition = "2021"
[dependencies]
cron = "=0.15.0"
croner = "=3.0.1"
chrono = "=0.4.42"
chrono-tz = "=0.10.4"
TOML
cat >rust/src/main.rs <<'RS'
use chrono::{DateTime, NaiveDate, TimeZone};
use chrono_tz::{Europe::Berlin, Tz};

fn tell(name: &str, day: NaiveDate, times: impl Iterator<Item = DateTime<Tz>>) {
    let runs: String = times.take(3).filter(|time| time.date_naive() == day).map(|time| time.format(" %H:%M%z").to_string()).collect();
    println!("{name}:{runs}");
}

fn main() {
    let day: NaiveDate = std::env::args().nth(1).unwrap().parse().unwrap();
    let begin = Berlin.from_local_datetime(&day.and_hms_opt(0, 10, 0).unwrap()).unwrap();
    // This crate has the seconds in front.
    let schedule: cron::Schedule = "0 30 2 * * *".parse().unwrap();
    tell("Rust-cron", day, schedule.after(&begin));
    let schedule: croner::Cron = "30 2 * * *".parse().unwrap();
    tell("croner", day, schedule.iter_after(begin));
}
RS
(cd rust && cargo build -q)
all() { venv/bin/python next.py "$1"; node next.mjs "$1"; go/demo "$1"; rust/target/debug/demo "$1"; }
for day in 2027-03-28 2027-10-31; do
  echo "$day:"
  all "$day"
done | tee found.txt
expected="2027-03-28:
croniter: 03:00+0200
APScheduler: 03:30+0200
npm's croner: 03:00+0200
cron-parser: 03:30+0200
robfig:
Rust-cron:
croner: 03:00+0200
2027-10-31:
croniter: 02:30+0200 02:30+0100
APScheduler: 02:30+0200 02:30+0100
npm's croner: 02:30+0200
cron-parser: 02:30+0200
robfig: 02:30+0200 02:30+0100
Rust-cron: 02:30+0200 02:30+0100
croner: 02:30+0200"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
