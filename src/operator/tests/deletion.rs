//! Deletion: in which order, what stays and what goes.

use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::migrations::{MIGRATIONS, WITH_MIGRATIONS};
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::vault::VaultError;

async fn at_rest(policy: &str) -> World {
    let mut world = World::new();
    world.create(MIGRATIONS);
    world.create(&format!("{WITH_MIGRATIONS}  deletionPolicy: {policy}\n  clients: [{{serviceAccountName: chat}}]\n"));
    world.settle_all().await;
    assert!(world.get("statefulsets", "chat-db").is_some());
    world
}

fn delete(world: &World) {
    world.api.store().delete(&object("servicedatabases", "chat"), &Value::Null).expect("a deletion");
}

fn remaining(world: &World) -> Vec<String> {
    let store = world.api.store();
    let objects = store.all().keys().filter(|(plural, ..)| plural != "events");
    objects.map(|(plural, _, name)| format!("{plural}/{name}")).collect()
}

#[tokio::test]
async fn first_what_runs_then_vault_then_the_finalizer() {
    for policy in ["Retain", "Delete"] {
        let mut world = at_rest(policy).await;
        delete(&world);
        let sent = world.settle().await;
        assert!(sent[0].starts_with("DELETE jobs chat-db-migrate-"), "{sent:?}");
        assert_eq!(sent[1], "DELETE statefulsets chat-db");
        assert!(sent[2..].iter().all(|call| call.contains("/status") || call.contains(" events ")), "{sent:?}");
        let status = world.resource().status.expect("a status");
        assert!(status.deletion_waits_for.is_some_and(|waits| waits.contains("chat-db-0")));
        assert_eq!(world.told(kind::READY), "False Deleting");
        assert_eq!(world.vault.content().approles.len(), 2, "the pods still run");

        world.end_pods();
        let sent = world.settle().await;
        let place = |call: &str| {
            sent.iter().position(|sent| sent.starts_with(call)).unwrap_or_else(|| panic!("{call}: {sent:?}"))
        };
        assert!(place("delete approle") < place("delete policy"), "a role without its policy still lets in");
        assert!(place("delete policy") < place("MERGE servicedatabases chat"));
        assert_eq!(sent.last().map(String::as_str), Some("MERGE servicedatabases chat"), "{sent:?}");
        assert!(world.get("servicedatabases", "chat").is_none());
    }
}

#[tokio::test]
async fn retain_keeps_the_data_and_its_credentials() {
    let mut world = at_rest("Retain").await;
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.settle().await;
    assert_eq!(
        remaining(&world),
        [
            "configmaps/chat-db-config",
            "configmaps/chat-db-failover",
            "configmaps/chat-db-leader",
            "configmaps/chat-db-sync",
            "configmaps/chat-migrations",
            "persistentvolumeclaims/data-chat-db-0",
            "secrets/chat-db-ca",
        ]
    );
    let vault = world.vault.content();
    assert_eq!((vault.policies.len(), vault.approles.len(), vault.kubernetes_roles.len()), (0, 0, 0));
    let records: Vec<_> = vault.kv.keys().map(String::as_str).collect();
    assert_eq!(records, ["dev/messaging/chat/migrator", "dev/messaging/chat/runtime"]);

    // A new resource of this name does not take it over.
    world.create(&MINIMAL.replace("uid-of-chat", "uid-of-its-successor"));
    world.settle().await;
    assert_eq!(world.told(kind::STALLED), "True RetainedDataFound");
}

/// An empty database under the name of a full one would be a lie: nothing is made anew unasked.
#[tokio::test]
async fn volumes_that_are_gone_from_under_a_living_resource_are_lost_data() {
    let mut world = at_rest("Retain").await;
    for (plural, name) in [("statefulsets", "chat-db"), ("persistentvolumeclaims", "data-chat-db-0")] {
        let mut store = world.api.store();
        store.edit(&object(plural, name), |object| object["metadata"]["finalizers"] = json!([]));
        store.delete(&object(plural, name), &Value::Null).expect("a deletion");
    }
    world.end_pods();
    world.settle().await;
    assert_eq!(world.told(kind::STALLED), "True DataLost");
    assert!(world.get("statefulsets", "chat-db").is_none());
}

#[tokio::test]
async fn delete_leaves_nothing() {
    let mut world = at_rest("Delete").await;
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.settle().await;
    assert_eq!(remaining(&world), ["configmaps/chat-migrations"], "which is the team's");
    let vault = world.vault.content();
    assert_eq!(
        (vault.policies.len(), vault.approles.len(), vault.kubernetes_roles.len(), vault.kv.len()),
        (0, 0, 0, 0)
    );
}

#[tokio::test]
async fn a_bad_spec_does_not_block() {
    let mut world = at_rest("Delete").await;
    world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
        resource["spec"]["instances"] = 99.into();
        resource["spec"]["database"] = "pg_x".into();
    });
    world.settle().await;
    assert_eq!(world.told(kind::STALLED), "True InvalidSpec");
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none());
}

#[tokio::test]
async fn before_anything_was_made_it_is_over_at_once() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.reconcile().await.expect("a finalizer");
    delete(&world);
    world.settle().await;
    assert_eq!(remaining(&world), Vec::<String>::new());
}

#[tokio::test]
async fn vault_away_holds_it_and_says_so() {
    let mut world = at_rest("Delete").await;
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.vault.set_down(Some(VaultError::Unreachable { address: "x".to_owned(), problem: "timeout".to_owned() }));
    world.settle().await;
    assert!(world.reconcile().await.is_err(), "it is tried again with backoff");
    let waits = world.resource().status.and_then(|status| status.deletion_waits_for).expect("a reason");
    assert!(waits.contains("Vault"), "{waits}");
    assert!(world.get("persistentvolumeclaims", "data-chat-db-0").is_some(), "the data goes with its credentials");
    world.vault.set_down(None);
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none());
}

#[tokio::test]
async fn what_is_somebody_elses_stays() {
    let mut world = World::new();
    let stamp = json!({"servicedb.dev/uid": "uid-of-an-earlier-one"});
    let owner = json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "uid-of-x", "controller": true}]);
    let labels = json!({"servicedb.dev/name": "chat"});
    for (plural, version, kind, name) in [
        ("statefulsets", "apps/v1", "StatefulSet", "chat-db"),
        ("jobs", "batch/v1", "Job", "chat-db-migrate-0123456789"),
        ("configmaps", "v1", "ConfigMap", "chat-db-config"),
        ("secrets", "v1", "Secret", "chat-db-ca"),
        ("persistentvolumeclaims", "v1", "PersistentVolumeClaim", "data-chat-db-0"),
    ] {
        let metadata = json!({"name": name, "annotations": stamp, "labels": labels, "ownerReferences": owner});
        let foreign = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        world.api.store().create(&object(plural, name), foreign, "somebody").expect("an object");
    }
    let before = remaining(&world);
    world.create(&format!("{MINIMAL}  deletionPolicy: Delete\n"));
    world.settle().await;
    delete(&world);
    let sent = world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none());
    assert_eq!(remaining(&world), before);
    assert!(!sent.iter().any(|call| call.starts_with("DELETE")), "{sent:?}");
}
