//! New credentials: when they are made, which requests they answer, and what stops them.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::world::{World, names};
use crate::api::conditions as kind;
use crate::api::names::{ANNOTATION_REISSUE, ANNOTATION_ROTATE};
use crate::vault::VaultError;

async fn at_rest() -> World {
    let mut world = World::new();
    world.create(MINIMAL);
    world.settle_all().await;
    assert_eq!(world.told(kind::READY), "True Ready");
    world
}

fn ask(world: &World, annotation: &str, token: &str) {
    world.edit(|resource| resource["metadata"]["annotations"][annotation] = token.into());
}

fn generation(world: &World) -> i64 {
    world.resource().status.and_then(|status| status.credentials).map_or(0, |credentials| credentials.generation)
}

fn has_pending(world: &World) -> bool {
    world.vault.content().kv.contains_key(&names().vault("dev").pending())
}

#[tokio::test]
async fn a_request_is_done_once() {
    let mut world = at_rest().await;
    ask(&world, ANNOTATION_ROTATE, "monday");
    world.settle_all().await;
    assert_eq!(generation(&world), 2);
    assert_eq!(
        world.resource().status.and_then(|status| status.credentials?.rotate_request).as_deref(),
        Some("monday")
    );
    for _ in 0..2 {
        world.restart();
        world.settle_all().await;
        assert_eq!(generation(&world), 2, "the request stays on the resource and was done");
    }
    ask(&world, ANNOTATION_ROTATE, "tuesday");
    world.settle_all().await;
    assert_eq!(generation(&world), 3);
}

/// Somebody wrote `pending` between the operator's look and its write: what, only another look
/// tells.
#[tokio::test]
async fn a_refused_write_of_pending_is_no_end() {
    let mut world = at_rest().await;
    world.vault.refuse_next_write(&names().vault("dev").pending());
    ask(&world, ANNOTATION_ROTATE, "monday");
    world.settle_all().await;
    assert_eq!(generation(&world), 2);
}

/// A resource that is created with the annotation asks for nothing: its first are new.
#[tokio::test]
async fn the_first_credentials_answer_what_was_asked_before() {
    let mut world = World::new();
    world.create(MINIMAL);
    ask(&world, ANNOTATION_ROTATE, "monday");
    world.settle_all().await;
    world.settle_all().await;
    assert_eq!(generation(&world), 1);
}

#[tokio::test]
async fn the_period_counts_from_the_last_promotion() {
    let mut world = at_rest().await;
    world.edit(|resource| resource["spec"]["credentials"]["rotationPeriodSeconds"] = 7200.into());
    world.settle_all().await;
    for (minutes, expected) in [(110, 1), (15, 2), (110, 2), (15, 3)] {
        world.pass(SignedDuration::from_mins(minutes));
        world.settle_all().await;
        assert_eq!(generation(&world), expected, "after {minutes} more minutes");
    }
}

#[tokio::test]
async fn a_paused_resource_is_not_rotated() {
    let mut world = at_rest().await;
    world.edit(|resource| resource["spec"]["paused"] = true.into());
    ask(&world, ANNOTATION_ROTATE, "monday");
    world.settle_all().await;
    assert!(!has_pending(&world));
    world.edit(|resource| resource["spec"]["paused"] = false.into());
    world.settle_all().await;
    assert_eq!(generation(&world), 2);
}

/// Services that hold the login are served on, and the record may be restored: a new one by
/// itself would make a restored one a lie.
#[tokio::test]
async fn a_record_that_is_gone_waits_for_a_reissue() {
    let mut world = at_rest().await;
    let path = names().vault("dev").runtime();
    let kept = world.vault.content().kv[&path].clone();
    world.vault.edit(|content| content.kv.get_mut(&path).expect("a record").data = None);
    world.restart();
    ask(&world, ANNOTATION_ROTATE, "monday");
    world.settle_all().await;
    assert_eq!(world.told(kind::CREDENTIALS_READY), "False CredentialsLost");
    assert_eq!(world.told(kind::READY), "False CredentialsLost");
    assert_eq!(world.told(kind::STALLED), "True CredentialsLost");
    assert_eq!(world.told(kind::DATABASE_AVAILABLE), "True Available");
    assert!(world.message(kind::READY).contains("--reissue"), "{}", world.message(kind::READY));
    assert!(!has_pending(&world), "nothing is made before somebody asks for it");

    let mut restored = World::new();
    std::mem::swap(&mut restored, &mut world);
    restored.vault.edit(|content| content.kv.get_mut(&path).expect("a record").data = kept.data);
    restored.settle_all().await;
    assert_eq!(restored.told(kind::STALLED), "False NotStalled", "restored, it is found without a restart");
    assert_eq!(generation(&restored), 2, "and what was asked for meanwhile is done");
}

/// While no primary tells, nothing is made in the place of what was promoted: services hold it.
#[tokio::test]
async fn a_record_that_is_gone_is_not_made_again_while_there_is_no_primary() {
    let mut world = at_rest().await;
    let path = names().vault("dev").runtime();
    world.end_pods();
    world.vault.edit(|content| content.kv.get_mut(&path).expect("a record").data = None);
    world.restart();
    world.settle().await;
    assert!(!has_pending(&world));
    world.run_pods();
    world.restart();
    world.settle().await;
    assert_eq!(world.told(kind::STALLED), "True CredentialsLost");
    // Nor is it forgotten when Vault is away.
    world.vault.set_down(Some(VaultError::Unreachable { address: "x".to_owned(), problem: "timeout".to_owned() }));
    world.restart();
    world.settle().await;
    assert_eq!(world.told(kind::STALLED), "True CredentialsLost");
    assert_eq!(world.told(kind::CREDENTIALS_READY), "False CredentialsLost");
}

#[tokio::test]
async fn a_reissue_replaces_a_record_that_is_gone() {
    let mut world = at_rest().await;
    let path = names().vault("dev").runtime();
    world.vault.edit(|content| content.kv.get_mut(&path).expect("a record").data = None);
    world.restart();
    world.settle().await;
    ask(&world, ANNOTATION_REISSUE, "now");
    world.settle_all().await;
    assert_eq!((generation(&world), world.told(kind::READY).as_str()), (2, "True Ready"));
    world.restart();
    world.settle_all().await;
    assert_eq!(generation(&world), 2);
}

type Damage = fn(&mut Value);

/// A record that does not hold what was proved is no use to anybody who reads it.
#[tokio::test]
async fn a_damaged_record_is_replaced() {
    let vault_names = names().vault("dev");
    let damages: [(&str, Damage); 4] = [
        ("runtime", |data| data["SERVICEDB_GENERATION"] = "0".into()),
        ("runtime", |data| data["CHAT_DB_PASSWORD"] = "".into()),
        ("runtime", |data| data["SERVICEDB_GENERATION"] = "x".into()),
        ("migrator", |data| *data = Value::Null),
    ];
    for (record, damage) in damages {
        let mut world = at_rest().await;
        let path = format!("{}/{record}", vault_names.folder());
        world.vault.edit(|content| {
            let data = &mut content.kv.get_mut(&path).expect("a record").data;
            let mut changed = json!(data.take());
            damage(&mut changed);
            *data = serde_json::from_value(changed).expect("strings, or nothing");
        });
        world.restart();
        world.settle_all().await;
        assert_eq!(generation(&world), 1, "what new credentials do not cure must not turn them without end");
        assert_eq!(world.told(kind::CREDENTIALS_READY), "False CredentialsDamaged");
        world.pass(SignedDuration::from_mins(6));
        world.settle_all().await;
        assert_eq!((generation(&world), world.told(kind::READY).as_str()), (2, "True Ready"), "{record}");
    }
}

/// An id that was given to two clusters: what is another's is not touched, and it is said.
#[tokio::test]
async fn records_of_another_cluster_are_left_alone() {
    let mut world = World::new();
    let path = names().vault("dev").runtime();
    world.vault.edit(|content| {
        let metadata = [("servicedb-cluster-uid".to_owned(), "uid-of-another".to_owned())];
        content.kv.entry(path.clone()).or_default().metadata = metadata.into();
    });
    let before = world.vault.content();
    world.create(MINIMAL);
    world.settle_all().await;
    assert_eq!(world.told(kind::STALLED), "True VaultRecordForeign");
    assert!(world.message(kind::STALLED).contains("uid-of-another"));
    let after = world.vault.content();
    assert_eq!((after.kv, after.policies, after.approles), (before.kv, before.policies, before.approles));
    assert!(world.get("statefulsets", "chat-db").is_none());
}
