//! The input of the decision on a major upgrade.

use jiff::{SignedDuration, Timestamp};

use super::rehearsal::Progress;
use super::state::State;
use crate::api::UpdatePolicy;
use crate::api::names::Names;
use crate::contract::upgrade::{Lineage, Upgrade};
use crate::contract::upgrade_step::Facts;
use crate::operator::maintenance::windows::{Opening, Windows};
use crate::operator::observe::pods::DatabasePod;
use crate::operator::validate::UpgradeRequest;

/// How the token of an upgrade begins that a maintenance window began.
pub const IN_WINDOW: &str = "window ";

/// Whether an upgrade that the spec declares begins without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByItself {
    /// It waits for a request.
    Never,
    /// At once.
    Now,
    /// In a maintenance window: the one that is open.
    InWindow(Option<Opening>),
}

impl ByItself {
    /// As the policy and the windows say.
    pub fn of(policy: UpdatePolicy, windows: &Windows, now: Timestamp) -> Self {
        match policy {
            UpdatePolicy::Manual => Self::Never,
            UpdatePolicy::Automatic => Self::Now,
            UpdatePolicy::Window => Self::InWindow(windows.open_at(now)),
        }
    }

    /// Whether a window is open for this long.
    pub fn has(self, time: SignedDuration, now: Timestamp) -> bool {
        matches!(self, Self::InWindow(Some(opening)) if opening.until.duration_since(now) > time)
    }
}

/// The input of a decision.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The request.
    pub request: Option<&'a UpgradeRequest>,
    /// The database's names.
    pub names: &'a Names,
    /// The major version of the data.
    pub major: u16,
    /// The higher one that the spec declares.
    pub upgrade_to: Option<u16>,
    /// How long the data from before an upgrade is kept; none: until it is given up.
    pub keep_former: Option<SignedDuration>,
    /// Whether an upgrade waits for a request.
    pub by_itself: ByItself,
    /// The generation of the resource.
    pub generation: i64,
    /// The stage that the agents know.
    pub desired: Option<&'a Upgrade>,
    /// The lineage that the agents know.
    pub lineage: Option<&'a Lineage>,
    /// The pods.
    pub pods: &'a [DatabasePod],
    /// The primary.
    pub primary: Option<&'a DatabasePod>,
    /// What is in progress that an upgrade waits for.
    pub busy: Option<&'static str>,
    /// The newest backup of all stores, if one leads to the present, and its store.
    pub backup: Option<(&'a str, &'a str)>,
    /// The name of the Job of a rehearsal that begins now.
    pub job_name: &'a str,
    /// How far the Job of the stage that the agents know is; none without one.
    pub job: Option<&'a Progress>,
    /// Whether the resource has adopted its data.
    pub adopts: bool,
    /// Now.
    pub now: Timestamp,
}

impl Known<'_> {
    /// The facts on which it depends whether a step is refused.
    pub fn facts<'b>(&'b self, state: &'b State) -> Facts<'b> {
        Facts {
            names: self.names,
            major: self.major,
            upgrade_to: self.upgrade_to,
            kept_by: state.lineage.as_ref().and_then(|lineage| lineage.kept_by.as_deref()),
            primary: self.primary.map(|primary| primary.name.as_str()),
        }
    }
}
