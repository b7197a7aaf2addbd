//! Agent to operator: one annotation of the agent's own pod
//! ([`crate::api::names::ANNOTATION_REPORT`]). The agent writes it when something changes, not
//! on a timer: the pod's readiness is the heartbeat. It contains no secret.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backup::Nth;
use super::capacity::Capacity;
use super::clients::{ClientReport, Sessions};
use super::in_place::InPlaceReport;
use super::maintenance::MaintenanceReport;
use super::order::OrderReport;
use super::records::Versions;
use super::upgrade::{Lineage, UpgradeReport};
use crate::api::{BackupType, MigrationRecord, SchemaVersion};
use crate::contract::migration::{SourceReport, TEXT_VERSIONS};

/// The version of the document.
pub const VERSION: u32 = 1;

/// An agent's report of its instance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The pod's uid: a report of an earlier pod of this name is ignored.
    pub pod_uid: String,
    /// When this agent process started. A report that is older than the container's start was
    /// written by an earlier container and is ignored.
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
    /// Whether the restart is for a lowered setting that replicas must not have lower than their
    /// primary: then the primary is restarted first.
    #[serde(default)]
    pub primary_restarts_first: bool,
    /// When the running PostgreSQL was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_started_at: Option<Timestamp>,
    /// The last order that this agent has executed or attempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderReport>,
    /// Of the leader: the synchronous standbys; every commit waits for one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synchronous_standbys: Vec<String>,
    /// Of the leader: the state of the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsReport>,
    /// Of the leader: the clients that have a login of their own; absent before it has read them,
    /// and from an agent that gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<ClientReport>>,
    /// Of the leader: the head of the migrations' ledger, once it was read; all fields are none or zero
    /// if there is no ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerReport>,
    /// Of the leader: the collations whose version has changed; absent before it was looked for, and
    /// from an agent that does not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collations: Option<Vec<CollationReport>>,
    /// What this agent's last dealing with Vault gave; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultHealth>,
    /// Of a replica: its lag in bytes, rounded up to a power of two, so that the annotation does
    /// not change with every byte. 0 under 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bucket_bytes: Option<u64>,
    /// Of a replica: whether it streams from the primary.
    #[serde(default)]
    pub streaming: bool,
    /// Whether the volume has no database although the database was initialised: it must be cloned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_volume: bool,
    /// The major version of the data from before a major upgrade that the volume keeps, 0 if it keeps none. Absent before it
    /// was looked for, and from an agent that does not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_major: Option<u16>,
    /// The last major upgrade of the data, as the data directory has it, where the desired state knows of none: the resource
    /// has adopted the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Box<Lineage>>,
    /// The sessions of this instance that use the login replaced last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_sessions: Option<OldSessions>,
    /// The sessions of this instance by client: a number at most five minutes old, whether there are any a minute.
    /// Absent while they are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// The accessor of this pod's current secret_id: others may be destroyed once every pod has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_id_accessor: Option<String>,
    /// The used share of the volume in percent, in steps of five; absent below 80.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_used_percent: Option<u8>,
    /// The certificates that PostgreSQL and Patroni of this pod have loaded
    /// (`contract::certificates::fingerprint`); absent from an agent that does not report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// Of the leader: a change of Patroni's dynamic configuration by hand that it undid last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<Undone>,
    /// Of the leader: the state of the WAL archive; absent where WAL is not archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveReport>,
    /// The same of the archive in a second store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_archive: Option<ArchiveReport>,
    /// What this agent restored in place of an empty database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,
    /// This agent's part in the last restore in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlaceReport>,
    /// The major versions that the image of this pod has; empty from an agent that knows one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub majors: Vec<u16>,
    /// This agent's part in the last major upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Box<UpgradeReport>>,
    /// How the database grows; absent before the first sample, and from an agent that takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Of the leader: the maintenance; absent before what is due was read, and from an agent that reads nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Box<MaintenanceReport>>,
    /// A team's own queries, once they were read; absent where there are none, and from an agent that runs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<QueriesReport>,
    /// Of the leader: the collections of the data gateway's cache that do not exist. Absent where none are declared, before
    /// they were looked for, and from an agent that does not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncached: Option<Vec<String>>,
    /// The instance's problem; counts even while the pod is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// What the agent is doing.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The agent has started and has no state yet.
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
    /// It replicates.
    Replica,
}

/// The leader's state of the credentials.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsReport {
    /// The generation in Vault's runtime record whose login this agent proved.
    pub generation: i64,
    /// When it was promoted.
    pub rotated_at: Timestamp,
    /// The versions of the records that this agent proved or wrote; absent until it has read them,
    /// and from an agent that does not report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Versions>,
}

/// Sessions that use the login replaced last.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OldSessions {
    /// The generation that replaced the login.
    pub generation: i64,
    /// The number of sessions.
    pub count: i64,
}

/// The leader's state of the ledger.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LedgerReport {
    /// The last completed revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The newest completed version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SchemaVersion>,
    /// The source of the migrations, if the ledger has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceReport>,
    /// The schema's version according to a team's own tool, if one has migrated it; empty if
    /// unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_version: Option<String>,
    /// The number of migrations recorded and not completed.
    #[serde(default)]
    pub pending: i64,
    /// The number of completed migrations.
    pub applied: i64,
    /// The number of failed migrations.
    pub failed: i64,
    /// The last 20, the newest first.
    #[serde(default)]
    pub recent: Vec<MigrationRecord>,
}

impl LedgerReport {
    /// The schema's version, as the tool or the files name it.
    pub fn schema_version(&self) -> Option<String> {
        match &self.tool_version {
            Some(version) => Some(version.clone()).filter(|version| !version.is_empty()),
            // An agent that only knows numbers reports that of a text.
            None => self
                .version
                .as_ref()
                .filter(|version| version.number().is_none_or(|number| number < TEXT_VERSIONS))
                .map(ToString::to_string),
        }
    }
}

/// A collation whose version is not the one that PostgreSQL has recorded: its order of text may have
/// changed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CollationReport {
    /// Its name with its schema, quoted as in a statement; none for the database's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version that is recorded.
    pub recorded: String,
    /// The version that the server has now.
    pub actual: String,
    /// Indexes that are in its order, at most ten, quoted as in a statement.
    #[serde(default)]
    pub indexes: Vec<String>,
    /// How many there are.
    #[serde(default)]
    pub index_count: i64,
}

/// What an agent's last dealing with Vault gave.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VaultHealth {
    /// Whether it succeeded.
    pub ok: bool,
    /// If not: a reason of `api::conditions::reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// If not: the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A change of Patroni's dynamic configuration that the leader's agent undid.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// When.
    pub at: Timestamp,
    /// The keys, such as `pause`.
    pub keys: Vec<String>,
}

/// The leader's state of the WAL archive.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveReport {
    /// The store's name.
    pub store: String,
    /// When a segment was last archived, at most five minutes behind; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<Timestamp>,
    /// The number of segments that wait, rounded up to a power of two; 0 for fewer than four.
    #[serde(default)]
    pub waiting: u32,
    /// Why nothing can be archived; absent while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When WAL was last given up, because it filled the volume, or was found missing: the archive has a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_at: Option<Timestamp>,
    /// The backups in the store; absent before they were read, and from an agent that does not read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<Catalogue>,
}

/// The backups of a database in a store.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Catalogue {
    /// The last backup Job that had ended when it was read ([`super::desired::BackupRun::job`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The number of backups.
    pub count: u32,
    /// Their size in the store, in bytes, without WAL.
    pub stored_bytes: u64,
    /// The end of the oldest one: the first moment to which the database can be recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable_from: Option<Timestamp>,
    /// The same of each database that they are of: a major upgrade begins another. Empty from an earlier agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<CatalogueDatabase>,
    /// The newest full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_full: Option<CatalogueEntry>,
    /// The newest one of any type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<CatalogueEntry>,
}

/// A database of which a store has backups.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueDatabase {
    /// Its system identifier.
    pub system_identifier: String,
    /// The end of the oldest backup of it.
    pub recoverable_from: Timestamp,
}

/// A backup in a store.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueEntry {
    /// Its name in the store.
    pub label: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: BackupType,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The size of the database, in bytes.
    pub database_bytes: u64,
    /// What it takes in the store beside the backups that it stands on, in bytes.
    pub stored_bytes: u64,
}

/// How a team's own queries for metrics went. It contains no value of a row.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QueriesReport {
    /// Why none can be run; absent if they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The number of queries.
    #[serde(default)]
    pub count: usize,
    /// The first of those that were refused or failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<QueryFailure>,
    /// How many were.
    #[serde(default)]
    pub failed_count: usize,
}

/// A query that was refused or failed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QueryFailure {
    /// Its name.
    pub name: String,
    /// Why.
    pub message: String,
}

/// A problem of an instance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// A reason of `api::conditions::reason`.
    pub reason: String,
    /// What happened and the remedy.
    pub message: String,
}

impl Report {
    /// The state of the archive in one of the stores.
    pub fn archive_in(&self, nth: Nth) -> Option<&ArchiveReport> {
        match nth {
            Nth::First => self.archive.as_ref(),
            Nth::Second => self.second_archive.as_ref(),
        }
    }

    /// The same to change it.
    pub fn archive_in_mut(&mut self, nth: Nth) -> &mut Option<ArchiveReport> {
        match nth {
            Nth::First => &mut self.archive,
            Nth::Second => &mut self.second_archive,
        }
    }

    /// The initial report of an agent.
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
            clients: None,
            ledger: None,
            collations: None,
            vault: None,
            lag_bucket_bytes: None,
            streaming: false,
            empty_volume: false,
            former_major: None,
            lineage: None,
            old_sessions: None,
            sessions: None,
            secret_id_accessor: None,
            volume_used_percent: None,
            certificates: None,
            undone: None,
            archive: None,
            second_archive: None,
            restored: None,
            in_place: None,
            majors: Vec::new(),
            upgrade: None,
            capacity: None,
            maintenance: None,
            queries: None,
            uncached: None,
            trouble: None,
        }
    }
}
