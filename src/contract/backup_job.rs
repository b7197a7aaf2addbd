//! Operator to the Jobs that make and test backups, as JSON in their environment, and back: the container's
//! termination message. Neither contains a secret.

use serde::{Deserialize, Serialize};

use super::backup::Place;
use crate::api::{BackupType, SchemaVersion};

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
    /// How many full backups are kept instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_full_backups: Option<u32>,
    /// Whether older backups are deleted afterwards.
    #[serde(default = "yes")]
    pub expires: bool,
}

/// The value from an operator that says nothing of it.
fn yes() -> bool {
    true
}

impl BackupJob {
    /// pgBackRest's options for what is kept.
    pub fn retention(&self) -> String {
        let (kind, number) = match self.retention_full_backups {
            Some(number) => ("count", number),
            None => ("time", self.retention_days),
        };
        format!("repo1-retention-full-type={kind}\nrepo1-retention-full={number}\n")
    }
}

/// The result.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupOutcome {
    /// Why it failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The removal of everything that a deleted resource has in a store. Its result is a [`BackupOutcome`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupRemovalJob {
    /// Where it is.
    pub place: Place,
    /// The place in a second store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Place>,
}

/// A test of the newest backup.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VerificationJob {
    /// Where it is.
    pub place: Place,
    /// The database's name.
    pub database: String,
    /// PostgreSQL's system identifier, which the restored server must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// A migration that the restored ledger must have as completed: the newest one that was applied long
    /// enough before for its WAL to be in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<SchemaVersion>,
}

/// The result.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VerificationOutcome {
    /// The store that it was restored from; absent from a Job of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The backup that was restored; absent if none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When the last transaction in it was committed, as PostgreSQL logged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_until: Option<String>,
    /// How long the restore with its recovery took, in seconds.
    #[serde(default)]
    pub restore_seconds: u64,
    /// How long the checks took, in seconds.
    #[serde(default)]
    pub check_seconds: u64,
    /// Why it failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
