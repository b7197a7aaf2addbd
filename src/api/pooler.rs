//! The pooler in `spec` and `status`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nulls::null_as_default;

/// Parameters of PgBouncer that a spec may set; the operator and the pooler's process own the others.
pub const POOLER_PARAMETERS: &[&str] = &[
    "application_name_add_host",
    "client_idle_timeout",
    "client_login_timeout",
    "idle_transaction_timeout",
    "ignore_startup_parameters",
    "log_connections",
    "log_disconnections",
    "max_prepared_statements",
    "max_user_client_connections",
    "max_user_connections",
    "min_pool_size",
    "query_timeout",
    "query_wait_timeout",
    "reserve_pool_size",
    "reserve_pool_timeout",
    "server_idle_timeout",
    "server_lifetime",
    "stats_period",
    "track_extra_parameters",
    "transaction_timeout",
];

/// How long queries are held at most, where the spec sets nothing.
const DEFAULT_HOLD_SECONDS: i32 = 5;
/// The same during a major upgrade.
const DEFAULT_UPGRADE_HOLD_SECONDS: i32 = 60;

/// The maximum of `spec.pooler.instances`; the rule on that field has the same number.
pub const MAXIMUM_POOLERS: i32 = 16;

/// Connection pooling by PgBouncer, in pods of its own in front of the database.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("self.mode == 'Transaction' || !has(self.plannedChanges) || ((!has(self.plannedChanges.holdSeconds) || self.plannedChanges.holdSeconds == 0) && (!has(self.plannedChanges.upgradeHoldSeconds) || self.plannedChanges.upgradeHoldSeconds == 0))")
        .message("holding queries (spec.pooler.plannedChanges) needs spec.pooler.mode Transaction: a session never ends by itself, so a pause would wait for it")
)]
#[serde(rename_all = "camelCase")]
pub struct PoolerSpec {
    /// Number of pooler pods, 1 to 16.
    #[serde(default = "default_poolers")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 16").message("spec.pooler.instances must be from 1 to 16"))]
    pub instances: i32,

    /// When a client's server connection returns to the pool: at the end of each transaction
    /// (`Transaction`, the default) or of the client's connection (`Session`).
    #[serde(default)]
    pub mode: PoolMode,

    /// Maximum number of client connections of each pod, 1 to 50000.
    #[serde(default = "default_clients")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 50000").message("spec.pooler.maxClientConnections must be from 1 to 50000"))]
    pub max_client_connections: i32,

    /// Maximum number of connections of each pod to an instance of PostgreSQL, 1 to 1000, for all
    /// logins together. All pods together must fit into `max_connections`.
    #[serde(default = "default_pool_size")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 1000").message("spec.pooler.poolSize must be from 1 to 1000"))]
    pub pool_size: i32,

    /// CPU and memory of each pod's container. Default: requests of 50m and 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Whether there is a second, read-only pooler in front of the replicas, with the same settings.
    #[serde(default)]
    pub replicas: bool,

    /// Settings of PgBouncer. Only some are allowed: see the reference.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "parameters_schema")]
    pub parameters: BTreeMap<String, String>,

    /// What happens to clients when the lead is handed over, or the primary is restarted, as planned.
    #[serde(default)]
    pub planned_changes: PlannedChangesSpec,
}

impl Default for PoolerSpec {
    fn default() -> Self {
        Self {
            instances: default_poolers(),
            mode: PoolMode::default(),
            max_client_connections: default_clients(),
            pool_size: default_pool_size(),
            resources: None,
            replicas: false,
            parameters: BTreeMap::new(),
            planned_changes: PlannedChangesSpec::default(),
        }
    }
}

impl PoolerSpec {
    /// How long queries are held at most during a planned change, in seconds; 0: they are not.
    pub fn hold_seconds(&self) -> u64 {
        self.seconds(self.planned_changes.hold_seconds, DEFAULT_HOLD_SECONDS)
    }

    /// The same during a major upgrade.
    pub fn upgrade_hold_seconds(&self) -> u64 {
        self.seconds(self.planned_changes.upgrade_hold_seconds, DEFAULT_UPGRADE_HOLD_SECONDS)
    }

    fn seconds(&self, declared: Option<i32>, default: i32) -> u64 {
        let default = if self.mode == PoolMode::Transaction { default } else { 0 };
        u64::try_from(declared.unwrap_or(default)).unwrap_or_default()
    }
}

/// Clients during planned changes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChangesSpec {
    /// How long queries are held at most during a planned change, in seconds, 0 to 60; 0: they are
    /// not held. Half of it is for transactions that are under way. Default: 5 in the mode
    /// `Transaction`, 0 in the mode `Session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 60").message("spec.pooler.plannedChanges.holdSeconds must be from 0 to 60"))]
    pub hold_seconds: Option<i32>,

    /// The same for a major upgrade and the way back from it, which take longer. A quarter of it is
    /// for transactions. Queries are not held for an upgrade whose rehearsal took longer than the
    /// rest. Default: 60 in the mode `Transaction`, 0 in the mode `Session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 60").message("spec.pooler.plannedChanges.upgradeHoldSeconds must be from 0 to 60"))]
    pub upgrade_hold_seconds: Option<i32>,

    /// The change when a transaction does not end in time: it is made anyway and cuts the
    /// transaction (`Proceed`, the default), or it is tried again after a minute (`Postpone`).
    #[serde(default)]
    pub on_timeout: OnTimeout,
}

/// When a server connection returns to the pool.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// At the end of each transaction.
    #[default]
    Transaction,
    /// When the client disconnects.
    Session,
}

impl PoolMode {
    /// PgBouncer's value of `pool_mode`.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// The change when a transaction does not end in time.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTimeout {
    /// It is made; the transaction is cut.
    #[default]
    Proceed,
    /// It is tried again after a minute.
    Postpone,
}

/// State of the pooler.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PoolerStatus {
    /// Ready and declared pods, such as `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<String>,
    /// The same of the read-only pooler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_instances: Option<String>,
    /// The last planned change for which queries were held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hold: Option<HoldStatus>,
}

/// A planned change for which queries were held.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HoldStatus {
    /// The change, such as `switchover of chat-db-0`.
    pub change: String,
    /// When it began.
    pub started_at: Time,
    /// Whether every pod held its queries in time.
    pub held: bool,
    /// The reason why the queries were not held, or the change waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

fn default_poolers() -> i32 {
    2
}

fn default_clients() -> i32 {
    1000
}

fn default_pool_size() -> i32 {
    20
}

/// The list becomes a CEL rule: the API server refuses another parameter with the reason.
fn parameters_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let allowed = POOLER_PARAMETERS.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    schemars::json_schema!({
        "type": "object",
        "description": "Settings of PgBouncer. Only some are allowed: see the reference.",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 256 },
        "x-kubernetes-validations": [
            {
                "rule": format!("self.all(name, name in [{allowed}])"),
                "message": "spec.pooler.parameters sets a parameter that Servicedb owns or that PgBouncer does not have (docs/pooler.md has the allowed ones)"
            },
            {
                "rule": "self.all(name, self[name].matches('^[-a-zA-Z0-9_., ]*$'))",
                "message": "spec.pooler.parameters: a value has letters, digits, '_', '-', '.', ',' and spaces"
            }
        ]
    })
}
