//! The operator: turns ServiceDatabases into Kubernetes and Vault objects, and observations
//! into status.
//!
//! Reading order: [`reconcile`] is the driver, in numbered steps. [`validate`], [`plan`] and
//! [`status`] are pure. [`observe`] reads, [`apply`] writes objects. Each concern has a room, which
//! begins with its decision: [`instances`] (which instance changes next, and into what),
//! [`credentials`] (generations, Vault's objects, secret_ids, the Secret with the credentials),
//! [`tls`] (the certificate authority), [`migrations`], [`lifecycle`] (deletion, what it left in
//! Vault, adoption). [`process`] runs all of it; [`context`] is what all reconciles share. Imports
//! among these files have one direction (`tests/layout.rs`).

mod apply;
mod context;
mod credentials;
mod instances;
mod lifecycle;
mod migrations;
mod observe;
mod plan;
mod process;
mod reconcile;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod validate;

pub use context::options::Options;
pub use process::checks;
pub use process::startup::run;
