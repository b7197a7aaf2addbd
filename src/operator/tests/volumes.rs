//! Volumes: none goes that the spec did not give up, a pod that keeps the only copy is not touched,
//! and lost data is told as lost.

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

/// A database of which so many pods run, and the first leads, and what is decided.
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

    /// So many pods run, and this one leads.
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
            now: time("2026-03-01T12:00:00Z"),
        })
    }

    fn next_removal(&self) -> Option<String> {
        given_up::next(&self.database, &self.observed, &self.decide()).map(ResourceExt::name_any)
    }

    fn only_copy(&self) -> Option<String> {
        let word = Members::new(&self.observed, self.database.names(), self.database.instances).word();
        word.map(|word| word.message)
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

/// Two of three were taken away by the spec, and the operator marked their claims.
fn scaled_down() -> Scene {
    let mut scene = Scene::of(1, 1);
    scene.observed.volume_claims = (0..3).map(claim).collect();
    for claim in &mut scene.observed.volume_claims[1..] {
        claim.annotations_mut().insert(ANNOTATION_GIVEN_UP.to_owned(), "true".to_owned());
    }
    scene
}

#[test]
fn volumes_of_a_declared_scale_down_go_one_by_one() {
    let mut scene = scaled_down();
    assert_eq!(scene.next_removal().as_deref(), Some("data-chat-db-2"));
    let now = serde_json::from_value(json!("2026-03-01T12:00:00Z")).expect("a time");
    scene.observed.volume_claims[2].metadata.deletion_timestamp = Some(now);
    assert_eq!(scene.next_removal(), None, "one at a time");
    scene.observed.volume_claims.pop();
    assert_eq!(scene.next_removal().as_deref(), Some("data-chat-db-1"));
}

#[test]
fn no_volume_goes_unless_all_that_stay_serve_and_one_leads() {
    type Change = fn(&mut Scene);
    let changes: [(&str, Change); 8] = [
        ("no instance leads", |scene| scene.observed.leader = None),
        ("the instance that stays does not serve", |scene| scene.pod(0).ready = false),
        ("its own volume ends", |scene| scene.pod(0).volume_end = Some(VolumeEnd::Deleted)),
        ("the pod is still there", |scene| {
            for ordinal in [1, 2] {
                scene.observed.pods.push(observed(&pod(ordinal, false)));
            }
        }),
        ("the StatefulSet is scaled by another hand", |scene| scene.observed.stateful_set = Some(set(0))),
        ("its controller has not seen the spec", |scene| {
            scene.observed.stateful_set.as_mut().expect("a set").metadata.generation = Some(8);
        }),
        ("the spec keeps volumes", |scene| scene.database = database(MINIMAL)),
        ("no declared scale-down took the instances away", |scene| {
            scene.observed.volume_claims = (0..3).map(claim).collect();
        }),
    ];
    for (why, change) in changes {
        let mut scene = scaled_down();
        change(&mut scene);
        assert_eq!(scene.next_removal(), None, "{why}");
    }
    // Commits wait for a standby, and none that stays is recorded.
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
fn the_only_copy_is_not_touched_and_the_way_out_is_told() {
    for end in [VolumeEnd::Deleted, VolumeEnd::Missing, VolumeEnd::Lost] {
        let mut scene = Scene::of(1, 1);
        scene.pod(0).volume_end = Some(end);
        let decision = scene.decide();
        assert_eq!((replaced(&decision), decision.keep_pods), (None, true));
        let told = scene.only_copy().expect("words");
        assert!(told.contains("set spec.instances to 2") && told.contains("data-chat-db-0"), "{told}");
        // Another template, and even a pod that runs nothing any more.
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
    assert_eq!(decision.under_way.expect("a word").reason, "VolumeTerminating");
    assert_eq!(scene.only_copy(), None);
    scene.lead(2, 1);
    assert_eq!(replaced(&scene.decide()), Some("chat-db-0"));
    scene.pod(1).ready = false;
    assert_eq!(replaced(&scene.decide()), None);
    assert!(scene.only_copy().is_some(), "the one that leads now is not ready");
    scene.pod(1).ready = true;
    scene.pod(0).volume_end = Some(VolumeEnd::Lost);
    assert_eq!(replaced(&scene.decide()), None, "another pod could not mount it");
}

#[test]
fn the_lead_does_not_go_to_an_instance_whose_volume_ends() {
    let mut scene = Scene::of(2, 2);
    for ordinal in 0..2 {
        scene.pod(ordinal).volume_end = Some(VolumeEnd::Deleted);
    }
    let decision = scene.decide();
    assert_eq!((successor(&decision), replaced(&decision), decision.keep_pods), (None, None, true));
    assert!(scene.only_copy().expect("words").contains("set spec.instances to 3"));
    // A third, which has a volume that lasts: then the replica, then the lead, then the former primary.
    scene.database.instances = 3;
    scene.lead(3, 0);
    assert_eq!((scene.only_copy(), replaced(&scene.decide())), (None, Some("chat-db-1")));
    scene.pod(1).volume_end = None;
    assert_eq!(successor(&scene.decide()), Some("chat-db-1"));
}

#[test]
fn nobody_is_taken_away_while_the_volume_of_one_that_stays_ends() {
    let mut scene = Scene::of(1, 2);
    scene.report(0).synchronous_standbys = vec![];
    assert_eq!(scene.decide().replicas, 1);
    scene.pod(0).volume_end = Some(VolumeEnd::Deleted);
    let decision = scene.decide();
    assert_eq!((decision.replicas, decision.members), (2, 2));
    assert!(decision.under_way.expect("a word").message.contains("set spec.instances back to 2"));
    scene.pod(0).volume_end = None;
    scene.pod(1).volume_end = Some(VolumeEnd::Deleted);
    assert_eq!(scene.decide().replicas, 1, "the volume of one that goes is no matter");
}

#[test]
fn a_pod_whose_successor_would_be_refused_is_kept_and_others_with_it() {
    let mut scene = Scene::of(3, 3);
    (scene.revision, scene.refused) = ("newer", Some("no PriorityClass with name nonsense was found"));
    let decision = scene.decide();
    assert_eq!((replaced(&decision), successor(&decision)), (None, None));
    let told = decision.refused.expect("words");
    assert!(told.contains("chat-db-2 is kept") && told.contains("no PriorityClass"), "{told}");
    scene.refused = None;
    let decision = scene.decide();
    assert_eq!((replaced(&decision), &decision.refused), (Some("chat-db-2"), &None));
}

async fn at_rest(yaml: &str) -> World {
    let mut world = World::new();
    world.create(yaml);
    world.settle_all().await;
    assert_eq!(world.told(kind::READY), "True Ready", "{}", world.message(kind::READY));
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
        // In between the fields of the creation are made our own, which changes nothing of it.
        let last = if paused { "MERGE statefulsets chat-db" } else { "APPLY statefulsets chat-db" };
        assert_eq!((sent.first(), sent.last()), (Some(&"MERGE statefulsets chat-db"), Some(&last)), "{sent:?}");
        assert!(!paused || sent.len() == 1, "{sent:?}");
        let live = world.get("statefulsets", "chat-db").expect("the set");
        assert_eq!(live["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"], "Retain");
        assert_eq!(live["spec"]["replicas"], i32::from(!paused));
    }
}

#[tokio::test]
async fn a_claim_that_is_deleted_is_told_also_while_paused() {
    let mut world = at_rest(MINIMAL).await;
    let claim = object("persistentvolumeclaims", "data-chat-db-0");
    {
        let mut store = world.api.store();
        store.edit(&claim, |claim| claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]));
        store.delete(&claim, &Value::Null).expect("a deletion");
    }
    world.settle().await;
    assert_eq!(world.told(kind::STALLED), "True VolumeTerminating");
    assert_eq!(world.told(kind::READY), "False VolumeTerminating");
    assert_eq!(world.told(kind::DATABASE_AVAILABLE), "True Available");
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
fn a_person_is_asked_who_led_last_where_nobody_knows() {
    let names = Names::new("messaging", "chat");
    let mut observation = Observation { system_identifier: Some("7000".to_owned()), ..Observation::default() };
    let told = |observation: &Observation| crate::operator::instances::lost::nobody_knows(observation, &names);
    observation.holders = vec!["chat-db-0".to_owned()];
    assert!(told(&observation).is_none(), "it may lead");
    observation.holders = vec![crate::operator::instances::patroni_state::NOBODY.to_owned()];
    let word = told(&observation).expect("a word");
    assert!(word.message.contains("kubectl annotate configmap chat-db-sync"), "{}", word.message);
    observation.lease_lives = true;
    assert!(told(&observation).is_none(), "somebody leads");
}

/// The StatefulSet's controller makes a new claim at once, and its agent waits for a leader.
#[tokio::test]
async fn volumes_that_were_made_anew_and_are_empty_are_lost_data() {
    let mut world = at_rest(MINIMAL).await;
    world.put_pod(empty(0));
    world.settle().await;
    assert_eq!(world.told(kind::STALLED), "True DataLost");
    assert_eq!(world.told(kind::DATABASE_AVAILABLE), "False DataLost");
    let told = world.message(kind::STALLED);
    assert!(told.contains("chat-db-0") && told.contains("restore"), "{told}");
    // It is restored, and serves.
    world.settle_all().await;
    assert_eq!(world.told(kind::READY), "True Ready");
}

#[test]
fn data_is_not_lost_while_one_instance_has_it_or_may_have_it() {
    let names = Names::new("messaging", "chat");
    let mut observation = Observation { system_identifier: Some("7000".to_owned()), ..Observation::default() };
    observation.volume_claims = (0..2).map(claim).collect();
    observation.pods = vec![observed(&empty(0))];
    let lost = |observation: &Observation| crate::operator::instances::lost::lost(observation, &names, 2).is_some();
    assert!(!lost(&observation), "of the second nothing is known");
    observation.pods.push(observed(&pod(1, false)));
    assert!(!lost(&observation));
    observation.pods[1] = observed(&empty(1));
    assert!(lost(&observation));
    observation.system_identifier = None;
    assert!(!lost(&observation), "it is being made");
    // Only the first had every acknowledged row.
    (observation.system_identifier, observation.pods[1]) = (Some("7000".to_owned()), observed(&pod(1, false)));
    observation.holders = vec!["chat-db-0".to_owned()];
    assert!(lost(&observation));
    observation.holders.push("chat-db-1".to_owned());
    assert!(!lost(&observation), "the second is promoted");
    observation.holders = vec!["chat-db-2".to_owned()];
    assert!(!lost(&observation), "it may come back");
}

#[tokio::test]
async fn the_words_of_the_api_server_are_kept() {
    let world = at_rest(MINIMAL).await;
    assert_eq!(world.refusal("chat-db-0").await.expect("an answer"), None);
    world.api.store().refuse("pods", Some("no PriorityClass with name nonsense was found"));
    let told = world.refusal("chat-db-0").await.expect("an answer").expect("words");
    assert!(told.contains("no PriorityClass with name nonsense"), "{told}");
    assert!(world.get("pods", "chat-db-0-dry-run").is_none());
}

/// The pod that runs could be lost at any moment: it must come back as it is.
#[tokio::test]
async fn a_template_whose_pods_would_be_refused_does_not_come_into_the_set() {
    let mut world = at_rest(MINIMAL).await;
    world.api.store().refuse("pods", Some("no PriorityClass with name nonsense was found"));
    world.edit(|resource| resource["spec"]["scheduling"]["priorityClassName"] = "nonsense".into());
    world.settle().await;
    let class = |world: &World| {
        let set = world.get("statefulsets", "chat-db").expect("the set");
        set["spec"]["template"]["spec"]["priorityClassName"].clone()
    };
    assert_eq!(class(&world), Value::Null);
    assert_eq!(world.told(kind::STALLED), "True PodRefused");
    assert_eq!(world.told(kind::READY), "False PodRefused");
    assert_eq!(world.told(kind::DATABASE_AVAILABLE), "True Available");
    let told = world.message(kind::STALLED);
    assert!(told.contains("no PriorityClass with name nonsense was found"), "{told}");
    world.api.store().refuse("pods", None);
    world.settle().await;
    assert_eq!(class(&world), "nonsense");
    assert_eq!(world.told(kind::STALLED), "False NotStalled");
}
