//! Agent to operator: one annotation of the agent's own pod
//! ([`crate::api::names::ANNOTATION_REPORT`]). The agent writes it when something changes, not
//! on a timer: the pod's readiness is the heartbeat. Nothing in it is secret.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::order::OrderReport;
use crate::api::MigrationRecord;

/// The version of the document.
pub const VERSION: u32 = 1;

/// What one agent says of its instance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The pod's uid: a report of an earlier pod of this name counts for nothing.
    pub pod_uid: String,
    /// When this agent process started. A report that is older than the container's start
    /// was written by an earlier container and counts for nothing.
    pub agent_started_at: Timestamp,
    /// What the agent is doing.
    pub phase: Phase,
    /// The instance's role, once PostgreSQL runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// PostgreSQL's timeline, once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// PostgreSQL's version, such as `17.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_version: Option<String>,
    /// PostgreSQL's system identifier, as a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Whether the dynamic configuration needs a restart to take effect.
    #[serde(default)]
    pub restart_pending: bool,
    /// Whether what needs the restart is a lower value of a setting that replicas must not have
    /// lower than their primary: the primary goes first then.
    #[serde(default)]
    pub primary_restarts_first: bool,
    /// When the PostgreSQL that runs was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_started_at: Option<Timestamp>,
    /// The last order that this agent has carried out, or tried to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderReport>,
    /// Of the leader: the instances that every commit waits for, of which one is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synchronous_standbys: Vec<String>,
    /// Of the leader: the state of the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsReport>,
    /// Of the leader: the head of the migrations' ledger, once it was looked for; all is none or
    /// zero where there is no ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerReport>,
    /// What this agent's last dealing with Vault gave; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultHealth>,
    /// Of a replica: how far it is behind, in a power of two of bytes, rounded up; a bucket,
    /// so that the annotation does not change with every byte. 0 under 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bucket_bytes: Option<u64>,
    /// Of a replica: whether it receives what the primary writes.
    #[serde(default)]
    pub streaming: bool,
    /// Whether the volume holds no database, although there once was one: it is to be cloned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_volume: bool,
    /// The sessions of this instance that were opened with the login that was replaced last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_sessions: Option<OldSessions>,
    /// The accessor of the secret_id that this pod has now: others may be destroyed once every
    /// pod has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_id_accessor: Option<String>,
    /// How many percent of the volume are used, in steps of five; absent below four fifths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_used_percent: Option<u8>,
    /// The certificates that PostgreSQL and Patroni of this pod have loaded
    /// (`contract::certificates::fingerprint`); absent from an agent that does not report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// What hinders the instance, for people; counts even while the pod is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// What the agent is doing.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The agent has started and knows nothing yet.
    Starting,
    /// It waits for Vault, before the first initialisation.
    WaitingForVault,
    /// It runs initdb.
    Initializing,
    /// Patroni runs; PostgreSQL starts, clones or waits for a leader.
    StartingPostgres,
    /// PostgreSQL answers.
    Running,
    /// It shuts down.
    Stopping,
}

/// A role in the cluster.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It accepts writes and holds Patroni's leader key.
    Primary,
    /// It follows.
    Replica,
}

/// The leader's word on credentials.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsReport {
    /// The generation in Vault's runtime record whose login this agent proved.
    pub generation: i64,
    /// When it was promoted.
    pub rotated_at: Timestamp,
}

/// Sessions that were opened with the login that was replaced last.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OldSessions {
    /// The generation that replaced it.
    pub generation: i64,
    /// How many there are.
    pub count: i64,
}

/// The leader's word on the ledger.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LedgerReport {
    /// The revision whose Job last found nothing more to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The newest completed version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// What a team's own tool calls the schema's version, where one has brought it there; empty
    /// where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_version: Option<String>,
    /// How many are announced and not completed.
    #[serde(default)]
    pub pending: i64,
    /// How many are completed.
    pub applied: i64,
    /// How many have failed.
    pub failed: i64,
    /// The last 20, the newest first.
    #[serde(default)]
    pub recent: Vec<MigrationRecord>,
}

impl LedgerReport {
    /// The schema's version: what brought it there says how it is called.
    pub fn schema_version(&self) -> Option<String> {
        match &self.tool_version {
            Some(version) => Some(version.clone()).filter(|version| !version.is_empty()),
            None => self.version.map(|version| version.to_string()),
        }
    }
}

/// What an agent's last dealing with Vault gave.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VaultHealth {
    /// Whether it went well.
    pub ok: bool,
    /// If not: a reason of `api::conditions::reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// If not: what happened, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What hinders an instance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// A reason of `api::conditions::reason`.
    pub reason: String,
    /// What happened and what to do, for people.
    pub message: String,
}

impl Report {
    /// The report of an agent that has just started.
    pub fn starting(pod_uid: String, agent_started_at: Timestamp) -> Self {
        Self {
            version: VERSION,
            pod_uid,
            agent_started_at,
            phase: Phase::Starting,
            role: None,
            timeline: None,
            postgres_version: None,
            system_identifier: None,
            restart_pending: false,
            primary_restarts_first: false,
            postgres_started_at: None,
            order: None,
            synchronous_standbys: vec![],
            credentials: None,
            ledger: None,
            vault: None,
            lag_bucket_bytes: None,
            streaming: false,
            empty_volume: false,
            old_sessions: None,
            secret_id_accessor: None,
            volume_used_percent: None,
            certificates: None,
            trouble: None,
        }
    }
}
