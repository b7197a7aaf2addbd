//! Operator and pooler pods: the order to hold queries, and what the pods report. The operator dials no
//! pod: the order is a ConfigMap that each pod watches by its name, the report a key of another.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The key of the ConfigMap `<name>-db-pooler-orders`.
pub const HOLD_KEY: &str = "hold.json";
/// The key with the settings of PgBouncer in the same ConfigMap.
pub const SETTINGS_KEY: &str = "settings.json";
/// The version of these documents.
pub const VERSION: u32 = 1;

/// PgBouncer's port, TLS.
pub const POOLER_PORT: u16 = 6432;
/// A Secret as a folder, in pooler pods: `ca.crt`, and `.crt` and `.key` of `server` (for clients) and
/// `pooler` (for PostgreSQL).
pub const TLS_DIR: &str = "/etc/servicedb/pooler-tls";
/// The certificates and keys in [`TLS_DIR`].
pub const TLS_FILES: [&str; 5] = ["ca.crt", "server.crt", "server.key", "pooler.crt", "pooler.key"];
/// The ConfigMap with the orders as a folder, so that a pod starts without the API server.
pub const ORDERS_DIR: &str = "/etc/servicedb/pooler-orders";
/// The pooler's scratch folder, an emptyDir in memory: PgBouncer's configuration and its local socket.
pub const RUN_DIR: &str = "/run/servicedb";

/// Environment of pooler pods: the host name of the PostgreSQL that the pooler leads to.
pub const ENV_HOST: &str = "SERVICEDB_POOLER_HOST";
/// Whether the pooler leads to the replicas: `true` or `false`.
pub const ENV_REPLICAS: &str = "SERVICEDB_POOLER_REPLICAS";

/// How long a pod that ends still takes connections, in seconds: until no Service leads to it any more.
pub const DRAIN_SECONDS: u64 = 3;
/// The grace period of a pod, in seconds: transactions may take so long, less [`DRAIN_SECONDS`].
pub const GRACE_SECONDS: u64 = 60;

/// The settings of PgBouncer, which change without a new pod.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The database.
    pub database: String,
    /// PgBouncer's `pool_mode`.
    pub mode: String,
    /// Client connections of a pod.
    pub max_client_connections: i32,
    /// Server connections of a pod.
    pub pool_size: i32,
    /// Other parameters.
    #[serde(default)]
    pub parameters: std::collections::BTreeMap<String, String>,
}

/// An order to hold queries during a planned change.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Another id is another order.
    pub id: String,
    /// The change, for people: `switchover of chat-db-0`.
    pub change: String,
    /// When it was issued, by the operator's clock.
    pub issued_at: Timestamp,
    /// How long a pod holds queries at most, in seconds, from when it read the order.
    pub seconds: u64,
    /// Why queries are not held any longer although the change was not made, or not yet; pods resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
}

/// What a pod reports, under its own name as key.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The pod's uid.
    pub uid: String,
    /// Why logins cannot be looked up in PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The last order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldReport>,
}

/// The state of the last order in a pod.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HoldReport {
    /// The order's id.
    pub id: String,
    /// Its state.
    pub state: HoldState,
}

/// The state of an order in a pod.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum HoldState {
    /// The order is taken, and transactions are under way.
    Waiting,
    /// No transaction is under way, and queries wait.
    Held,
    /// Queries are served again.
    Resumed,
}
