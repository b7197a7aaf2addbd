//! The operator: turns ServiceDatabases into Kubernetes and Vault objects, and observations
//! into status.
//!
//! Reading order: [`reconcile`] is the driver; `validate`, `plan` and `status` are pure;
//! `observe`, `apply`, `in_vault` (`vault_objects`, `credentials`, `secrets`), `migrations`, `adopt`,
//! `cleanup` and `publish` do its I/O; `rolling` decides, purely, which instance is changed next;
//! `admission` asks whether its new pod would be taken; `volumes` grow, and `given_up` removes those
//! of a declared scale-down; `controller` (with `watches`) and `leader` call it, and `orphans` sweeps.

mod admission;
mod adopt;
mod apply;
mod backoff;
pub mod checks;
mod cleanup;
mod condition;
mod context;
mod controller;
mod credentials;
mod dependencies;
mod drift;
mod error;
mod given_up;
mod http;
mod in_vault;
mod job_pods;
mod leader;
mod lost;
mod memory;
mod metrics;
mod migrations;
mod nodes;
mod object;
mod observe;
mod options;
mod orphans;
mod patroni_state;
mod plan;
mod pods;
mod progress;
mod publish;
mod quantity;
mod reconcile;
mod role_ids;
mod rolling;
mod secrets;
mod selection;
mod startup;
mod status;
#[cfg(test)]
mod tests;
mod validate;
mod vault_ca;
mod vault_objects;
mod vault_probe;
mod volumes;
mod watches;

pub use options::Options;
pub use startup::run;
