//! secret_ids: which Vault has, which the Secret has, and for how long.

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

/// The accessor of what the pods are given.
fn given(world: &World) -> String {
    let secret = world.get("secrets", &names().instance_approle()).expect("a Secret");
    secret["metadata"]["annotations"][ACCESSOR].as_str().expect("an accessor").to_owned()
}

#[tokio::test]
async fn one_that_was_destroyed_behind_our_back_is_made_anew() {
    let mut world = at_rest().await;
    let before = given(&world);
    world.vault.edit(|content| content.secret_ids.clear());
    world.restart();
    world.settle().await;
    assert_ne!(given(&world), before);
    assert_eq!(in_vault(&world), [given(&world)]);
}

#[tokio::test]
async fn one_that_nobody_was_given_is_destroyed() {
    let mut world = at_rest().await;
    let role = names().vault("dev").instance();
    world.vault.edit(|content| content.secret_ids.entry(role).or_default().push("stray".to_owned()));
    world.restart();
    world.settle().await;
    assert_eq!(in_vault(&world), [given(&world)]);
}

/// A pod may not have read the new one yet, and one that started long ago reads it when it
/// logs in next.
#[tokio::test]
async fn the_one_before_lives_until_the_next() {
    let mut world = at_rest().await;
    let grow_old = async |world: &mut World| {
        world.api.store().edit(&object("secrets", &names().instance_approle()), |secret| {
            secret["metadata"]["annotations"]["servicedb.dev/secret-id-made-at"] = "2020-01-01T00:00:00Z".into();
        });
        world.restart();
        world.settle().await;
    };
    let first = given(&world);
    grow_old(&mut world).await;
    let second = given(&world);
    assert_eq!(in_vault(&world), [first, second.clone()]);
    grow_old(&mut world).await;
    world.restart();
    world.settle().await;
    assert_eq!(in_vault(&world), [second, given(&world)]);
}
