//! Objects without their owner reference, claims without their labels, and volumes that another
//! client made larger.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::migrations::{MIGRATIONS, WITH_MIGRATIONS, finish_job};
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::api::names::{LABEL_NAME, LABEL_SCOPE};
use crate::operator::apply::object::ANNOTATION_UID;

const SUCCESSOR: &str = "uid-of-its-successor";

fn declared(policy: &str) -> String {
    format!(
        "{WITH_MIGRATIONS}  deletionPolicy: {policy}\n  instances: 3\n  credentials: {{secret: {{name: chat-credentials}}}}\n"
    )
}

/// Simulates the garbage collector for a resource that is deleted with `--cascade=orphan`.
fn collect_orphans(world: &World) {
    let mut store = world.api.store();
    let keys: Vec<_> = store.all().keys().cloned().collect();
    for key in keys {
        store.edit(&key, |object| {
            let references = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
            if let Some(references) = references {
                references.retain(|reference| reference["uid"] != "uid-of-chat");
            }
        });
    }
    let resource = object("servicedatabases", "chat");
    if store.get(&resource).is_ok() {
        store.edit(&resource, |resource| {
            let finalizers = resource["metadata"]["finalizers"].as_array_mut().expect("finalizers");
            finalizers.retain(|finalizer| finalizer != "orphan");
        });
    }
}

/// Deletes the resource with `--cascade=orphan`; returns the requests of the operator.
async fn delete_with_orphans(world: &mut World, collector_is_first: bool) -> Vec<String> {
    let resource = object("servicedatabases", "chat");
    world.api.store().edit(&resource, |resource| {
        resource["metadata"]["finalizers"].as_array_mut().expect("finalizers").push("orphan".into());
    });
    world.api.store().delete(&resource, &Value::Null).expect("a deletion");
    if collector_is_first {
        collect_orphans(world);
    }
    let sent = world.settle().await;
    collect_orphans(world);
    assert!(world.get("servicedatabases", "chat").is_none(), "the resource is gone");
    sent
}

/// The objects of the database, by kind and name, with their uids.
fn objects(world: &World) -> BTreeMap<String, String> {
    let store = world.api.store();
    let ours = store.all().iter().filter(|(_, object)| object["metadata"]["labels"][LABEL_NAME] == "chat");
    let uid = |object: &Value| object["metadata"]["uid"].as_str().expect("a uid").to_owned();
    ours.map(|((plural, _, name), object)| (format!("{plural}/{name}"), uid(object))).collect()
}

#[tokio::test]
async fn orphaned_objects_of_every_kind_are_adopted() {
    for (policy, collector_is_first) in [("Retain", true), ("Retain", false), ("Delete", true), ("Delete", false)] {
        let mut world = World::new();
        world.create(MIGRATIONS);
        world.create(&declared(policy));
        world.settle_all().await;
        finish_job(&mut world);
        world.settle_all().await;
        assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
        let before = objects(&world);
        let template =
            |world: &World| world.get("statefulsets", "chat-db").expect("the set")["spec"]["template"].clone();
        let template_before = template(&world);

        let sent = delete_with_orphans(&mut world, collector_is_first).await;
        let deleted: Vec<_> = sent.iter().filter(|call| call.starts_with("DELETE")).collect();
        assert!(deleted.is_empty(), "{policy}: {deleted:?}");
        assert_eq!(objects(&world), before, "{policy}: the pods continue to run, and their data is kept");
        assert_eq!(world.vault.content().kv.len(), 2, "{policy}: the records are kept with the data");

        world.create(&declared(policy).replace("uid-of-chat", SUCCESSOR));
        world.settle().await;
        assert_eq!(world.condition(kind::STALLED), "True RetainedDataFound");
        let message = world.message(kind::STALLED);
        assert!(message.contains("whose pods are running"), "{message}");
        assert!(message.contains("delete the StatefulSet chat-db and them"), "{message}");
        assert_eq!(objects(&world), before, "{policy}: nothing is adopted without a request");

        world.edit(|resource| {
            resource["spec"]["bootstrap"] = json!({"adopt": true});
            resource["spec"]["storage"]["storageClassName"] = "of-the-successor".into();
        });
        world.settle_all().await;
        assert_eq!(world.condition(kind::READY), "True Ready", "{policy}: {}", world.message(kind::READY));
        // The claim template of a StatefulSet is immutable, so it is recreated without its pods.
        let but_the_set = |mut objects: BTreeMap<String, String>| {
            objects.remove("statefulsets/chat-db");
            objects
        };
        let stayed = but_the_set(before);
        assert_eq!(but_the_set(objects(&world)), stayed, "{policy}: each object is the orphaned one");
        let set = world.get("statefulsets", "chat-db").expect("the set");
        let claim = &set["spec"]["volumeClaimTemplates"][0];
        let uid = &claim["metadata"]["annotations"][ANNOTATION_UID];
        assert_eq!(uid, SUCCESSOR, "{policy}: a new volume is the new resource's");
        let class = &claim["spec"]["storageClassName"];
        assert_eq!(
            class, "of-the-successor",
            "{policy}: a new volume is of the declared class, those that exist keep theirs"
        );
        assert_eq!(template(&world), template_before, "no pod is replaced");
        for (plural, name) in objects(&world).keys().map(|key| key.split_once('/').expect("kind and name")) {
            let metadata = world.get(plural, name).expect("an object")["metadata"].clone();
            let uid = match &metadata["annotations"][ANNOTATION_UID] {
                Value::Null => &metadata["ownerReferences"][0]["uid"],
                stamp => stamp,
            };
            assert_eq!(uid, SUCCESSOR, "{policy}: {plural}/{name}");
        }
        let generation = world.resource().status.and_then(|status| status.credentials).map(|found| found.generation);
        assert_eq!(generation, Some(1), "no new password");
    }
}

/// The StatefulSet is away for a moment while it is recreated; the Service then tells that the
/// garbage collector has orphaned the objects.
#[tokio::test]
async fn orphans_are_kept_while_the_stateful_set_is_being_recreated() {
    let mut world = World::new();
    world.create(&declared("Delete"));
    world.settle_all().await;
    world.api.store().delete(&object("statefulsets", "chat-db"), &Value::Null).expect("a deletion");
    let sent = delete_with_orphans(&mut world, true).await;
    let deleted: Vec<_> = sent.iter().filter(|call| call.starts_with("DELETE")).collect();
    assert!(deleted.is_empty(), "{deleted:?}");
}

#[tokio::test]
async fn a_secret_that_lost_its_owner_gets_it_back() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    for name in ["chat-db-tls", "chat-db-approle", "chat-db-migrator"] {
        let data = world.get("secrets", name).expect("a Secret")["data"].clone();
        world.api.store().edit(&object("secrets", name), |secret| secret["metadata"]["ownerReferences"] = json!([]));
        world.restart();
        world.settle().await;
        let secret = world.get("secrets", name).expect("a Secret");
        assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "uid-of-chat", "{name}");
        assert_eq!(secret["data"], data, "{name}");
    }
    // Without its labels the owner of a Secret is unknown.
    world.api.store().edit(&object("secrets", "chat-db-tls"), |secret| {
        secret["metadata"]["ownerReferences"] = json!([]);
        secret["metadata"]["labels"] = json!({});
    });
    world.restart();
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True ObjectConflict");
}

fn without_labels(world: &World) {
    let claim = object("persistentvolumeclaims", "data-chat-db-0");
    world.api.store().edit(&claim, |claim| claim["metadata"]["labels"] = json!({}));
}

#[tokio::test]
async fn data_is_found_by_the_name_of_its_claim() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    world.api.store().delete(&object("servicedatabases", "chat"), &Value::Null).expect("a deletion");
    world.settle().await;
    world.end_pods();
    world.settle().await;
    without_labels(&world);
    world.create(&MINIMAL.replace("uid-of-chat", SUCCESSOR));
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True RetainedDataFound");
    assert!(world.message(kind::STALLED).contains("data-chat-db-0"), "{}", world.message(kind::STALLED));
    assert!(world.get("statefulsets", "chat-db").is_none());
    world.edit(|resource| resource["spec"]["bootstrap"] = json!({"adopt": true}));
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    let labels =
        world.get("persistentvolumeclaims", "data-chat-db-0").expect("the claim")["metadata"]["labels"].clone();
    assert_eq!((&labels[LABEL_NAME], &labels[LABEL_SCOPE]), (&json!("chat"), &json!("chat-db")));
}

#[tokio::test]
async fn a_claim_without_its_labels_gets_them_back_and_is_deleted_with_its_resource() {
    for labelled in [true, false] {
        let mut world = World::new();
        world.create(&format!("{MINIMAL}  deletionPolicy: Delete\n"));
        world.settle_all().await;
        without_labels(&world);
        if labelled {
            world.settle().await;
            let claim = world.get("persistentvolumeclaims", "data-chat-db-0").expect("the claim");
            assert_eq!(claim["metadata"]["labels"], json!({LABEL_NAME: "chat", LABEL_SCOPE: "chat-db"}));
        }
        world.api.store().delete(&object("servicedatabases", "chat"), &Value::Null).expect("a deletion");
        world.settle().await;
        world.end_pods();
        world.settle().await;
        assert!(world.get("persistentvolumeclaims", "data-chat-db-0").is_none(), "labelled: {labelled}");
    }
}

fn events(world: &World, reason: &str) -> Vec<String> {
    let store = world.api.store();
    let of = store.all().iter().filter(|((plural, ..), event)| plural == "events" && event["reason"] == reason);
    of.map(|(_, event)| event["note"].as_str().unwrap_or_default().to_owned()).collect()
}

/// As by an autoscaler of volumes.
#[tokio::test]
async fn a_volume_that_is_larger_than_declared_is_kept_and_reported() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    let claim = object("persistentvolumeclaims", "data-chat-db-0");
    let size = |world: &World| {
        let claim = world.get("persistentvolumeclaims", "data-chat-db-0").expect("the claim");
        claim["spec"]["resources"]["requests"]["storage"].clone()
    };
    for (grown, count) in [("2Gi", 1), ("3Gi", 2)] {
        world.api.store().edit(&claim, |claim| claim["spec"]["resources"]["requests"]["storage"] = grown.into());
        world.settle_all().await;
        assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
        let message = world.message(kind::READY);
        assert!(message.contains(&format!("a volume has {grown}, more than spec.storage.size (1Gi)")), "{message}");
        assert_eq!(size(&world), grown, "it is never reduced");
        let set = world.get("statefulsets", "chat-db").expect("the set");
        let new = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
        assert_eq!(new, grown, "a new instance has room for a copy");
        assert_eq!(events(&world, "VolumeLarger").len(), count, "an event for each size");
    }
    world.edit(|resource| resource["spec"]["storage"]["size"] = "3Gi".into());
    world.settle_all().await;
    assert_eq!(world.message(kind::READY), "the database serves as declared");
}

/// The default of the CRD, so that a resource without a status does not appear reconciled.
#[tokio::test]
async fn the_default_status_of_the_schema_is_replaced() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}status: {{observedGeneration: -1}}\n"));
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    assert_eq!(world.resource().status.and_then(|status| status.observed_generation), Some(1));
}
