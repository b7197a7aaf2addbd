//! Servicedb: one binary, several parts.
//!
//! Reading order: [`api`] is the resource that people write and read; [`contract`] is what
//! the parts tell each other; [`operator`] turns resources into Kubernetes and Vault objects
//! and observations into status; [`agent`] runs in every database pod; [`migrate`] is the
//! migration Job; [`check`] walks the whole chain once; [`vault`] and [`postgres`] are the
//! ports to the outside; [`plugin`] is `kubectl servicedb`; [`reference`] makes the
//! reference page.

pub mod api;
pub mod contract;
pub mod plugin;

// Whatever runs in a cluster runs on Unix; people's terminals may not, so what stands above
// uses nothing of what stands below.
#[cfg(unix)]
pub mod agent;
#[cfg(unix)]
mod backoff;
#[cfg(unix)]
pub mod check;
#[cfg(unix)]
pub mod migrate;
#[cfg(unix)]
pub mod operator;
#[cfg(unix)]
pub mod postgres;
#[cfg(unix)]
pub mod reference;
#[cfg(unix)]
pub mod vault;
