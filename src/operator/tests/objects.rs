//! Objects that somebody deletes or damages: each is back at once, as it was.

use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::api::names::{LABEL_NAME, LABEL_SCOPE};
use crate::operator::apply::object::ANNOTATION_UID;
use crate::operator::instances::patroni_state::NOBODY;

/// Three instances, under a leader who has written down its synchronous standby.
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
    assert_eq!(world.told(kind::READY), "True Ready", "{}", world.message(kind::READY));
    world
}

fn annotations(world: &World, name: &str) -> Value {
    let found = world.get("configmaps", name).unwrap_or_else(|| panic!("no ConfigMap {name}"));
    found["metadata"]["annotations"].clone()
}

/// Deletes an object and lets the operator work.
async fn delete(world: &mut World, plural: &str, name: &str) {
    world.api.store().delete(&object(plural, name), &Value::Null).expect("a deletion");
    world.tell_watches();
    world.settle().await;
}

#[tokio::test]
async fn what_is_deleted_comes_back_as_it_was() {
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
async fn what_is_damaged_is_as_it_was() {
    type Edit = fn(&mut Value);
    let damages: [(&str, &str, Edit); 11] = [
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
        world.tell_watches();
        world.settle().await;
        assert_eq!(world.snapshot(), before, "{plural} {name}");
        assert_eq!(world.told(kind::READY), "True Ready", "{plural} {name}");
    }
}

#[tokio::test]
async fn without_a_watch_that_told_what_it_held_nobody_is_freed_and_nothing_is_initialised() {
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
    assert_eq!((&sync["leader"], sync.get("sync_standby")), (&json!("chat-db-0"), None), "the leader alone");
}

#[tokio::test]
async fn where_nobody_knows_who_led_nobody_may_lead() {
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
