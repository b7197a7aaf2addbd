//! The input and the result of a decision about the instances.

use jiff::{SignedDuration, Timestamp};

use crate::api::{RequestStatus, ServiceDatabaseStatus};
use crate::contract::order::{Action, Cause, Order, OrderId, Purpose};
use crate::operator::observe::Observation;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::status::condition::ConditionState;
use crate::operator::validate::Database;

/// The timeout of a restart: longer than the agent waits for Patroni.
const RESTART_PATIENCE: SignedDuration = SignedDuration::from_secs(330);
/// The timeout of a switchover: Patroni knows its result within 20 s, and the agent may retry it
/// for 12 s.
const SWITCHOVER_PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// The input of a decision.
#[derive(Clone)]
pub struct Situation<'a> {
    /// The declared state.
    pub database: &'a Database,
    /// The observed state.
    pub observed: &'a Observation,
    /// The current status.
    pub status: &'a ServiceDatabaseStatus,
    /// The revision of the current template; none while it is unknown.
    pub revision: Option<&'a str>,
    /// Why the API server would refuse a pod of the present template; none if it accepts one, or no
    /// dry run was made.
    pub refused: Option<&'a str>,
    /// Whether a rollout that a window began waits for the next one.
    pub holds_rollout: bool,
    /// Whether a restore in place or a major upgrade is in progress, which excludes every other change.
    pub restoring: Option<Restoring>,
    /// Now.
    pub now: Timestamp,
}

/// A restore in place or a major upgrade that is in progress.
#[derive(Clone)]
pub struct Restoring {
    /// The reason of a condition for it.
    pub reason: &'static str,
    /// Why the instances do not serve as declared; none while they do.
    pub why: Option<String>,
    /// The pod whose data directory is replaced.
    pub pod: String,
}

/// The next step.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// The number of pods of the StatefulSet.
    pub replicas: i32,
    /// The number of instances for the agents: one with a higher ordinal is about to be removed.
    pub members: i32,
    /// The order for an agent.
    pub order: Option<Order>,
    /// The pod that is deleted, to be recreated from the new template.
    pub replace: Option<DatabasePod>,
    /// Why the API server refuses the replacement of a pod, which is therefore kept.
    pub refused: Option<String>,
    /// Whether no pod may be evicted: one of them has the only copy of the data.
    pub keep_pods: bool,
    /// Why the running state differs from the declared one; none if it matches.
    pub under_way: Option<ConditionState>,
    /// The last requested switchover.
    pub switchover: Option<RequestStatus>,
    /// The last requested restart.
    pub restart: Option<RequestStatus>,
}

impl Decision {
    /// The change of the instances that is in progress; none if there is none.
    pub fn change(&self) -> Option<String> {
        let order = self.order.as_ref().map(|order| match &order.action {
            Action::Switchover { from, to } => format!("{from} hands the lead over to {to}"),
            Action::Restart { pod } => format!("PostgreSQL of {pod} is being restarted"),
        });
        let replaced = || self.replace.as_ref().map(|pod| format!("{} is being replaced", pod.name));
        self.under_way.as_ref().map(|state| state.message.clone()).or(order).or_else(replaced)
    }
}

/// The state of the current order.
pub enum OrderState {
    /// There is none, or it is completed.
    Absent,
    /// It is in progress.
    InProgress(Order),
    /// It failed.
    Failed(Order, String),
}

impl Situation<'_> {
    /// The state of the current order.
    pub fn order_state(&self) -> OrderState {
        let Some(order) = self.observed.desired.as_ref().and_then(|desired| desired.order.clone()) else {
            return OrderState::Absent;
        };
        let pod = self.observed.pods.iter().find(|pod| pod.name == order.action.pod());
        let answer = pod.and_then(|pod| pod.report.as_ref()?.order.as_ref()).filter(|answer| answer.id == order.id);
        let leads_now = self.observed.primary().map(|pod| &pod.name);
        match (&order.action, answer.map(|answer| answer.error.clone())) {
            (Action::Switchover { to, .. }, _) if leads_now == Some(to) => OrderState::Absent,
            (Action::Switchover { from, .. }, None | Some(None)) if leads_now.is_some_and(|leader| leader != from) => {
                OrderState::Absent
            }
            (_, Some(Some(error))) => OrderState::Failed(order, error),
            // The old primary has answered, and the new one has not reported yet.
            (Action::Switchover { .. }, Some(None)) if !self.is_old(&order) => OrderState::InProgress(order),
            (_, Some(None)) => OrderState::Absent,
            (_, None) if self.is_old(&order) => {
                let message =
                    format!("{} has not answered within {} s", order.action.pod(), patience(&order).as_secs());
                OrderState::Failed(order, message)
            }
            (_, None) => OrderState::InProgress(order),
        }
    }

    pub fn is_old(&self, order: &Order) -> bool {
        self.now.duration_since(order.issued_at) >= patience(order)
    }

    pub fn order(&self, id: OrderId, action: Action) -> Order {
        Order { id, issued_at: self.now, action }
    }

    /// The remaining pods.
    pub fn members(&self) -> impl DoubleEndedIterator<Item = &DatabasePod> {
        self.observed.pods.iter().filter(|pod| self.stays(&pod.name))
    }

    pub fn stays(&self, pod: &str) -> bool {
        self.database.names().is_one_of(pod, self.database.instances)
    }

    /// The best candidate for the lead: one that loses no commit, preferably not on a node that is
    /// being drained, and with the present template.
    pub fn successor(&self) -> Result<&DatabasePod, String> {
        let leader = self.observed.primary().ok_or("no instance is the primary")?;
        if self.observed.pods.len() < 2 {
            return Err("there is no other instance".to_owned());
        }
        let able: Vec<_> = self.members().filter(|pod| self.is_able(leader, pod).is_ok()).collect();
        let best = able.into_iter().min_by_key(|pod| {
            let outdated = self.revision.is_some() && pod.revision.as_deref() != self.revision;
            (self.observed.drains(pod), outdated, pod.name.clone())
        });
        best.ok_or_else(|| {
            let why: Vec<_> = self.members().filter_map(|pod| self.is_able(leader, pod).err()).collect();
            format!("no instance can take the lead: {}", why.join("; "))
        })
    }

    /// Whether an instance can take the lead without losing commits, or why not.
    pub fn is_able(&self, leader: &DatabasePod, pod: &DatabasePod) -> Result<(), String> {
        if pod.name == leader.name {
            return Err(format!("{} leads", pod.name));
        }
        if pod.volume_end.is_some() {
            return Err(format!("the volume of {} is deleted with its pod", pod.name));
        }
        if !pod.is_replica() {
            return Err(format!("{} is not a ready replica", pod.name));
        }
        if !pod.report.as_ref().is_some_and(|report| report.streaming) {
            return Err(format!("{} does not stream from {}", pod.name, leader.name));
        }
        let standbys = leader.report.as_ref().map(|report| report.synchronous_standbys.as_slice()).unwrap_or_default();
        if self.database.synchronous && !standbys.contains(&pod.name) {
            let able = if standbys.is_empty() { "none is" } else { &standbys.join(", ") };
            let name = &pod.name;
            return Err(format!("{name} is not a synchronous standby ({able}), and could lack commits"));
        }
        Ok(())
    }

    /// Orders a switchover, or returns why it waits.
    pub fn hand_over(&self, purpose: Purpose, decision: &mut Decision) -> Result<(), String> {
        let id = OrderId::first(Cause::Planned { purpose, decided_at: self.now });
        decision.order = Some(self.order(id, self.switchover(None)?));
        Ok(())
    }

    /// A switchover to this pod, or to the best candidate.
    pub fn switchover(&self, wanted: Option<&str>) -> Result<Action, String> {
        let leader = self.observed.primary().ok_or("no instance is the primary")?;
        let to = match wanted {
            None => self.successor()?,
            Some(wanted) => {
                let pod = self.members().find(|pod| pod.name == wanted);
                let pod = pod.ok_or_else(|| format!("{wanted} is not an instance of this database"))?;
                self.is_able(leader, pod)?;
                pod
            }
        };
        Ok(Action::Switchover { from: leader.name.clone(), to: to.name.clone() })
    }

    /// The number of existing pods, with or without a StatefulSet.
    pub fn live(&self) -> i32 {
        let set = self.observed.own_set(&self.database.owner.uid);
        let declared = set.and_then(|set| set.spec.as_ref()?.replicas);
        let live = declared.unwrap_or_else(|| {
            let ordinals = self.observed.pods.iter().filter_map(|pod| self.database.names().ordinal(&pod.name));
            ordinals.max().map_or(0, |last| last + 1)
        });
        live.max(self.holder())
    }

    /// The number of pods that is needed to include the member with every acknowledged commit, even
    /// if another client has scaled the StatefulSet: while there is no primary, no other member may
    /// be promoted.
    pub fn holder(&self) -> i32 {
        let observed = self.observed;
        let holder = match observed.primary() {
            Some(primary) => Some(&primary.name),
            None => observed.holders.first().filter(|_| self.database.synchronous),
        };
        holder.and_then(|holder| self.database.names().ordinal(holder)).map_or(0, |ordinal| ordinal + 1)
    }
}

fn patience(order: &Order) -> SignedDuration {
    match order.action {
        Action::Switchover { .. } => SWITCHOVER_PATIENCE,
        Action::Restart { .. } => RESTART_PATIENCE,
    }
}

/// Whether a pod serves in its role, without known trouble.
pub fn serves(pod: &DatabasePod) -> bool {
    pod.ready && !pod.terminating && (pod.is_replica() || pod.claims_the_lead())
}
