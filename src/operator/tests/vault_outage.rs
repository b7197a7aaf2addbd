//! Vault away: at the beginning the database waits, later it serves on.

use super::fixtures::MINIMAL;
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::vault::VaultError;

fn outages() -> [(VaultError, &'static str); 4] {
    let (address, problem) = ("https://vault".to_owned(), "it is what it is".to_owned());
    [
        (VaultError::Unreachable { address: address.clone(), problem: problem.clone() }, "VaultUnreachable"),
        (VaultError::NotServing { address, problem: problem.clone() }, "VaultUnreachable"),
        (VaultError::LoginRefused { mount: "kubernetes".to_owned(), problem }, "VaultPermissionDenied"),
        (VaultError::MountMissing { path: "secret/data/x".to_owned() }, "VaultMountMissing"),
    ]
}

#[tokio::test]
async fn at_creation_the_database_waits_and_heals() {
    for (error, reason) in outages() {
        let mut world = World::new();
        world.vault.set_down(Some(error));
        world.create(MINIMAL);
        world.settle().await;
        assert!(world.get("statefulsets", "chat-db").is_none(), "nothing runs that cannot get its credentials");
        assert_eq!(world.told(kind::VAULT_REACHABLE), format!("False {reason}"));
        assert_eq!(world.told(kind::READY), format!("False {reason}"));
        assert_eq!(world.told(kind::STALLED), "False NotStalled");
        world.reconcile().await.expect("to wait is no error");

        world.vault.set_down(None);
        world.settle_all().await;
        assert_eq!(world.told(kind::VAULT_REACHABLE), "True Available");
        assert_eq!(world.told(kind::READY), "True Ready");
    }
}

#[tokio::test]
async fn a_database_that_serves_is_not_touched() {
    for (error, reason) in outages() {
        let mut world = World::new();
        world.create(MINIMAL);
        world.settle_all().await;
        let set = world.get("statefulsets", "chat-db");
        world.vault.set_down(Some(error));
        world.restart();
        let sent = world.settle().await;
        assert!(sent.iter().all(|call| call.contains("/status") || call.contains(" events ")), "{sent:?}");
        assert_eq!(world.told(kind::VAULT_REACHABLE), format!("False {reason}"));
        assert_eq!(world.told(kind::READY), "True Ready");
        assert_eq!(world.told(kind::CREDENTIALS_READY), "True Ready");
        assert_eq!(world.get("statefulsets", "chat-db"), set);

        world.vault.set_down(None);
        world.settle().await;
        assert_eq!(world.told(kind::VAULT_REACHABLE), "True Available");
    }
}

/// What an operator remembers of Vault is no answer of it.
#[tokio::test]
async fn an_outage_is_told_by_an_operator_that_remembers_all() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    world.vault.set_down(Some(outages()[1].0.clone()));
    world.settle().await;
    assert_eq!(world.told(kind::VAULT_REACHABLE), "False VaultUnreachable");
    assert_eq!(world.told(kind::READY), "True Ready");
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
async fn what_is_taken_away_in_vault_is_made_again() {
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

/// The sum that docs/operations.md tells: what one look at one database costs Vault.
#[tokio::test]
async fn a_resync_asks_vault_little_and_writes_nothing() {
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
    assert_eq!(world.vault.take_calls(), ["health"], "what was seen is not asked again");
}

/// A fleet that finds Vault back asks nothing of it that it did not need before.
#[tokio::test]
async fn after_an_outage_nothing_is_asked_that_was_seen_before() {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    world.vault.set_down(Some(outages()[1].0.clone()));
    world.settle().await;
    assert_eq!(world.told(kind::VAULT_REACHABLE), "False VaultUnreachable");
    world.vault.take_calls();
    for _ in 0..3 {
        world.reconcile().await.expect("a database that serves goes on");
    }
    assert_eq!(world.vault.take_calls(), Vec::<String>::new(), "one has asked for all");
    world.vault.set_down(None);
    world.vault_is_back();
    world.settle().await;
    assert_eq!(world.told(kind::VAULT_REACHABLE), "True Available");
    assert_eq!(world.vault.take_calls(), ["health"]);
}
