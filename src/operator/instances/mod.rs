//! Changes that nobody notices: which instance is replaced, restarted or taken away next, and
//! when the lead is handed over before. One thing at a time, and each step only from a state in
//! which all others serve. It is decided anew in every reconcile from what is observed; what was
//! ordered is in the desired state, so that nothing hangs on the operator's memory.

pub mod admission;
pub mod given_up;
pub mod growth;
pub mod lost;
mod needs;
pub mod patroni_state;
mod requests;
pub mod situation;
mod template;
mod volumes;

pub use situation::{Decision, Situation, serves};
pub use template::{choose, is_live};
pub use volumes::Members;

use jiff::SignedDuration;

use crate::api::conditions::reason;
use crate::contract::order::{Action, Order, Purpose};
use crate::operator::status::condition::ConditionState;
use situation::Ordered;

/// How soon after a switchover that failed was ordered it is ordered again, where nobody waits for its answer: the
/// agent and Patroni may have taken half a minute to say so.
const PAUSE: SignedDuration = SignedDuration::from_secs(45);

/// Decides what to do now.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let mut decision = Decision {
        replicas: situation.database.instances,
        members: situation.database.instances,
        keep_pods: situation.must_keep_pods(),
        switchover: situation.status.switchover.clone(),
        restart: situation.status.restart.clone(),
        ..Decision::default()
    };
    let ordered = situation.ordered();
    // People's requests first: they get an answer, whatever else there is to do.
    requests::switchover(situation, &ordered, &mut decision);
    requests::restart(situation, &mut decision);
    situation.scale(&ordered, &mut decision);
    if let Ordered::Open(order) = &ordered {
        decision.order.get_or_insert_with(|| order.clone());
    }
    if decision.order.is_some() {
        // One thing at a time; what else is to be done is told.
        let mut later = Decision { restart: decision.restart.clone(), ..Decision::default() };
        needs::next_step(situation, &mut later);
        decision.under_way = decision.under_way.or(later.under_way);
        return decision;
    }
    let failed = match ordered {
        Ordered::Failed(order, error) => Some((order, error)),
        _ => None,
    };
    situation.leave_draining_node(&mut decision);
    if decision.order.is_none() && decision.replicas == situation.database.instances {
        needs::next_step(situation, &mut decision);
    } else if decision.order.is_none() {
        // What is waited for may be what cannot come up.
        needs::replace_broken(situation, &mut decision);
    }
    situation.pause(failed, &mut decision);
    decision
}

impl Situation<'_> {
    /// How many pods there may be: none is taken away before those that stay serve, one that leads
    /// has handed the lead over, and commits wait for one that stays.
    fn scale(&self, ordered: &Ordered, decision: &mut Decision) {
        let (wanted, live) = (self.database.instances, self.live());
        if live <= wanted {
            return;
        }
        (decision.replicas, decision.members) = (live, live);
        let waits =
            |why: &str| ConditionState::no(reason::SCALING_DOWN, format!("from {live} to {wanted} instances: {why}"));
        let Some(primary) = self.observed.primary() else {
            decision.under_way = Some(waits("no instance is the primary at present"));
            return;
        };
        let missing = (0..wanted).map(|ordinal| self.database.names().pod(ordinal));
        let missing = missing.into_iter().find(|name| !self.members().any(|pod| pod.name == *name && serves(pod)));
        if let Some(missing) = missing {
            decision.under_way = Some(waits(&format!("waiting for {missing}, which shall stay")));
            return;
        }
        if let Some(why) = self.volume_keeps_all(live) {
            decision.under_way = Some(waits(&why));
            return;
        }
        // From here on those that go are no standbys any more.
        decision.members = wanted;
        let standbys = || primary.report.iter().flat_map(|report| &report.synchronous_standbys);
        if !self.stays(&primary.name) {
            decision.under_way = Some(waits(&format!("{} hands the lead over before it goes", primary.name)));
            if decision.order.is_none()
                && !matches!(ordered, Ordered::Open(_))
                && let Err(why) = self.hand_over(Purpose::ScaleDown, decision)
            {
                decision.under_way = Some(waits(&why));
            }
        } else if let Some(leaving) = standbys().find(|standby| !self.stays(standby)) {
            decision.under_way = Some(waits(&format!("commits wait for {leaving} until another standby is chosen")));
        } else if self.database.synchronous && wanted > 1 && standbys().next().is_none() {
            decision.under_way = Some(waits("no instance that stays is a synchronous standby yet"));
        } else if matches!(ordered, Ordered::Open(_)) {
            decision.under_way = Some(waits("an instance is being restarted, or hands the lead over"));
        } else {
            decision.replicas = wanted;
            decision.under_way = Some(waits("instances are being taken away"));
        }
    }

    /// A drain does not wait for a primary, and the primary not for the drain.
    fn leave_draining_node(&self, decision: &mut Decision) {
        let Some(primary) = self.observed.primary().filter(|primary| self.observed.drains(primary)) else { return };
        // From one node that is being emptied to another would help nobody, and a failed try neither.
        if self.successor().is_ok_and(|successor| !self.observed.drains(successor)) {
            let _ = self.hand_over(Purpose::Drain, decision);
        } else {
            tracing::debug!(pod = primary.name, "its node is being emptied, and no other instance can take the lead");
        }
    }

    /// What failed just now is not tried again at once.
    fn pause(&self, failed: Option<(Order, String)>, decision: &mut Decision) {
        let Some((order, error)) = failed else { return };
        let repeats = decision.order.as_ref().is_some_and(|next| matches!(next.action, Action::Switchover { .. }));
        let lately = self.now.duration_since(order.issued_at) < PAUSE;
        if repeats && matches!(order.action, Action::Switchover { .. }) && lately {
            if let Some(word) = &mut decision.under_way {
                word.message = format!("{}; the last try failed: {error}", word.message);
            }
            decision.order = Some(order);
        }
    }
}
