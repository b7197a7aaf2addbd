//! What is known of the instances when the next step is decided, and what is decided.

use jiff::{SignedDuration, Timestamp};

use crate::api::{RequestStatus, ServiceDatabaseStatus};
use crate::contract::order::{Action, Cause, Order, OrderId, Purpose};
use crate::operator::observe::Observation;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::status::condition::ConditionState;
use crate::operator::validate::Database;

/// How long a restart may stay without an answer: longer than its agent waits for Patroni.
const RESTART_PATIENCE: SignedDuration = SignedDuration::from_secs(330);
/// The same of a switchover: Patroni knows within 20 s what came of it, and the agent may try it again for 12 s.
const SWITCHOVER_PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// What is known when it is decided.
pub struct Situation<'a> {
    /// What shall be.
    pub database: &'a Database,
    /// What is.
    pub observed: &'a Observation,
    /// What status says so far.
    pub status: &'a ServiceDatabaseStatus,
    /// The revision of the template that pods shall be made from; none while it is not known.
    pub revision: Option<&'a str>,
    /// Why the API server would refuse a pod of the present template; none if it takes one, or was
    /// not asked.
    pub refused: Option<&'a str>,
    /// Now.
    pub now: Timestamp,
}

/// What is to be done now.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// How many pods the StatefulSet shall have.
    pub replicas: i32,
    /// How many instances the agents are told of: one with a higher number is about to go.
    pub members: i32,
    /// What an agent shall do.
    pub order: Option<Order>,
    /// The pod that is deleted, to be made again from the new template.
    pub replace: Option<DatabasePod>,
    /// That the API server refuses the pod that would replace one, which is therefore kept.
    pub refused: Option<String>,
    /// Whether no pod may be evicted: one of them keeps the only copy of the data.
    pub keep_pods: bool,
    /// Why what runs is not yet what is declared; none if it is.
    pub under_way: Option<ConditionState>,
    /// The switchover that was asked for last.
    pub switchover: Option<RequestStatus>,
    /// The restart that was asked for last.
    pub restart: Option<RequestStatus>,
}

/// What became of the order that the agents have.
pub enum Ordered {
    /// There is none, or it has been answered.
    Nothing,
    /// It has no answer yet.
    Open(Order),
    /// It was not done.
    Failed(Order, String),
}

impl Situation<'_> {
    /// What became of the order that the agents have.
    pub fn ordered(&self) -> Ordered {
        let Some(order) = self.observed.desired.as_ref().and_then(|desired| desired.order.clone()) else {
            return Ordered::Nothing;
        };
        let pod = self.observed.pods.iter().find(|pod| pod.name == order.action.pod());
        let answer = pod.and_then(|pod| pod.report.as_ref()?.order.as_ref()).filter(|answer| answer.id == order.id);
        let leads_now = self.observed.primary().map(|pod| &pod.name);
        match (&order.action, answer.map(|answer| answer.error.clone())) {
            (Action::Switchover { to, .. }, _) if leads_now == Some(to) => Ordered::Nothing,
            (Action::Switchover { from, .. }, None | Some(None)) if leads_now.is_some_and(|leader| leader != from) => {
                Ordered::Nothing
            }
            (_, Some(Some(error))) => Ordered::Failed(order, error),
            // The old primary has answered, and the new one has not told of itself yet.
            (Action::Switchover { .. }, Some(None)) if !self.is_old(&order) => Ordered::Open(order),
            (_, Some(None)) => Ordered::Nothing,
            (_, None) if self.is_old(&order) => {
                let message =
                    format!("{} has not answered within {} s", order.action.pod(), patience(&order).as_secs());
                Ordered::Failed(order, message)
            }
            (_, None) => Ordered::Open(order),
        }
    }

    pub fn is_old(&self, order: &Order) -> bool {
        self.now.duration_since(order.issued_at) >= patience(order)
    }

    pub fn order(&self, id: OrderId, action: Action) -> Order {
        Order { id, issued_at: self.now, action }
    }

    /// The pods that stay.
    pub fn members(&self) -> impl DoubleEndedIterator<Item = &DatabasePod> {
        self.observed.pods.iter().filter(|pod| self.stays(&pod.name))
    }

    pub fn stays(&self, pod: &str) -> bool {
        self.database.names().is_one_of(pod, self.database.instances)
    }

    /// The instance that can take the lead best: without losing what was committed, not on a node
    /// that is being emptied, made from the present template.
    pub fn successor(&self) -> Result<&DatabasePod, String> {
        let leader = self.observed.primary().ok_or("no instance is the primary at present")?;
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

    /// Whether an instance can take the lead without losing what was committed, or why not.
    pub fn is_able(&self, leader: &DatabasePod, pod: &DatabasePod) -> Result<(), String> {
        if pod.name == leader.name {
            return Err(format!("{} leads", pod.name));
        }
        if pod.volume_end.is_some() {
            return Err(format!("the volume of {} lasts no longer than its pod", pod.name));
        }
        if !pod.is_replica() {
            return Err(format!("{} is not a ready replica", pod.name));
        }
        if !pod.report.as_ref().is_some_and(|report| report.streaming) {
            return Err(format!("{} does not receive what {} writes", pod.name, leader.name));
        }
        let standbys = leader.report.as_ref().map(|report| report.synchronous_standbys.as_slice()).unwrap_or_default();
        if self.database.synchronous && !standbys.contains(&pod.name) {
            let able = if standbys.is_empty() { "none is" } else { &standbys.join(", ") };
            let name = &pod.name;
            return Err(format!("{name} is not a synchronous standby ({able}), and could lack what was committed"));
        }
        Ok(())
    }

    /// Hands the lead over, or says why that waits.
    pub fn hand_over(&self, purpose: Purpose, decision: &mut Decision) -> Result<(), String> {
        let id = OrderId::first(Cause::Planned { purpose, decided_at: self.now });
        decision.order = Some(self.order(id, self.switchover(None)?));
        Ok(())
    }

    /// The lead goes to this pod, or to the one that can take it best.
    pub fn switchover(&self, wanted: Option<&str>) -> Result<Action, String> {
        let leader = self.observed.primary().ok_or("no instance is the primary at present")?;
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

    /// How many pods there are to be taken account of, with a StatefulSet or while there is none.
    pub fn live(&self) -> i32 {
        let set = self.observed.own_set(&self.database.owner.uid);
        let declared = set.and_then(|set| set.spec.as_ref()?.replicas);
        let live = declared.unwrap_or_else(|| {
            let ordinals = self.observed.pods.iter().filter_map(|pod| self.database.names().ordinal(&pod.name));
            ordinals.max().map_or(0, |last| last + 1)
        });
        live.max(self.holder())
    }

    /// How many pods there must be so that the one is among them that has every acknowledged row,
    /// whoever has scaled the StatefulSet meanwhile: while nobody leads, nobody else may.
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

/// Whether a pod serves in its role, and nothing is known against it.
pub fn serves(pod: &DatabasePod) -> bool {
    pod.ready && !pod.going && (pod.is_replica() || pod.claims_the_lead())
}
