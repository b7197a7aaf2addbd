//! The Job that rehearses a major upgrade on the newest backup: it is created, found again, repeated and ended.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::fixtures::{MINIMAL, options};
use super::migrations::end;
use super::pod_security::violations;
use super::world::{World, object};
use crate::api::names::{ANNOTATION_UPGRADE, ANNOTATION_UPGRADE_ACTION};
use crate::api::{BackupType, RequestState, UpgradePhase, UpgradeStatus};
use crate::contract::desired::{Desired, KEY};
use crate::contract::rehearsal::RehearsalOutcome;
use crate::contract::report::{ArchiveReport, Catalogue, CatalogueEntry};
use crate::contract::upgrade::{Rehearsed, Upgrade, UpgradeReport, UpgradeState};
use crate::operator::context::options::Options;

const LABEL: &str = "20260601-000000F";

/// A database of 17 with a backup, whose upgrade to 18 may be requested.
async fn backed_up() -> World {
    let mut world = World::new();
    let image = |major: &str| (major.to_owned(), format!("registry.example/servicedb-postgres:{major}"));
    world.restart_with(Options { postgres_images: ["17", "18"].map(image).to_vec(), ..options() });
    world.majors = vec![17, 18];
    let spec = "  backup: {store: main, schedule: {verification: ''}}\n  postgres: {version: '17'}\n";
    world.create(&format!("{MINIMAL}{spec}"));
    world.settle_all().await;
    let now = world.now();
    let full = CatalogueEntry {
        label: LABEL.into(),
        kind: BackupType::Full,
        started_at: now,
        finished_at: now,
        database_bytes: 30,
        stored_bytes: 4,
    };
    world.archive = Some(ArchiveReport {
        store: "main".into(),
        archived_at: Some(now),
        waiting: 0,
        failure: None,
        given_up_at: None,
        catalogue: Some(Catalogue {
            count: 1,
            recoverable_from: Some(now),
            newest_full: Some(full.clone()),
            newest: Some(full),
            ..Catalogue::default()
        }),
    });
    world.run_pods();
    world.settle().await;
    world
}

/// The same, whose rehearsal was requested.
async fn asked() -> World {
    let mut world = backed_up().await;
    ask(&world);
    world.settle().await;
    world
}

fn ask(world: &World) {
    world.edit(|resource| {
        resource["spec"]["postgres"]["version"] = "18".into();
        resource["metadata"]["annotations"] = json!({ANNOTATION_UPGRADE: "t", ANNOTATION_UPGRADE_ACTION: "Check"});
    });
}

fn stage(world: &World) -> Option<Upgrade> {
    let map = world.get("configmaps", "chat-db-desired").expect("the desired state");
    let desired: Desired = serde_json::from_str(map["data"][KEY].as_str().expect("a document")).expect("JSON");
    desired.upgrade.map(|upgrade| *upgrade)
}

/// The Job that the desired state names.
fn job(world: &World) -> String {
    stage(world).and_then(|upgrade| upgrade.rehearsal).expect("a Job").job
}

fn jobs(world: &World) -> Vec<String> {
    world.api.store().all().keys().filter(|key| key.0 == "jobs").map(|key| key.2.clone()).collect()
}

fn upgrade(world: &World) -> UpgradeStatus {
    *world.resource().status.and_then(|status| status.upgrade).expect("an upgrade")
}

fn result(world: &World) -> (RequestState, String) {
    let last = upgrade(world).last_request.expect("a request");
    (last.state, last.message.unwrap_or_default())
}

/// The Job has ended with this termination message.
fn ended(world: &World, condition: &str, outcome: &RehearsalOutcome) {
    let job = job(world);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{job}-x"), "labels": {"batch.kubernetes.io/job-name": job}},
        "status": {"containerStatuses": [{
            "name": "rehearse", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
            "state": {"terminated": {"exitCode": 0, "message": json!(outcome).to_string()}},
        }]},
    });
    world.api.store().create(&object("pods", &format!("{job}-x")), pod, "kubelet").expect("a pod");
    end(world, &job, condition, "2026-06-01T00:09:00Z");
}

/// The primary's agent has found room on its volume.
async fn has_room(world: &mut World) {
    let id = stage(world).expect("a stage").id;
    world.upgrade = Some(UpgradeReport { id, state: UpgradeState::HasRoom });
    world.run_pods();
    world.settle().await;
}

#[tokio::test]
async fn a_job_with_a_volume_of_its_own_rehearses_and_status_has_the_announced_outage() {
    let mut world = asked().await;
    assert_eq!(jobs(&world), [job(&world)]);
    let planned = world.get("jobs", &job(&world)).expect("the Job");
    let pod = &planned["spec"]["template"]["spec"];
    assert_eq!(violations(pod), Vec::<String>::new());
    let volume = |name: &str| {
        let volumes = pod["volumes"].as_array().expect("volumes");
        volumes.iter().find(|volume| volume["name"] == name).cloned().expect("a volume")
    };
    assert_eq!(volume("data")["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert_eq!(volume("desired")["configMap"]["name"], "chat-db-desired");
    assert!(pod["volumes"].as_array().expect("volumes").iter().all(|volume| volume["persistentVolumeClaim"].is_null()));
    let order = pod["containers"][0]["env"][0]["value"].as_str().expect("an order");
    let order: Value = serde_json::from_str(order).expect("JSON");
    assert_eq!((&order["version"], &order["from"], &order["to"]), (&json!(1), &json!(17), &json!(18)));
    assert!(planned["spec"]["ttlSecondsAfterFinished"].is_number(), "its volume goes");

    let rehearsed = Some(Rehearsed { seconds: 40, upgrade_seconds: 9, warnings: Vec::new() });
    let outcome = RehearsalOutcome { label: Some(LABEL.into()), rehearsed, ..RehearsalOutcome::default() };
    ended(&world, "Complete", &outcome);
    world.settle().await;
    assert_eq!(result(&world).0, RequestState::Running, "the volume of the primary may be full: {:?}", result(&world));
    has_room(&mut world).await;
    assert_eq!((upgrade(&world).phase, result(&world).0), (UpgradePhase::Pending, RequestState::Done));
    let found = upgrade(&world);
    assert_eq!((found.rehearsal_seconds, found.rehearsed_backup.as_deref()), (Some(40), Some(LABEL)));
    assert_eq!(stage(&world), None);
}

#[tokio::test]
async fn of_two_stores_the_one_with_the_newest_usable_backup_is_taken() {
    for is_away in [false, true] {
        let mut world = backed_up().await;
        world.edit(|resource| resource["spec"]["backup"]["secondStore"] = "second".into());
        world.pass(SignedDuration::from_mins(1));
        let mut second = world.archive.clone().expect("a report");
        second.store = "second".into();
        let newest = second.catalogue.as_mut().and_then(|catalogue| catalogue.newest.as_mut()).expect("a backup");
        newest.started_at = world.now();
        second.failure = is_away.then(|| "it is away".into());
        world.second_archive = Some(second);
        world.run_pods();
        world.settle().await;
        ask(&world);
        world.settle().await;
        let order = world.get("jobs", &job(&world)).expect("the Job").to_string();
        assert_eq!((order.contains("/second/dev/"), order.contains("/prod/dev/")), (!is_away, is_away), "{order}");
        let rehearsal = stage(&world).and_then(|upgrade| upgrade.rehearsal).expect("a Job");
        assert_eq!(rehearsal.store.as_deref(), Some(if is_away { "main" } else { "second" }));
    }
}

#[tokio::test]
async fn a_job_that_is_gone_or_was_killed_is_repeated_and_a_second_time_the_stage_ends() {
    let mut world = asked().await;
    let first = job(&world);
    let _ = world.api.store().delete(&object("jobs", &first), &json!({}));
    world.restart();
    world.settle().await;
    assert_eq!((jobs(&world), job(&world)), (vec![first.clone()], first.clone()), "the desired state names it");

    for attempt in [2, 3] {
        world.pass(SignedDuration::from_secs(5));
        end(&world, &job(&world), "Failed", "2026-06-01T00:01:00Z");
        world.settle().await;
        if attempt == 2 {
            assert_eq!(jobs(&world), [job(&world)]);
            assert_ne!(job(&world), first);
        }
    }
    assert_eq!((stage(&world), result(&world).0), (None, RequestState::Failed));
    assert!(result(&world).1.contains("was ended 2 times"), "{:?}", result(&world));
}

#[tokio::test]
async fn a_backup_that_cannot_be_restored_leaves_the_rehearsal_to_the_primary() {
    let mut world = asked().await;
    let failure = Some("the store does not answer".to_owned());
    ended(&world, "Failed", &RehearsalOutcome { failure, ..RehearsalOutcome::default() });
    world.pass(SignedDuration::from_secs(5));
    world.settle().await;
    let upgrade = stage(&world).expect("a stage");
    assert_eq!(upgrade.rehearsal, None);
    assert!(result(&world).1.contains("(the store does not answer): chat-db-0 upgrades"), "{:?}", result(&world));
}

#[tokio::test]
async fn a_rehearsal_that_is_withdrawn_ends_its_job() {
    let mut world = asked().await;
    world.edit(|resource| resource["spec"]["postgres"]["version"] = "17".into());
    world.settle().await;
    assert_eq!((jobs(&world), stage(&world)), (Vec::new(), None));
    assert!(result(&world).1.contains("was changed meanwhile"), "{:?}", result(&world));
}

#[tokio::test]
async fn a_job_that_the_api_server_refuses_is_told_and_tried_again() {
    let mut world = backed_up().await;
    world.api.store().refuse("jobs", Some("exceeded quota: jobs"));
    ask(&world);
    for _ in 0..3 {
        let _ = world.reconcile().await;
        world.send_watch_events();
    }
    assert!(jobs(&world).is_empty() && result(&world).1.contains("exceeded quota"), "{:?}", result(&world));
    world.api.store().refuse("jobs", None);
    world.settle().await;
    assert_eq!(jobs(&world), [job(&world)]);
}
