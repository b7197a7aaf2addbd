//! Base backups: when a Job starts, who may read meanwhile, and what follows its end.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::world::{World, object};
use crate::api::conditions as kind;
use crate::api::names::{ANNOTATION_BACKUP, ANNOTATION_BACKUP_STORE, ANNOTATION_BACKUP_TYPE};
use crate::api::{BackupRunStatus, BackupType, JobRun, RequestState};
use crate::contract::backup_job::VerificationOutcome;
use crate::contract::desired::{Desired, KEY};
use crate::contract::report::{ArchiveReport, Catalogue, CatalogueEntry};

const WITH_STORE: &str = "  backup: {store: main, schedule: {verification: ''}}\n";

/// A database whose leader archives, and has read an empty store.
async fn archiving() -> World {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}{WITH_STORE}"));
    world.settle_all().await;
    read(&mut world, Catalogue::default()).await;
    world
}

/// The leader has read this in the store.
async fn read(world: &mut World, catalogue: Catalogue) {
    world.archive = Some(reported(world, "main", catalogue));
    world.run_pods();
    // An operator that has just started may not know which other backups run.
    world.pass(SignedDuration::from_secs(40));
    world.settle().await;
}

fn reported(world: &World, store: &str, catalogue: Catalogue) -> ArchiveReport {
    ArchiveReport {
        store: store.into(),
        archived_at: Some(world.now()),
        waiting: 0,
        failure: None,
        given_up_at: None,
        catalogue: Some(catalogue),
    }
}

/// A database with a backup that is being tested.
async fn testing() -> World {
    let mut world = archiving().await;
    let first = last(&world).expect("a Job").job;
    end(&world, &first, "Complete");
    world.settle().await;
    world.edit(|resource| resource["spec"]["backup"]["schedule"] = json!({}));
    let catalogue = after(&world, &first);
    read(&mut world, catalogue).await;
    world
}

/// What the leader reads after a Job that succeeded.
fn after(world: &World, job: &str) -> Catalogue {
    let now = world.now();
    let entry = CatalogueEntry {
        label: "20260601-000000F".into(),
        kind: BackupType::Full,
        started_at: now,
        finished_at: now,
        database_bytes: 30,
        stored_bytes: 4,
    };
    Catalogue {
        after: Some(job.to_owned()),
        count: 1,
        stored_bytes: 4,
        recoverable_from: Some(now),
        newest_full: Some(entry.clone()),
        newest: Some(entry),
        ..Catalogue::default()
    }
}

fn last(world: &World) -> Option<JobRun> {
    Some(world.resource().status?.backup?.last_run?.run)
}

fn last_in_second(world: &World) -> Option<BackupRunStatus> {
    world.resource().status?.backup?.second?.last_run
}

fn kind_of_last(world: &World) -> Option<BackupType> {
    Some(world.resource().status?.backup?.last_run?.kind)
}

fn jobs(world: &World) -> Vec<String> {
    world.api.store().all().keys().filter(|key| key.0 == "jobs").map(|key| key.2.clone()).collect()
}

/// Whether agents serve, and the NetworkPolicy lets a Job in.
fn serves(world: &World) -> (bool, bool) {
    let map = world.get("configmaps", "chat-db-desired").expect("the desired state");
    let desired: Desired = serde_json::from_str(map["data"][KEY].as_str().expect("a document")).expect("JSON");
    let policy = world.get("networkpolicies", "chat-db").expect("a policy");
    (desired.backup.is_some_and(|run| run.runs), policy["spec"].to_string().contains("8432"))
}

fn end(world: &World, job: &str, kind: &str) {
    let condition = json!({"type": kind, "status": "True", "lastTransitionTime": world.now(), "message": "m"});
    world.api.store().edit(&object("jobs", job), |job| {
        job["status"] = json!({"conditions": [condition], "completionTime": "2026-06-01T00:01:00Z"});
    });
}

#[tokio::test]
async fn a_job_starts_by_itself_and_is_served_only_while_it_runs() {
    let mut world = archiving().await;
    let run = last(&world).expect("a Job");
    assert_eq!((kind_of_last(&world), run.state), (Some(BackupType::Full), RequestState::Running));
    assert_eq!((jobs(&world), serves(&world)), (vec![run.job.clone()], (true, true)));
    assert_eq!(world.condition(kind::BACKED_UP), "False Progressing");
    let job = world.get("jobs", &run.job).expect("the Job").to_string();
    assert!(!job.contains("secret_access_key\":\"") && job.contains("backups/main"), "{job}");

    end(&world, &run.job, "Complete");
    world.settle().await;
    assert_eq!(last(&world).expect("a Job").state, RequestState::Done);
    assert_eq!(serves(&world), (false, false));
    // Nothing starts before the leader has read the store.
    world.pass(SignedDuration::from_mins(2));
    world.settle().await;
    assert_eq!(jobs(&world), std::slice::from_ref(&run.job));

    let catalogue = after(&world, &run.job);
    read(&mut world, catalogue).await;
    assert_eq!(world.condition(kind::BACKED_UP), "True BackedUp");
    assert_eq!(last(&world).expect("a Job").job, run.job);
    assert_eq!(world.condition(kind::READY), "True Ready");
}

#[tokio::test]
async fn a_job_that_failed_or_is_gone_is_followed_by_another_after_a_pause() {
    let mut world = archiving().await;
    let first = last(&world).expect("a Job").job;
    end(&world, &first, "Failed");
    world.settle().await;
    let failed = last(&world).expect("a Job");
    assert_eq!((failed.state, failed.failures), (RequestState::Failed, 1));
    assert_eq!(world.condition(kind::BACKED_UP), "False BackupFailed");
    assert_eq!((jobs(&world), serves(&world)), (vec![first.clone()], (false, false)));

    world.pass(SignedDuration::from_secs(61));
    world.settle().await;
    let second = last(&world).expect("a Job");
    assert_eq!((second.state, jobs(&world)), (RequestState::Running, vec![second.job.clone()]));
    assert_ne!(second.job, first);
    let _ = world.api.store().delete(&object("jobs", &second.job), &json!({}));
    world.settle().await;
    let lost = last(&world).expect("a Job");
    assert_eq!((lost.state, lost.failures), (RequestState::Failed, 2));
    assert!(lost.message.expect("a message").contains("was deleted"));
}

#[tokio::test]
async fn an_operator_that_was_killed_before_status_had_the_job_starts_no_other() {
    let mut world = archiving().await;
    let run = last(&world).expect("a Job");
    let now = world.now();
    world.api.store().edit(&object("jobs", &run.job), |job| job["metadata"]["creationTimestamp"] = json!(now));
    world.edit(|resource| resource["status"]["backup"]["lastRun"] = Value::Null);
    world.restart();
    world.settle().await;
    assert_eq!(last(&world).map(|last| last.job), Some(run.job.clone()));
    assert_eq!(jobs(&world), [run.job]);
}

/// A database with a backup, and the Job of another one that was requested.
async fn asked_for_another() -> (World, JobRun) {
    let mut world = archiving().await;
    let first = last(&world).expect("a Job").job;
    end(&world, &first, "Complete");
    world.settle().await;
    let catalogue = after(&world, &first);
    read(&mut world, catalogue).await;
    world.edit(|resource| {
        resource["metadata"]["annotations"] = json!({ANNOTATION_BACKUP: "t1", ANNOTATION_BACKUP_TYPE: "Full"});
    });
    world.settle().await;
    let asked = last(&world).expect("a Job");
    (world, asked)
}

#[tokio::test]
async fn a_request_is_answered_by_a_job_of_its_own() {
    let (mut world, asked) = asked_for_another().await;
    assert_eq!(
        (asked.request.as_deref(), kind_of_last(&world), asked.state),
        (Some("t1"), Some(BackupType::Full), RequestState::Running)
    );
    end(&world, &asked.job, "Complete");
    world.pass(SignedDuration::from_mins(20));
    world.settle().await;
    assert_eq!(last(&world).expect("a Job").job, asked.job, "it is answered once");
}

#[tokio::test]
async fn a_requested_backup_that_failed_is_tried_again_until_the_request_is_withdrawn() {
    let (mut world, asked) = asked_for_another().await;
    end(&world, &asked.job, "Failed");
    world.settle().await;
    assert_eq!(last(&world).expect("a Job").state, RequestState::Failed);
    world.pass(SignedDuration::from_secs(61));
    world.settle().await;
    let again = last(&world).expect("a Job");
    assert_eq!(
        (again.request.as_deref(), kind_of_last(&world), again.state),
        (Some("t1"), Some(BackupType::Full), RequestState::Running)
    );
    assert_ne!(again.job, asked.job);
    end(&world, &again.job, "Failed");
    world.settle().await;
    world.edit(|resource| resource["metadata"]["annotations"] = json!({}));
    world.pass(SignedDuration::from_mins(10));
    world.settle().await;
    assert_eq!(last(&world).expect("a Job").job, again.job, "nothing else is due");
}

#[tokio::test]
async fn a_nonsensical_schedule_is_refused_by_its_field() {
    let mut world = archiving().await;
    world.edit(|resource| resource["spec"]["backup"]["schedule"] = json!({"full": "at night"}));
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True InvalidSpec");
    assert!(world.message(kind::STALLED).contains("spec.backup.schedule.full"));
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
}

#[tokio::test]
async fn a_job_that_the_api_server_refuses_has_failed_with_its_words() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}{WITH_STORE}"));
    world.settle_all().await;
    world.api.store().refuse("jobs", Some("exceeded quota: jobs"));
    read(&mut world, Catalogue::default()).await;
    let refused = last(&world).expect("a Job");
    assert_eq!((refused.state, refused.failures), (RequestState::Failed, 1));
    assert!(refused.message.expect("a message").contains("exceeded quota"));
    assert_eq!((serves(&world), world.condition(kind::READY)), ((false, false), "True Ready".to_owned()));
    world.api.store().refuse("jobs", None);
    world.pass(SignedDuration::from_secs(61));
    world.settle().await;
    assert_eq!(last(&world).expect("a Job").state, RequestState::Running);
}

#[tokio::test]
async fn a_job_that_does_not_start_is_given_up() {
    let mut world = archiving().await;
    let run = last(&world).expect("a Job");
    world.pass(SignedDuration::from_mins(16));
    world.settle().await;
    let given_up = last(&world).expect("a Job");
    assert_eq!((given_up.state, given_up.job.as_str()), (RequestState::Failed, run.job.as_str()));
    assert!(given_up.message.expect("a message").contains("did not start"));
    assert!(!serves(&world).0);
}

#[tokio::test]
async fn a_test_follows_the_first_backup_and_reports_how_long_it_took() {
    let mut world = testing().await;
    let tested = |world: &World| world.resource().status?.backup?.last_verification;
    let run = tested(&world).expect("a Job");
    assert_eq!(
        (run.state, world.condition(kind::RESTORE_VERIFIED)),
        (RequestState::Running, "False Progressing".into())
    );
    let job = world.get("jobs", &run.job).expect("the Job");
    let claim =
        &job["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes").iter().find(|it| it["name"] == "data");
    assert!(claim.expect("a volume")["ephemeral"].is_object(), "the running database's volumes are not touched");
    end(&world, &run.job, "Failed");
    world.settle().await;
    assert_eq!(world.condition(kind::RESTORE_VERIFIED), "False VerificationFailed");
    assert_eq!(
        (world.condition(kind::BACKED_UP), world.condition(kind::READY)),
        ("True BackedUp".into(), "True Ready".into())
    );
}

#[tokio::test]
async fn a_reconcile_that_read_an_older_status_does_not_replace_the_job_that_runs() {
    let mut world = testing().await;
    let tested = |world: &World| world.resource().status.and_then(|status| status.backup?.last_verification);
    let run = tested(&world).expect("a Job");
    world.pass(SignedDuration::from_secs(1));
    let now = world.now();
    world.api.store().edit(&object("jobs", &run.job), |job| job["metadata"]["creationTimestamp"] = json!(now));
    world.edit(|resource| resource["status"]["backup"]["lastVerification"] = Value::Null);
    world.settle().await;
    assert_eq!(tested(&world).map(|run| run.job), Some(run.job.clone()));
    assert!(jobs(&world).contains(&run.job) && jobs(&world).len() == 2, "{:?}", jobs(&world));
}

#[tokio::test]
async fn a_second_store_gets_backups_of_its_own_and_each_is_judged_by_itself() {
    let second_run = |world: &World| last_in_second(world).map(|last| last.run);
    let mut world = World::new();
    let spec = "  backup: {store: main, secondStore: second, schedule: {verification: ''}}\n";
    world.create(&format!("{MINIMAL}{spec}"));
    world.settle_all().await;
    world.second_archive = Some(reported(&world, "second", Catalogue::default()));
    read(&mut world, Catalogue::default()).await;
    let first = last(&world).expect("a Job").job;
    assert_eq!((jobs(&world), second_run(&world)), (vec![first.clone()], None), "one after the other");
    end(&world, &first, "Complete");
    world.pass(SignedDuration::from_secs(5));
    world.settle().await;
    let catalogue = after(&world, &first);
    read(&mut world, catalogue).await;
    let second = second_run(&world).expect("a Job of the second store");
    assert_eq!((jobs(&world), serves(&world)), (vec![second.job.clone()], (true, true)));
    let job = world.get("jobs", &second.job).expect("the Job").to_string();
    assert!(job.contains("/second/dev/messaging/chat/") && !job.contains("/prod/dev/"), "{job}");
    assert_eq!(last(&world).map(|last| (last.job, last.state)), Some((first.clone(), RequestState::Done)));

    end(&world, &second.job, "Failed");
    world.settle().await;
    assert_eq!(world.condition(kind::BACKED_UP), "False BackupFailed");
    let message = world.message(kind::BACKED_UP);
    assert!(message.contains("store main: the newest backup") && message.contains("store second: "), "{message}");
    world.pass(SignedDuration::from_mins(2));
    world.settle().await;
    let again = second_run(&world).expect("another Job");
    assert_eq!((again.state, again.failures), (RequestState::Running, 1));
    end(&world, &again.job, "Complete");
    world.settle().await;
    world.second_archive = Some(reported(&world, "second", after(&world, &again.job)));
    let catalogue = after(&world, &again.job);
    read(&mut world, catalogue).await;
    assert_eq!(world.condition(kind::BACKED_UP), "True BackedUp", "{}", world.message(kind::BACKED_UP));

    // A failure of one is named, and says nothing of the other.
    world.second_archive.as_mut().expect("a report").failure = Some("it is away".into());
    world.run_pods();
    world.settle().await;
    assert_eq!(world.condition(kind::CONTINUOUS_ARCHIVING), "False ArchivingFailed");
    let message = world.message(kind::CONTINUOUS_ARCHIVING);
    assert!(
        message.contains("archived to the store main") && message.contains("store second: it is away"),
        "{message}"
    );

    world.edit(|resource| resource["spec"]["backup"]["secondStore"] = Value::Null);
    world.second_archive = None;
    world.run_pods();
    world.settle().await;
    assert_eq!(world.condition(kind::CONTINUOUS_ARCHIVING), "True Archiving");
    let backup = world.resource().status.and_then(|status| status.backup).expect("a status");
    assert!(backup.second.is_none() && backup.newest.is_some());
}

#[tokio::test]
async fn a_full_backup_in_each_store_follows_a_restore_in_place() {
    let mut world = World::new();
    let spec = "  backup: {store: main, secondStore: second, schedule: {verification: ''}}\n";
    world.create(&format!("{MINIMAL}{spec}"));
    world.settle_all().await;
    let catalogue = after(&world, "before");
    world.second_archive = Some(reported(&world, "second", catalogue.clone()));
    read(&mut world, catalogue).await;
    assert_eq!((last(&world), last_in_second(&world)), (None, None), "both have one");
    let left_at = world.now();
    world.edit(|resource| {
        let left = json!([{"timeline": 1, "leftAt": left_at, "continuedAs": 2}]);
        resource["status"]["backup"]["leftTimelines"] = left;
    });
    world.pass(SignedDuration::from_secs(5));
    world.settle().await;
    let first = last(&world).expect("a Job");
    assert_eq!((kind_of_last(&world), first.state), (Some(BackupType::Full), RequestState::Running));
    end(&world, &first.job, "Complete");
    world.pass(SignedDuration::from_secs(5));
    world.settle().await;
    let catalogue = after(&world, &first.job);
    read(&mut world, catalogue).await;
    let second = last_in_second(&world).expect("a Job of the second store");
    assert_eq!((second.kind, second.run.state), (BackupType::Full, RequestState::Running));
}

#[tokio::test]
async fn a_request_may_be_for_one_of_two_stores() {
    let mut world = World::new();
    let spec = "  backup: {store: main, secondStore: second, schedule: {verification: ''}}\n";
    world.create(&format!("{MINIMAL}{spec}"));
    world.settle_all().await;
    let catalogue = after(&world, "before");
    world.second_archive = Some(reported(&world, "second", catalogue.clone()));
    read(&mut world, catalogue).await;
    world.edit(|resource| {
        resource["metadata"]["annotations"] = json!({ANNOTATION_BACKUP: "t1", ANNOTATION_BACKUP_STORE: "second"});
    });
    world.settle().await;
    let second = last_in_second(&world).expect("a Job").run;
    assert_eq!((second.request.as_deref(), last(&world)), (Some("t1"), None));
    end(&world, &second.job, "Complete");
    world.pass(SignedDuration::from_secs(5));
    world.settle().await;
    world.second_archive = Some(reported(&world, "second", after(&world, &second.job)));
    world.run_pods();
    world.settle().await;
    assert_eq!(last(&world), None, "the first store was not asked");
    world.edit(|resource| resource["metadata"]["annotations"] = json!({ANNOTATION_BACKUP: "t2"}));
    world.settle().await;
    assert_eq!(last(&world).expect("a Job").request.as_deref(), Some("t2"), "each was asked");
}

#[tokio::test]
async fn a_request_for_an_unknown_store_is_told_and_answered_by_no_job_of_the_schedule() {
    let mut world = World::new();
    let spec = "  backup: {store: main, secondStore: second, schedule: {verification: ''}}\n";
    world.create(&format!("{MINIMAL}{spec}"));
    world.settle_all().await;
    world.edit(|resource| {
        resource["metadata"]["annotations"] = json!({ANNOTATION_BACKUP: "t1", ANNOTATION_BACKUP_STORE: "third"});
    });
    world.second_archive = Some(reported(&world, "second", after(&world, "before")));
    read(&mut world, Catalogue::default()).await;
    assert_eq!(last(&world).expect("the first backup").request, None, "the request is for another store");
    let message = world.message(kind::BACKED_UP);
    assert!(message.contains("names the store third") && message.contains("main and second"), "{message}");
    world.edit(|resource| resource["metadata"]["annotations"][ANNOTATION_BACKUP_STORE] = "second".into());
    world.settle().await;
    assert!(!world.message(kind::BACKED_UP).contains("third"), "{}", world.message(kind::BACKED_UP));
}

#[tokio::test]
async fn tests_of_backups_take_turns_between_two_stores() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}  backup: {{store: main, secondStore: second}}\n"));
    world.settle_all().await;
    // As if both had been backed up before.
    let catalogue = after(&world, "before");
    world.second_archive = Some(reported(&world, "second", catalogue.clone()));
    read(&mut world, catalogue).await;
    let tested = |world: &World| world.resource().status.and_then(|status| status.backup?.last_verification);
    let first = tested(&world).expect("a Job");
    let job = |world: &World, name: &str| world.get("jobs", name).expect("the Job").to_string();
    assert!(job(&world, &first.job).contains("/prod/dev/"));
    let outcome = VerificationOutcome {
        store: Some("main".into()),
        failure: Some("a page is damaged".into()),
        ..VerificationOutcome::default()
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "verify-x", "labels": {"batch.kubernetes.io/job-name": first.job}},
        "status": {"containerStatuses": [{
            "name": "verify", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
            "state": {"terminated": {"exitCode": 1, "message": json!(outcome).to_string()}},
        }]},
    });
    world.api.store().create(&object("pods", "verify-x"), pod, "kubelet").expect("a pod");
    end(&world, &first.job, "Failed");
    world.settle().await;
    assert_eq!(world.condition(kind::RESTORE_VERIFIED), "False VerificationFailed");
    let message = world.message(kind::RESTORE_VERIFIED);
    assert!(message.contains("store main: a page is damaged"), "{message}");
    world.edit(|resource| {
        let at = resource["status"]["backup"]["lastVerification"]["finishedAt"].clone();
        let verified = json!({"label": "l", "store": "main", "at": at, "restoreSeconds": 1, "checkSeconds": 1});
        resource["status"]["backup"]["verified"] = verified;
    });
    world.pass(SignedDuration::from_mins(2));
    world.settle().await;
    let second = tested(&world).expect("another Job");
    assert_ne!(second.job, first.job);
    assert!(job(&world, &second.job).contains("/second/dev/"), "the first one was tested");
}

#[tokio::test]
async fn a_store_that_is_away_does_not_keep_the_other_one_from_being_tested() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}  backup: {{store: main, secondStore: second}}\n"));
    world.settle_all().await;
    let catalogue = after(&world, "before");
    world.archive = Some(reported(&world, "main", catalogue.clone()));
    world.archive.as_mut().expect("a report").failure = Some("it is away".into());
    world.second_archive = Some(reported(&world, "second", catalogue));
    world.run_pods();
    world.pass(SignedDuration::from_secs(40));
    world.settle().await;
    let tested = world.resource().status.and_then(|status| status.backup?.last_verification).expect("a Job");
    let job = world.get("jobs", &tested.job).expect("the Job").to_string();
    assert!(job.contains("/second/dev/"), "{job}");
}

#[tokio::test]
async fn stores_that_change_places_keep_what_is_known_of_each() {
    let mut world = World::new();
    let spec = "  backup: {store: main, secondStore: second, schedule: {verification: ''}}\n";
    world.create(&format!("{MINIMAL}{spec}"));
    world.settle_all().await;
    let catalogue = after(&world, "before");
    let gap = world.now() - SignedDuration::from_hours(1);
    world.second_archive = Some(reported(&world, "second", catalogue.clone()));
    world.second_archive.as_mut().expect("a report").given_up_at = Some(gap);
    read(&mut world, catalogue).await;
    let of = |world: &World| world.resource().status.and_then(|status| status.backup).expect("a status");
    let before = of(&world);
    // The leader's agent has not followed yet, and reports nothing of these.
    (world.archive, world.second_archive) = (None, None);
    world.edit(|resource| {
        let at = resource["status"]["backup"]["newest"]["finishedAt"].clone();
        let run =
            json!({"type": "Full", "job": "chat-db-backup-7", "state": "Done", "startedAt": at, "finishedAt": at});
        resource["status"]["backup"]["second"]["lastRun"] = run;
        resource["spec"]["backup"]["store"] = "second".into();
        resource["spec"]["backup"]["secondStore"] = "main".into();
    });
    world.run_pods();
    world.settle().await;
    let (now, former) = (of(&world), before.second.clone().expect("a second store"));
    let second = now.second.expect("a second store");
    assert_eq!((&now.path, &now.newest, &now.given_up_at), (&former.path, &former.newest, &former.given_up_at));
    assert!(now.given_up_at.is_some() && second.given_up_at.is_none());
    assert_eq!((&second.path, &second.newest, second.count), (&before.path, &before.newest, before.count));
    assert_eq!(now.last_run.expect("a Job").run.job, "chat-db-backup-7");
    assert!(second.next_at.is_none());
}

/// A deleted resource whose pods have ended.
async fn deleted(policies: (&str, &str)) -> World {
    let mut world = archiving().await;
    world.edit(|resource| {
        resource["spec"]["deletionPolicy"] = policies.0.into();
        resource["spec"]["backup"]["deletionPolicy"] = policies.1.into();
        resource["spec"]["backup"]["secondStore"] = "second".into();
    });
    world.settle().await;
    world.api.store().delete(&object("servicedatabases", "chat"), &Value::Null).expect("a deletion");
    world.settle().await;
    world.end_pods();
    world.settle().await;
    world
}

const REMOVAL: &str = "chat-db-backup-removal";

#[tokio::test]
async fn backups_go_only_if_two_fields_say_so_and_while_their_job_has_access() {
    for policies in [("Retain", "Delete"), ("Delete", "Retain")] {
        let world = deleted(policies).await;
        assert!(
            world.get("servicedatabases", "chat").is_none() && world.get("jobs", REMOVAL).is_none(),
            "{policies:?}"
        );
    }
    let mut world = deleted(("Delete", "Delete")).await;
    let job = world.get("jobs", REMOVAL).expect("a Job").to_string();
    assert!(job.contains("remove-backups") && job.contains("backups/main"), "{job}");
    assert!(job.contains("/second/dev/messaging/chat/"), "of the second store, too: {job}");
    let waits = world.resource().status.and_then(|status| status.deletion_waits_for).unwrap_or_default();
    assert!(waits.contains(REMOVAL), "{waits}");
    assert!(!world.vault.content().approles.is_empty(), "the Job reads the keys");
    end(&world, REMOVAL, "Failed");
    world.pass(SignedDuration::from_secs(5));
    world.settle().await;
    assert!(world.get("jobs", REMOVAL).is_some(), "it is tried again");
    end(&world, REMOVAL, "Complete");
    world.pass(SignedDuration::from_secs(5));
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none());
    assert!(world.vault.content().approles.is_empty());
}

#[tokio::test]
async fn a_removal_that_does_not_end_keeps_the_backups_and_nothing_else() {
    let mut world = deleted(("Delete", "Delete")).await;
    assert!(world.get("jobs", REMOVAL).is_some());
    world.pass(SignedDuration::from_hours(2));
    world.settle().await;
    assert!(world.get("servicedatabases", "chat").is_none());
}
