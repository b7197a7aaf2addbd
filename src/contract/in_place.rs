//! A restore in place: the operator names its stage in the desired state, the agents report how far they are.
//!
//! The leader restores into a folder beside its data directory while it serves ([`Stage::Prepare`]), the others stop
//! ([`Stage::Hold`]), and the leader starts on the restored folder ([`Stage::Switch`]). What the others have is of the
//! state that was left, by its timeline ([`Branch`]): they clone the leader.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backup::Target;

/// A restore in place that is in progress.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InPlace {
    /// Identifies this attempt among all that the database ever gets.
    pub id: String,
    /// The pod whose data directory is replaced: the leader's.
    pub pod: String,
    /// The state to restore.
    pub target: Target,
    /// The timeline of the target; absent: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// The store that the state comes from, and that keeps what is left.
    pub store: String,
    /// The stage.
    pub stage: Stage,
    /// When the stage began.
    pub since: Timestamp,
}

/// The stage of a restore in place.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// The pod restores beside its data directory, and serves.
    Prepare,
    /// The other pods stop PostgreSQL.
    Hold,
    /// The pod stops PostgreSQL, replaces its data directory, and starts.
    Switch,
}

/// The branch of the database's history that holds since the last restore in place.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Branch {
    /// [`InPlace::id`] of that restore.
    pub id: String,
    /// Its first timeline. A data directory of an earlier one is of the state that was left.
    pub timeline: u32,
    /// The timeline that was left.
    pub left: u32,
    /// When it was left.
    pub at: Timestamp,
    /// The system identifier of the database: a major upgrade begins another one, with other timelines. Absent if it is
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The store that has all of the timeline that was left. Absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// An agent's part in a restore in place.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct InPlaceReport {
    /// [`InPlace::id`].
    pub id: String,
    /// How far it is.
    pub state: InPlaceState,
}

/// How far an agent is with a restore in place.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum InPlaceState {
    /// The restored folder is complete.
    Prepared(Prepared),
    /// PostgreSQL of this pod is stopped.
    Held,
    /// The data directory is the restored one.
    Switched(Switched),
    /// It failed, and nothing of the running database was changed.
    Failed {
        /// The problem, and what to do.
        message: String,
    },
}

/// The exchange of the data directories.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Switched {
    /// When: everything of the former directory was committed before, everything of the restored one after it.
    pub at: Timestamp,
    /// The timeline of the former directory.
    pub left: u32,
    /// The first timeline of the restored one.
    pub timeline: u32,
    /// The system identifier of both; absent from an agent that did not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The store that has all of the former directory; absent from an agent that did not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// A restored folder, as the file in it describes it, too.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Prepared {
    /// What was restored, for people.
    pub summary: String,
    /// Its timeline.
    pub timeline: u32,
}
