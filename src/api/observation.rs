//! `spec.monitoring` and `spec.audit`: what the server writes into its log, and metrics of a team's own.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nulls::null_as_default;

/// What is logged of slow statements, and metrics of the team's own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringSpec {
    /// Statements that take at least this long are logged with their duration, without the values of their
    /// parameters; so are waits for locks of over a second, and temporary files of 10 MB and more. 1 to 3600.
    /// Default: nothing of this is logged. A setting in `spec.postgres.parameters` takes precedence.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 3600").message("spec.monitoring.slowQuerySeconds must be from 1 to 3600"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_query_seconds: Option<i32>,

    /// Queries whose rows become metrics of each instance, in a ConfigMap (docs/monitoring.md). They run as
    /// `servicedb_queries`, which reads what the team grants it, in read-only transactions of two seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<QueriesReference>,
}

/// A key of a ConfigMap in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QueriesReference {
    /// The ConfigMap's name.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("spec.monitoring.queries.name must be a valid name of a ConfigMap"))]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The key with the queries.
    #[serde(default = "queries_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn queries_key() -> String {
    "queries.yaml".to_owned()
}

/// The audit log: lines of the server's log that begin with `AUDIT:`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuditSpec {
    /// Classes of statements that are logged, with the login, its address and the database. Values of parameters
    /// are not logged, and passwords are redacted. Empty: none.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub classes: Vec<AuditClass>,

    /// Whether a statement is also logged if it uses a right to a relation or a column that the team granted to the
    /// role `servicedb_audit`, such as `GRANT SELECT, UPDATE ON accounts TO servicedb_audit`, whatever its class.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub granted_relations: bool,
}

impl AuditSpec {
    /// Whether nothing is logged.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty() && !self.granted_relations
    }
}

/// A class of statements, as pgaudit has them.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditClass {
    /// `SELECT`, and `COPY` from a relation.
    Read,
    /// `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, and `COPY` to a relation.
    Write,
    /// Calls of functions, and `DO` blocks.
    Function,
    /// `GRANT`, `REVOKE`, and changes of roles.
    Role,
    /// Changes of the schema, but for roles.
    Ddl,
    /// Other commands, such as `VACUUM` and `SET`.
    Misc,
}

impl AuditClass {
    /// Its name in `pgaudit.log`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Function => "function",
            Self::Role => "role",
            Self::Ddl => "ddl",
            Self::Misc => "misc",
        }
    }
}
