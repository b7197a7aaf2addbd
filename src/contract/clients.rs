//! Clients with a login of their own: what the operator tells the agents, and what the leader's agent reports.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::pod::POSTGRES_PORT;
use crate::api::{AccessSpec, DynamicSpec};

/// How long Vault waits for a connection, in seconds: less than a request to Vault may take.
const CONNECT_SECONDS: u32 = 5;

/// A client with a login of its own, as the agents shall have it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Its identity (`ClientSpec::identity`): another one of the same name never has the logins of the former.
    #[serde(default)]
    pub service_account: String,
    /// The desired generation of its record.
    pub generation: i64,
    /// Its rights.
    pub access: AccessSpec,
    /// The maximum number of sessions of one login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<i32>,
    /// The default limit of a statement, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_timeout_seconds: Option<i64>,
    /// The version of the record that the operator last found to differ from the one that the agent proved, or to
    /// expire soon: the agent proves it again. 0: the record is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prove: Option<u64>,
    /// The last request for new credentials of all that the generation answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<String>,
    /// The last request for new credentials of this client that the generation answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_client: Option<String>,
}

impl Client {
    /// The lifetimes of its logins, if Vault makes one for each request. Agents of an earlier version do not know them,
    /// and wait for a record that never comes.
    pub fn dynamic(&self) -> Option<DynamicSpec> {
        self.access.dynamic
    }
}

/// Vault's database secrets engine, as the leader's agent configures it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// Its mount.
    pub mount: String,
    /// The name of the connection to this database.
    pub connection: String,
}

impl Engine {
    /// The role in it for a client (`VaultNames::engine_role`).
    pub fn role(&self, client: &str) -> String {
        format!("{}.{client}", self.connection)
    }

    /// The URL of the connection to the primary at this host, with placeholders for login and password. It is to the
    /// database `postgres`, where no tenant has an object: roles are those of the server. The leader's agent writes it, and
    /// the policy that the operator writes allows no other.
    pub fn url(host: &str) -> String {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{POSTGRES_PORT}/postgres?sslmode=verify-full\
             &connect_timeout={CONNECT_SECONDS}"
        )
    }
}

/// What holds for all clients with a login of their own.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// Whether a right that is not declared is taken back.
    #[serde(default)]
    pub revoke_undeclared: bool,
    /// How long sessions of a removed client may last, in seconds.
    #[serde(default)]
    pub session_grace_seconds: i64,
}

impl Rules {
    /// Whether they are the defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The leader's state of a client.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientReport {
    /// Its name.
    pub name: String,
    /// The generation in its record whose login this agent proved; 0: none yet.
    #[serde(default)]
    pub generation: i64,
    /// When it was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
    /// The version of the record that this agent proved or wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Of a client with short-lived logins: whether Vault has proved that it can make them. Absent for another client,
    /// and from an agent of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<bool>,
    /// Why its login is not as desired: a reason of `api::conditions::reason`, and a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<super::report::Trouble>,
    /// Its rights; absent before they were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<RightsReport>,
}

/// How the rights of a client differ from the declared ones; nothing: they do not.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RightsReport {
    /// Declared tables and columns that do not exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// Rights that it has and that are not declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undeclared: Vec<String>,
    /// Why declared rights cannot be granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// What a reader of the declaration should know, such as a view that row policies do not reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The sessions of an instance by client, those of the data gateway for a client included.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// Of the login that clients share.
    pub shared: i64,
    /// Of the clients with a login of their own, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clients: BTreeMap<String, i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;

    #[test]
    fn operator_and_agent_name_the_role_of_the_engine_alike() {
        let names = Names::new("messaging", "chat").vault("dev");
        let engine = Engine { mount: "database".to_owned(), connection: names.engine_connection() };
        assert_eq!(engine.role("reports"), names.engine_role("reports"));
        assert_eq!(engine.role("reports"), "servicedb.dev.messaging.chat.reports");
    }
}
