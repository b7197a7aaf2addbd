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

#[cfg(unix)]
pub mod agent;
#[cfg(unix)]
pub mod check;
pub mod migrate;
pub mod operator;
pub mod plugin;
pub mod postgres;
pub mod reference;
pub mod vault;
