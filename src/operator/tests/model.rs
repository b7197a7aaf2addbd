//! A model of one database, driven at random: its instances, their volumes, Patroni's lease and its
//! record of synchronous members, the StatefulSet's controller, the agents, the spec. The
//! operator's decide functions act on it; Patroni's rules are modelled after its source (4.0,
//! `ha.py`).
//!
//! For every sequence: no member without every acknowledged row leads, and once the changes end,
//! the database reaches its declared state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use proptest::prelude::*;
use serde_json::json;

use super::fixtures::{MINIMAL, inputs, options, resource};
use super::status_findings::{observed, pod, time};
use crate::api::{ServiceDatabase, ServiceDatabaseStatus};
use crate::contract::desired::Desired;
use crate::contract::order::{Action, Order, OrderReport};
use crate::contract::report::{Phase, Role};
use crate::operator::context::options::Options;
use crate::operator::instances::{Situation, decide};
use crate::operator::observe::Observation;
use crate::operator::plan::Inputs;
use crate::operator::plan::config::desired;
use crate::operator::validate::validate;

/// An instance's ordinal.
type Ordinal = i32;
/// A row's number; a volume has all rows up to a number.
type Row = u64;

/// One event. Numbers choose among the existing objects.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// `spec.instances` is changed.
    Instances(i32),
    /// A setting that needs a restart is changed.
    Connections(u32),
    /// A change needs new pods.
    Template(u8),
    /// The operator reconciles.
    Reconcile,
    /// The StatefulSet's controller creates missing pods and terminates surplus ones.
    Control,
    /// The terminating pod ends.
    Ended(usize),
    /// PostgreSQL of a pod starts.
    Started(usize),
    /// A replica receives all rows of its leader.
    Received(usize),
    /// A client writes a row.
    Write,
    /// The leader's Patroni executes a step of its loop.
    Loop,
    /// The lease of a stopped leader expires.
    Lapse,
    /// A member takes a free lease.
    Elect(usize),
    /// An agent executes its order.
    Obey,
    /// A pod is killed; the StatefulSet's controller recreates it.
    Killed(usize),
    /// Another client scales the StatefulSet.
    Scaled(i32),
}

fn event() -> impl Strategy<Value = Event> {
    let index = || any::<usize>();
    prop_oneof![
        2 => (1..=3_i32).prop_map(Event::Instances),
        1 => prop::sample::select(vec![100_u32, 120, 150]).prop_map(Event::Connections),
        1 => (0..2_u8).prop_map(Event::Template),
        6 => Just(Event::Reconcile),
        4 => Just(Event::Control),
        3 => index().prop_map(Event::Ended),
        5 => index().prop_map(Event::Started),
        4 => index().prop_map(Event::Received),
        6 => Just(Event::Write),
        6 => Just(Event::Loop),
        1 => Just(Event::Lapse),
        3 => index().prop_map(Event::Elect),
        3 => Just(Event::Obey),
        1 => index().prop_map(Event::Killed),
        1 => (0..=3_i32).prop_map(Event::Scaled),
    ]
}

/// A pod and the PostgreSQL in it.
#[derive(Clone, Debug)]
struct Member {
    incarnation: u32,
    template: u8,
    ending: bool,
    /// Whether PostgreSQL answers, since when, and with which `max_connections`.
    running: Option<(Timestamp, u32)>,
    /// Whether it has connected to the leader and received all its rows.
    streams: bool,
    answered: Option<OrderReport>,
}

/// Patroni's `/sync` key: the members that may be promoted.
#[derive(Clone, Debug, Default, PartialEq)]
struct Record {
    leader: Option<Ordinal>,
    standbys: BTreeSet<Ordinal>,
}

/// Parsing the command line takes longer than a reconcile.
static OPTIONS: LazyLock<Options> = LazyLock::new(options);

struct Model {
    resource: ServiceDatabase,
    template: u8,
    connections: u32,
    replicas: i32,
    members: BTreeMap<Ordinal, Member>,
    /// The rows of each volume; none is ever removed here.
    volumes: BTreeMap<Ordinal, Row>,
    written: Row,
    acknowledged: Row,
    /// The lease's holder, and whether its PostgreSQL was promoted.
    lease: Option<Ordinal>,
    record: Record,
    /// `synchronous_standby_names` of the leader.
    named: BTreeSet<Ordinal>,
    desired: Desired,
    /// Taken from `desired` by the leader's agent.
    synchronous: bool,
    status: ServiceDatabaseStatus,
    now: Timestamp,
    incarnations: u32,
}

impl Model {
    /// Three instances, of which the first leads.
    fn new() -> Self {
        let mut resource = resource(MINIMAL);
        resource.spec.instances = 3;
        let mut model = Self {
            resource,
            template: 0,
            connections: 100,
            replicas: 3,
            members: BTreeMap::new(),
            volumes: BTreeMap::new(),
            written: 1,
            acknowledged: 1,
            lease: Some(0),
            record: Record { leader: Some(0), standbys: BTreeSet::new() },
            named: BTreeSet::new(),
            desired: serde_json::from_value(json!({
                "version": 1, "uid": "u", "database": "chat_db", "instances": 3, "synchronous": true,
                "maximumLagBytes": 1, "credentialGeneration": 1, "primaryHost": "h",
            }))
            .expect("a desired state"),
            synchronous: true,
            status: ServiceDatabaseStatus::default(),
            now: time("2026-03-01T12:00:00Z"),
            incarnations: 0,
        };
        model.control();
        for ordinal in 0..3 {
            model.start(ordinal);
        }
        assert!(model.settle(), "{:#?}, lease {:?}, record {:?}", model.members, model.lease, model.record);
        model
    }

    fn store(&mut self, ordinal: Ordinal, row: Row) {
        self.volumes.insert(ordinal, row);
    }

    fn leader(&self) -> Option<Ordinal> {
        self.lease.filter(|leader| self.members.get(leader).is_some_and(|member| member.running.is_some()))
    }

    fn chosen(&self, index: usize, fits: impl Fn(Ordinal, &Member) -> bool) -> Option<Ordinal> {
        let fitting: Vec<_> = self
            .members
            .iter()
            .filter(|(ordinal, member)| fits(**ordinal, member))
            .map(|(ordinal, _)| *ordinal)
            .collect();
        (!fitting.is_empty()).then(|| fitting[index % fitting.len()])
    }

    fn happen(&mut self, event: Event) {
        self.now += SignedDuration::from_millis(700);
        match event {
            Event::Instances(instances) => self.declare(|model| model.resource.spec.instances = instances),
            Event::Connections(connections) => self.declare(|model| model.connections = connections),
            Event::Template(template) => self.declare(|model| model.template = template),
            Event::Reconcile => {
                self.reconcile();
            }
            Event::Control => self.control(),
            Event::Ended(index) => {
                if let Some(ordinal) = self.chosen(index, |_, member| member.ending) {
                    self.end(ordinal);
                }
            }
            Event::Started(index) => {
                if let Some(ordinal) = self.chosen(index, |_, member| member.running.is_none() && !member.ending) {
                    self.start(ordinal);
                }
            }
            Event::Received(index) => {
                let leader = self.leader();
                if let Some(ordinal) = self
                    .chosen(index, |ordinal, member| member.running.is_some() && leader.is_some_and(|at| at != ordinal))
                {
                    self.receive(ordinal);
                }
            }
            Event::Write => self.write(),
            Event::Loop => self.patroni(),
            Event::Lapse => {
                if self.leader().is_none() {
                    self.lease = None;
                }
            }
            Event::Elect(index) => self.elect(index),
            Event::Obey => self.obey(),
            Event::Killed(index) => {
                if let Some(ordinal) = self.chosen(index, |_, _| true) {
                    self.stop(ordinal);
                    self.members.remove(&ordinal);
                }
            }
            Event::Scaled(replicas) => self.replicas = replicas,
        }
    }

    fn declare(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        self.resource.metadata.generation = self.resource.metadata.generation.map(|generation| generation + 1);
    }

    /// The operator's observation.
    fn observe(&self) -> Observation {
        let name = |ordinal: &Ordinal| format!("chat-db-{ordinal}");
        let leader = self.leader();
        let seen = self.members.iter().map(|(ordinal, member)| {
            let leads = leader == Some(*ordinal);
            let mut seen = observed(&pod(*ordinal, leads));
            seen.uid = format!("{ordinal}-{}", member.incarnation);
            (seen.node, seen.revision) = (Some(format!("node-{ordinal}")), Some(member.template.to_string()));
            (seen.terminating, seen.ready) = (member.ending, !member.ending && member.running.is_some());
            let report = seen.report.as_mut().expect("a report");
            report.order.clone_from(&member.answered);
            match member.running {
                Some((started, connections)) => {
                    let pending = connections != self.connections;
                    report.postgres_started_at = Some(started);
                    report.restart_pending = pending;
                    report.primary_restarts_first = pending && connections > self.connections;
                    report.streaming = member.streams;
                    if leads {
                        let both = self.named.intersection(&self.record.standbys);
                        report.synchronous_standbys = both.map(name).collect();
                    }
                }
                None => (report.phase, report.role) = (Phase::StartingPostgres, None::<Role>),
            }
            seen
        });
        Observation {
            stateful_set: Some(set(self.replicas)),
            desired: Some(self.desired.clone()),
            leader: self.lease.as_ref().map(name),
            holders: if leader.is_none() {
                self.record.leader.iter().chain(&self.record.standbys).map(name).collect()
            } else {
                vec![]
            },
            lease_lives: self.leader().is_some(),
            system_identifier: Some("7000".to_owned()),
            pods: seen.collect(),
            ..Observation::default()
        }
    }

    /// Decides and acts as a reconcile does; returns whether no action is due.
    fn reconcile(&mut self) -> bool {
        let database = validate(&self.resource, &OPTIONS).expect("a spec that can be planned");
        let observed = self.observe();
        let revision = self.template.to_string();
        let decision = decide(&Situation {
            database: &database,
            observed: &observed,
            status: &self.status,
            revision: Some(&revision),
            refused: None,
            holds_rollout: false,
            restoring: None,
            now: self.now,
        });
        let inputs = Inputs { decision: &decision, ..inputs(&database, &OPTIONS) };
        let planned = desired(&database, &inputs).body["data"]["desired.json"].clone();
        self.desired = serde_json::from_str(planned.as_str().expect("a document")).expect("a desired state");
        self.replicas = decision.replicas;
        if let Some(replaced) = &decision.replace {
            let ordinal = database.names().ordinal(&replaced.name).expect("an ordinal");
            if let Some(member) = self.members.get_mut(&ordinal) {
                member.ending = true;
            }
        }
        decision.order.is_none() && decision.replace.is_none() && decision.under_way.is_none()
    }

    fn control(&mut self) {
        for ordinal in 0..self.replicas {
            if !self.members.contains_key(&ordinal) {
                self.incarnations += 1;
                let fresh = Member {
                    incarnation: self.incarnations,
                    template: self.template,
                    ending: false,
                    running: None,
                    streams: false,
                    answered: None,
                };
                self.members.insert(ordinal, fresh);
            }
        }
        let too_much = self.members.iter_mut().filter(|(ordinal, _)| **ordinal >= self.replicas);
        too_much.for_each(|(_, member)| member.ending = true);
    }

    /// PostgreSQL of a pod starts as a replica; one without data clones the leader.
    fn start(&mut self, ordinal: Ordinal) {
        let leader = self.leader();
        if !self.volumes.contains_key(&ordinal) {
            match leader {
                Some(leader) => self.store(ordinal, self.volumes[&leader]),
                None if self.volumes.is_empty() => self.store(ordinal, 1),
                None => return,
            }
        }
        let of_leader =
            leader.and_then(|leader| self.members[&leader].running).map_or(0, |(_, connections)| connections);
        let connections = if leader == Some(ordinal) { self.connections } else { self.connections.max(of_leader) };
        let now = self.now;
        if let Some(member) = self.members.get_mut(&ordinal) {
            member.running = Some((now, connections));
            member.streams = false;
        }
    }

    /// It streams from now on, and has all rows; rows that the leader lacks are rewound.
    fn receive(&mut self, ordinal: Ordinal) {
        let Some(leader) = self.leader() else { return };
        let of_leader = self.volumes[&leader];
        self.volumes.insert(ordinal, of_leader);
        if let Some(member) = self.members.get_mut(&ordinal) {
            member.streams = true;
        }
        self.acknowledge();
    }

    fn write(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.written += 1;
        self.volumes.insert(leader, self.written);
        // A streaming replica has it a moment later: here, or with the next `Received`.
        if self.written.is_multiple_of(2) {
            let streaming: Vec<_> = self.streaming().collect();
            streaming.into_iter().for_each(|ordinal| self.store(ordinal, self.written));
        }
        self.acknowledge();
    }

    fn streaming(&self) -> impl Iterator<Item = Ordinal> {
        self.members
            .iter()
            .filter(|(_, member)| member.streams && member.running.is_some())
            .map(|(ordinal, _)| *ordinal)
    }

    /// A commit is acknowledged when its synchronous standbys have it.
    fn acknowledge(&mut self) {
        let Some(leader) = self.leader() else { return };
        let of_leader = self.volumes[&leader];
        let has =
            self.streaming().filter(|ordinal| self.named.contains(ordinal)).map(|ordinal| self.volumes[&ordinal]).max();
        let common = if self.named.is_empty() { of_leader } else { has.unwrap_or(0).min(of_leader) };
        self.acknowledged = self.acknowledged.max(common);
    }

    /// A step of the leader's loop (`_process_multisync_replication`): a removed standby leaves the
    /// record first, an added one enters it last.
    fn patroni(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.synchronous = self.desired.synchronous;
        if !self.synchronous {
            if self.record.leader.is_some() {
                self.record = Record::default();
            } else {
                self.named.clear();
            }
            return self.acknowledge();
        }
        if self.record.leader.is_none() {
            self.record = Record { leader: Some(leader), standbys: BTreeSet::new() };
            return;
        }
        let stays = |ordinal: &Ordinal| *ordinal < self.desired.instances;
        let candidates: BTreeSet<_> = self.streaming().filter(stays).collect();
        let keeps = self.named.intersection(&candidates).next().copied();
        let picked: BTreeSet<_> = keeps.or_else(|| candidates.first().copied()).into_iter().collect();
        let common: BTreeSet<_> = self.record.standbys.intersection(&picked).copied().collect();
        if common != self.record.standbys {
            self.record = Record { leader: Some(leader), standbys: common };
        } else if self.named != picked {
            self.named = picked;
            self.acknowledge();
        } else {
            // Only a standby with all rows at the time of its naming is recorded.
            let has_all = |ordinal: &Ordinal| self.volumes[ordinal] >= self.volumes[&leader];
            let recorded: BTreeSet<_> = picked.iter().copied().filter(has_all).collect();
            self.record =
                Record { leader: Some(leader), standbys: self.record.standbys.union(&recorded).copied().collect() };
        }
    }

    /// PostgreSQL of a member stops. Replicas of a leader no longer stream.
    fn stop(&mut self, ordinal: Ordinal) {
        let leads = self.leader() == Some(ordinal);
        if let Some(member) = self.members.get_mut(&ordinal) {
            (member.running, member.streams) = (None, false);
        }
        if leads {
            self.members.values_mut().for_each(|member| member.streams = false);
        }
    }

    /// A pod ends cleanly: a leader ships all rows before it releases the lease.
    fn end(&mut self, ordinal: Ordinal) {
        if self.leader() == Some(ordinal) {
            let all = self.volumes[&ordinal];
            let streaming: Vec<_> = self.streaming().collect();
            streaming.into_iter().for_each(|replica| self.store(replica, all));
            self.stop(ordinal);
            self.lease = None;
        }
        self.stop(ordinal);
        self.members.remove(&ordinal);
    }

    /// `is_healthiest_node`, then `process_sync_replication_prepromote`.
    fn elect(&mut self, index: usize) {
        if self.lease.is_some() {
            return;
        }
        let bars = self.synchronous && self.record.leader.is_some();
        let may =
            |ordinal: Ordinal| !bars || self.record.leader == Some(ordinal) || self.record.standbys.contains(&ordinal);
        let furthest = self.members.iter().filter(|(ordinal, member)| member.running.is_some() && may(**ordinal));
        let furthest = furthest.map(|(ordinal, _)| self.volumes[ordinal]).max();
        let Some(next) = self.chosen(index, |ordinal, member| {
            member.running.is_some() && may(ordinal) && Some(self.volumes[&ordinal]) == furthest
        }) else {
            return;
        };
        self.lead(next);
    }

    fn lead(&mut self, next: Ordinal) {
        self.lease = Some(next);
        self.members.values_mut().for_each(|member| member.streams = false);
        self.named.clear();
        if self.synchronous {
            self.record = Record { leader: Some(next), standbys: BTreeSet::new() };
        }
        // Unacknowledged rows that it does not have are lost, as allowed.
        self.written = self.volumes[&next];
    }

    fn obey(&mut self) {
        let Some(order) = self.desired.order.clone() else { return };
        let Some(ordinal) = order.action.pod().strip_prefix("chat-db-").and_then(|ordinal| ordinal.parse().ok()) else {
            return;
        };
        let runs = self.members.get(&ordinal).is_some_and(|member| {
            member.running.is_some() && member.answered.as_ref().is_none_or(|answer| answer.id != order.id)
        });
        if !runs {
            return;
        }
        let error = self.carry_out(&order, ordinal).err();
        if let Some(member) = self.members.get_mut(&ordinal) {
            member.answered = Some(OrderReport { id: order.id, error });
        }
    }

    fn carry_out(&mut self, order: &Order, ordinal: Ordinal) -> Result<(), String> {
        match &order.action {
            Action::Restart { .. } => {
                let streamed = self.members[&ordinal].streams;
                self.stop(ordinal);
                self.start(ordinal);
                if streamed {
                    self.receive(ordinal);
                }
                Ok(())
            }
            Action::Switchover { to, .. } => {
                let to: Ordinal = to.strip_prefix("chat-db-").and_then(|to| to.parse().ok()).expect("a pod");
                if self.leader() != Some(ordinal) || !self.streaming().any(|streaming| streaming == to) {
                    return Err("it cannot take the lead".to_owned());
                }
                if self.synchronous && !self.record.standbys.contains(&to) {
                    return Err("candidate name does not match with sync_standby".to_owned());
                }
                self.volumes.insert(to, self.volumes[&ordinal]);
                self.lead(to);
                Ok(())
            }
        }
    }

    fn assert_nothing_is_lost(&self) -> Result<(), TestCaseError> {
        if let Some(leader) = self.leader() {
            let has = self.volumes[&leader];
            prop_assert!(
                has >= self.acknowledged,
                "chat-db-{leader} leads with rows up to {has}, but {} was acknowledged; record {:?}",
                self.acknowledged,
                self.record
            );
        }
        Ok(())
    }

    /// All components act in turns until no action is due; returns whether that state was reached.
    fn settle(&mut self) -> bool {
        let mut calm = 0;
        for round in 0..200_usize {
            self.now += SignedDuration::from_secs(3);
            let done = self.reconcile();
            self.control();
            while let Some(ordinal) = self.chosen(0, |_, member| member.ending) {
                self.end(ordinal);
            }
            self.elect(round);
            if self.leader().is_none() && self.lease.is_some_and(|leader| !self.members.contains_key(&leader)) {
                self.lease = None;
            }
            for ordinal in self.members.keys().copied().collect::<Vec<_>>() {
                if self.members[&ordinal].running.is_none() {
                    self.start(ordinal);
                }
                if self.members[&ordinal].running.is_some() && self.leader().is_some_and(|leader| leader != ordinal) {
                    self.receive(ordinal);
                }
            }
            (0..3).for_each(|_| self.patroni());
            self.obey();
            calm = if done && self.is_as_declared() { calm + 1 } else { 0 };
            if calm == 3 {
                return true;
            }
        }
        false
    }

    fn is_as_declared(&self) -> bool {
        let instances = self.resource.spec.instances;
        self.members.keys().copied().eq(0..instances)
            && self.leader().is_some()
            && self.members.values().all(|member| {
                member.template == self.template
                    && member.running.is_some_and(|(_, connections)| connections == self.connections)
            })
            && (instances == 1 || !self.record.standbys.is_empty())
    }
}

fn set(replicas: i32) -> StatefulSet {
    let uid = resource(MINIMAL).metadata.uid;
    let owner = json!({"apiVersion": "v1", "kind": "ServiceDatabase", "name": "chat", "uid": uid, "controller": true});
    serde_json::from_value(json!({"metadata": {"ownerReferences": [owner]}, "spec": {
        "replicas": replicas, "selector": {}, "serviceName": "s", "template": {"metadata": {}},
    }}))
    .expect("a StatefulSet")
}

/// The number of sequences: enough to find the known errors, and few enough for `make test`, unless
/// `PROPTEST_CASES` is set.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_leader_lacks_an_acknowledged_row_and_changes_complete(events in prop::collection::vec(event(), 1..160)) {
        let mut model = Model::new();
        for event in events {
            model.happen(event);
            model.assert_nothing_is_lost()?;
        }
        let settled = model.settle();
        model.assert_nothing_is_lost()?;
        prop_assert!(
            settled,
            "instances {}, template {}, connections {}: {:#?}, lease {:?}, record {:?}, order {:?}",
            model.resource.spec.instances, model.template, model.connections, model.members, model.lease, model.record,
            model.desired.order
        );
    }
}
