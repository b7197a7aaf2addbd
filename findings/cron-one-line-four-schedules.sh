#!/usr/bin/env bash
# One would guess: five plain fields of cron mean one schedule to every library, names and extensions aside.
# Rust cron 0.15.0, croner 3.0.1, Go robfig/cron 3.0.1 (CronJob's), Python croniter 7.0.0, cronsim 2.8, APScheduler 3.11.1: "0 3 * * 1" is Monday, but Sunday to Rust's cron and Tuesday to APScheduler; "0 3 */2 * 1" gives four schedules: odd days or Mondays, odd days that are Mondays, that are Sundays, that are Tuesdays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR
/usr/bin/python3 -m venv venv
venv/bin/pip install -q croniter==7.0.0 cronsim==2.8 apscheduler==3.11.1
mkdir -p go rust/src
cat >next.py <<'PY'
import datetime, sys
from apscheduler.triggers.cron import CronTrigger
from croniter import croniter
from cronsim import CronSim
expression, utc = sys.argv[1], datetime.timezone.utc
begin = datetime.datetime(2026, 11, 28, 12, tzinfo=utc)

def scheduler():
    trigger, last = CronTrigger.from_crontab(expression, timezone=utc), begin
    while True:
        last = trigger.get_next_fire_time(last, last)
        yield last

for name, times in (("croniter", croniter(expression, begin, ret_type=datetime.datetime)), ("cronsim", CronSim(expression, begin)), ("APScheduler", scheduler())):
    print(name + ":", *(next(times).strftime("%a-%m-%d") for _ in range(4)))
PY
cat >go/main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/robfig/cron/v3"
)

func main() {
	schedule, err := cron.ParseStandard(os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Print("robfig:")
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for range 4 {
		at = schedule.Next(at)
		fmt.Print(at.Format(" Mon-01-02"))
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
TOML
cat >rust/src/main.rs <<'RS'
use chrono::{DateTime, TimeZone, Utc};

fn tell(name: &str, times: impl Iterator<Item = DateTime<Utc>>) {
    let days: Vec<String> = times.take(4).map(|time| time.format("%a-%m-%d").to_string()).collect();
    println!("{name}: {}", days.join(" "));
}

fn main() {
    let expression = std::env::args().nth(1).unwrap();
    let begin = Utc.with_ymd_and_hms(2026, 11, 28, 12, 0, 0).unwrap();
    // This crate has the seconds in front.
    let schedule: cron::Schedule = format!("0 {expression}").parse().unwrap();
    tell("Rust-cron", schedule.after(&begin));
    let schedule: croner::Cron = expression.parse().unwrap();
    tell("croner", schedule.iter_after(begin));
}
RS
(cd rust && cargo build -q)
all() { venv/bin/python next.py "$1"; go/demo "$1"; rust/target/debug/demo "$1"; }
for expression in '0 3 * * 1' '0 3 */2 * 1'; do
  echo "$expression, from Saturday, 28 November 2026:"
  all "$expression"
done | tee found.txt
expected='0 3 * * 1, from Saturday, 28 November 2026:
croniter: Mon-11-30 Mon-12-07 Mon-12-14 Mon-12-21
cronsim: Mon-11-30 Mon-12-07 Mon-12-14 Mon-12-21
APScheduler: Tue-12-01 Tue-12-08 Tue-12-15 Tue-12-22
robfig: Mon-11-30 Mon-12-07 Mon-12-14 Mon-12-21
Rust-cron: Sun-11-29 Sun-12-06 Sun-12-13 Sun-12-20
croner: Mon-11-30 Mon-12-07 Mon-12-14 Mon-12-21
0 3 */2 * 1, from Saturday, 28 November 2026:
croniter: Sun-11-29 Mon-11-30 Tue-12-01 Thu-12-03
cronsim: Mon-12-07 Mon-12-21 Mon-01-11 Mon-01-25
APScheduler: Tue-12-01 Tue-12-15 Tue-12-29 Tue-01-05
robfig: Sun-11-29 Mon-11-30 Tue-12-01 Thu-12-03
Rust-cron: Sun-11-29 Sun-12-13 Sun-12-27 Sun-01-03
croner: Sun-11-29 Mon-11-30 Tue-12-01 Thu-12-03'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
