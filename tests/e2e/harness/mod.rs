//! The test harness: the cluster, a namespace, bounded waits, Vault, PostgreSQL.

mod certificate;
pub mod cluster;
pub mod database;
mod diagnosis;
mod exec;
mod gateway;
mod load;
pub mod objects;
pub mod operator;
mod pods;
pub mod postgres;
pub mod restarts;
mod restore;
mod sandbox;
pub mod store;
mod vault;
mod version;
mod wait;
mod writer;

pub use certificate::{Signed, signed};
pub use cluster::Cluster;
pub use database::{condition, config_map, database, describe, service_account};
pub use exec::{plugin, plugin_with};
pub use gateway::{Caller, token as gateway_token};
pub use load::{Load, pooler_address};
pub use operator::{NAMESPACE as OPERATOR_NAMESPACE, Operator, counter};
pub use pods::{is_ready, pod_uid};
pub use postgres::{Credentials, column, dump_command, login_at, run, sqlstate};
pub use restore::then_restore;
pub use sandbox::{Sandbox, alone, shared};
pub use vault::{Vault, authority as vault_authority};
pub use version::postgres_major;
pub use wait::until;
pub use writer::{NOTES, Writer, with_notes};

use std::time::Duration;

/// Timeout of a database's Ready: the bench measures the speed, and a machine may be busy.
pub const READY: Duration = Duration::from_secs(180);
/// The same for a change that needs no new pod.
pub const SOON: Duration = Duration::from_secs(180);
