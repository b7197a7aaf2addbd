//! secret_ids: those in Vault, the one in the Secret, and their lifetime.

use jiff::SignedDuration;
use serde_json::Value;

use super::fixtures::MINIMAL;
use super::world::{World, names, object};

const ACCESSOR: &str = "servicedb.dev/secret-id-accessor";

async fn at_rest() -> World {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    world
}

/// The accessors that Vault has of the pods' AppRole.
fn in_vault(world: &World) -> Vec<String> {
    world.vault.content().secret_ids[&names().vault("dev").instance()].clone()
}

/// The accessor of the pods' secret_id.
fn given(world: &World) -> String {
    let secret = world.get("secrets", &names().instance_approle()).expect("a Secret");
    secret["metadata"]["annotations"][ACCESSOR].as_str().expect("an accessor").to_owned()
}

#[tokio::test]
async fn a_destroyed_secret_id_is_replaced() {
    let mut world = at_rest().await;
    let before = given(&world);
    world.vault.edit(|content| content.secret_ids.clear());
    world.restart();
    world.settle().await;
    assert_ne!(given(&world), before);
    assert_eq!(in_vault(&world), [given(&world)]);
}

#[tokio::test]
async fn an_unused_secret_id_is_destroyed() {
    let mut world = at_rest().await;
    let role = names().vault("dev").instance();
    world.vault.edit(|content| content.secret_ids.entry(role).or_default().push("stray".to_owned()));
    world.restart();
    world.settle().await;
    assert_eq!(in_vault(&world), [given(&world)]);
}

/// A pod may not have read the new one yet: the kubelet updates it with a delay.
#[tokio::test]
async fn the_previous_one_is_valid_until_every_pod_has_the_next() {
    let mut world = at_rest().await;
    let first = given(&world);
    world.pass(SignedDuration::from_hours(25));
    world.settle().await;
    let second = given(&world);
    assert_ne!(first, second);
    assert_eq!(in_vault(&world), [first.clone(), second.clone()]);
    world.restart();
    world.settle().await;
    assert_eq!(in_vault(&world), [first, second.clone()], "no pod has reported the new one");
    world.run_pods();
    world.restart();
    world.settle().await;
    assert_eq!(in_vault(&world), [second]);
}

/// Jobs read it when they start, and end.
#[tokio::test]
async fn the_previous_one_of_jobs_is_destroyed_after_an_hour() {
    let mut world = at_rest().await;
    let role = names().vault("dev").migrator();
    world.pass(SignedDuration::from_hours(25));
    world.settle().await;
    assert_eq!(world.vault.content().secret_ids[&role].len(), 2);
    world.pass(SignedDuration::from_mins(61));
    world.settle().await;
    assert_eq!(world.vault.content().secret_ids[&role].len(), 1);
}

/// Expiring objects are renewed even if everything else is unchanged: otherwise after three days an
/// instance could not log in to Vault.
#[tokio::test]
async fn a_paused_or_invalid_resource_keeps_its_access_to_vault() {
    let changes: [fn(&mut Value); 2] = [
        |resource| resource["spec"]["paused"] = true.into(),
        |resource| resource["spec"]["postgres"]["version"] = "99".into(),
    ];
    for change in changes {
        let mut world = at_rest().await;
        world.api.store().edit(&object("servicedatabases", "chat"), change);
        world.settle().await;
        let before = given(&world);
        world.pass(SignedDuration::from_hours(25));
        world.settle().await;
        assert_ne!(given(&world), before);
    }
}
