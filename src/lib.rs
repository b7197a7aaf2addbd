//! Servicedb: one binary, several parts.
//!
//! Reading order: [`api`] is the resource that users write and read; [`contract`] has the
//! documents between the parts; [`operator`] turns resources into Kubernetes and Vault objects
//! and observations into status; [`agent`] runs in every database pod; [`migrate`] is the
//! migration Job; [`backup`] is the backup Job; [`pooler`] is the parent of PgBouncer; [`check`] tests Vault,
//! credentials and PostgreSQL once; [`vault`] and [`postgres`] are the clients of Vault and PostgreSQL; [`plugin`] is
//! `kubectl servicedb`; [`reference`] generates the reference page.

pub mod api;
pub mod contract;
pub mod plugin;

// All parts in a cluster run on Unix; users' terminals may not, so the modules above use
// nothing of the modules below.
#[cfg(unix)]
pub mod agent;
#[cfg(unix)]
mod backoff;
#[cfg(unix)]
pub mod backup;
#[cfg(unix)]
pub mod check;
#[cfg(unix)]
mod config_map;
#[cfg(unix)]
mod files;
#[cfg(unix)]
pub mod migrate;
#[cfg(unix)]
pub mod operator;
#[cfg(unix)]
mod output;
#[cfg(unix)]
mod pgbackrest;
#[cfg(unix)]
pub mod pooler;
#[cfg(unix)]
pub mod postgres;
#[cfg(unix)]
pub mod reference;
#[cfg(unix)]
mod restore;
#[cfg(unix)]
pub mod vault;
