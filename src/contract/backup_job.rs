//! Operator to backup Job, as JSON in its environment, and back: the container's termination message. Neither
//! contains a secret.

use serde::{Deserialize, Serialize};

use super::backup::Place;
use crate::api::BackupType;

/// A backup to make.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupJob {
    /// Where it goes.
    pub place: Place,
    /// Its type. An incremental one without a full one before is made as a full one.
    #[serde(rename = "type")]
    pub kind: BackupType,
    /// The host names of the instances.
    pub hosts: Vec<String>,
    /// For how many days the database can be recovered: older backups, and WAL that only they need, are
    /// deleted afterwards.
    pub retention_days: u32,
}

/// The result.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupOutcome {
    /// Why it failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
