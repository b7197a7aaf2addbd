//! New credentials: when they are created, which requests they answer, and what prevents them.

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
    assert_eq!(world.condition(kind::READY), "True Ready");
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
        assert_eq!(generation(&world), 2, "the request is still set and was completed");
    }
    ask(&world, ANNOTATION_ROTATE, "tuesday");
    world.settle_all().await;
    assert_eq!(generation(&world), 3);
}

/// Another client wrote `pending` between the operator's read and its write: it must read again.
#[tokio::test]
async fn a_refused_write_of_pending_is_retried() {
    let mut world = at_rest().await;
    world.vault.refuse_next_write(&names().vault("dev").pending());
    ask(&world, ANNOTATION_ROTATE, "monday");
    world.settle_all().await;
    assert_eq!(generation(&world), 2);
}

/// A resource that is created with the annotation needs no rotation: its first credentials are new.
#[tokio::test]
async fn the_first_credentials_answer_earlier_requests() {
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

/// Services with the login continue to work, and the record may be restored: automatic new
/// credentials would invalidate a restored one.
#[tokio::test]
async fn a_missing_record_waits_for_a_reissue() {
    let mut world = at_rest().await;
    let path = names().vault("dev").runtime();
    let kept = world.vault.content().kv[&path].clone();
    world.vault.edit(|content| content.kv.get_mut(&path).expect("a record").data = None);
    world.restart();
    ask(&world, ANNOTATION_ROTATE, "monday");
    world.settle_all().await;
    assert_eq!(world.condition(kind::CREDENTIALS_READY), "False CredentialsLost");
    assert_eq!(world.condition(kind::READY), "False CredentialsLost");
    assert_eq!(world.condition(kind::STALLED), "True CredentialsLost");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
    assert!(world.message(kind::READY).contains("--reissue"), "{}", world.message(kind::READY));
    assert!(!has_pending(&world), "nothing is created without a request");

    let mut restored = World::new();
    std::mem::swap(&mut restored, &mut world);
    restored.vault.edit(|content| content.kv.get_mut(&path).expect("a record").data = kept.data);
    restored.settle_all().await;
    assert_eq!(restored.condition(kind::STALLED), "False NotStalled", "a restored record is found without a restart");
    assert_eq!(generation(&restored), 2, "and a request made meanwhile is completed");
}

/// The record was just deleted, and no resync has observed it yet.
#[tokio::test]
async fn a_rotation_reads_the_record_first() {
    let mut world = at_rest().await;
    let path = names().vault("dev").runtime();
    world.vault.edit(|content| content.kv.get_mut(&path).expect("a record").data = None);
    ask(&world, ANNOTATION_ROTATE, "monday");
    world.settle_all().await;
    assert_eq!((generation(&world), world.condition(kind::STALLED).as_str()), (1, "True CredentialsLost"));
    assert!(!has_pending(&world));
    ask(&world, ANNOTATION_REISSUE, "monday");
    world.settle_all().await;
    assert_eq!((generation(&world), world.condition(kind::READY).as_str()), (2, "True Ready"));
}

/// Another client wrote a record: only the agent can test its login.
#[tokio::test]
async fn a_record_written_by_another_client_is_proved_again() {
    let vault_names = names().vault("dev");
    for record in [vault_names.runtime(), vault_names.migrator_record()] {
        let mut world = at_rest().await;
        world.proved = Some(world.versions());
        world.restart();
        world.settle_all().await;
        assert_eq!((world.condition(kind::READY).as_str(), world.to_prove()), ("True Ready", None));

        world.vault.edit(|content| content.kv.get_mut(&record).expect("a record").version += 1);
        world.restart();
        world.settle().await;
        assert_eq!(world.condition(kind::CREDENTIALS_READY), "False CredentialsDamaged", "{record}");
        assert_eq!(world.to_prove(), Some(world.versions()));
        // The agent wrote the proved one again.
        world.vault.edit(|content| content.kv.get_mut(&record).expect("a record").version += 1);
        world.proved = Some(world.versions());
        world.settle_all().await;
        assert_eq!((generation(&world), world.condition(kind::READY).as_str()), (1, "True Ready"));
    }
}

/// Vault's `delete_version_after`: the record's own is removed, the mount's cannot be.
#[tokio::test]
async fn an_expiring_record_is_written_again_before() {
    let mut world = at_rest().await;
    world.proved = Some(world.versions());
    let path = names().vault("dev").runtime();
    let now = crate::operator::tests::status_findings::time("2026-06-01T00:00:00Z");
    let expires_in = |world: &World, hours: i64| {
        world.vault.edit(|content| {
            let record = content.kv.get_mut(&path).expect("a record");
            (record.expires_at, record.lets_expire) = (Some(now + SignedDuration::from_hours(hours)), true);
        });
    };
    expires_in(&world, 48);
    world.restart();
    world.settle_all().await;
    assert!(!world.vault.content().kv[&path].lets_expire);
    assert_eq!((world.condition(kind::READY).as_str(), world.to_prove()), ("True Ready", None));
    expires_in(&world, 23);
    world.restart();
    world.settle_all().await;
    assert_eq!((world.condition(kind::READY).as_str(), world.to_prove()), ("True Ready", Some(world.versions())));
}

/// Without a primary's report, promoted credentials are not replaced: services use them.
#[tokio::test]
async fn a_missing_record_is_not_recreated_without_a_primary() {
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
    assert_eq!(world.condition(kind::STALLED), "True CredentialsLost");
    // It is still reported while Vault is unavailable.
    world.vault.set_down(Some(VaultError::Unreachable { address: "x".to_owned(), problem: "timeout".to_owned() }));
    world.restart();
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True CredentialsLost");
    assert_eq!(world.condition(kind::CREDENTIALS_READY), "False CredentialsLost");
}

#[tokio::test]
async fn a_reissue_replaces_a_missing_record() {
    let mut world = at_rest().await;
    let path = names().vault("dev").runtime();
    world.vault.edit(|content| content.kv.get_mut(&path).expect("a record").data = None);
    world.restart();
    world.settle().await;
    ask(&world, ANNOTATION_REISSUE, "now");
    world.settle_all().await;
    assert_eq!((generation(&world), world.condition(kind::READY).as_str()), (2, "True Ready"));
    world.restart();
    world.settle_all().await;
    assert_eq!(generation(&world), 2);
}

type Damage = fn(&mut Value);

/// A record without the proved credentials is useless for its readers.
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
        assert_eq!(generation(&world), 1, "damage that new credentials do not repair must not rotate them endlessly");
        assert_eq!(world.condition(kind::CREDENTIALS_READY), "False CredentialsDamaged");
        world.pass(SignedDuration::from_mins(6));
        world.settle_all().await;
        assert_eq!((generation(&world), world.condition(kind::READY).as_str()), (2, "True Ready"), "{record}");
    }
}

/// Two clusters with the same id: records of the other one are not changed, and this is reported.
#[tokio::test]
async fn records_of_another_cluster_are_not_changed() {
    let mut world = World::new();
    let path = names().vault("dev").runtime();
    world.vault.edit(|content| {
        let metadata = [("servicedb-cluster-uid".to_owned(), "uid-of-another".to_owned())];
        content.kv.entry(path.clone()).or_default().metadata = metadata.into();
    });
    let before = world.vault.content();
    world.create(MINIMAL);
    world.settle_all().await;
    assert_eq!(world.condition(kind::STALLED), "True VaultRecordForeign");
    assert!(world.message(kind::STALLED).contains("uid-of-another"));
    let after = world.vault.content();
    assert_eq!((after.kv, after.policies, after.approles), (before.kv, before.policies, before.approles));
    assert!(world.get("statefulsets", "chat-db").is_none());
}
