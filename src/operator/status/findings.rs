//! Everything that status is computed from.

use jiff::Timestamp;
use kube::ResourceExt;

use super::condition::ConditionState;
use crate::api::{DriftStatus, PendingRollout, ServiceDatabase};
use crate::operator::context::options::Options;
use crate::operator::credentials::Settled;
use crate::operator::instances::situation::Decision;
use crate::operator::migrations::progress::{Declared, Progress};
use crate::operator::observe::Observation;
use crate::operator::tls::served::Certified;
use crate::operator::validate::Database;

/// What a reconcile found.
pub struct Findings<'a> {
    /// The resource as it was read.
    pub resource: &'a ServiceDatabase,
    /// The operator's settings.
    pub options: &'a Options,
    /// What was planned from it; none if the spec cannot be planned.
    pub database: Option<&'a Database>,
    /// What is.
    pub observed: &'a Observation,
    /// What stops everything until somebody changes something.
    pub stalled: Option<ConditionState>,
    /// What failed and is tried again.
    pub failed: Option<ConditionState>,
    /// The operator's own dealing with Vault; none if there was none.
    pub vault: Option<ConditionState>,
    /// The certificates; none if they were not looked at.
    pub certificates: Option<Certified>,
    /// The credentials that the runtime record shall hold.
    pub credentials: Settled,
    /// The Secret with the credentials, as far as it is known to hold them.
    pub binding: Option<String>,
    /// How far the migrations are; none if they were not looked at.
    pub progress: Option<Progress>,
    /// The declared migrations.
    pub declared: Option<&'a Declared>,
    /// What is known of the schema's drift.
    pub drift: Option<DriftStatus>,
    /// What is done to the instances; none if they were not looked at.
    pub shape: Option<Shape>,
    /// Now.
    pub now: Timestamp,
}

impl Findings<'_> {
    /// The StatefulSet, if it has no pods because somebody wants none.
    pub fn scaled_away(&self) -> Option<String> {
        let set = self.observed.own_set(self.resource.metadata.uid.as_deref()?)?;
        let none = set.spec.as_ref()?.replicas == Some(0) && self.observed.pods.is_empty();
        none.then(|| set.name_any())
    }
}

/// What is done to the instances.
pub struct Shape {
    /// The next step, and what people asked for.
    pub decision: Decision,
    /// The template's changes that wait for an approval.
    pub pending: Option<PendingRollout>,
    /// Why the volumes are not as declared; none if they are.
    pub volumes: Option<ConditionState>,
}
