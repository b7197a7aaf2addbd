//! Maintenance: the operator opens a run in the desired state, in a slot of its own beside the orders; the leader's
//! agent works through what is due, and reports. A run that is withdrawn or whose time is over is broken off.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{MaintenanceDone, MaintenanceItem};

/// What the leader's agent maintains.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// What is done at all.
    pub tasks: Tasks,
    /// The open run; absent while nothing may be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// What is done, and from where on.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tasks {
    /// `VACUUM`.
    pub vacuum: bool,
    /// `ANALYZE`.
    pub analyze: bool,
    /// `VACUUM (FREEZE)`.
    pub freeze: bool,
    /// The unused part of an index, in percent, from which it is rebuilt; absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reindex_percent: Option<u8>,
    /// Updates of extensions.
    pub update_extensions: bool,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { vacuum: true, analyze: true, freeze: true, reindex_percent: Some(50), update_extensions: false }
    }
}

/// A run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Identifies it: the beginning of the window, or the token of the request.
    pub id: String,
    /// When it ends; what is in progress then is broken off.
    pub until: Timestamp,
}

/// What the leader's agent knows of the maintenance.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceReport {
    /// When what is due was read; absent before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surveyed_at: Option<Timestamp>,
    /// What is due, in the order in which it is done; the first [`REPORTED`].
    #[serde(default)]
    pub due: Vec<MaintenanceItem>,
    /// How many are due.
    #[serde(default)]
    pub due_count: i64,
    /// The last run that this agent has worked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunReport>,
    /// What was done, the newest first, by whichever instance; the last [`REPORTED`].
    #[serde(default)]
    pub done: Vec<MaintenanceDone>,
}

/// How many items a report has.
pub const REPORTED: usize = 20;

/// A run of an agent.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// [`Run::id`].
    pub id: String,
    /// When this agent began with it.
    pub started_at: Timestamp,
    /// What is in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<MaintenanceItem>,
    /// Whether nothing is left to do, or the time is over.
    #[serde(default)]
    pub ended: bool,
    /// How many were completed.
    #[serde(default)]
    pub completed: i64,
    /// How many failed, were skipped, or were broken off.
    #[serde(default)]
    pub failed: i64,
    /// By how many bytes the objects became smaller.
    #[serde(default)]
    pub freed_bytes: i64,
    /// Why the last of those that failed did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
