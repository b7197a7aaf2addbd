#!/usr/bin/env bash
# One would guess: a program's development build logs in to PostgreSQL some ten times slower than its release build, which nobody notices.
# postgres-protocol 0.6.12 (sha2 0.11, hmac 0.13): the client's side of one SCRAM-SHA-256 login takes some 100 ms of a core in a development build, 50 to 100 times as long; opt-level 1 gives nearly all of it back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset CARGO_TARGET_DIR
cat >Cargo.toml <<'TOML'
[package]
name = "login"
version = "0.1.0"
edition = "2021"
[dependencies]
postgres-protocol = "=0.6.12"
sha2 = "=0.11.1"
hmac = "=0.13.0"
[profile.little]
inherits = "dev"
opt-level = 1
TOML
mkdir src
# The server's part of the exchange is only its nonce, a salt and the usual number of rounds.
cat >src/main.rs <<'RS'
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use std::time::Instant;

fn main() {
    let mut least = f64::MAX;
    for _ in 0..10 {
        let mut login = ScramSha256::new(b"secret", ChannelBinding::unsupported());
        let first = String::from_utf8(login.message().to_vec()).unwrap();
        let nonce = first.split("r=").nth(1).unwrap();
        let challenge = format!("r={nonce}more,s=QUJDREVGR0hJSktMTU5PUA==,i=4096");
        let begin = Instant::now();
        login.update(challenge.as_bytes()).unwrap();
        least = least.min(begin.elapsed().as_secs_f64() * 1e3);
    }
    println!("{least:.1}");
}
RS
for profile in dev little release; do cargo build -q --profile "$profile"; done
dev=$(target/debug/login) little=$(target/little/login) release=$(target/release/login)
echo "one login, milliseconds: dev $dev, opt-level 1 $little, release $release"
awk -v dev="$dev" -v little="$little" -v release="$release" 'BEGIN {exit !(dev > 30 * release && little < 4 * release)}' ||
  { echo "this has changed" >&2; exit 1; }
