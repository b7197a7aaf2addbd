//! A major upgrade, or the way back from one: the operator names its stage in the desired state, the agents report how
//! far they are (docs/decisions/0066).
//!
//! The leader, or a Job, rehearses the upgrade on a copy while the leader serves ([`Stage::Rehearse`]), the others stop
//! ([`Stage::Hold`]), and the leader stops and exchanges its data directory ([`Stage::Switch`]). What the others have is of the system
//! identifier that was left ([`Lineage`]): they clone the leader.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An upgrade, or the way back, that is in progress.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// Identifies this attempt among all that the database ever gets.
    pub id: String,
    /// The pod whose data directory is exchanged: the leader's.
    pub pod: String,
    /// The major version of the data.
    pub from: u16,
    /// The major version afterwards; lower than `from` on the way back.
    pub to: u16,
    /// The stage.
    pub stage: Stage,
    /// When the stage began.
    pub since: Timestamp,
    /// How long the last stage may take, in seconds, before everything is left as it was.
    pub limit_seconds: u64,
    /// The Job that rehearses it on a restored backup; none: the pod does, on a copy of its own data. The pod then only
    /// says whether its volume has room. An earlier agent rehearses nevertheless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalRun>,
    /// [`Rehearsed::warnings`], from the second stage on; absent from an earlier operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The times of the rehearsal, from the second stage on, for an operator that ended before status had them; absent from
    /// an earlier operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed: Option<RehearsedTimes>,
}

/// How long a rehearsal took.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RehearsedTimes {
    /// The upgrade itself, in seconds: the expected outage.
    pub seconds: i64,
    /// The backup that was restored for it; none: a copy of the pod's data was upgraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// All of the Job, in seconds; only with a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_seconds: Option<i64>,
}

/// The Job of a rehearsal.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalRun {
    /// Its name.
    pub job: String,
    /// Which attempt it is, from 1 on.
    pub attempt: u32,
    /// The store of the backup; absent from an earlier operator: the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

impl Upgrade {
    /// Whether it takes an upgrade back.
    pub fn is_back(&self) -> bool {
        self.to < self.from
    }
}

/// The stage of an upgrade.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// The pod upgrades a copy of its data, or a Job a restored backup; the pod serves.
    Rehearse,
    /// The other pods stop PostgreSQL.
    Hold,
    /// The pod stops PostgreSQL, exchanges its data directory, and starts.
    Switch,
}

/// The data that holds since the last upgrade, or since it was taken back.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// [`Upgrade::id`] of it.
    pub id: String,
    /// When: everything of the former data was committed before.
    pub at: Timestamp,
    /// The system identifier of the data that was left. A data directory with it is set aside.
    pub left: String,
    /// The system identifier of the data that holds.
    pub current: String,
    /// Its major version.
    pub major: u16,
    /// The pod that keeps the former data directory; none once it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<String>,
}

/// An agent's part in an upgrade.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeReport {
    /// [`Upgrade::id`].
    pub id: String,
    /// How far it is.
    pub state: UpgradeState,
}

/// How far an agent is with an upgrade.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum UpgradeState {
    /// A copy was upgraded and started.
    Rehearsed(Rehearsed),
    /// The volume has room for the copy that the last stage makes; the rehearsal is a Job's.
    HasRoom,
    /// PostgreSQL of this pod is stopped.
    Held,
    /// The data directory is the other one.
    Switched(Lineage),
    /// It failed, and nothing of the running database was changed.
    Failed {
        /// The problem, and what to do.
        message: String,
    },
}

/// The result of a rehearsal.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsed {
    /// How long the database would be unavailable, in seconds: copying, `pg_upgrade` and the start.
    pub seconds: u64,
    /// The time of `pg_upgrade` in it, in seconds.
    pub upgrade_seconds: u64,
    /// What does not stop the upgrade, and is to be done after it; absent from an earlier agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
