//! The data gateway in `spec` and `status`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::nulls::null_as_default;

/// The maximum of `spec.gateway.instances`; the rule on that field has the same number.
pub const MAXIMUM_GATEWAYS: i32 = 16;
/// The maximum of `spec.gateway.connections`; the rule on that field has the same number.
pub const MAXIMUM_CONNECTIONS: i32 = 200;

/// The data gateway: the database over HTTP, in pods of its own, for the clients in `spec.clients`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Number of gateway pods, 1 to 16.
    #[serde(default = "default_gateways")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 16").message("spec.gateway.instances must be from 1 to 16"))]
    pub instances: i32,

    /// The exposed schemas, the default one first.
    #[serde(default = "default_schemas", deserialize_with = "null_as_schemas")]
    #[schemars(schema_with = "schemas_schema")]
    pub schemas: Vec<String>,

    /// The columns in which `POST /search` searches, by collection.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "search_schema")]
    pub search: BTreeMap<String, Vec<String>>,

    /// The text search configuration of `POST /search`, such as `english`. Default: `simple`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][a-z0-9_.]*$')").message("spec.gateway.searchConfiguration must be the name of a text search configuration, such as english"))]
    #[schemars(length(min = 1, max = 63))]
    pub search_configuration: Option<String>,

    /// Maximum number of connections of each pod to PostgreSQL, 1 to 200, for all clients together.
    /// All pods together must fit into `max_connections`.
    #[serde(default = "default_connections")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 200").message("spec.gateway.connections must be from 1 to 200"))]
    pub connections: i32,

    /// Maximum number of rows in an answer. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1").message("spec.gateway.maxRows must be at least 1"))]
    pub max_rows: Option<i64>,

    /// What the statements of each client may cost in a second, in each pod, in units of PostgreSQL's planner: a row by
    /// its key is about 8. Ten seconds' worth may be used at once. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1").message("spec.gateway.costPerSecond must be at least 1"))]
    pub cost_per_second: Option<i64>,

    /// Answers that each pod keeps. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<GatewayCache>,

    /// The time after which a statement is cancelled, in seconds, 1 to 3600.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 3600").message("spec.gateway.statementTimeoutSeconds must be from 1 to 3600"))]
    pub statement_timeout_seconds: i32,

    /// CPU and memory of each pod's container. Default: requests of 50m and 32Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self {
            instances: default_gateways(),
            schemas: default_schemas(),
            search: BTreeMap::new(),
            search_configuration: None,
            connections: default_connections(),
            max_rows: None,
            cost_per_second: None,
            cache: None,
            statement_timeout_seconds: default_timeout(),
            resources: None,
        }
    }
}

/// Answers that each pod of the gateway keeps: given out only while no commit has changed what they stand on.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayCache {
    /// The tables whose reads are cached, as requests name them.
    #[schemars(schema_with = "collections_schema")]
    pub collections: Vec<String>,

    /// Memory for answers in each pod, in MiB, 1 to 64.
    #[serde(default = "default_megabytes")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 64").message("spec.gateway.cache.megabytes must be from 1 to 64"))]
    pub megabytes: i32,
}

/// State of the data gateway.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Ready and declared pods, such as `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<String>,
    /// The base of its addresses, such as `https://chat-db-gateway.messaging.svc/api/db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The audience of the ServiceAccount tokens that it accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// What of its declaration has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

fn default_gateways() -> i32 {
    2
}

fn default_connections() -> i32 {
    10
}

fn default_megabytes() -> i32 {
    8
}

fn default_timeout() -> i32 {
    30
}

fn default_schemas() -> Vec<String> {
    vec!["public".to_owned()]
}

fn null_as_schemas<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_else(default_schemas))
}

/// The gateway refuses the same schemas: a database's own and PostgreSQL's.
fn schemas_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "The exposed schemas, the default one first.",
        "minItems": 1,
        "maxItems": 16,
        "items": {"type": "string", "description": "The name of a schema.", "minLength": 1, "maxLength": 63},
        "x-kubernetes-validations": [{
            "rule": "self.all(name, !name.startsWith('pg_') && !(name in ['servicedb', 'servicedb_extensions', 'information_schema']))",
            "message": "spec.gateway.schemas: Servicedb's own schemas and PostgreSQL's are never exposed"
        }]
    })
}

fn collections_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "The tables whose reads are cached, as requests name them.",
        "minItems": 1,
        "maxItems": 64,
        "items": {"type": "string", "description": "The name of a table.", "minLength": 1, "maxLength": 127}
    })
}

fn search_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "The columns in which `POST /search` searches, by collection.",
        "maxProperties": 32,
        "additionalProperties": {
            "type": "array", "description": "The columns of a collection.", "minItems": 1, "maxItems": 16,
            "items": {"type": "string", "description": "The name of a column.", "minLength": 1, "maxLength": 63}
        }
    })
}
