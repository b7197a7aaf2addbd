//! The operator: turns ServiceDatabases into Kubernetes and Vault objects, and observations
//! into status.
//!
//! Reading order: [`reconcile`] is the driver; `validate`, `plan` and `status` are pure;
//! `observe`, `apply`, `vault_objects`, `credentials`, `secrets`, `migrations`, `cleanup` and
//! `publish` do its I/O; `controller` and `leader` call it.

mod apply;
pub mod checks;
mod cleanup;
mod context;
mod controller;
mod credentials;
mod error;
mod http;
mod leader;
mod memory;
mod metrics;
mod migrations;
mod object;
mod observe;
mod options;
mod plan;
mod pods;
mod publish;
mod reconcile;
mod secrets;
mod startup;
mod status;
#[cfg(test)]
mod tests;
mod validate;
mod vault_objects;
mod vault_probe;

pub use options::Options;
pub use startup::run;
