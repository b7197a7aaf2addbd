//! Outages of Vault: a new database waits, an existing one continues to serve.

use super::fixtures::MINIMAL;
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::vault::VaultError;

fn outages() -> [(VaultError, &'static str); 4] {
    let (address, problem) = ("https://vault".to_owned(), "the reason".to_owned());
    [
        (VaultError::Unreachable { address: address.clone(), problem: problem.clone() }, "VaultUnreachable"),
        (VaultError::NotServing { address, problem: problem.clone() }, "VaultUnreachable"),
        (VaultError::LoginRefused { mount: "kubernetes".to_owned(), problem }, "VaultPermissionDenied"),
        (VaultError::MountMissing { path: "secret/data/x".to_owned() }, "VaultMountMissing"),
    ]
}

#[tokio::test]
async fn a_new_database_waits_until_vault_is_available() {
    for (error, reason) in outages() {
        let mut world = World::new();
        world.vault.set_down(Some(error));
        world.create(MINIMAL);
        world.settle().await;
        assert!(world.get("statefulsets", "chat-db").is_none(), "no pod runs without access to its credentials");
        assert_eq!(world.condition(kind::VAULT_REACHABLE), format!("False {reason}"));
        assert_eq!(world.condition(kind::READY), format!("False {reason}"));
        assert_eq!(world.condition(kind::STALLED), "False NotStalled");
        world.reconcile().await.expect("waiting is no error");

        world.vault.set_down(None);
        world.settle_all().await;
        assert_eq!(world.condition(kind::VAULT_REACHABLE), "True Available");
        assert_eq!(world.condition(kind::READY), "True Ready");
    }
}

#[tokio::test]
async fn a_serving_database_is_not_changed() {
    for (error, reason) in outages() {
        let mut world = World::new();
        world.create(MINIMAL);
        world.settle_all().await;
        let set = world.get("statefulsets", "chat-db");
        world.vault.set_down(Some(error));
        world.restart();
        let sent = world.settle().await;
        assert!(sent.iter().all(|call| call.contains("/status") || call.contains(" events ")), "{sent:?}");
        assert_eq!(world.condition(kind::VAULT_REACHABLE), format!("False {reason}"));
        assert_eq!(world.condition(kind::READY), "True Ready");
        assert_eq!(world.condition(kind::CREDENTIALS_READY), "True Ready");
        assert_eq!(world.get("statefulsets", "chat-db"), set);

        world.vault.set_down(None);
        world.settle().await;
        assert_eq!(world.condition(kind::VAULT_REACHABLE), "True Available");
    }
}

/// Cached observations of Vault are no answer of Vault.
#[tokio::test]
async fn an_outage_is_reported_despite_cached_observations() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    world.vault.set_down(Some(outages()[1].0.clone()));
    world.settle().await;
    assert_eq!(world.condition(kind::VAULT_REACHABLE), "False VaultUnreachable");
    assert_eq!(world.condition(kind::READY), "True Ready");
}

#[tokio::test]
async fn a_change_of_spec_does_not_wait_for_vault() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    world.vault.set_down(Some(outages()[0].0.clone()));
    world.restart();
    world.api.store().edit(&object("servicedatabases", "chat"), |resource| resource["spec"]["instances"] = 2.into());
    world.settle().await;
    let set = world.get("statefulsets", "chat-db").expect("the StatefulSet");
    assert_eq!(set["spec"]["replicas"], 2);
}

#[tokio::test]
async fn objects_removed_from_vault_are_recreated() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    let before = world.snapshot();
    world.vault.edit(|content| {
        content.policies.clear();
        content.approles.clear();
    });
    world.restart();
    world.settle().await;
    assert_eq!(world.snapshot(), before);
}

/// The number in docs/operations.md: the requests to Vault for one check of one database.
#[tokio::test]
async fn a_resync_sends_few_requests_to_vault_and_writes_nothing() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    world.vault.take_calls();
    world.restart();
    world.settle().await;
    let mut calls = world.vault.take_calls();
    calls.sort();
    assert_eq!(calls.len(), 14, "{calls:#?}");
    assert!(calls.iter().all(|call| call.starts_with("read ") || call == "health"), "{calls:#?}");
    world.settle().await;
    assert_eq!(world.vault.take_calls(), ["health"], "observations are not repeated");
}

/// After an outage, the databases repeat no observations at once.
#[tokio::test]
async fn after_an_outage_no_observation_is_repeated() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    world.vault.set_down(Some(outages()[1].0.clone()));
    world.settle().await;
    assert_eq!(world.condition(kind::VAULT_REACHABLE), "False VaultUnreachable");
    world.vault.take_calls();
    for _ in 0..3 {
        world.reconcile().await.expect("a serving database continues");
    }
    assert_eq!(world.vault.take_calls(), Vec::<String>::new(), "one health check is enough for all");
    world.vault.set_down(None);
    world.vault_is_back();
    world.settle().await;
    assert_eq!(world.condition(kind::VAULT_REACHABLE), "True Available");
    assert_eq!(world.vault.take_calls(), ["health"]);
}
