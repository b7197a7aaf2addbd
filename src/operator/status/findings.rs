//! The input from which status is computed.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use super::condition::ConditionState;
use crate::api::names::Names;
use crate::api::{DriftStatus, PendingRollout, ServiceDatabase};
use crate::operator::backups;
use crate::operator::context::options::Options;
use crate::operator::credentials::DesiredCredentials;
use crate::operator::credentials::binding::Bound;
use crate::operator::gateway;
use crate::operator::instances::situation::Decision;
use crate::operator::maintenance;
use crate::operator::migrations::progress::{Declared, Progress};
use crate::operator::observe::Observation;
use crate::operator::pooler;
use crate::operator::restores::in_place;
use crate::operator::tls::served::Certified;
use crate::operator::upgrades;
use crate::operator::validate::Database;

/// The findings of one reconcile.
pub struct Findings<'a> {
    /// The resource as it was read.
    pub resource: &'a ServiceDatabase,
    /// The operator's settings.
    pub options: &'a Options,
    /// The checked spec; none if the spec cannot be planned.
    pub database: Option<&'a Database>,
    /// The observed state.
    pub observed: &'a Observation,
    /// The cause that blocks all progress until a change by a person.
    pub stalled: Option<ConditionState>,
    /// The error that is retried.
    pub failed: Option<ConditionState>,
    /// Whether Vault answered the operator; none without a request.
    pub vault: Option<ConditionState>,
    /// The certificates; none if they were not read.
    pub certificates: Option<Certified>,
    /// The credentials that the runtime record is to hold.
    pub credentials: DesiredCredentials,
    /// The Secrets that are known to have credentials.
    pub bound: Bound,
    /// The progress of the migrations; none if it was not read.
    pub progress: Option<Progress>,
    /// The declared migrations.
    pub declared: Option<&'a Declared>,
    /// The last known drift of the schema.
    pub drift: Option<DriftStatus>,
    /// The backups.
    pub backups: backups::State,
    /// The maintenance.
    /// On the heap, as the future of a reconcile must fit on the stack of a thread.
    pub maintenance: Box<maintenance::State>,
    /// The restore in place.
    pub in_place: in_place::State,
    /// The major upgrade.
    pub upgrade: Box<upgrades::State>,
    /// The pooler; none if it was not read.
    pub pooler: Option<pooler::State>,
    /// The data gateway; none if it was not read.
    pub gateway: Option<Box<gateway::State>>,
    /// The decision about the instances; none if none was made.
    pub instances: Option<InstancesFindings>,
    /// Now.
    pub now: Timestamp,
}

impl Findings<'_> {
    /// The resource in a command for people.
    pub fn in_commands(&self) -> String {
        Names::new(self.resource.namespace().unwrap_or_default(), self.resource.name_any()).in_commands()
    }

    /// How long until the backups are to be looked at again; none if no time is known.
    pub fn backup_due_in(&self) -> Option<Duration> {
        let due = self.backups.again_at?.duration_since(self.now);
        Some(Duration::try_from(due).unwrap_or_default() + Duration::from_secs(1))
    }

    /// How long until the maintenance is to be looked at again, as when a window opens; none if no time is known.
    pub fn maintenance_due_in(&self) -> Option<Duration> {
        let due = self.maintenance.again_at?.duration_since(self.now);
        Some(Duration::try_from(due).unwrap_or_default() + Duration::from_millis(100))
    }

    /// The StatefulSet, if another client scaled it to no pods.
    pub fn scaled_away(&self) -> Option<String> {
        let set = self.observed.own_set(self.resource.metadata.uid.as_deref()?)?;
        let none = set.spec.as_ref()?.replicas == Some(0) && self.observed.pods.is_empty();
        none.then(|| set.name_any())
    }
}

/// The decision about the instances.
pub struct InstancesFindings {
    /// The next step, and users' requests.
    pub decision: Decision,
    /// The changes of the template that wait for approval.
    pub pending: Option<PendingRollout>,
    /// Why the volumes differ from the declaration; none if they match.
    pub volumes: Option<ConditionState>,
}
