//! `spec.monitoring` and `spec.audit`: what the server writes into its log.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nulls::null_as_default;

/// What is logged of slow statements.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringSpec {
    /// Statements that take at least this long are logged with their duration, without the values of their
    /// parameters; so are waits for locks of over a second, and temporary files of 10 MB and more. 1 to 3600.
    /// Default: nothing of this is logged. A setting in `spec.postgres.parameters` takes precedence.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 3600").message("spec.monitoring.slowQuerySeconds must be from 1 to 3600"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_query_seconds: Option<i32>,
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
}

impl AuditSpec {
    /// Whether nothing is logged.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
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
