//! Rolling updates without downtime: decides which instance is replaced, restarted or removed next,
//! and when the lead is handed over before. One change at a time, and each step only while all
//! other instances serve. Every reconcile decides from the observed state; orders are recorded in
//! the desired state, so no state is lost with the operator.

pub mod admission;
pub mod eviction;
pub mod given_up;
pub mod growth;
pub mod lost;
mod needs;
pub mod patroni_state;
mod requests;
pub mod situation;
mod template;
mod tokens;
mod volumes;

pub use situation::{Decision, Situation, serves};
pub use template::{Template, choose, is_live};
pub use volumes::Members;

use jiff::SignedDuration;

use crate::api::conditions::reason;
use crate::contract::order::{Action, Order, Purpose};
use crate::operator::status::condition::ConditionState;
use situation::OrderState;

/// The delay after the order of a failed switchover before it is ordered again, unless a user waits
/// for its answer: the agent and Patroni may take half a minute to report the failure.
const PAUSE: SignedDuration = SignedDuration::from_secs(45);

/// Decides the next step.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let mut decision = Decision {
        replicas: situation.database.instances,
        members: situation.database.instances,
        keep_pods: situation.must_keep_pods(),
        switchover: situation.status.switchover.clone(),
        restart: situation.status.restart.clone(),
        ..Decision::default()
    };
    if let Some(restoring) = &situation.restoring {
        let before = situation.observed.desired.as_ref().map(|desired| desired.instances);
        decision.members = before.unwrap_or(situation.database.instances);
        let ordinal = situation.database.names().ordinal(&restoring.pod).unwrap_or_default();
        // Whoever scaled the StatefulSet meanwhile: without this pod nobody leads.
        decision.replicas = situation.live().max(decision.members).max(ordinal + 1);
        decision.keep_pods = true;
        if tokens::renew_beside(situation, &restoring.pod, &mut decision) {
            return decision;
        }
        decision.under_way = restoring.why.clone().map(|why| ConditionState::no(restoring.reason, why));
        return decision;
    }
    if tokens::renew(situation, &mut decision) {
        return decision;
    }
    let order_state = situation.order_state();
    // Users' requests first: they are answered even if other changes are pending.
    requests::switchover(situation, &order_state, &mut decision);
    requests::restart(situation, &mut decision);
    situation.scale(&order_state, &mut decision);
    if let OrderState::InProgress(order) = &order_state {
        decision.order.get_or_insert_with(|| order.clone());
    }
    if decision.order.is_some() {
        // One change at a time; the others are reported as pending.
        let mut later = Decision { restart: decision.restart.clone(), ..Decision::default() };
        needs::next_step(situation, &mut later);
        decision.under_way = decision.under_way.or(later.under_way);
        return decision;
    }
    let failed = match order_state {
        OrderState::Failed(order, error) => Some((order, error)),
        _ => None,
    };
    situation.leave_draining_node(&mut decision);
    if decision.order.is_none() && decision.replicas == situation.database.instances {
        needs::next_step(situation, &mut decision);
    } else if decision.order.is_none() {
        // The awaited instance may be the one that cannot start.
        needs::replace_broken(situation, &mut decision);
    }
    situation.pause(failed, &mut decision);
    decision
}

impl Situation<'_> {
    /// The number of pods. An instance is removed only once all remaining ones serve, it is not the
    /// primary, and commits wait for a remaining one.
    fn scale(&self, order_state: &OrderState, decision: &mut Decision) {
        let (wanted, live) = (self.database.instances, self.live());
        if live <= wanted {
            return;
        }
        (decision.replicas, decision.members) = (live, live);
        let waits =
            |why: &str| ConditionState::no(reason::SCALING_DOWN, format!("from {live} to {wanted} instances: {why}"));
        let Some(primary) = self.observed.primary() else {
            decision.under_way = Some(waits("no instance is the primary"));
            return;
        };
        let missing = (0..wanted).map(|ordinal| self.database.names().pod(ordinal));
        let missing = missing.into_iter().find(|name| !self.members().any(|pod| pod.name == *name && serves(pod)));
        if let Some(missing) = missing {
            decision.under_way = Some(waits(&format!("waiting for {missing}, which remains")));
            return;
        }
        if let Some(why) = self.volume_keeps_all(live) {
            decision.under_way = Some(waits(&why));
            return;
        }
        // From here on the instances to remove are no longer standbys.
        decision.members = wanted;
        let standbys = || primary.report.iter().flat_map(|report| &report.synchronous_standbys);
        if !self.stays(&primary.name) {
            decision.under_way = Some(waits(&format!("{} hands over the lead before it is removed", primary.name)));
            if decision.order.is_none()
                && !matches!(order_state, OrderState::InProgress(_))
                && let Err(why) = self.hand_over(Purpose::ScaleDown, decision)
            {
                decision.under_way = Some(waits(&why));
            }
        } else if let Some(leaving) = standbys().find(|standby| !self.stays(standby)) {
            decision.under_way = Some(waits(&format!("commits wait for {leaving} until another standby is chosen")));
        } else if self.database.synchronous && wanted > 1 && standbys().next().is_none() {
            decision.under_way = Some(waits("no remaining instance is a synchronous standby yet"));
        } else if matches!(order_state, OrderState::InProgress(_)) {
            decision.under_way = Some(waits("an instance is being restarted, or hands over the lead"));
        } else {
            decision.replicas = wanted;
            decision.under_way = Some(waits("instances are being removed"));
        }
    }

    /// Hands over the lead from a node that is drained, independently of other changes. A pod that
    /// is prepared for its eviction counts as one on such a node.
    fn leave_draining_node(&self, decision: &mut Decision) {
        let Some(primary) = self.observed.primary().filter(|primary| self.observed.drains(primary)) else { return };
        // A switchover to another node that is drained, or one that failed, would not help.
        if self.successor().is_ok_and(|successor| !self.observed.drains(successor)) {
            let _ = self.hand_over(Purpose::Drain, decision);
        } else {
            tracing::debug!(pod = primary.name, "the node is being drained, and no other instance can take over");
        }
    }

    /// Delays the retry of an order that has just failed.
    fn pause(&self, failed: Option<(Order, String)>, decision: &mut Decision) {
        let Some((order, error)) = failed else { return };
        let repeats = decision.order.as_ref().is_some_and(|next| matches!(next.action, Action::Switchover { .. }));
        let lately = self.now.duration_since(order.issued_at) < PAUSE;
        if repeats && matches!(order.action, Action::Switchover { .. }) && lately {
            if let Some(state) = &mut decision.under_way {
                state.message = format!("{}; the last attempt failed: {error}", state.message);
            }
            decision.order = Some(order);
        }
    }
}
