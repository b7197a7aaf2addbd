//! The pooler: whether it is ready, its certificates, and the planned changes for which it holds queries.

pub mod gate;
mod observe;
pub mod spec;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use gate::{Change, Gate, HoldTime};
use observe::Observed;

use super::apply::failures::Failures;
use super::context::Context;
use super::context::cache::Front;
use super::context::error::Error;
use super::instances::Decision;
use super::observe::Observation;
use super::plan;
use super::status::condition::ConditionState;
use super::tls::front;
use super::upgrades;
use super::validate::Database;
use crate::api::conditions::reason;
use crate::api::{HoldStatus, PoolerSpec, PoolerStatus};
use crate::contract::order::Action;
use crate::contract::pooler::Hold;
use crate::contract::time::seconds;

/// The findings about the pooler.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Whether objects of a pooler may exist, declared or not.
    pub exists: bool,
    /// The order for its pods.
    pub hold: Option<Hold>,
    /// For status; none without a pooler.
    pub status: Option<PoolerStatus>,
    /// Why it does not serve; none if it does.
    pub trouble: Option<ConditionState>,
    /// When its orders are due again.
    pub again_in: Option<Duration>,
}

impl State {
    /// Applies the pooler's objects; without a declared one, removes those that may exist. `certified` is whether
    /// the authority was looked at in this reconcile.
    pub async fn apply(
        &mut self,
        context: &Context,
        database: &Database,
        (certified, now): (bool, Timestamp),
        failures: &mut Failures,
    ) {
        if !self.exists || failures.is_unanswered() {
            return;
        }
        let objects = plan::pooler::objects(database, &context.options, self.hold.as_ref());
        failures.note(match database.pooler {
            // A pod may wait for the Secret, which is not watched.
            Some(_) => {
                let doubted = certified || self.trouble.is_some();
                front::ensure(context, &database.owner, Front::Pooler, doubted, now).await
            }
            None => front::remove(context, &database.owner, Front::Pooler).await,
        });
        failures.apply_all(context, &database.owner, &objects).await;
        if !failures.has_conflict() {
            failures.apply_all(context, &database.owner, [&plan::pooler::binding(database)]).await;
        }
        if database.pooler.is_none() && failures.is_empty() {
            self.status = None;
        }
    }
}

/// A planned change that may be taken out of what was decided.
pub struct Planned<'a> {
    /// Of the instances.
    pub decision: &'a mut Decision,
    /// The major upgrade.
    pub upgrade: &'a mut upgrades::State,
}

/// Reads the pooler's state, and lets a planned change pass or wait: a change that waits is taken out of what was
/// decided.
///
/// # Errors
/// Errors of the API server.
pub async fn advance(
    context: &Context,
    database: &Database,
    observed: &Observation,
    previous: Option<&PoolerStatus>,
    planned: Planned<'_>,
    now: Timestamp,
) -> Result<State, Error> {
    let known_to_agents = observed.desired.as_ref().is_some_and(|desired| desired.pooler.is_some());
    let Some(spec) = &database.pooler else {
        // Status has it until all of it is removed.
        let exists = known_to_agents || previous.is_some();
        return Ok(State { exists, status: previous.cloned(), ..State::default() });
    };
    let Planned { decision, upgrade } = planned;
    let of_this = observed.own_desired(&database.owner.uid);
    let known = of_this.and_then(|desired| desired.upgrade.as_deref());
    let time = HoldTime::of_upgrade(spec);
    let exchange = upgrade.exchange(known, time.for_change());
    // An order beside a stage that has just ended is the order's own change.
    let known = known.filter(|_| exchange.is_some());
    let change = match exchange {
        Some(upgrades::Exchange { name, ordered }) => Some(Change { name, ordered, time }),
        None => change(spec, observed, decision),
    };
    let found = observe::observe(context, database, change.is_some()).await?;
    // The time of the decision, not of the beginning of the reconcile: a hold is short.
    let now = context.now().max(now);
    let Gate { hold, passes, again_in, message } = gate::decide(spec, change.as_ref(), &found, now);
    let status = status(spec.replicas, &found, previous, (hold.as_ref(), passes, message.clone()));
    match (passes, known) {
        (true, _) => {}
        (false, Some(known)) => upgrade.wait(known, message.as_deref(), now),
        (false, None) => {
            decision.order = None;
            if let (Some(change), Some(why)) = (&change, message) {
                let why = format!("{}: {why}", change.name);
                decision.under_way = Some(ConditionState::no(reason::CHANGE_POSTPONED, why));
            }
        }
    }
    Ok(State { exists: true, hold, status: Some(status), trouble: trouble(&found), again_in })
}

/// The order that interrupts clients of the primary.
fn change(spec: &PoolerSpec, observed: &Observation, decision: &Decision) -> Option<Change> {
    let order = decision.order.as_ref()?;
    // One that has failed interrupts nobody, also while it is kept until the next attempt.
    let answers = observed.pods.iter().filter_map(|pod| pod.report.as_ref()?.order.as_ref());
    if answers.into_iter().any(|answer| answer.id == order.id && answer.error.is_some()) {
        return None;
    }
    let given = observed.desired.as_ref().and_then(|desired| desired.order.as_ref());
    let name = match &order.action {
        Action::Switchover { from, .. } => format!("switchover of {from}"),
        Action::Restart { pod } if observed.leader.as_ref() == Some(pod) => format!("restart of {pod}"),
        Action::Restart { .. } => return None,
    };
    Some(Change { name, ordered: given == Some(order), time: HoldTime::of_switchover(spec) })
}

/// For status: the ready pods, and the last planned change.
fn status(
    replicas: bool,
    found: &Observed,
    previous: Option<&PoolerStatus>,
    (hold, passes, message): (Option<&Hold>, bool, Option<String>),
) -> PoolerStatus {
    let before = previous.and_then(|previous| previous.last_hold.clone());
    let last_hold = match hold {
        None => before,
        Some(hold) => {
            let started_at = Time(seconds(hold.issued_at));
            let same = before.filter(|before| before.change == hold.change && before.started_at == started_at);
            let held = hold.given_up.is_none() && (passes || same.is_some_and(|same| same.held));
            Some(HoldStatus { change: hold.change.clone(), started_at, held, message })
        }
    };
    PoolerStatus {
        instances: Some(found.primary.text()),
        replica_instances: replicas.then(|| found.replicas.text()),
        last_hold,
    }
}

fn trouble(found: &Observed) -> Option<ConditionState> {
    let of = |name: &str, ready: &observe::Pods| {
        (!ready.serve()).then(|| {
            let mut message = format!("the {name} does not serve: {} pods are ready", ready.text());
            if let Some(trouble) = &found.trouble {
                message = format!("{message}; {trouble}");
            }
            ConditionState::no(reason::POOLER_NOT_READY, message)
        })
    };
    of("pooler", &found.primary).or_else(|| of("read-only pooler", &found.replicas))
}
