//! Operator to agent: the ConfigMap `<name>-db-desired`, key [`KEY`], which the agents watch
//! by its name. Nothing in it is secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::memory::Bound;
use super::order::Order;

/// The key of the ConfigMap.
pub const KEY: &str = "desired.json";
/// The version of the document.
pub const VERSION: u32 = 1;

/// What the instances of one ServiceDatabase shall be.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The ServiceDatabase's uid.
    pub uid: String,
    /// The database's name.
    pub database: String,
    /// How many instances are declared. One with a higher number is about to be taken away: it is
    /// no synchronous standby and no candidate for the lead.
    pub instances: i32,
    /// Settings of the spec, for Patroni's dynamic configuration.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The size of the smallest of the volumes, by which WAL is bounded. Without it nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_bytes: Option<u64>,
    /// The memory that the spec gives to an instance.
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub memory: Memory,
    /// Extensions to create in the database.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// Whether writes wait for a replica while one streams, and only a member that Patroni has
    /// recorded as the leader or as a synchronous standby may be promoted. It does not depend on the
    /// number of instances (docs/decisions/0026-the-record-of-synchronous-members.md).
    pub synchronous: bool,
    /// How many bytes a replica may lack and still be promoted.
    pub maximum_lag_bytes: i64,
    /// The credential generation that Vault's runtime record shall hold. The agent of the
    /// leader promotes `pending` when the runtime record is behind.
    pub credential_generation: i64,
    /// The request for new credentials that the generation answers, if it answers one: here, so
    /// that generation and answer are written at once.
    #[serde(default, skip_serializing_if = "Requests::is_empty")]
    pub requests: Requests,
    /// What an agent shall do now, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The host name that clients use for the primary, for `<PREFIX>_DB_HOST`.
    pub primary_host: String,
    /// PostgreSQL's system identifier, once the database was initialised: none is made beside it,
    /// whatever became of Patroni's ConfigMap that says so too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The certificate authorities of the database, PEM, for the records in Vault: a new one is
    /// here before the pods' own files have it. Absent from an operator that has not read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
}

#[cfg(test)]
impl Desired {
    /// The state of a database `chat_db` of three instances, for tests to change.
    pub fn sample() -> Self {
        Self {
            version: VERSION,
            uid: "u".into(),
            database: "chat_db".into(),
            instances: 3,
            parameters: BTreeMap::new(),
            volume_bytes: None,
            memory: Memory::default(),
            extensions: Vec::new(),
            synchronous: true,
            maximum_lag_bytes: 7,
            credential_generation: 1,
            requests: Requests::default(),
            order: None,
            primary_host: "h".into(),
            system_identifier: None,
            authorities: None,
        }
    }
}

/// The memory of an instance, in bytes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
}

impl Memory {
    /// Whether the spec says nothing of it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What bounds the settings: the limit, or else the request.
    pub fn bound(self) -> Option<Bound> {
        self.limit_bytes.map(Bound::Limit).or(self.request_bytes.map(Bound::Request))
    }
}

/// Tokens of the requests for new credentials that were taken up last.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Of `servicedb.dev/rotate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<String>,
    /// Of `servicedb.dev/reissue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reissue: Option<String>,
}

impl Requests {
    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
