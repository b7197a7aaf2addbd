#!/usr/bin/env bash
# One would guess: a migration of Diesel runs in a transaction unless its metadata.toml says run_in_transaction = false; a metadata.toml that is empty or has the line as a comment changes nothing, and one that cannot be read is refused.
# diesel_migrations 2.3.2: with an empty metadata.toml the migration runs without a transaction, as with "false"; with run_in_transaction = "false", or with the option twice, the file is ignored without a message, and the migration runs in one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cd "$folder"
cat >Cargo.toml <<'TOML'
[package]
name = "transactions"
version = "0.1.0"
edition = "2021"
[dependencies]
diesel = { version = "=2.3.14", default-features = false, features = ["sqlite", "returning_clauses_for_sqlite_3_35"] }
diesel_migrations = { version = "=2.3.2", default-features = false, features = ["sqlite"] }
libsqlite3-sys = { version = "*", features = ["bundled"] }
TOML
# The program asks Diesel how it would run each folder, as its command line does.
cat >src/main.rs <<'RUST'
use diesel::migration::MigrationSource;
fn main() {
    let source = diesel_migrations::FileBasedMigrations::from_path("migrations").unwrap();
    let mut found: Vec<_> = MigrationSource::<diesel::sqlite::Sqlite>::migrations(&source).unwrap();
    found.sort_by_key(|one| one.name().to_string());
    for one in found {
        println!("{}: {}", one.name(), one.metadata().run_in_transaction());
    }
}
RUST
# migration NAME OPTIONS
migration() {
  mkdir -p "migrations/$1"
  echo 'SELECT 1;' >"migrations/$1/up.sql"
  printf '%b' "$2" >"migrations/$1/metadata.toml"
}
migration 1_empty ''
migration 2_comment '# run_in_transaction = true\n'
migration 3_false 'run_in_transaction = false\n'
migration 4_text 'run_in_transaction = "false"\n'
migration 5_twice 'run_in_transaction = false\nrun_in_transaction = false\n'
mkdir migrations/6_without && echo 'SELECT 1;' >migrations/6_without/up.sql
cargo run -q 2>cargo.log >said || { tail -n 5 cargo.log; exit 1; }
echo "in a transaction?"
cat said
[[ $(sed 's/.*: //' said | xargs) == 'false false false true true true' ]] || { echo "this has changed" >&2; exit 1; }
