//! The clients of a database: `spec.clients`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::spec::BindingSecretSpec;

/// The maximum length of a client's name.
pub const MAXIMUM_NAME: usize = 20;
/// The minimum lifetime of a short-lived login, in seconds.
pub const MINIMUM_TTL: i64 = 60;
/// The maximum lifetime of a short-lived login that is not renewed, in seconds: a day.
pub const MAXIMUM_TTL: i64 = 86_400;
/// The maximum lifetime of a short-lived login with its renewals, in seconds: 30 days.
pub const MAXIMUM_MAX_TTL: i64 = 2_592_000;

/// A client of the database.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.access) || self.access.mode != 'Shared' || (!has(self.connectionLimit) && !has(self.statementTimeoutSeconds) && !has(self.sharedToo) && !has(self.secret))")
    .message("spec.clients[]: connectionLimit, statementTimeoutSeconds, sharedToo and secret need an access.mode other than Shared: they are properties of a login of its own"))]
#[x_kube(validation = Rule::new("has(self.access) || (!has(self.connectionLimit) && !has(self.statementTimeoutSeconds) && !has(self.sharedToo) && !has(self.secret))")
    .message("spec.clients[]: connectionLimit, statementTimeoutSeconds, sharedToo and secret need access: they are properties of a login of its own"))]
#[x_kube(validation = Rule::new("!has(self.serviceAccountNamespace) || !self.serviceAccountName.contains('/')")
    .message("spec.clients[].serviceAccountName has a namespace: remove serviceAccountNamespace"))]
#[x_kube(validation = Rule::new("!(has(self.serviceAccountNamespace) || self.serviceAccountName.contains('/')) || (has(self.access) && self.access.mode != 'Shared' && !(has(self.sharedToo) && self.sharedToo) && !has(self.secret))")
    .message("spec.clients[].serviceAccountNamespace, or a namespace in serviceAccountName, needs an access.mode other than Shared, and neither sharedToo nor secret: a client of another namespace has a login of its own and reads it from Vault"))]
#[x_kube(validation = Rule::new("!has(self.secret) || !has(self.access) || !has(self.access.dynamic)")
    .message("spec.clients[].secret is a copy of a record, and access.dynamic has none"))]
#[serde(rename_all = "camelCase")]
pub struct ClientSpec {
    /// ServiceAccount that may read the credentials from Vault. `<namespace>/<name>` stands for
    /// `serviceAccountNamespace` and the name.
    #[x_kube(validation = Rule::new("self.matches('^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("spec.clients[].serviceAccountName must be the name of a ServiceAccount, or namespace/name"))]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: String,

    /// Namespace of the ServiceAccount and of the pods in `podSelector`: another one only if the
    /// platform allows it (`clients.allowedNamespaces` of the chart). Default: the database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("spec.clients[].serviceAccountNamespace must be the name of a namespace"))]
    #[schemars(length(min = 1, max = 63))]
    pub service_account_namespace: Option<String>,

    /// Name of the client, from which the names of its roles and of its record in Vault are made:
    /// at most 20 characters. Default: the ServiceAccount's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.clients[].name must have lower-case letters, digits and '-', a letter first"))]
    #[schemars(length(min = 1, max = 20))]
    pub name: Option<String>,

    /// The client's login and its rights. Default: the login that clients share, and the right to
    /// all data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSpec>,

    /// Whether the ServiceAccount may read the shared record, too: while a service moves from the
    /// shared login to its own, or back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_too: Option<bool>,

    /// The maximum number of sessions of one of its logins. Default: no limit but that of the
    /// server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 10000").message("spec.clients[].connectionLimit must be from 1 to 10000"))]
    pub connection_limit: Option<i32>,

    /// The time after which PostgreSQL cancels a statement of this client, in seconds. A session
    /// may set another value for itself. Default: the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 86400").message("spec.clients[].statementTimeoutSeconds must be from 1 to 86400 (a day)"))]
    pub statement_timeout_seconds: Option<i64>,

    /// Secret with the client's credentials, for a service that cannot read Vault; only with a login
    /// of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BindingSecretSpec>,

    /// Pods in the ServiceAccount's namespace that may connect. Default: the NetworkPolicy admits no pod of
    /// this client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,

    /// Whether these pods may connect to the instances, too, where there is a pooler.
    #[serde(default = "super::spec::default_true")]
    pub direct: bool,
}

impl ClientSpec {
    /// The client's name.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.account_name())
    }

    /// The name of its ServiceAccount.
    pub fn account_name(&self) -> &str {
        self.service_account_name.split_once('/').map_or(self.service_account_name.as_str(), |(_, name)| name)
    }

    /// The declared namespace of its ServiceAccount, in either of its two forms.
    pub fn account_namespace(&self) -> Option<&str> {
        let of_name = self.service_account_name.split_once('/').map(|(namespace, _)| namespace);
        of_name.or(self.service_account_namespace.as_deref())
    }

    /// The namespace of its ServiceAccount and of its pods, for a database in this one.
    pub fn namespace<'a>(&'a self, of_database: &'a str) -> &'a str {
        self.account_namespace().unwrap_or(of_database)
    }

    /// Its ServiceAccount, by which one client differs from another of the same name: `<namespace>/<name>` where it is
    /// another namespace's.
    pub fn account(&self) -> String {
        match self.account_namespace() {
            Some(namespace) => format!("{namespace}/{}", self.account_name()),
            None => self.account_name().to_owned(),
        }
    }

    /// The same client in the form that status has, for a database in this namespace: the namespace is in
    /// `serviceAccountNamespace`, and only if it is another.
    pub fn normalized(&self, of_database: &str) -> Self {
        let namespace = self.account_namespace().filter(|namespace| *namespace != of_database);
        Self {
            service_account_name: self.account_name().to_owned(),
            service_account_namespace: namespace.map(str::to_owned),
            ..self.clone()
        }
    }

    /// Its identity: the ServiceAccount, and whether its logins are short-lived. A client that changes from a record to
    /// short-lived logins, or back, is another one: the former logins are refused.
    pub fn identity(&self) -> String {
        // Neither the name of a namespace nor that of a ServiceAccount contains a space.
        if self.dynamic().is_some() { format!("{} dynamic", self.account()) } else { self.account() }
    }

    /// The lifetimes of its logins, if Vault makes one for each request.
    pub fn dynamic(&self) -> Option<DynamicSpec> {
        self.own()?.dynamic
    }

    /// The declared access, if the client has a login of its own.
    pub fn own(&self) -> Option<&AccessSpec> {
        self.access.as_ref().filter(|access| access.mode != AccessMode::Shared)
    }

    /// Whether its ServiceAccount may read the shared record.
    pub fn is_shared(&self) -> bool {
        self.own().is_none() || self.shared_too == Some(true)
    }
}

/// The login and the rights of a client.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("(self.mode == 'Custom') == (has(self.grants) && self.grants.size() > 0)")
    .message("spec.clients[].access: mode Custom needs grants, and the other modes have none"))]
#[x_kube(validation = Rule::new("!has(self.dynamic) || self.mode != 'Shared'")
    .message("spec.clients[].access.dynamic needs a mode other than Shared"))]
#[serde(rename_all = "camelCase")]
pub struct AccessSpec {
    /// Shared is the login that all shared clients use, with the right to all data; with the others
    /// the client has a login of its own: ReadWrite may read and change all data, ReadOnly read it,
    /// Custom do what `grants` lists.
    pub mode: AccessMode,

    /// The rights, with the mode Custom. Rights of several grants add up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub grants: Vec<GrantSpec>,

    /// Short-lived logins that Vault makes on request, instead of a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<DynamicSpec>,
}

/// Short-lived logins, from Vault's database secrets engine.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.ttlSeconds >= 60 && self.ttlSeconds <= 86400 && self.maxTtlSeconds >= self.ttlSeconds && self.maxTtlSeconds <= 2592000")
    .message("spec.clients[].access.dynamic: ttlSeconds must be from 60 to 86400, maxTtlSeconds from ttlSeconds to 2592000"))]
#[serde(rename_all = "camelCase")]
pub struct DynamicSpec {
    /// Lifetime of a login that is not renewed, in seconds.
    #[serde(default = "hour")]
    pub ttl_seconds: i64,

    /// Its lifetime with renewals, in seconds.
    #[serde(default = "day")]
    pub max_ttl_seconds: i64,
}

fn hour() -> i64 {
    3600
}

fn day() -> i64 {
    86_400
}

/// The kind of a client's access.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// The login that clients share.
    Shared,
    /// A login of its own, for all data.
    ReadWrite,
    /// A login of its own, which reads all data.
    ReadOnly,
    /// A login of its own, with the listed rights.
    Custom,
}

impl AccessMode {
    /// As in the spec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "Shared",
            Self::ReadWrite => "ReadWrite",
            Self::ReadOnly => "ReadOnly",
            Self::Custom => "Custom",
        }
    }
}

/// Rights on tables of one schema.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.columns) || self.columns.size() == 0 || (!self.tables.exists(t, t == '*') && self.privileges.all(p, p in ['SELECT', 'INSERT', 'UPDATE']))")
    .message("spec.clients[].access.grants[].columns need tables by name, and only SELECT, INSERT and UPDATE have columns"))]
#[x_kube(validation = Rule::new("!has(self.rowPolicy) || (!self.tables.exists(t, t == '*') && !('TRUNCATE' in self.privileges))")
    .message("spec.clients[].access.grants[].rowPolicy needs tables by name, and TRUNCATE is not limited to rows"))]
#[x_kube(validation = Rule::new("!(self.tables.exists(t, t == '*') && self.tables.size() > 1)")
    .message("spec.clients[].access.grants[].tables has '*', which stands for all tables: remove the names beside it"))]
#[serde(rename_all = "camelCase")]
pub struct GrantSpec {
    /// The schema of the tables.
    #[serde(default = "public")]
    #[x_kube(validation = Rule::new("!self.startsWith('pg_') && !(self in ['information_schema', 'servicedb', 'servicedb_extensions'])")
        .message("spec.clients[].access.grants[].schema is PostgreSQL's or Servicedb's own: rights are granted on a service's own schemas"))]
    #[schemars(length(min = 1, max = 63))]
    pub schema: String,

    /// Tables and views, exactly as PostgreSQL names them; `*` alone stands for all tables, views and
    /// materialized views of the schema, also those that migrations create later, but no partitions.
    #[schemars(schema_with = "tables_schema")]
    pub tables: Vec<String>,

    /// The columns. Default: whole tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "columns_schema")]
    pub columns: Vec<String>,

    /// What the client may do. INSERT includes the use of the sequences that belong to the tables'
    /// columns.
    #[schemars(length(min = 1, max = 5))]
    pub privileges: Vec<Privilege>,

    /// A condition that limits these rights to some rows: an SQL expression on the table's columns,
    /// such as `NOT is_secret`. It is added to row policies that migrations create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub row_policy: Option<String>,
}

fn tables_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "items": {"type": "string", "description": "The name of a table or view, or `*`.", "minLength": 1, "maxLength": 63}
    })
}

fn columns_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {"type": "string", "description": "The name of a column.", "minLength": 1, "maxLength": 63}
    })
}

fn public() -> String {
    "public".to_owned()
}

/// A privilege on a table, as PostgreSQL names it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "UPPERCASE")]
pub enum Privilege {
    /// Read.
    Select,
    /// Add rows.
    Insert,
    /// Change rows.
    Update,
    /// Delete rows.
    Delete,
    /// Delete all rows.
    Truncate,
}

impl Privilege {
    /// As in a statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

/// What happens to a right of a client's role that the spec does not declare.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UndeclaredRights {
    /// It is reported (`GrantDrift`) and kept.
    #[default]
    Report,
    /// It is reported and taken back.
    Revoke,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(fields: &str) -> ClientSpec {
        serde_yaml::from_str(&format!("{{{fields}}}")).expect(fields)
    }

    #[test]
    fn both_forms_of_a_namespace_are_one_client() {
        let short = client("serviceAccountName: reports/reader, access: {mode: ReadOnly}");
        let long = client("serviceAccountName: reader, serviceAccountNamespace: reports, access: {mode: ReadOnly}");
        for client in [&short, &long] {
            assert_eq!((client.name(), client.account_name()), ("reader", "reader"));
            assert_eq!((client.namespace("messaging"), client.account().as_str()), ("reports", "reports/reader"));
            assert_eq!(client.normalized("messaging"), long);
        }
        assert_eq!(short.identity(), long.identity(), "a change of the form alone keeps the credentials");
    }

    #[test]
    fn a_written_namespace_of_the_database_is_no_other_client() {
        let plain = client("serviceAccountName: reader, access: {mode: ReadOnly}");
        for fields in
            ["serviceAccountName: messaging/reader", "serviceAccountName: reader, serviceAccountNamespace: messaging"]
        {
            let written = client(&format!("{fields}, access: {{mode: ReadOnly}}"));
            assert_eq!(written.normalized("messaging"), plain, "{fields}");
            assert_ne!(written.normalized("games").account(), plain.account(), "{fields}");
        }
    }
}
