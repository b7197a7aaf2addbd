//! Instances whose tokens are void, because the ServiceAccount of the pods was deleted: they can neither lead anew nor
//! report nor read what is desired, until they have new pods.

use super::needs::{self, replace};
use super::situation::{Decision, Situation};
use crate::api::conditions::reason;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::status::condition::ConditionState;

/// Replaces the next instance whose token is void, before every other change: such an instance follows no order.
/// Returns whether there is one. A single instance serves on, and a new pod would only interrupt it; it gets no order,
/// which it could not read.
pub fn renew(situation: &Situation<'_>, decision: &mut Decision) -> bool {
    let void: Vec<_> = situation.observed.pods.iter().filter(|pod| pod.has_void_token).collect();
    let all = situation.live().max(situation.database.instances);
    if void.is_empty() {
        return false;
    }
    (decision.replicas, decision.members) = (all, all);
    if all < 2 {
        let due = needs::is_due(situation, decision);
        decision.under_way = due.then(|| {
            let what = "it serves, and takes no order until its kubelet has renewed the token, within 48 minutes; to \
                        shorten that, delete the pod";
            ConditionState::no(reason::TOKEN_VOID, message(situation, &void, what))
        });
        return true;
    }
    let what = match next(situation, &void) {
        Ok(pod) => replace(situation, decision, pod),
        Err(why) => why,
    };
    decision.under_way = Some(ConditionState::no(reason::TOKEN_VOID, message(situation, &void, &what)));
    true
}

/// The same while a restore in place or a major upgrade replaces the data of one instance: none of them can read the
/// stage. That one last, which begins its stage again. Returns whether one is void.
pub fn renew_beside(situation: &Situation<'_>, busy: &str, decision: &mut Decision) -> bool {
    let void: Vec<_> = situation.observed.pods.iter().filter(|pod| pod.has_void_token).collect();
    if void.is_empty() {
        return false;
    }
    let other = void.iter().find(|pod| pod.name != busy).unwrap_or(&void[0]);
    let what = match (situation.observed.pods.iter().find(|pod| pod.terminating), situation.may_lose_volume(other)) {
        (Some(pod), _) => format!("waiting until {} has terminated", pod.name),
        (None, Ok(())) => replace(situation, decision, other),
        (None, Err(why)) => why,
    };
    decision.under_way = Some(ConditionState::no(reason::TOKEN_VOID, message(situation, &void, &what)));
    true
}

fn message(situation: &Situation<'_>, void: &[&DatabasePod], what: &str) -> String {
    format!(
        "the ServiceAccount {} was deleted, and with it the token of {}: {what}",
        situation.database.names().base(),
        void.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(", "),
    )
}

/// The pod that is replaced next, or why it waits. The leader first: it reads no order to hand over the lead; while it
/// leads without the API server the loss of any other member demotes it; and none of the others could take over. It
/// starts again as what Patroni's record says that it is. Then the others, which cannot learn its new address.
fn next<'a>(situation: &'a Situation<'_>, void: &[&'a DatabasePod]) -> Result<&'a DatabasePod, String> {
    let observed = situation.observed;
    if let Some(pod) = observed.pods.iter().find(|pod| pod.terminating) {
        return Err(format!("waiting until {} has terminated", pod.name));
    }
    let last = observed.last_leader();
    let pod = match void.iter().find(|pod| last == Some(&pod.name)) {
        Some(leader) => leader,
        None if observed.primary().is_some() => &void[0],
        None => {
            let leader = observed.pods.iter().find(|pod| last == Some(&pod.name));
            match leader {
                // It may not come back by itself; another may lead, if Patroni's record says so.
                Some(leader) if leader.lingers || leader.trouble.is_some() => &void[0],
                None if last.is_none() => &void[0],
                _ => return Err(format!("waiting until {} leads", last.unwrap_or("an instance"))),
            }
        }
    };
    situation.may_lose_volume(pod).map(|()| *pod)
}
