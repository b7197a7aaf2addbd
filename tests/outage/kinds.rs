//! The measured kinds of fault, each with its target.

use serde::Serialize;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The primary's pod is deleted: it hands the lead over.
    PodDeleted,
    /// The same without a grace.
    PodForceDeleted,
    /// The primary's PostgreSQL is killed; its pod stays.
    PostmasterKilled,
    /// The primary's postmaster is stopped: existing connections work, new ones do not.
    PostmasterStopped,
    /// A switchover is requested.
    Switchover,
    /// A standby that commits wait for is deleted without a grace.
    StandbyKilled,
    /// The primary's node loses its network.
    NodeCutOff,
    /// The API server is stopped for 40 to 90 s, and continues.
    ApiServerHangs,
}

impl Kind {
    /// All, the quick ones first.
    pub const ALL: [Self; 8] = [
        Self::PodDeleted,
        Self::PodForceDeleted,
        Self::PostmasterKilled,
        Self::Switchover,
        Self::StandbyKilled,
        Self::PostmasterStopped,
        Self::NodeCutOff,
        Self::ApiServerHangs,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PodDeleted => "pod deleted",
            Self::PodForceDeleted => "pod force-deleted",
            Self::PostmasterKilled => "postmaster killed",
            Self::PostmasterStopped => "postmaster stopped",
            Self::Switchover => "switchover",
            Self::StandbyKilled => "standby killed",
            Self::NodeCutOff => "node cut off",
            Self::ApiServerHangs => "API server hangs",
        }
    }

    /// How many seconds without writes it may cost. Shown beside what was measured, and never
    /// asserted: a machine may be busy.
    pub fn target(self) -> Option<f64> {
        match self {
            Self::PodDeleted | Self::PodForceDeleted => Some(1.5),
            Self::PostmasterKilled => Some(2.0),
            Self::PostmasterStopped => Some(30.0),
            Self::Switchover | Self::ApiServerHangs => Some(1.0),
            Self::StandbyKilled => None,
            Self::NodeCutOff => Some(25.0),
        }
    }

    /// The result of CloudNativePG 1.30 on a similar cluster.
    pub fn elsewhere(self) -> Option<f64> {
        match self {
            Self::PodDeleted => Some(4.0),
            Self::PodForceDeleted => Some(2.2),
            Self::PostmasterKilled => Some(4.9),
            Self::NodeCutOff => Some(132.7),
            Self::PostmasterStopped | Self::Switchover | Self::StandbyKilled | Self::ApiServerHangs => None,
        }
    }

    /// Whether it is possible only on the local cluster.
    pub fn is_of_the_cluster(self) -> bool {
        matches!(self, Self::NodeCutOff | Self::ApiServerHangs)
    }
}
