//! Deleted or damaged objects: each is restored at once.

use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::api::names::{LABEL_NAME, LABEL_SCOPE};
use crate::operator::apply::object::ANNOTATION_UID;
use crate::operator::instances::patroni_state::NOBODY;

/// Three instances, with a leader that has recorded its synchronous standby.
async fn at_rest() -> World {
    let mut world = World::new();
    world.create(&MINIMAL.replace("spec:", "spec:\n  instances: 3"));
    world.settle_all().await;
    for (name, key, value) in [
        ("chat-db-leader", "renewTime", "2026-06-01T00:00:00Z"),
        ("chat-db-sync", "leader", "chat-db-0"),
        ("chat-db-sync", "sync_standby", "chat-db-1"),
    ] {
        world.annotate(name, key, value);
    }
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    world
}

fn annotations(world: &World, name: &str) -> Value {
    let found = world.get("configmaps", name).unwrap_or_else(|| panic!("no ConfigMap {name}"));
    found["metadata"]["annotations"].clone()
}

/// Deletes an object and reconciles.
async fn delete(world: &mut World, plural: &str, name: &str) {
    world.api.store().delete(&object(plural, name), &Value::Null).expect("a deletion");
    world.send_watch_events();
    world.settle().await;
}

#[tokio::test]
async fn deleted_objects_are_restored() {
    for (plural, name) in [
        ("configmaps", "chat-db-config"),
        ("configmaps", "chat-db-leader"),
        ("configmaps", "chat-db-failover"),
        ("configmaps", "chat-db-sync"),
        ("configmaps", "chat-db-desired"),
        ("configmaps", "chat-db-approle"),
        ("configmaps", "chat-db-migrator"),
        ("serviceaccounts", "chat-db"),
        ("serviceaccounts", "chat-db-migrator"),
        ("roles", "chat-db"),
        ("rolebindings", "chat-db"),
        ("services", "chat-db"),
        ("services", "chat-db-replicas"),
        ("networkpolicies", "chat-db"),
        ("poddisruptionbudgets", "chat-db"),
        ("poddisruptionbudgets", "chat-db-primary"),
        ("statefulsets", "chat-db"),
    ] {
        let mut world = at_rest().await;
        let before = world.snapshot();
        delete(&mut world, plural, name).await;
        assert_eq!(world.snapshot(), before, "{plural} {name}");
    }
}

#[tokio::test]
async fn damaged_objects_are_restored() {
    type Edit = fn(&mut Value);
    let damages: [(&str, &str, Edit); 25] = [
        ("services", "chat-db", |object| object["spec"]["ports"][0]["port"] = 5433.into()),
        ("services", "chat-db", |object| object["spec"]["selector"]["app"] = "none".into()),
        ("services", "chat-db", |object| {
            object["spec"]["type"] = "NodePort".into();
            object["spec"]["ports"][0]["nodePort"] = 30_000.into();
        }),
        ("services", "chat-db", |object| object["spec"]["externalIPs"] = json!(["192.0.2.1"])),
        ("networkpolicies", "chat-db", |object| {
            object["spec"]["ingress"][0]["from"][0]["namespaceSelector"] = json!({});
        }),
        ("networkpolicies", "chat-db", |object| add(&mut object["spec"]["ingress"], json!({}))),
        ("poddisruptionbudgets", "chat-db", |object| {
            object["spec"]["maxUnavailable"] = 1.into();
            object["spec"].as_object_mut().expect("a spec").remove("minAvailable");
        }),
        ("roles", "chat-db", |object| add(&mut object["rules"][0]["verbs"], "delete".into())),
        ("rolebindings", "chat-db", |object| add(&mut object["subjects"], json!({"kind": "User", "name": "eve"}))),
        ("configmaps", "chat-db-approle", |object| object["data"]["vault-ca.crt"] = "another".into()),
        ("statefulsets", "chat-db", |object| database_container(object)["image"] = "postgres:1".into()),
        ("statefulsets", "chat-db", |object| {
            add(&mut database_container(object)["env"], json!({"name": "PGTZ", "value": "UTC"}));
        }),
        ("statefulsets", "chat-db", |object| {
            database_container(object)["resources"] = json!({"requests": {"cpu": "900m"}});
        }),
        ("statefulsets", "chat-db", |object| {
            object["spec"]["template"]["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "now"});
        }),
        ("services", "chat-db", |object| object["metadata"]["ownerReferences"] = json!([])),
        ("services", "chat-db", |object| object["metadata"]["labels"] = json!({})),
        ("services", "chat-db-peers", |object| object["spec"]["clusterIP"] = "10.0.0.9".into()),
        ("networkpolicies", "chat-db", |object| object["metadata"]["labels"][LABEL_NAME] = "shop".into()),
        ("poddisruptionbudgets", "chat-db", |object| object["spec"]["minAvailable"] = 0.into()),
        ("roles", "chat-db", |object| object["rules"] = json!([])),
        ("rolebindings", "chat-db", |object| object["subjects"] = json!([])),
        ("configmaps", "chat-db-approle", |object| object["data"] = json!({})),
        ("configmaps", "chat-db-sync", |object| object["metadata"]["labels"] = json!({LABEL_SCOPE: "shop-db"})),
        ("configmaps", "chat-db-config", |object| object["metadata"]["annotations"][ANNOTATION_UID] = "another".into()),
        ("configmaps", "chat-db-config", |object| {
            object["metadata"]["annotations"].as_object_mut().expect("annotations").remove("initialize");
        }),
    ];
    for (plural, name, damage) in damages {
        let mut world = at_rest().await;
        let before = world.snapshot();
        world.api.store().edit(&object(plural, name), damage);
        world.send_watch_events();
        world.settle().await;
        assert_eq!(world.snapshot(), before, "{plural} {name}");
        assert_eq!(world.condition(kind::READY), "True Ready", "{plural} {name}");
    }
}

fn add(list: &mut Value, entry: Value) {
    list.as_array_mut().expect("a list").push(entry);
}

fn database_container(set: &mut Value) -> &mut Value {
    &mut set["spec"]["template"]["spec"]["containers"][0]
}

#[tokio::test]
async fn objects_that_cannot_be_patched_are_replaced() {
    let mut world = at_rest().await;
    let before = world.snapshot();
    let service = object("services", "chat-db");
    let uid = |world: &World| world.get("services", "chat-db").map(|service| service["metadata"]["uid"].clone());
    let first = uid(&world);
    world.api.store().edit(&service, |service| service["spec"]["externalIPs"] = json!(["192.0.2.1"]));
    world.api.store().refuse_changes(Some(service));
    world.send_watch_events();
    world.settle().await;
    assert_eq!(world.snapshot(), before);
    assert_ne!(uid(&world), first);
}

#[tokio::test]
async fn the_others_are_restored_if_one_object_fails() {
    let mut world = at_rest().await;
    let before = world.snapshot();
    world.api.store().edit(&object("services", "chat-db"), |service| {
        service["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Deployment", "name": "x", "uid": "x", "controller": true}]);
    });
    world
        .api
        .store()
        .edit(&object("networkpolicies", "chat-db"), |policy| add(&mut policy["spec"]["ingress"], json!({})));
    world.api.store().edit(&object("statefulsets", "chat-db"), |set| database_container(set)["image"] = "i".into());
    world.send_watch_events();
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True ObjectConflict");
    let after = world.snapshot();
    for name in ["networkpolicies/chat-db", "statefulsets/chat-db", "rolebindings/chat-db"] {
        assert_eq!(after[name], before[name], "{name}");
    }
}

/// An admission webhook that changes every object must not cause endless writes.
#[tokio::test]
async fn additions_of_the_api_server_are_kept() {
    let mut world = at_rest().await;
    world.api.store().admit_with("statefulsets", |set| {
        set["spec"]["template"]["metadata"]["annotations"] = json!({"policy": "seen"});
    });
    let set = object("statefulsets", "chat-db");
    for image in ["postgres:1", "postgres:2"] {
        world.api.store().edit(&set, |set| database_container(set)["image"] = image.into());
        world.send_watch_events();
        world.settle_all().await;
        let live = world.get("statefulsets", "chat-db").expect("the StatefulSet");
        assert_eq!(live["spec"]["template"]["metadata"]["annotations"]["policy"], "seen");
        assert_ne!(live["spec"]["template"]["spec"]["containers"][0]["image"], image);
        assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    }
    world.restart();
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
}

/// A missed event of a deletion must not leave a database without the object.
#[tokio::test]
async fn a_deletion_without_an_event_is_found_when_the_object_is_read() {
    for (plural, name) in
        [("configmaps", "chat-db-desired"), ("configmaps", "chat-db-approle"), ("statefulsets", "chat-db")]
    {
        let mut world = at_rest().await;
        let before = world.snapshot();
        world.api.store().delete(&object(plural, name), &Value::Null).expect("a deletion");
        world.reconcile().await.expect("a reconcile");
        world.settle().await;
        assert_eq!(world.snapshot(), before, "{plural} {name}");
    }
}

#[tokio::test]
async fn without_the_deleted_content_no_member_becomes_a_candidate_and_nothing_is_initialised() {
    let mut world = at_rest().await;
    for name in ["chat-db-config", "chat-db-sync"] {
        world.api.store().delete(&object("configmaps", name), &Value::Null).expect("a deletion");
    }
    world.restart();
    world.settle().await;
    let config = annotations(&world, "chat-db-config");
    assert_eq!(config["initialize"], "7000000000000000000");
    let configuration: Value = serde_json::from_str(config["config"].as_str().expect("text")).expect("JSON");
    assert_eq!(configuration["synchronous_mode"], true);
    let sync = annotations(&world, "chat-db-sync");
    assert_eq!((&sync["leader"], sync.get("sync_standby")), (&json!("chat-db-0"), None), "only the leader");
}

#[tokio::test]
async fn with_an_unknown_leader_no_member_may_lead() {
    let mut world = at_rest().await;
    world.end_pods();
    for name in ["chat-db-leader", "chat-db-sync"] {
        world.api.store().delete(&object("configmaps", name), &Value::Null).expect("a deletion");
    }
    world.restart();
    world.settle().await;
    assert_eq!(annotations(&world, "chat-db-sync")["leader"], NOBODY);
    assert_eq!(annotations(&world, "chat-db-leader").get("leader"), None);
}
