//! Deletion: the order, and the objects that are kept or removed.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::api_server::key;
use super::fixtures::MINIMAL;
use super::migrations::{MIGRATIONS, WITH_MIGRATIONS};
use super::world::{World, names, object};
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
async fn running_objects_then_vault_then_the_finalizer() {
    for policy in ["Retain", "Delete"] {
        let mut world = at_rest(policy).await;
        delete(&world);
        let sent = world.settle().await;
        assert!(sent[0].starts_with("DELETE jobs chat-db-migrate-"), "{sent:?}");
        assert_eq!(sent[1], "DELETE statefulsets chat-db");
        assert!(sent[2..].iter().all(|call| call.contains("/status") || call.contains(" events ")), "{sent:?}");
        let status = world.resource().status.expect("a status");
        assert!(status.deletion_waits_for.is_some_and(|waits| waits.contains("chat-db-0")));
        assert_eq!(world.condition(kind::READY), "False Deleting");
        assert_eq!(world.vault.content().approles.len(), 2, "the pods still run");

        world.end_pods();
        let sent = world.settle().await;
        let place = |call: &str| {
            sent.iter().position(|sent| sent.starts_with(call)).unwrap_or_else(|| panic!("{call}: {sent:?}"))
        };
        assert!(place("delete approle") < place("delete policy"), "a role without its policy still allows logins");
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

    // A new resource of this name does not adopt it.
    world.create(&MINIMAL.replace("uid-of-chat", "uid-of-its-successor"));
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True RetainedDataFound");
}

/// An empty database must not replace lost data without a request.
#[tokio::test]
async fn missing_volumes_of_an_existing_resource_are_lost_data() {
    let mut world = at_rest("Retain").await;
    for (plural, name) in [("statefulsets", "chat-db"), ("persistentvolumeclaims", "data-chat-db-0")] {
        let mut store = world.api.store();
        store.edit(&object(plural, name), |object| object["metadata"]["finalizers"] = json!([]));
        store.delete(&object(plural, name), &Value::Null).expect("a deletion");
    }
    world.end_pods();
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True DataLost");
    assert!(world.get("statefulsets", "chat-db").is_none());
}

#[tokio::test]
async fn delete_leaves_nothing() {
    let mut world = at_rest("Delete").await;
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.settle().await;
    assert_eq!(remaining(&world), ["configmaps/chat-migrations"], "it belongs to the team");
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
    assert_eq!(world.condition(kind::STALLED), "True InvalidSpec");
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none());
}

#[tokio::test]
async fn without_objects_it_ends_at_once() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.reconcile().await.expect("a finalizer");
    delete(&world);
    world.settle().await;
    assert_eq!(remaining(&world), Vec::<String>::new());
}

#[tokio::test]
async fn an_outage_of_vault_delays_it_and_is_reported() {
    let mut world = at_rest("Delete").await;
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.vault.set_down(Some(VaultError::Unreachable { address: "x".to_owned(), problem: "timeout".to_owned() }));
    world.settle().await;
    assert!(world.reconcile().await.is_err(), "it is retried with backoff");
    let waits = world.resource().status.and_then(|status| status.deletion_waits_for).expect("a reason");
    assert!(waits.contains("Vault"), "{waits}");
    assert!(
        world.get("persistentvolumeclaims", "data-chat-db-0").is_some(),
        "the data is deleted with its credentials"
    );
    world.vault.set_down(None);
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none());
}

#[tokio::test]
async fn objects_of_others_are_kept() {
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

/// A successor of a resource that was deleted under `Retain`, with adoption.
async fn succeeded_with_adoption() -> (World, Option<Value>) {
    let mut world = at_rest("Retain").await;
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.settle().await;
    let authority = world.get("secrets", "chat-db-ca").map(|secret| secret["data"].clone());
    world.create(&MINIMAL.replace("uid-of-chat", "uid-of-its-successor"));
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True RetainedDataFound");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "False RetainedDataFound");
    world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
        resource["spec"]["bootstrap"] = json!({"adopt": true});
    });
    (world, authority)
}

#[tokio::test]
async fn adopted_data_keeps_its_authority_and_its_password() {
    let (mut world, authority) = succeeded_with_adoption().await;
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    assert_eq!(world.get("secrets", "chat-db-ca").map(|secret| secret["data"].clone()), authority);
    let generation = world.resource().status.and_then(|status| status.credentials).map(|found| found.generation);
    assert_eq!(generation, Some(1), "no new password");
    for (plural, name) in [("persistentvolumeclaims", "data-chat-db-0"), ("configmaps", "chat-db-config")] {
        let stamp = world.get(plural, name).expect("kept")["metadata"]["annotations"]["servicedb.dev/uid"].clone();
        assert_eq!(stamp, "uid-of-its-successor", "{name}");
    }
}

/// Volumes with another database than the declared one need a decision by a person.
#[tokio::test]
async fn data_of_another_database_is_not_adopted() {
    let (mut world, _) = succeeded_with_adoption().await;
    world.api.store().edit(&object("persistentvolumeclaims", "data-chat-db-0"), |claim| {
        claim["metadata"]["annotations"]["servicedb.dev/database"] = "other_db".into();
    });
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True RetainedDataFound");
    assert!(world.message(kind::STALLED).contains("other_db"), "{}", world.message(kind::STALLED));
    assert!(world.get("statefulsets", "chat-db").is_none());
}

/// Patroni's leftovers without volumes are no data.
#[tokio::test]
async fn leftovers_without_volumes_are_not_adopted() {
    let (mut world, _) = succeeded_with_adoption().await;
    let claim = object("persistentvolumeclaims", "data-chat-db-0");
    world.api.store().delete(&claim, &Value::Null).expect("a person deletes the data");
    world.settle_all().await;
    world.settle_all().await;
    let generation = world.resource().status.and_then(|status| status.credentials).map(|found| found.generation);
    assert_eq!(generation, Some(2), "a new database gets a new password");
}

/// A recreated namespace with records of an earlier one gets a new password.
#[tokio::test]
async fn records_without_data_are_not_adopted() {
    let mut world = at_rest("Retain").await;
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.settle().await;
    {
        let mut store = world.api.store();
        for key in store.all().keys().cloned().collect::<Vec<_>>() {
            let _ = store.delete(&key, &Value::Null);
        }
    }
    world.create(&MINIMAL.replace("uid-of-chat", "uid-of-its-successor"));
    world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
        resource["spec"]["bootstrap"] = json!({"adopt": true});
    });
    world.settle_all().await;
    let generation = world.resource().status.and_then(|status| status.credentials).map(|found| found.generation);
    assert_eq!(generation, Some(2));
}

fn orphans(world: &World) -> Value {
    let map = world.api.store().get(&key("configmaps", "servicedb-system", "servicedb-orphans"));
    map.map_or(Value::Null, |map| map["data"].clone())
}

fn unreachable() -> Option<VaultError> {
    Some(VaultError::Unreachable { address: "x".to_owned(), problem: "timeout".to_owned() })
}

/// Deleted while Vault is unavailable for longer than the deadline.
async fn deleted_without_vault(policy: &str) -> World {
    let mut world = at_rest(policy).await;
    world.vault.set_down(unreachable());
    delete(&world);
    world.settle().await;
    world.end_pods();
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_some(), "before the deadline");
    world.pass(SignedDuration::from_secs(301));
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none(), "a namespace must not wait for Vault");
    assert!(orphans(&world)["messaging.chat.uid-of-chat"].as_str().is_some_and(|entry| entry.contains("uid-of-chat")));
    world
}

#[tokio::test]
async fn after_the_deadline_it_ends_and_vault_is_swept_later() {
    for (policy, records) in [("Delete", 0), ("Retain", 2)] {
        let world = deleted_without_vault(policy).await;
        assert!(world.sweep().await.is_err(), "Vault is still unavailable");
        world.vault.set_down(None);
        world.sweep().await.expect("a sweep");
        let vault = world.vault.content();
        assert_eq!((vault.policies.len(), vault.approles.len(), vault.kv.len()), (0, 0, records), "{policy}");
        assert_eq!(orphans(&world), json!({}));
    }
}

/// The names in Vault belong to the successor.
#[tokio::test]
async fn a_sweep_removes_no_objects_of_a_successor() {
    let mut world = deleted_without_vault("Delete").await;
    world.vault.set_down(None);
    world.create(&MINIMAL.replace("uid-of-chat", "uid-of-its-successor"));
    world.settle_all().await;
    let before = world.vault.content();
    world.sweep().await.expect("a sweep");
    let after = world.vault.content();
    assert_eq!((after.kv, after.policies, after.approles), (before.kv, before.policies, before.approles));
    assert_eq!(orphans(&world), json!({}));
    assert_eq!(world.condition(kind::READY), "True Ready");
}

/// A stalled successor has claimed nothing: the leftovers are still removed.
#[tokio::test]
async fn a_sweep_does_not_wait_for_a_successor_that_is_stalled() {
    let mut world = deleted_without_vault("Retain").await;
    world.vault.set_down(None);
    world.create(&MINIMAL.replace("uid-of-chat", "uid-of-its-successor"));
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True RetainedDataFound");
    world.sweep().await.expect("a sweep");
    let vault = world.vault.content();
    assert_eq!((vault.policies.len(), vault.approles.len(), vault.kv.len()), (0, 0, 2));
}

/// Two clusters with the same id: a deletion in the second one does not affect the first.
#[tokio::test]
async fn records_of_another_cluster_are_kept() {
    let mut world = World::new();
    let path = names().vault("dev").runtime();
    world.vault.edit(|content| {
        let metadata = [("servicedb-cluster-uid".to_owned(), "uid-of-another".to_owned())];
        content.kv.entry(path.clone()).or_default().metadata = metadata.into();
        content.policies.insert(names().vault("dev").client(), "theirs".to_owned());
    });
    world.create(&format!("{MINIMAL}  deletionPolicy: Delete\n"));
    world.settle().await;
    delete(&world);
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none());
    let vault = world.vault.content();
    assert_eq!((vault.kv.len(), vault.policies.len()), (1, 1));
}
