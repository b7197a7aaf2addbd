//! The Vault adapter against a real Vault, with no more rights than
//! `manifests/vault-setup.sh` gives the operator.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected shall fail there")]

mod chain;
mod faults;
mod log;
mod login;
mod objects;
mod records;
mod server;
mod setup;

use servicedb::vault::client::VaultClient;

/// How often a client did something, with this result.
fn count(client: &VaultClient, operation: &str, result: &str) -> u64 {
    let counts = client.request_counts();
    let line = counts.iter().find(|line| line.operation == operation && line.result == result);
    line.map_or(0, |line| line.count)
}
