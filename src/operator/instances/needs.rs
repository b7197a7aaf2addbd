//! The need of each instance, and the order of the steps: broken instances, the replicas, a
//! switchover, the former primary.

use jiff::SignedDuration;

use super::situation::{Decision, Situation, serves};
use crate::api::RequestState;
use crate::api::conditions::reason;
use crate::contract::order::{Action, Cause, OrderId, Purpose};
use crate::contract::report::{Phase, Report};
use crate::operator::observe::pods::DatabasePod;
use crate::operator::status::condition::ConditionState;

/// The delay before a replica is restarted again for one change of a setting; it doubles with each
/// attempt, up to the longest. The attempts do not end, since the primary may get the setting at
/// any time.
const REST: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_REST: SignedDuration = SignedDuration::from_secs(300);

/// The need of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A new pod: its template is outdated.
    Replacement,
    /// A restart of PostgreSQL, by the order with this id.
    Restart(OrderId),
    /// The same, after a delay.
    AnotherTry,
    /// A new pod with a new volume: the present volume is deleted with the pod.
    Volume,
}

/// An instance and its need.
type Needed<'a> = (&'a DatabasePod, Need);

/// Takes the next step.
pub fn next_step(situation: &Situation<'_>, decision: &mut Decision) {
    let needed = needed(situation, decision);
    if needed.is_empty() {
        return;
    }
    let what = match next(situation, &needed) {
        Step::Wait(why) => why,
        Step::Replace(pod) => replace(situation, decision, pod),
        Step::Restart(pod, id) => {
            decision.order = Some(situation.order(id, Action::Restart { pod: pod.name.clone() }));
            format!("PostgreSQL of {} is being restarted", pod.name)
        }
        Step::HandOver(pod) => match situation.hand_over(Purpose::Rollout, decision) {
            Ok(()) => format!("{} hands over the lead first", pod.name),
            Err(why) => why,
        },
    };
    let mut message = format!("{}: {what}", progress(situation, &needed));
    if let Some(ending) = situation.volume_notice() {
        message = format!("{message}; {ending}");
    }
    decision.under_way = Some(ConditionState::no(reason_of(&needed), message));
}

/// Whether an instance needs anything.
pub fn is_due(situation: &Situation<'_>, decision: &Decision) -> bool {
    !needed(situation, decision).is_empty()
}

/// The instance that is replaced at once, independently of the others: its template is outdated and
/// it does not serve, such as a pod that cannot be scheduled or, while another is the primary, one
/// whose PostgreSQL does not start. Never the primary.
fn broken<'a>(situation: &'a Situation<'_>, needed: &[Needed<'a>]) -> Option<&'a DatabasePod> {
    let observed = situation.observed;
    let none_goes = !situation.members().any(|pod| pod.terminating);
    let leads = |pod: &DatabasePod| observed.lease_lives && observed.leader.as_ref() == Some(&pod.name);
    let another_leads = |pod: &DatabasePod| observed.primary().is_some_and(|primary| primary.name != pod.name);
    let runs_nothing = |pod: &DatabasePod| match (&pod.node, &pod.report) {
        (Some(_), Some(report)) => report.phase != Phase::Running && report.role.is_none() && another_leads(pod),
        _ => true,
    };
    let is_broken = |pod: &DatabasePod| none_goes && !pod.ready && !leads(pod) && runs_nothing(pod);
    let is_new = |need: &Need| matches!(need, Need::Replacement | Need::Volume);
    let may_go = |pod: &DatabasePod| situation.may_lose_volume(pod).is_ok();
    needed.iter().find(|(pod, need)| is_new(need) && is_broken(pod) && may_go(pod)).map(|(pod, _)| *pod)
}

/// Replaces a broken instance while another step waits.
pub fn replace_broken(situation: &Situation<'_>, decision: &mut Decision) {
    if let Some(broken) = broken(situation, &needed(situation, decision)) {
        replace(situation, decision, broken);
    }
}

/// Replaces a pod, unless the API server would refuse the new one.
pub fn replace(situation: &Situation<'_>, decision: &mut Decision, pod: &DatabasePod) -> String {
    match situation.refused {
        Some(why) => {
            decision.refused = Some(format!(
                "{} is kept, and others wait: {why}; correct the spec or the named object, and the update continues",
                pod.name
            ));
            format!("{} is kept until the API server accepts its replacement", pod.name)
        }
        None => {
            decision.replace = Some(pod.clone());
            format!("{} is being replaced", pod.name)
        }
    }
}

fn needed<'a>(situation: &'a Situation<'_>, decision: &Decision) -> Vec<Needed<'a>> {
    situation.members().filter_map(|pod| Some((pod, need(situation, decision, pod)?))).collect()
}

enum Step<'a> {
    Wait(String),
    Replace(&'a DatabasePod),
    Restart(&'a DatabasePod, OrderId),
    HandOver(&'a DatabasePod),
}

/// The step for the need of an instance.
fn step_for<'a>(situation: &Situation<'_>, (pod, need): &Needed<'a>) -> Step<'a> {
    match need {
        Need::Replacement | Need::Volume => match situation.may_lose_volume(pod) {
            Ok(()) => Step::Replace(pod),
            Err(why) => Step::Wait(why),
        },
        Need::Restart(id) => Step::Restart(pod, id.clone()),
        Need::AnotherTry => Step::Wait(format!("the next restart of PostgreSQL of {} follows", pod.name)),
    }
}

fn next<'a>(situation: &'a Situation<'_>, needed: &[Needed<'a>]) -> Step<'a> {
    let observed = situation.observed;
    if let Some(broken) = broken(situation, needed) {
        return Step::Replace(broken);
    }
    let serving = situation.members().filter(|pod| serves(pod)).count();
    if i32::try_from(serving) != Ok(situation.database.instances) {
        let missing = situation.members().find(|pod| !serves(pod)).map(|pod| pod.name.clone());
        return Step::Wait(format!("waiting for {}", missing.as_deref().unwrap_or("every instance to exist")));
    }
    let Some(primary) = observed.primary() else {
        return Step::Wait("no instance is the primary at present".to_owned());
    };
    let of_primary = needed.iter().find(|(pod, _)| pod.name == primary.name);
    if let Some(restart) = of_primary.filter(|(pod, need)| goes_first(pod) && matches!(need, Need::Restart(_))) {
        return step_for(situation, restart);
    }
    if let Some(replica) = needed.iter().rev().find(|(pod, _)| pod.name != primary.name) {
        return step_for(situation, replica);
    }
    let waiting =
        |pod: &&DatabasePod| pod.name != primary.name && pod.report.as_ref().is_some_and(|it| it.restart_pending);
    if let Some(pod) = situation.members().find(waiting) {
        // Otherwise the lead would move back and forth.
        return Step::Wait(format!("{} was restarted, and still needs a restart", pod.name));
    }
    // The next change of the spec could keep an instance that is being removed; it would have no
    // leader.
    let other = observed.pods.iter().find(|pod| pod.name != primary.name);
    match (of_primary, other) {
        (Some((pod, _)), _) if situation.database.instances > 1 => Step::HandOver(pod),
        (Some(_), Some(other)) => Step::Wait(format!("waiting until {} has terminated", other.name)),
        (Some(alone), None) => step_for(situation, alone),
        (None, _) => Step::Wait(String::new()),
    }
}

/// Whether this is a primary whose PostgreSQL must be restarted before any replica: a shared
/// setting is lowered, and until the primary runs with the lower value, a restart of a replica has
/// no effect (Patroni starts it with the primary's value).
fn goes_first(pod: &DatabasePod) -> bool {
    pod.claims_the_lead() && pod.report.as_ref().is_some_and(|report| report.primary_restarts_first)
}

/// The need of an instance; none if it is up to date.
pub fn need(situation: &Situation<'_>, decision: &Decision, pod: &DatabasePod) -> Option<Need> {
    let by_settings = pod.report.as_ref().filter(|report| report.restart_pending);
    let by_settings = || by_settings.and_then(|report| parameters(situation, pod, report));
    if goes_first(pod)
        && let Some(restart) = by_settings()
    {
        return Some(restart);
    }
    let outdated = situation.revision.is_some_and(|now| pod.revision.as_deref().is_some_and(|made_of| made_of != now));
    // One that does not serve is replaced whenever it helps.
    if outdated && !(situation.holds_rollout && serves(pod)) {
        return Some(Need::Replacement);
    }
    let Some(report) = &pod.report else { return pod.volume_end.map(|_| Need::Volume) };
    let answered = |id: &OrderId| report.order.as_ref().is_some_and(|answered| answered.id == *id);
    if let Some(request) = decision.restart.as_ref().filter(|request| request.state == RequestState::Running) {
        let id = restart_id(&request.request);
        // It reports no start time while it restarts.
        let before = report.postgres_started_at.is_none_or(|started| started < request.started_at.0);
        if before && !answered(&id) {
            return Some(Need::Restart(id));
        }
    }
    by_settings().or_else(|| pod.volume_end.map(|_| Need::Volume))
}

/// The order for a restart that applies a changed setting. Its id depends on the declared settings
/// and on the primary's start: a replica gets a lower value only once the primary has it and the
/// replica has replayed that, so a restart of a replica may be too early, and is repeated. A
/// primary's restart is repeated only if it failed, since each closes its clients' connections; and once, since
/// its agent applies the shared settings and those of the instance one after the other, and the first restart may
/// have come in between.
fn parameters(situation: &Situation<'_>, pod: &DatabasePod, report: &Report) -> Option<Need> {
    let primary = situation.observed.primary().filter(|primary| primary.name != pod.name);
    let cause = Cause::Parameters {
        generation: situation.database.generation,
        primary_started_at: primary.and_then(|primary| primary.report.as_ref()?.postgres_started_at),
    };
    let last = report.order.as_ref().filter(|answered| answered.id.cause == cause);
    let Some(tried) = last.map(|answered| answered.id.attempt) else {
        return Some(Need::Restart(OrderId::first(cause)));
    };
    let rest = (REST * 2_i32.pow(tried.saturating_sub(1).min(5))).min(LONGEST_REST);
    let rested = report.postgres_started_at.is_some_and(|started| situation.now.duration_since(started) >= rest);
    let again =
        if rested { Need::Restart(OrderId { cause, attempt: tried.saturating_add(1) }) } else { Need::AnotherTry };
    let failed = report.order.as_ref().is_some_and(|answered| answered.error.is_some());
    (primary.is_some() || failed || tried == 1).then_some(again)
}

/// The order for a requested restart.
pub fn restart_id(request: &str) -> OrderId {
    OrderId::first(Cause::Restart { request: request.to_owned() })
}

fn reason_of(needed: &[Needed<'_>]) -> &'static str {
    let any = |wanted: &Need| needed.iter().any(|(_, need)| need == wanted);
    if any(&Need::Replacement) {
        reason::ROLLING_OUT
    } else if any(&Need::Volume) {
        reason::VOLUME_TERMINATING
    } else {
        reason::RESTARTING
    }
}

fn progress(situation: &Situation<'_>, needed: &[Needed<'_>]) -> String {
    let all = situation.database.instances;
    let what = match reason_of(needed) {
        reason::ROLLING_OUT => "run the present template",
        reason::VOLUME_TERMINATING => "have a permanent volume",
        _ => "were restarted",
    };
    format!("{} of {all} instances {what}", i64::from(all) - i64::try_from(needed.len()).unwrap_or_default())
}
