//! The Vault adapter against a real Vault, with no more rights than
//! `manifests/vault-setup.sh` gives the operator.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected shall fail there")]

mod chain;
mod database;
mod faults;
mod log;
mod login;
mod objects;
mod records;
mod server;
mod setup;

use servicedb::vault::client::VaultClient;

/// How often a client did something, with this result.
fn count(client: &VaultClient, operation: &'static str, result: &'static str) -> u64 {
    client.requests().count(operation, result)
}
