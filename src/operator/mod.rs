//! The operator: turns ServiceDatabases into Kubernetes and Vault objects, and observations
//! into status.
//!
//! Reading order: [`reconcile`] is the driver, in numbered steps; [`act`] is the one of them that acts, and
//! [`held`] what is done for a database that is not changed. [`validate`], [`plan`] and
//! [`status`] are pure. [`observe`] reads, [`apply`] writes objects. Each concern has its own
//! module, which begins with its decision: [`instances`] (rolling updates, scaling, volumes,
//! requests), [`credentials`] (generations, Vault's objects, secret_ids, the Secret with the
//! credentials), [`tls`] (the certificate authority), [`migrations`], [`backups`], [`restores`],
//! [`upgrades`], [`maintenance`] (windows, what excludes their work, rollouts that wait for them), [`lifecycle`]
//! (deletion, objects that it left in Vault, adoption). [`version`] resolves the major version. [`process`] runs the
//! controller; [`context`] is shared
//! by all reconciles. Imports among these files have one direction (`tests/layout.rs`).

mod act;
mod apply;
mod backups;
mod context;
mod credentials;
mod cron;
mod gateway;
mod held;
mod instances;
mod lifecycle;
mod maintenance;
mod migrations;
mod observe;
mod plan;
mod pooler;
mod process;
mod reconcile;
mod restores;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod upgrades;
mod validate;
mod version;

pub use context::options::Options;
pub use process::checks;
pub use process::startup::run;
