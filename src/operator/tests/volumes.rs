//! Volumes: none is deleted without a declaration, a pod with the only copy is kept, and lost data
//! is reported.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::fixtures::{MINIMAL, database};
use super::status_findings::{observed, pod, time};
use super::world::{World, object};
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions as kind;
use crate::api::names::{ANNOTATION_REPORT, Names};
use crate::contract::order::Action;
use crate::contract::report::{Phase, Report};
use crate::operator::instances::given_up::{self, ANNOTATION_GIVEN_UP};
use crate::operator::instances::{Decision, Members, Situation, decide};
use crate::operator::observe::Observation;
use crate::operator::observe::pods::{DatabasePod, VolumeEnd};
use crate::operator::validate::Database;

const DELETING: &str = "1Gi, scaleDownPolicy: Delete}";

fn deleting() -> String {
    MINIMAL.replace("1Gi}", DELETING)
}

/// A database with some running pods, of which the first leads, and the decisions about it.
struct Scene {
    database: Database,
    observed: Observation,
    revision: &'static str,
    refused: Option<&'static str>,
}

impl Scene {
    fn of(declared: i32, running: i32) -> Self {
        let mut database = database(&deleting());
        database.instances = declared;
        let mut scene = Self { database, observed: Observation::default(), revision: "new", refused: None };
        scene.lead(running, 0);
        scene
    }

    /// This number of pods runs, with this leader.
    fn lead(&mut self, running: i32, leader: i32) {
        let ended: Vec<_> = self.observed.pods.iter().map(|pod| pod.volume_end).collect();
        self.observed.leader = Some(format!("chat-db-{leader}"));
        self.observed.pods = (0..running).map(|ordinal| observed(&pod(ordinal, ordinal == leader))).collect();
        for ((ordinal, pod), ended) in
            (0..).zip(&mut self.observed.pods).zip(ended.into_iter().chain(std::iter::repeat(None)))
        {
            (pod.revision, pod.node, pod.volume_end) = (Some("new".to_owned()), Some("node".to_owned()), ended);
            let report = pod.report.as_mut().expect("a report");
            report.streaming = ordinal != leader;
        }
        let standby = (0..running).find(|ordinal| *ordinal != leader).map(|ordinal| format!("chat-db-{ordinal}"));
        self.report(leader).synchronous_standbys = standby.into_iter().collect();
        self.observed.stateful_set = Some(set(running));
        self.observed.volume_claims = (0..running).map(claim).collect();
    }

    fn report(&mut self, ordinal: i32) -> &mut Report {
        self.pod(ordinal).report.as_mut().expect("a report")
    }

    fn pod(&mut self, ordinal: i32) -> &mut DatabasePod {
        &mut self.observed.pods[usize::try_from(ordinal).expect("an ordinal")]
    }

    fn decide(&self) -> Decision {
        decide(&Situation {
            database: &self.database,
            observed: &self.observed,
            status: &ServiceDatabaseStatus::default(),
            revision: Some(self.revision),
            refused: self.refused,
            holds_rollout: false,
            restoring: None,
            now: time("2026-03-01T12:00:00Z"),
        })
    }

    fn next_removal(&self) -> Option<String> {
        given_up::next(&self.database, &self.observed, &self.decide()).map(ResourceExt::name_any)
    }

    fn only_copy(&self) -> Option<String> {
        let condition = Members::new(&self.observed, self.database.names(), self.database.instances).condition();
        condition.map(|condition| condition.message)
    }
}

fn set(replicas: i32) -> StatefulSet {
    let owner = json!({"apiVersion": "v1", "kind": "ServiceDatabase", "name": "chat", "uid": "uid-of-chat", "controller": true});
    serde_json::from_value(json!({
        "metadata": {"ownerReferences": [owner], "generation": 7},
        "spec": {"replicas": replicas, "selector": {}, "serviceName": "s", "template": {"metadata": {}}},
        "status": {"replicas": replicas, "observedGeneration": 7},
    }))
    .expect("a StatefulSet")
}

fn claim(ordinal: i32) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": format!("data-chat-db-{ordinal}"), "annotations": {"servicedb.dev/uid": "uid-of-chat"}},
        "status": {"phase": "Bound"},
    }))
    .expect("a claim")
}

fn replaced(decision: &Decision) -> Option<&str> {
    decision.replace.as_ref().map(|pod| pod.name.as_str())
}

fn successor(decision: &Decision) -> Option<&str> {
    match &decision.order.as_ref()?.action {
        Action::Switchover { to, .. } => Some(to),
        Action::Restart { .. } => None,
    }
}

/// Two of three were removed by the spec, and the operator marked their claims.
fn scaled_down() -> Scene {
    let mut scene = Scene::of(1, 1);
    scene.observed.volume_claims = (0..3).map(claim).collect();
    for claim in &mut scene.observed.volume_claims[1..] {
        claim.annotations_mut().insert(ANNOTATION_GIVEN_UP.to_owned(), "true".to_owned());
    }
    scene
}

#[test]
fn volumes_of_a_declared_scale_down_are_deleted_one_by_one() {
    let mut scene = scaled_down();
    assert_eq!(scene.next_removal().as_deref(), Some("data-chat-db-2"));
    let now = serde_json::from_value(json!("2026-03-01T12:00:00Z")).expect("a time");
    scene.observed.volume_claims[2].metadata.deletion_timestamp = Some(now);
    assert_eq!(scene.next_removal(), None, "one at a time");
    scene.observed.volume_claims.pop();
    assert_eq!(scene.next_removal().as_deref(), Some("data-chat-db-1"));
}

#[test]
fn no_volume_is_deleted_unless_all_remaining_instances_serve_and_one_leads() {
    type Change = fn(&mut Scene);
    let changes: [(&str, Change); 8] = [
        ("no instance leads", |scene| scene.observed.leader = None),
        ("the remaining instance does not serve", |scene| scene.pod(0).ready = false),
        ("its own volume is deleted with its pod", |scene| scene.pod(0).volume_end = Some(VolumeEnd::Deleted)),
        ("the pod still exists", |scene| {
            for ordinal in [1, 2] {
                scene.observed.pods.push(observed(&pod(ordinal, false)));
            }
        }),
        ("the StatefulSet is scaled by another client", |scene| scene.observed.stateful_set = Some(set(0))),
        ("its controller has not observed the spec", |scene| {
            scene.observed.stateful_set.as_mut().expect("a set").metadata.generation = Some(8);
        }),
        ("the spec keeps volumes", |scene| scene.database = database(MINIMAL)),
        ("no declared scale-down removed the instances", |scene| {
            scene.observed.volume_claims = (0..3).map(claim).collect();
        }),
    ];
    for (why, change) in changes {
        let mut scene = scaled_down();
        change(&mut scene);
        assert_eq!(scene.next_removal(), None, "{why}");
    }
    // Commits wait for a standby, and no remaining one is recorded.
    let mut scene = Scene::of(2, 2);
    scene.observed.volume_claims = (0..3).map(claim).collect();
    scene.observed.volume_claims[2].annotations_mut().insert(ANNOTATION_GIVEN_UP.to_owned(), "true".to_owned());
    assert_eq!(scene.next_removal().as_deref(), Some("data-chat-db-2"));
    scene.report(0).synchronous_standbys = vec![];
    assert_eq!(scene.next_removal(), None);
    scene.report(0).synchronous_standbys = vec!["chat-db-2".to_owned()];
    assert_eq!(scene.next_removal(), None);
}

#[test]
fn the_only_copy_is_kept_and_the_remedy_is_reported() {
    for end in [VolumeEnd::Deleted, VolumeEnd::Missing, VolumeEnd::Lost] {
        let mut scene = Scene::of(1, 1);
        scene.pod(0).volume_end = Some(end);
        let decision = scene.decide();
        assert_eq!((replaced(&decision), decision.keep_pods), (None, true));
        let message = scene.only_copy().expect("a message");
        assert!(message.contains("set spec.instances to 2") && message.contains("data-chat-db-0"), "{message}");
        // Another template, and even a pod without a running container.
        scene.revision = "newer";
        assert_eq!(replaced(&scene.decide()), None);
        (scene.pod(0).ready, scene.pod(0).report) = (false, None);
        assert_eq!(replaced(&scene.decide()), None, "{end:?}");
    }
    assert!(Scene::of(1, 1).only_copy().is_none() && !Scene::of(1, 1).decide().keep_pods);
}

#[test]
fn with_another_copy_the_instance_gets_a_new_volume() {
    let mut scene = Scene::of(2, 2);
    scene.pod(0).volume_end = Some(VolumeEnd::Deleted);
    let decision = scene.decide();
    assert_eq!((successor(&decision), replaced(&decision)), (Some("chat-db-1"), None));
    assert_eq!(decision.under_way.expect("a condition").reason, "VolumeTerminating");
    assert_eq!(scene.only_copy(), None);
    scene.lead(2, 1);
    assert_eq!(replaced(&scene.decide()), Some("chat-db-0"));
    scene.pod(1).ready = false;
    assert_eq!(replaced(&scene.decide()), None);
    assert!(scene.only_copy().is_some(), "the present leader is not ready");
    scene.pod(1).ready = true;
    scene.pod(0).volume_end = Some(VolumeEnd::Lost);
    assert_eq!(replaced(&scene.decide()), None, "another pod could not mount it");
}

#[test]
fn an_instance_whose_volume_is_deleted_with_its_pod_gets_no_lead() {
    let mut scene = Scene::of(2, 2);
    for ordinal in 0..2 {
        scene.pod(ordinal).volume_end = Some(VolumeEnd::Deleted);
    }
    let decision = scene.decide();
    assert_eq!((successor(&decision), replaced(&decision), decision.keep_pods), (None, None, true));
    assert!(scene.only_copy().expect("a message").contains("set spec.instances to 3"));
    // A third with a permanent volume: then the replica, the switchover, the former primary.
    scene.database.instances = 3;
    scene.lead(3, 0);
    assert_eq!((scene.only_copy(), replaced(&scene.decide())), (None, Some("chat-db-1")));
    scene.pod(1).volume_end = None;
    assert_eq!(successor(&scene.decide()), Some("chat-db-1"));
}

#[test]
fn no_instance_is_removed_while_a_remaining_one_loses_its_volume() {
    let mut scene = Scene::of(1, 2);
    scene.report(0).synchronous_standbys = vec![];
    assert_eq!(scene.decide().replicas, 1);
    scene.pod(0).volume_end = Some(VolumeEnd::Deleted);
    let decision = scene.decide();
    assert_eq!((decision.replicas, decision.members), (2, 2));
    assert!(decision.under_way.expect("a condition").message.contains("set spec.instances back to 2"));
    scene.pod(0).volume_end = None;
    scene.pod(1).volume_end = Some(VolumeEnd::Deleted);
    assert_eq!(scene.decide().replicas, 1, "the volume of an instance to remove does not matter");
}

#[test]
fn a_pod_is_kept_if_its_replacement_would_be_refused() {
    let mut scene = Scene::of(3, 3);
    (scene.revision, scene.refused) = ("newer", Some("no PriorityClass with name nonsense was found"));
    let decision = scene.decide();
    assert_eq!((replaced(&decision), successor(&decision)), (None, None));
    let message = decision.refused.expect("a message");
    assert!(message.contains("chat-db-2 is kept") && message.contains("no PriorityClass"), "{message}");
    scene.refused = None;
    let decision = scene.decide();
    assert_eq!((replaced(&decision), &decision.refused), (Some("chat-db-2"), &None));
}

async fn at_rest(yaml: &str) -> World {
    let mut world = World::new();
    world.create(yaml);
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    world
}

/// An earlier version let the StatefulSet's controller remove volumes.
#[tokio::test]
async fn a_set_that_would_remove_volumes_is_changed_before_it_is_scaled() {
    for paused in [true, false] {
        let mut world = at_rest(&deleting()).await;
        world.edit(|resource| resource["spec"]["paused"] = paused.into());
        world.settle().await;
        world.api.store().edit(&object("statefulsets", "chat-db"), |set| {
            set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = "Delete".into();
            set["spec"]["replicas"] = 0.into();
        });
        let sent = world.settle().await;
        let set = |call: &&String| call.ends_with("statefulsets chat-db");
        let sent: Vec<_> = sent.iter().filter(set).map(String::as_str).collect();
        assert_eq!(sent, vec!["MERGE statefulsets chat-db"; if paused { 1 } else { 2 }]);
        let live = world.get("statefulsets", "chat-db").expect("the set");
        assert_eq!(live["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"], "Retain");
        assert_eq!(live["spec"]["replicas"], i32::from(!paused));
    }
}

#[tokio::test]
async fn a_deleted_claim_is_reported_also_while_paused() {
    let mut world = at_rest(MINIMAL).await;
    let claim = object("persistentvolumeclaims", "data-chat-db-0");
    {
        let mut store = world.api.store();
        store.edit(&claim, |claim| claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]));
        store.delete(&claim, &Value::Null).expect("a deletion");
    }
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True VolumeTerminating");
    assert_eq!(world.condition(kind::READY), "False VolumeTerminating");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
    assert!(world.get("poddisruptionbudgets", "chat-db-primary").is_some(), "no drain may evict the pod");
    world.edit(|resource| resource["spec"]["paused"] = true.into());
    world.settle().await;
    assert!(world.message(kind::READY).contains("data-chat-db-0"), "{}", world.message(kind::READY));
}

fn empty(ordinal: i32) -> Pod {
    let mut pod = pod(ordinal, false);
    let annotations = pod.metadata.annotations.as_mut().expect("annotations");
    let mut report: Report = serde_json::from_str(&annotations[ANNOTATION_REPORT]).expect("a report");
    (report.role, report.phase, report.empty_volume) = (None, Phase::StartingPostgres, true);
    annotations.insert(ANNOTATION_REPORT.to_owned(), json!(report).to_string());
    let conditions = pod.status.as_mut().and_then(|status| status.conditions.as_mut()).expect("conditions");
    conditions[0].status = "False".to_owned();
    pod
}

#[test]
fn an_unknown_last_leader_is_a_question_for_a_person() {
    let names = Names::new("messaging", "chat");
    let mut observation = Observation { system_identifier: Some("7000".to_owned()), ..Observation::default() };
    let condition = |observation: &Observation| crate::operator::instances::lost::leader_unknown(observation, &names);
    observation.holders = vec!["chat-db-0".to_owned()];
    assert!(condition(&observation).is_none(), "it may lead");
    observation.holders = vec![crate::operator::instances::patroni_state::NOBODY.to_owned()];
    let state = condition(&observation).expect("a condition");
    assert!(state.message.contains("kubectl annotate configmap chat-db-sync"), "{}", state.message);
    observation.lease_lives = true;
    assert!(condition(&observation).is_none(), "there is a leader");
}

/// The StatefulSet's controller creates a new claim at once, and its agent waits for a leader.
#[tokio::test]
async fn recreated_empty_volumes_are_lost_data() {
    let mut world = at_rest(MINIMAL).await;
    world.put_pod(empty(0));
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True DataLost");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "False DataLost");
    let message = world.message(kind::STALLED);
    assert!(message.contains("chat-db-0") && message.contains("restore"), "{message}");
    // It is restored, and serves.
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
}

#[test]
fn data_is_not_lost_while_one_instance_has_it_or_may_have_it() {
    let names = Names::new("messaging", "chat");
    let mut observation = Observation { system_identifier: Some("7000".to_owned()), ..Observation::default() };
    observation.volume_claims = (0..2).map(claim).collect();
    observation.pods = vec![observed(&empty(0))];
    let lost = |observation: &Observation| crate::operator::instances::lost::lost(observation, &names, 2).is_some();
    assert!(!lost(&observation), "the second one is unknown");
    observation.pods.push(observed(&pod(1, false)));
    assert!(!lost(&observation));
    observation.pods[1] = observed(&empty(1));
    assert!(lost(&observation));
    observation.system_identifier = None;
    assert!(!lost(&observation), "it is being created");
    // Only the first had every acknowledged commit.
    (observation.system_identifier, observation.pods[1]) = (Some("7000".to_owned()), observed(&pod(1, false)));
    observation.holders = vec!["chat-db-0".to_owned()];
    assert!(lost(&observation));
    observation.holders.push("chat-db-1".to_owned());
    assert!(!lost(&observation), "the second is promoted");
    observation.holders = vec!["chat-db-2".to_owned()];
    assert!(!lost(&observation), "it may return");
}

#[tokio::test]
async fn the_message_of_the_api_server_is_kept() {
    let world = at_rest(MINIMAL).await;
    assert_eq!(world.refusal("chat-db-0").await.expect("an answer"), None);
    world.api.store().refuse("pods", Some("no PriorityClass with name nonsense was found"));
    let message = world.refusal("chat-db-0").await.expect("an answer").expect("a message");
    assert!(message.contains("no PriorityClass with name nonsense"), "{message}");
    assert!(world.get("pods", "chat-db-0-dry-run").is_none());
}

/// A quota of volume claims refuses no pod.
#[tokio::test]
async fn a_refused_missing_volume_claim_is_reported() {
    let world = at_rest(MINIMAL).await;
    let quota = "persistentvolumeclaims \"data-chat-db-1\" is forbidden: exceeded quota: team";
    world.api.store().refuse("persistentvolumeclaims", Some(quota));
    let message = world.claim_refusal("chat-db-1", &[claim(0)]).await.expect("an answer").expect("a message");
    assert!(message.contains(quota) && message.contains("data-chat-db-1"), "{message}");
    assert_eq!(world.claim_refusal("chat-db-0", &[claim(0)]).await.expect("an answer"), None, "it exists");
    assert!(world.get("persistentvolumeclaims", "data-chat-db-1").is_none());
}

/// The running pod could be lost at any time: it must be recreated unchanged.
#[tokio::test]
async fn a_template_whose_pods_would_be_refused_is_not_applied() {
    let mut world = at_rest(MINIMAL).await;
    world.api.store().refuse("pods", Some("no PriorityClass with name nonsense was found"));
    world.edit(|resource| resource["spec"]["scheduling"]["priorityClassName"] = "nonsense".into());
    world.settle().await;
    let class = |world: &World| {
        let set = world.get("statefulsets", "chat-db").expect("the set");
        set["spec"]["template"]["spec"]["priorityClassName"].clone()
    };
    assert_eq!(class(&world), Value::Null);
    assert_eq!(world.condition(kind::STALLED), "True PodRefused");
    assert_eq!(world.condition(kind::READY), "False PodRefused");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
    let message = world.message(kind::STALLED);
    assert!(message.contains("no PriorityClass with name nonsense was found"), "{message}");
    world.api.store().refuse("pods", None);
    world.settle().await;
    assert_eq!(class(&world), "nonsense");
    assert_eq!(world.condition(kind::STALLED), "False NotStalled");
}
