//! Operator to the Job that rehearses a major upgrade on a restored backup, as JSON in its environment, and back: the
//! container's termination message. Neither contains a secret.

use serde::{Deserialize, Serialize};

use super::backup::Place;
use super::upgrade::Rehearsed;

/// The version of both documents.
pub const VERSION: u32 = 1;

/// A rehearsal to make. The settings of the new server are those of the desired state, which is mounted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalJob {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Where the backup is.
    pub place: Place,
    /// The namespace of the ServiceDatabase.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// PostgreSQL's system identifier, which the restored database must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The major version of the data.
    pub from: u16,
    /// The major version that it is upgraded to.
    pub to: u16,
}

/// The result.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalOutcome {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The backup that was restored and recovered to the end of the archive, with room for an upgrade; absent if none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How long the restore with its recovery took, in seconds.
    #[serde(default)]
    pub restore_seconds: u64,
    /// The times of the steps during which the database will be unavailable; absent if the rehearsal failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed: Option<Rehearsed>,
    /// Why it failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Whether it failed because the pod was stopped: another one may succeed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

impl Default for RehearsalOutcome {
    fn default() -> Self {
        Self { version: VERSION, label: None, restore_seconds: 0, rehearsed: None, failure: None, stopped: false }
    }
}
