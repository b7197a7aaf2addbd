//! Which instance is changed next: the primary last, none while another does not serve, and no
//! leader is removed before a switchover.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::json;

use super::fixtures::{MINIMAL, database, options, resource};
use super::status_findings::{observed, pod, time};
use crate::api::names::{ANNOTATION_RESTART, ANNOTATION_SWITCHOVER, ANNOTATION_SWITCHOVER_TO};
use crate::api::{RequestState, ServiceDatabase, ServiceDatabaseStatus};
use crate::contract::order::{Action, Order, OrderReport};
use crate::contract::report::{Phase, Report};
use crate::operator::instances::situation::Restoring;
use crate::operator::instances::{Decision, Situation, decide, eviction};
use crate::operator::observe::Observation;
use crate::operator::plan::config::document;
use crate::operator::validate::validate;

/// A database of some instances; the first is the leader.
struct Scene {
    resource: ServiceDatabase,
    observed: Observation,
    status: ServiceDatabaseStatus,
    revision: Option<&'static str>,
    refused: Option<&'static str>,
    holds_rollout: bool,
    now: Timestamp,
}

impl Scene {
    fn of(instances: i32) -> Self {
        let mut resource = resource(MINIMAL);
        resource.spec.instances = instances;
        let mut scene = Self {
            resource,
            observed: Observation::default(),
            status: ServiceDatabaseStatus::default(),
            revision: Some("new"),
            refused: None,
            holds_rollout: false,
            now: time("2026-03-01T12:00:00Z"),
        };
        scene.run(instances, 0);
        scene
    }

    /// This number of pods runs, with this leader.
    fn run(&mut self, pods: i32, leader: i32) {
        self.observed.leader = Some(format!("chat-db-{leader}"));
        self.observed.pods = (0..pods).map(|ordinal| observed(&pod(ordinal, ordinal == leader))).collect();
        self.observed.stateful_set = Some(set(pods));
        let standbys = (0..pods).filter(|ordinal| *ordinal != leader).map(|ordinal| format!("chat-db-{ordinal}"));
        let standbys = standbys.take(1).collect();
        for (ordinal, pod) in (0..).zip(&mut self.observed.pods) {
            (pod.revision, pod.node) = (Some("new".to_owned()), Some(format!("node-{ordinal}")));
            pod.report.as_mut().expect("a report").streaming = ordinal != leader;
        }
        self.report(leader, |report| report.synchronous_standbys = standbys);
    }

    fn report(&mut self, ordinal: i32, change: impl FnOnce(&mut Report)) {
        let index = usize::try_from(ordinal).expect("an ordinal");
        change(self.observed.pods[index].report.as_mut().expect("a report"));
    }

    fn annotate(&mut self, annotation: &str, token: &str) {
        let annotations = self.resource.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation.to_owned(), token.to_owned());
    }

    fn decide(&self) -> Decision {
        let database = validate(&self.resource, &options()).expect("a spec that can be planned");
        decide(&Situation {
            database: &database,
            observed: &self.observed,
            status: &self.status,
            revision: self.revision,
            refused: self.refused,
            holds_rollout: self.holds_rollout,
            restoring: None,
            now: self.now,
        })
    }

    /// Decides, and records the decision as the operator does.
    fn step(&mut self) -> Decision {
        let decision = self.decide();
        let desired = document(&database(MINIMAL), &crate::operator::credentials::DesiredCredentials::first());
        self.observed.desired = Some(crate::contract::desired::Desired { order: decision.order.clone(), ..desired });
        self.status.switchover = decision.switchover.clone();
        self.status.restart = decision.restart.clone();
        decision
    }

    /// The ordered agent answers.
    fn answer(&mut self, error: Option<&str>) {
        let order = self.observed.desired.as_ref().and_then(|desired| desired.order.clone()).expect("an order");
        let pod = self.observed.pods.iter_mut().find(|pod| pod.name == order.action.pod()).expect("its pod");
        pod.report.as_mut().expect("a report").order =
            Some(OrderReport { id: order.id, error: error.map(str::to_owned) });
    }

    fn outdate(&mut self) {
        for pod in &mut self.observed.pods {
            pod.revision = Some("old".to_owned());
        }
    }
}

fn set(replicas: i32) -> StatefulSet {
    let owner = json!({"apiVersion": "v1", "kind": "ServiceDatabase", "name": "chat", "uid": resource(MINIMAL).metadata.uid, "controller": true});
    serde_json::from_value(json!({"metadata": {"ownerReferences": [owner]}, "spec": {
        "replicas": replicas, "selector": {}, "serviceName": "s", "template": {"metadata": {}},
    }}))
    .expect("a StatefulSet")
}

fn switchover(decision: &Decision) -> Option<(&str, &str)> {
    match &decision.order.as_ref()?.action {
        Action::Switchover { from, to } => Some((from, to)),
        Action::Restart { .. } => None,
    }
}

fn restart(decision: &Decision) -> Option<&str> {
    match &decision.order.as_ref()?.action {
        Action::Restart { pod } => Some(pod),
        Action::Switchover { .. } => None,
    }
}

fn replaced(decision: &Decision) -> Option<&str> {
    decision.replace.as_ref().map(|pod| pod.name.as_str())
}

/// The window that began the rollout is over.
#[test]
fn a_rollout_that_its_window_did_not_finish_stops_except_for_what_does_not_serve() {
    let mut scene = Scene::of(3);
    scene.outdate();
    assert_eq!(replaced(&scene.decide()), Some("chat-db-2"));
    scene.holds_rollout = true;
    let held = scene.decide();
    assert!(replaced(&held).is_none() && held.order.is_none() && held.under_way.is_none());
    scene.observed.pods[1].ready = false;
    scene.observed.pods[1].node = None;
    assert_eq!(replaced(&scene.decide()), Some("chat-db-1"), "it does not serve as it is");
}

/// The ServiceAccount of the pods was deleted and is back.
#[test]
fn instances_with_a_void_token_are_replaced_the_leader_first_whatever_else_is_due() {
    let mut scene = Scene::of(3);
    scene.outdate();
    for pod in &mut scene.observed.pods {
        pod.has_void_token = true;
    }
    let decision = scene.step();
    assert_eq!((replaced(&decision), switchover(&decision)), (Some("chat-db-0"), None), "it reads no order");
    let told = decision.under_way.expect("a condition");
    assert_eq!(told.reason, "TokenVoid");
    assert!(told.message.contains("chat-db-0, chat-db-1, chat-db-2: chat-db-0 is being replaced"), "{}", told.message);

    scene.observed.pods[0].terminating = true;
    scene.observed.pods[0].ready = false;
    assert_eq!(replaced(&scene.decide()), None, "one at a time");
    // Its new pod starts.
    let first = &mut scene.observed.pods[0];
    (first.terminating, first.has_void_token, first.labelled_primary) = (false, false, false);
    assert_eq!(replaced(&scene.decide()), None, "nobody leads yet");
    scene.observed.pods[0].lingers = true;
    assert_eq!(replaced(&scene.decide()), Some("chat-db-1"), "one that Patroni's record names could lead");
    let first = &mut scene.observed.pods[0];
    (first.lingers, first.ready, first.labelled_primary) = (false, true, true);
    scene.observed.pods[1].ready = false;
    assert_eq!(replaced(&scene.decide()), Some("chat-db-1"), "it does not find the new leader");
    scene.observed.pods[1].has_void_token = false;
    assert_eq!(replaced(&scene.decide()), Some("chat-db-2"));
}

#[test]
fn a_void_token_is_renewed_before_the_instances_are_fewer() {
    let mut scene = Scene::of(2);
    scene.resource.spec.instances = 1;
    scene.run(2, 1);
    scene.observed.pods[1].has_void_token = true;
    let decision = scene.decide();
    assert_eq!((replaced(&decision), decision.replicas, decision.members), (Some("chat-db-1"), 2, 2));
}

#[test]
fn a_single_instance_serves_on_with_a_void_token() {
    let mut scene = Scene::of(1);
    scene.observed.pods[0].has_void_token = true;
    let decision = scene.decide();
    assert!(decision.replace.is_none() && decision.under_way.is_none());
    scene.report(0, |report| report.restart_pending = true);
    let decision = scene.decide();
    assert!(decision.replace.is_none() && decision.order.is_none(), "it would not read the order");
    assert_eq!(decision.under_way.expect("a condition").reason, "TokenVoid");
}

#[test]
fn void_tokens_are_renewed_during_a_restore_in_place_its_own_pod_last() {
    let mut scene = Scene::of(2);
    for pod in &mut scene.observed.pods {
        pod.has_void_token = true;
    }
    let decide = |scene: &Scene| {
        let database = validate(&scene.resource, &options()).expect("a spec that can be planned");
        let pod = "chat-db-0".to_owned();
        let restoring = Some(Restoring { reason: "Restoring", why: Some("it is restored".to_owned()), pod });
        let decision = decide(&Situation {
            database: &database,
            observed: &scene.observed,
            status: &scene.status,
            revision: scene.revision,
            refused: None,
            holds_rollout: false,
            restoring,
            now: scene.now,
        });
        (replaced(&decision).map(str::to_owned), decision.under_way.expect("a condition").reason)
    };
    assert_eq!(decide(&scene), (Some("chat-db-1".to_owned()), "TokenVoid".to_owned()));
    scene.observed.pods[1].has_void_token = false;
    assert_eq!(decide(&scene), (Some("chat-db-0".to_owned()), "TokenVoid".to_owned()));
    scene.observed.pods[0].has_void_token = false;
    assert_eq!(decide(&scene), (None, "Restoring".to_owned()));
}

#[test]
fn a_pod_with_a_void_token_and_the_only_copy_of_the_data_is_kept() {
    let mut scene = Scene::of(2);
    scene.observed.pods[0].has_void_token = true;
    scene.observed.pods[0].volume_end = Some(crate::operator::observe::pods::VolumeEnd::Deleted);
    scene.report(0, |report| report.synchronous_standbys.clear());
    assert_eq!(replaced(&scene.decide()), None);
}

#[test]
fn an_up_to_date_database_is_not_changed() {
    for instances in [1, 3] {
        let decision = Scene::of(instances).decide();
        assert!(decision.order.is_none() && decision.replace.is_none() && decision.under_way.is_none());
        assert_eq!(decision.replicas, instances);
    }
}

#[test]
fn replicas_are_replaced_first_then_the_lead_is_handed_over() {
    let mut scene = Scene::of(3);
    scene.outdate();
    let decision = scene.step();
    assert_eq!(replaced(&decision), Some("chat-db-2"));
    assert_eq!(decision.under_way.expect("a condition").reason, "RollingOut");
    // While it is missing, no other is replaced.
    scene.observed.pods[2].ready = false;
    scene.observed.pods[2].revision = Some("new".to_owned());
    assert_eq!(replaced(&scene.decide()), None);
    scene.observed.pods[2].ready = true;
    assert_eq!(replaced(&scene.step()), Some("chat-db-1"));
    scene.observed.pods[1].revision = Some("new".to_owned());
    let decision = scene.step();
    assert_eq!((replaced(&decision), switchover(&decision)), (None, Some(("chat-db-0", "chat-db-1"))));
    // The order is kept until it has an answer.
    scene.now += SignedDuration::from_secs(5);
    assert_eq!(scene.decide().order, decision.order);
    scene.run(3, 1);
    scene.observed.pods[0].revision = Some("old".to_owned());
    assert_eq!(replaced(&scene.step()), Some("chat-db-0"));
}

#[test]
fn a_single_instance_is_replaced_directly() {
    let mut scene = Scene::of(1);
    scene.outdate();
    assert_eq!(replaced(&scene.decide()), Some("chat-db-0"));
}

#[test]
fn a_broken_instance_is_replaced_although_another_does_not_serve() {
    let mut scene = Scene::of(3);
    scene.outdate();
    scene.observed.pods[1].ready = false;
    assert_eq!(replaced(&scene.decide()), None, "it may be the next leader");
    (scene.observed.pods[1].report, scene.observed.pods[1].node) = (None, None);
    assert_eq!(replaced(&scene.decide()), Some("chat-db-1"), "it cannot be scheduled");
    scene.observed.lease_lives = true;
    scene.observed.pods[0].ready = false;
    assert_eq!(replaced(&scene.decide()), Some("chat-db-1"), "and never the leader");
    scene.observed.pods[1].terminating = true;
    assert_eq!(replaced(&scene.decide()), None);
    let mut scene = Scene::of(3);
    scene.outdate();
    scene.observed.pods[1].ready = false;
    scene.observed.pods[1].revision = Some("new".to_owned());
    assert_eq!(replaced(&scene.decide()), None, "the new template may be the cause");
}

#[test]
fn a_primary_that_cannot_restart_gets_the_corrected_template() {
    let mut scene = Scene::of(1);
    scene.outdate();
    let pod = &mut scene.observed.pods[0];
    (pod.ready, pod.report, pod.node) = (false, None, None);
    scene.observed.lease_lives = true;
    assert_eq!(replaced(&scene.decide()), None, "it may still be running");
    scene.observed.lease_lives = false;
    assert_eq!(replaced(&scene.decide()), Some("chat-db-0"), "Patroni keeps the name of a failed leader");
}

#[test]
fn an_instance_whose_postgresql_does_not_start_gets_the_corrected_template() {
    let mut scene = Scene::of(3);
    scene.outdate();
    scene.observed.pods[2].ready = false;
    scene.report(2, |report| (report.role, report.phase) = (None, Phase::StartingPostgres));
    assert_eq!(replaced(&scene.decide()), Some("chat-db-2"));
    scene.observed.leader = None;
    assert_eq!(replaced(&scene.decide()), None, "it may be the next leader");
}

#[test]
fn a_broken_remaining_instance_is_replaced_while_others_wait_for_removal() {
    let mut scene = Scene::of(2);
    scene.run(3, 2);
    scene.observed.pods[1].revision = Some("old".to_owned());
    let pod = &mut scene.observed.pods[1];
    (pod.ready, pod.report, pod.node) = (false, None, None);
    let decision = scene.decide();
    assert_eq!((replaced(&decision), decision.replicas), (Some("chat-db-1"), 3));
    scene.observed.leader = None;
    assert_eq!(replaced(&scene.decide()), Some("chat-db-1"), "nor does it need a primary");
}

#[test]
fn revisions_are_unknown_until_the_set_is_observed() {
    let mut scene = Scene::of(3);
    scene.outdate();
    scene.revision = None;
    assert_eq!(replaced(&scene.decide()), None);
}

#[test]
fn a_setting_that_needs_a_restart_is_applied_to_replicas_first() {
    let mut scene = Scene::of(2);
    for ordinal in 0..2 {
        scene.report(ordinal, |report| report.restart_pending = true);
    }
    assert_eq!(restart(&scene.step()), Some("chat-db-1"));
    scene.answer(None);
    scene.report(1, |report| report.restart_pending = false);
    assert_eq!(switchover(&scene.step()), Some(("chat-db-0", "chat-db-1")));
}

#[test]
fn a_lowered_setting_is_applied_to_the_primary_first() {
    let mut scene = Scene::of(2);
    for ordinal in 0..2 {
        scene.report(ordinal, |report| (report.restart_pending, report.primary_restarts_first) = (true, true));
    }
    assert_eq!(restart(&scene.step()), Some("chat-db-0"));
    scene.answer(None);
    scene.report(0, |report| report.restart_pending = false);
    assert_eq!(restart(&scene.step()), Some("chat-db-1"));
}

/// The replica had its new value before the primary.
#[test]
fn a_replica_that_was_restarted_too_early_is_restarted_after_its_primary() {
    let mut scene = Scene::of(2);
    let start = scene.now;
    scene.report(0, |report| report.postgres_started_at = Some(start));
    scene.report(1, |report| (report.restart_pending, report.primary_restarts_first) = (true, true));
    assert_eq!(restart(&scene.step()), Some("chat-db-1"));
    scene.answer(None);
    scene.report(1, |report| report.postgres_started_at = Some(start));
    assert_eq!(scene.step().order, None, "not again at once");
    scene.report(0, |report| (report.restart_pending, report.primary_restarts_first) = (true, true));
    assert_eq!(restart(&scene.step()), Some("chat-db-0"));
    scene.answer(None);
    let later = start + SignedDuration::from_secs(2);
    scene.report(0, |report| (report.restart_pending, report.postgres_started_at) = (false, Some(later)));
    // It may not have replayed that yet: the restart is retried with growing delays, without an
    // end.
    let mut tries = Vec::new();
    for _ in 0..700 {
        if restart(&scene.step()) == Some("chat-db-1") {
            tries.push(scene.now);
            scene.answer(None);
            let now = scene.now;
            scene.report(1, |report| report.postgres_started_at = Some(now));
        }
        scene.now += SignedDuration::from_secs(1);
    }
    let rests: Vec<_> = tries.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs()).collect();
    assert_eq!(rests, [10, 20, 40, 80, 160, 300]);
}

/// Both a lower setting and another template: a replica cannot get the lower setting, even in a new
/// pod, before the primary runs with it.
#[test]
fn a_lowered_setting_is_also_applied_to_a_primary_whose_pod_is_outdated() {
    let mut scene = Scene::of(2);
    scene.outdate();
    for ordinal in 0..2 {
        scene.report(ordinal, |report| (report.restart_pending, report.primary_restarts_first) = (true, true));
    }
    assert_eq!(restart(&scene.step()), Some("chat-db-0"));
    scene.answer(None);
    scene.report(0, |report| (report.restart_pending, report.primary_restarts_first) = (false, false));
    assert_eq!(replaced(&scene.step()), Some("chat-db-1"));
    scene.observed.pods[1].revision = Some("new".to_owned());
    scene.report(1, |report| (report.restart_pending, report.primary_restarts_first) = (false, false));
    assert_eq!(switchover(&scene.step()), Some(("chat-db-0", "chat-db-1")));
}

/// Another client has scaled the StatefulSet while instances were being removed.
#[test]
fn the_instance_with_every_acknowledged_commit_is_started_again() {
    let mut scene = Scene::of(1);
    scene.observed.stateful_set = Some(set(0));
    (scene.observed.pods, scene.observed.leader) = (Vec::new(), None);
    scene.observed.holders = vec!["chat-db-2".to_owned(), "chat-db-1".to_owned()];
    let decision = scene.decide();
    assert_eq!((decision.replicas, decision.members), (3, 3));
    scene.observed.holders = vec!["chat-db-0".to_owned()];
    assert_eq!(scene.decide().replicas, 1);
}

#[test]
fn a_single_primary_waits_for_terminating_instances() {
    let mut scene = Scene::of(1);
    scene.run(2, 0);
    scene.observed.stateful_set = Some(set(1));
    scene.outdate();
    scene.observed.pods[1].terminating = true;
    assert_eq!(replaced(&scene.step()), None);
    scene.observed.pods.pop();
    assert_eq!(replaced(&scene.step()), Some("chat-db-0"));
}

/// The shared settings were applied before those of the instance.
#[test]
fn a_primary_that_still_needs_a_restart_is_restarted_once_more() {
    let mut scene = Scene::of(1);
    let mut restarts = 0;
    for _ in 0..60 {
        scene.report(0, |report| report.restart_pending = true);
        if restart(&scene.step()) == Some("chat-db-0") {
            restarts += 1;
            scene.answer(None);
            let now = scene.now;
            scene.report(0, |report| report.postgres_started_at = Some(now));
        }
        scene.now += SignedDuration::from_secs(1);
    }
    assert_eq!(restarts, 2);
}

#[test]
fn a_restart_without_effect_is_not_repeated_until_the_spec_changes() {
    let mut scene = Scene::of(1);
    scene.report(0, |report| report.restart_pending = true);
    assert_eq!(restart(&scene.step()), Some("chat-db-0"));
    scene.answer(Some("it does not start"));
    assert_eq!(scene.step().order, None);
    scene.now += SignedDuration::from_hours(1);
    assert_eq!(scene.step().order, None);
    scene.resource.metadata.generation = Some(99);
    assert_eq!(restart(&scene.step()), Some("chat-db-0"));
}

#[test]
fn a_leader_hands_over_the_lead_before_its_removal() {
    let mut scene = Scene::of(1);
    scene.run(3, 2);
    let decision = scene.step();
    assert_eq!((decision.replicas, switchover(&decision)), (3, Some(("chat-db-2", "chat-db-0"))));
    assert_eq!(decision.under_way.expect("a condition").reason, "ScalingDown");
    scene.run(3, 0);
    scene.report(0, |report| report.synchronous_standbys = vec!["chat-db-1".to_owned()]);
    assert_eq!(scene.step().replicas, 3, "commits wait for an instance to remove");
    scene.report(0, |report| report.synchronous_standbys = vec![]);
    assert_eq!(scene.step().replicas, 1);
}

/// The StatefulSet is recreated, with another volume size, while instances are to be removed.
#[test]
fn a_leader_to_remove_is_kept_while_there_is_no_set() {
    let mut scene = Scene::of(1);
    scene.run(3, 2);
    scene.observed.stateful_set = None;
    assert_eq!(scene.step().replicas, 3);
}

#[test]
fn no_instance_is_removed_before_the_remaining_ones_serve() {
    let mut scene = Scene::of(2);
    scene.run(3, 0);
    scene.report(0, |report| report.synchronous_standbys = vec!["chat-db-2".to_owned()]);
    scene.observed.pods[1].ready = false;
    let decision = scene.decide();
    assert_eq!((decision.replicas, decision.members), (3, 3));
    assert!(decision.under_way.expect("a condition").message.contains("chat-db-1"));
    scene.observed.pods[1].ready = true;
    let decision = scene.decide();
    assert_eq!((decision.replicas, decision.members), (3, 2), "commits wait for the instance to remove");
    scene.report(0, |report| report.synchronous_standbys = vec![]);
    assert_eq!(scene.decide().replicas, 3, "and for no other yet");
    scene.report(0, |report| report.synchronous_standbys = vec!["chat-db-1".to_owned()]);
    assert_eq!(scene.decide().replicas, 2);
}

#[test]
fn a_cancelled_request_ends() {
    let mut scene = Scene::of(2);
    scene.annotate(ANNOTATION_RESTART, "t1");
    scene.step();
    scene.annotate(ANNOTATION_RESTART, "");
    scene.step();
    assert_eq!(scene.status.restart.as_ref().expect("a status").state, RequestState::Failed);
}

#[test]
fn no_instance_is_removed_without_a_leader() {
    let mut scene = Scene::of(1);
    scene.run(3, 0);
    scene.observed.leader = None;
    assert_eq!(scene.decide().replicas, 3);
}

#[test]
fn instances_are_added_at_once() {
    let mut scene = Scene::of(5);
    scene.run(1, 0);
    let decision = scene.decide();
    assert_eq!((decision.replicas, decision.order), (5, None));
}

#[test]
fn the_lead_leaves_a_node_that_is_drained() {
    let mut scene = Scene::of(2);
    for (pod, node) in scene.observed.pods.iter_mut().zip(["a", "b"]) {
        pod.node = Some(node.to_owned());
    }
    scene.observed.draining = std::sync::Arc::new(["a".to_owned()].into());
    assert_eq!(switchover(&scene.decide()), Some(("chat-db-0", "chat-db-1")));
    scene.observed.draining = std::sync::Arc::new(["a".to_owned(), "b".to_owned()].into());
    assert_eq!(scene.decide().order, None, "it would only move to another node that is drained");
}

/// The answer for a pod, as its annotation has it.
fn answer(scene: &Scene, ordinal: i32) -> Option<String> {
    let database = validate(&scene.resource, &options()).expect("a spec that can be planned");
    let situation = Situation {
        database: &database,
        observed: &scene.observed,
        status: &scene.status,
        revision: scene.revision,
        refused: scene.refused,
        holds_rollout: false,
        restoring: None,
        now: scene.now,
    };
    let name = format!("chat-db-{ordinal}");
    let answers = eviction::answers(&situation, &scene.decide());
    answers.into_iter().find(|(pod, _)| pod.name == name).and_then(|(_, answer)| answer)
}

#[test]
fn a_pod_hands_over_the_lead_before_its_eviction() {
    let mut scene = Scene::of(3);
    assert_eq!(answer(&scene, 0), None, "no request");
    scene.observed.pods[0].eviction_asked = true;
    assert_eq!(switchover(&scene.decide()), Some(("chat-db-0", "chat-db-1")));
    assert_eq!(answer(&scene, 0).as_deref(), Some("Waiting: it hands over the lead to chat-db-1"));

    scene.observed.pods[1].eviction_asked = true;
    assert_eq!(scene.decide().order, None, "the candidate is to be evicted too");
    let message = answer(&scene, 0).expect("an answer");
    assert!(
        message.starts_with("Refused: it is the primary, and the candidate chat-db-1 is to be evicted"),
        "{message}"
    );

    scene.run(3, 1);
    scene.observed.pods[0].eviction_asked = true;
    assert_eq!(scene.decide().order, None);
    assert_eq!(answer(&scene, 0).as_deref(), Some("Ready: chat-db-1 is the primary"));
    scene.observed.pods[0].eviction_answer = answer(&scene, 0);
    assert_eq!(answer(&scene, 0), None, "an answer is written once");
    scene.observed.pods[2].ready = false;
    assert!(answer(&scene, 0).is_some_and(|answer| answer.starts_with("Waiting: chat-db-2 does not serve")));
    scene.observed.leader = None;
    assert!(answer(&scene, 0).is_some_and(|answer| answer.starts_with("Waiting: no instance is the primary")));
}

#[test]
fn a_pod_without_a_successor_is_refused() {
    let mut scene = Scene::of(2);
    scene.observed.pods[0].eviction_asked = true;
    scene.observed.pods[1].ready = false;
    let message = answer(&scene, 0).expect("an answer");
    assert!(message.starts_with("Refused: it is the primary, and no instance can take the lead: "), "{message}");
    let mut alone = Scene::of(1);
    alone.observed.pods[0].eviction_asked = true;
    assert!(answer(&alone, 0).is_some_and(|answer| answer.starts_with("Ready: it is the only instance")));
}

#[test]
fn a_switchover_is_answered_once() {
    let mut scene = Scene::of(3);
    scene.annotate(ANNOTATION_SWITCHOVER, "t1");
    let decision = scene.step();
    assert_eq!(switchover(&decision), Some(("chat-db-0", "chat-db-1")));
    assert_eq!(scene.status.switchover.as_ref().expect("a status").state, RequestState::Running);
    // The operator crashes before it writes status; its order is executed meanwhile.
    scene.status.switchover = None;
    scene.run(3, 1);
    let decision = scene.step();
    assert_eq!(scene.status.switchover.as_ref().expect("a status").state, RequestState::Done);
    assert!(decision.order.is_some(), "the order records the request until status has the result");
    assert_eq!(scene.step().order, None);
    assert_eq!(scene.decide().order, None, "the same token is no other request");
}

#[test]
fn a_switchover_that_would_lose_commits_is_refused() {
    let mut scene = Scene::of(3);
    scene.annotate(ANNOTATION_SWITCHOVER, "t1");
    for (to, why) in [("chat-db-2", "synchronous"), ("chat-db-7", "not an instance"), ("chat-db-0", "leads")] {
        scene.annotate(ANNOTATION_SWITCHOVER_TO, to);
        let answer = scene.decide().switchover.expect("an answer");
        assert_eq!(answer.state, RequestState::Failed);
        assert!(answer.message.as_ref().is_some_and(|message| message.contains(why)), "{answer:?}");
    }
    let mut single = Scene::of(1);
    single.annotate(ANNOTATION_SWITCHOVER, "t1");
    assert_eq!(single.decide().switchover.expect("an answer").state, RequestState::Failed);
}

#[test]
fn a_failed_requested_switchover_is_reported_and_a_failed_automatic_one_retried() {
    let mut scene = Scene::of(2);
    scene.annotate(ANNOTATION_SWITCHOVER, "t1");
    scene.step();
    scene.answer(Some("Patroni says: no"));
    scene.step();
    let answer = scene.status.switchover.clone().expect("an answer");
    assert_eq!((answer.state, answer.message.as_deref()), (RequestState::Failed, Some("Patroni says: no")));

    let mut scene = Scene::of(2);
    scene.outdate();
    scene.observed.pods[1].revision = Some("new".to_owned());
    let first = scene.step().order.expect("an order");
    scene.answer(Some("Patroni says: no"));
    let decision = scene.step();
    assert_eq!(decision.order.as_ref(), Some(&first), "not at once");
    assert!(decision.under_way.expect("a condition").message.contains("Patroni says: no"));
    scene.now += SignedDuration::from_secs(46);
    let again: Order = scene.step().order.expect("an order");
    assert_ne!(again.id, first.id);
}

#[test]
fn a_requested_restart_reaches_every_instance_once() {
    let mut scene = Scene::of(2);
    let started = scene.now - SignedDuration::from_hours(1);
    for ordinal in 0..2 {
        scene.report(ordinal, |report| report.postgres_started_at = Some(started));
    }
    scene.annotate(ANNOTATION_RESTART, "t1");
    assert_eq!(restart(&scene.step()), Some("chat-db-1"));
    let later = scene.now + SignedDuration::from_secs(3);
    scene.answer(None);
    scene.report(1, |report| report.postgres_started_at = Some(later));
    assert_eq!(switchover(&scene.step()), Some(("chat-db-0", "chat-db-1")));
    scene.run(2, 1);
    for ordinal in 0..2 {
        scene.report(ordinal, |report| report.postgres_started_at = Some(later));
    }
    assert_eq!(scene.step().order, None);
    assert_eq!(scene.status.restart.as_ref().expect("a status").state, RequestState::Done);
    assert!(scene.step().under_way.is_none());
}
