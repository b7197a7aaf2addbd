//! The decision on the instances and the template of their pods, in a reconcile.

use k8s_openapi::api::apps::v1::StatefulSet;

use crate::api::conditions::{self as kind, reason};
use crate::api::{PendingRollout, ServiceDatabaseStatus};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::instances::situation::Restoring;
use crate::operator::instances::{self, Decision, Members, Situation, Template, admission};
use crate::operator::maintenance::exclusion::Beside;
use crate::operator::maintenance::rollout;
use crate::operator::observe::Observation;
use crate::operator::status::Findings;
use crate::operator::status::condition::{ConditionState, is_reported_refused};
use crate::operator::validate::Database;

/// The decision on the instances.
pub struct Choice<'a> {
    /// What it was decided by.
    pub situation: Situation<'a>,
    /// The decision.
    pub decision: Decision,
    /// The template of the pods.
    pub template: Template,
    /// The StatefulSet.
    pub live: Option<&'a StatefulSet>,
    /// The rest of a rollout that a window began, which waits for the next one.
    pub held: Option<PendingRollout>,
    /// Whether no other change is in progress: only then the StatefulSet is recreated.
    pub calm: bool,
}

/// Decides on the instances and their template.
///
/// # Errors
/// Any error of the API server.
pub async fn choose<'a>(
    context: &Context,
    database: &'a Database,
    observed: &'a Observation,
    status: &'a ServiceDatabaseStatus,
    findings: &mut Findings<'_>,
    beside: &Beside,
) -> Result<Choice<'a>, Error> {
    let live = observed.own_set(&database.owner.uid);
    let waiting = waiting_rollout(database, findings, beside);
    let kept = observed.template.as_ref();
    let mut template = instances::choose(database, &context.options, live, kept, waiting.admits);
    let holds_rollout = rollout::is_held(&waiting);
    let rest = waiting.recorded.filter(|_| holds_rollout).map(|rollout| PendingRollout {
        id: rollout.id.clone(),
        changes: vec!["the rest of the instances, as the window ended before all were replaced".to_owned()],
    });
    // A template whose pods would be refused is not applied to the StatefulSet: a lost pod is then
    // recreated from the former one.
    let held = Box::pin(admission::hold_back(&context.client, database, live, observed, &mut template.body)).await?;
    let stored = context.cache.stored_generation(&database.owner, "StatefulSet", &database.names().base());
    let update = live.filter(|live| instances::is_live(&template.body, live, stored));
    let situation = Situation {
        database,
        observed,
        status,
        revision: update.and_then(|live| live.status.as_ref()?.update_revision.as_deref()),
        refused: None,
        holds_rollout,
        restoring: exclusive(findings),
        now: findings.now,
    };
    let mut decision = instances::decide(&situation);
    if let Some(pod) = &decision.replace
        && let Some(refusal) =
            Box::pin(admission::refusal(&context.client, database, &template.body, live, &pod.name)).await?
    {
        let refused = Some(refusal.as_str());
        decision = instances::decide(&Situation { refused, ..situation.clone() });
    }
    let is_held = held.is_some();
    let missing = match update {
        Some(live) => {
            let before = is_reported_refused(findings.resource, kind::STALLED) && held.is_none();
            Box::pin(admission::missing(context, database, &template.body, live, observed, before)).await?
        }
        None => None,
    };
    let only_copy = Members::new(observed, database.names(), database.instances).condition();
    let refused = decision.refused.clone().or(missing).or(held);
    findings.stalled = only_copy.or_else(|| Some(ConditionState::yes(reason::POD_REFUSED, refused?)));
    if live.is_some() && update.is_none() && decision.under_way.is_none() {
        let message = "the StatefulSet's controller has not observed the template of the pods yet";
        decision.under_way = Some(ConditionState::no(reason::ROLLING_OUT, message));
    }
    let calm = decision.order.is_none()
        && decision.replicas == database.instances
        && live.and_then(declared_replicas) == Some(database.instances)
        && findings.in_place.desired.is_none()
        && findings.upgrade.desired.is_none()
        && !is_held;
    Ok(Choice { situation, decision, template, live, held: rest, calm })
}

/// What keeps every other change of the instances back.
fn exclusive(findings: &Findings<'_>) -> Option<Restoring> {
    if let Some(in_place) = &findings.in_place.desired {
        let why = findings.in_place.stops_instances();
        return Some(Restoring { reason: reason::RESTORING, why, pod: in_place.pod.clone() });
    }
    let upgrade = findings.upgrade.desired.as_ref()?;
    let why = findings.upgrade.stops_instances();
    Some(Restoring { reason: reason::UPGRADING, why, pod: upgrade.pod.clone() })
}

/// A rollout that a window began, as far as it is not finished.
pub fn waiting_rollout<'a>(database: &'a Database, findings: &'a Findings<'_>, beside: &Beside) -> rollout::Known<'a> {
    let opening = database.maintenance.windows.open_at(findings.now);
    rollout::Known {
        policy: database.update_policy,
        admits: beside.admits_rollout(opening, findings.now),
        recorded: findings.maintenance.rollout(),
        approved: database.approved_rollout.as_deref(),
    }
}

/// The number of pods in the StatefulSet's spec.
pub fn declared_replicas(set: &StatefulSet) -> Option<i32> {
    set.spec.as_ref()?.replicas
}
