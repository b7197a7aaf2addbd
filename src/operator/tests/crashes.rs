//! The operator crashes at every mutating call, before it is sent and after it is executed, and is
//! restarted: the result is the same as without a crash.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::Value;

use super::authority;
use super::faults::Fault;
use super::migrations::{MIGRATIONS, WITH_MIGRATIONS, finish_job};
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::api::names::ANNOTATION_ROTATE;

async fn provision(world: &mut World) {
    world.create(MIGRATIONS);
    world.create(WITH_MIGRATIONS);
    world.settle_all().await;
    finish_job(world);
    world.settle_all().await;
}

async fn delete(world: &mut World) {
    world.api.store().delete(&object("servicedatabases", "chat"), &Value::Null).expect("a deletion");
    world.settle().await;
    world.end_pods();
    world.settle().await;
}

pub fn assert_same(found: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>, when: &str) {
    let keys = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected), "{when}");
    for (name, object) in expected {
        assert_eq!(&found[name], object, "{when}: {name}");
    }
}

/// The pods' certificates are signed by the stored authority.
fn assert_one_authority(world: &World, when: &str) {
    let authority = |name: &str| world.get("secrets", name).map(|secret| secret["data"]["ca.crt"].clone());
    assert_eq!(authority("chat-db-tls"), authority("chat-db-ca"), "{when}");
}

/// Runs `act` in a new world for each mutating call, with a crash at that call, before it is sent
/// and after it is executed, and checks the result with `look`. Returns the number of crashes.
pub async fn crash_at_every_call(
    prepared: impl AsyncFn() -> World,
    act: impl AsyncFn(&mut World),
    look: impl Fn(&World, &str),
) -> usize {
    let mut crashes = 0;
    for fault in [Fault::BeforeSend, Fault::AfterCommit] {
        for call in 1.. {
            let mut world = prepared().await;
            world.faults.crash_at(call, fault);
            act(&mut world).await;
            if world.faults.is_pending() {
                break;
            }
            crashes += 1;
            look(&world, &format!("{fault:?} of call {call}"));
        }
    }
    crashes
}

#[tokio::test]
async fn provisioning_survives_a_crash_at_every_call() {
    let mut undisturbed = World::new();
    provision(&mut undisturbed).await;
    assert_eq!(undisturbed.condition(kind::READY), "True Ready", "{}", undisturbed.message(kind::READY));
    let expected = undisturbed.snapshot();
    let crashes = crash_at_every_call(
        async || World::new(),
        provision,
        |world, when| {
            assert_same(&world.snapshot(), &expected, when);
            assert_one_authority(world, when);
        },
    )
    .await;
    assert!(crashes > 60, "only {crashes} crashes were tried");
}

#[tokio::test]
async fn deletion_survives_a_crash_at_every_call() {
    for policy in ["Retain", "Delete"] {
        let prepared = async || {
            let mut world = World::new();
            provision(&mut world).await;
            world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
                resource["spec"]["deletionPolicy"] = policy.into();
            });
            world.settle().await;
            world
        };
        let mut undisturbed = prepared().await;
        delete(&mut undisturbed).await;
        assert!(undisturbed.get("servicedatabases", "chat").is_none());
        let expected = undisturbed.snapshot();
        let crashes = crash_at_every_call(prepared, delete, |world, when| {
            assert_same(&world.snapshot(), &expected, &format!("{policy}: {when}"));
        })
        .await;
        assert!(crashes > 15, "only {crashes} crashes were tried");
    }
}

/// Leftovers of an earlier resource in Vault and in Patroni's ConfigMaps never count as objects of
/// this one.
#[tokio::test]
async fn a_successor_survives_a_crash_at_every_call() {
    let prepared = async || {
        let mut world = World::new();
        provision(&mut world).await;
        delete(&mut world).await;
        world.ledger = None;
        let claim = object("persistentvolumeclaims", "data-chat-db-0");
        world.api.store().delete(&claim, &Value::Null).expect("a person deletes the data");
        world
    };
    let succeed = async |world: &mut World| {
        world.create(&WITH_MIGRATIONS.replace("uid-of-chat", "uid-of-its-successor"));
        world.settle_all().await;
        finish_job(world);
        world.settle_all().await;
    };
    let mut undisturbed = prepared().await;
    succeed(&mut undisturbed).await;
    assert_eq!(undisturbed.condition(kind::READY), "True Ready", "{}", undisturbed.message(kind::READY));
    let expected = undisturbed.snapshot();
    assert_eq!(expected["vault/kv/dev/messaging/chat/runtime"]["generation"], "2");
    let crashes = crash_at_every_call(prepared, succeed, |world, when| {
        assert_same(&world.snapshot(), &expected, when);
    })
    .await;
    assert!(crashes > 60, "only {crashes} crashes were tried");
}

#[tokio::test]
async fn a_rotation_survives_a_crash_at_every_call() {
    let prepared = async || {
        let mut world = World::new();
        provision(&mut world).await;
        world
    };
    let rotate = async |world: &mut World| {
        world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
            resource["metadata"]["annotations"][ANNOTATION_ROTATE] = "monday".into();
        });
        world.settle_all().await;
    };
    let mut undisturbed = prepared().await;
    rotate(&mut undisturbed).await;
    let expected = undisturbed.snapshot();
    assert_eq!(expected["vault/kv/dev/messaging/chat/runtime"]["generation"], "2");
    let crashes = crash_at_every_call(prepared, rotate, |world, when| {
        assert_same(&world.snapshot(), &expected, when);
    })
    .await;
    // `pending`, the desired state, the status, twice.
    assert!(crashes >= 6, "only {crashes} crashes were tried");
}

#[tokio::test]
async fn new_secret_ids_survive_a_crash_at_every_call() {
    let prepared = async || {
        let mut world = World::new();
        provision(&mut world).await;
        world
    };
    let renew = async |world: &mut World| {
        world.pass(SignedDuration::from_hours(25));
        world.settle_all().await;
        // By then the pods and Jobs have the new ones.
        world.pass(SignedDuration::from_mins(61));
        world.settle_all().await;
    };
    let mut undisturbed = prepared().await;
    renew(&mut undisturbed).await;
    let expected = undisturbed.snapshot();
    assert_eq!(expected["vault/secret_ids/servicedb.dev.messaging.chat.instance"], 1);
    let crashes = crash_at_every_call(prepared, renew, |world, when| {
        assert_same(&world.snapshot(), &expected, when);
    })
    .await;
    // Two created, two written, two destroyed, twice.
    assert!(crashes >= 12, "only {crashes} crashes were tried");
}

#[tokio::test]
async fn a_change_of_the_authority_survives_a_crash_at_every_call() {
    let prepared = async || {
        let mut world = World::new();
        provision(&mut world).await;
        world.load_certificates();
        world.settle().await;
        world
    };
    let renew = async |world: &mut World| {
        authority::ask(world, "monday");
        authority::see_through(world).await;
        // By then the Jobs' former secret_id is destroyed.
        world.pass(SignedDuration::from_mins(61));
        world.settle_all().await;
    };
    let mut undisturbed = prepared().await;
    renew(&mut undisturbed).await;
    let done = undisturbed.resource().status.and_then(|status| status.certificates?.renew_request);
    assert_eq!(done.as_deref(), Some("monday"));
    let expected = undisturbed.snapshot();
    let crashes = crash_at_every_call(prepared, renew, |world, when| {
        assert_same(&world.snapshot(), &expected, when);
        assert_one_authority(world, when);
    })
    .await;
    // For the authority's Secret alone: created, published, switched, loaded, the former one
    // removed.
    assert!(crashes >= 20, "only {crashes} crashes were tried");
}
