//! Status, by tables of findings and the expected conditions.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::status_findings::{Scene, observed, pod, time};
use crate::api::conditions::{self as kind, reason};
use crate::api::{GatewayCache, GatewaySpec, GatewayStatus, MigrationRecord, MigrationState, ServiceDatabaseStatus};
use crate::contract::backup::Target;
use crate::contract::capacity::Capacity;
use crate::contract::clients::Sessions;
use crate::contract::desired::Desired;
use crate::contract::in_place::{self, InPlace};
use crate::contract::order::{Action, Cause, Order, OrderId, Purpose};
use crate::contract::report::{LedgerReport, OldSessions, Trouble, VaultHealth};
use crate::contract::upgrade::{self, Upgrade};
use crate::migrate::source;
use crate::operator::migrations::progress::Progress;
use crate::operator::status::condition::ConditionState;

/// Status and reason of a condition, as `True Available`.
fn condition(status: &ServiceDatabaseStatus, kind: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind);
    let condition = condition.unwrap_or_else(|| panic!("no condition {kind}"));
    format!("{} {}", condition.status, condition.reason)
}

fn message<'a>(status: &'a ServiceDatabaseStatus, kind: &str) -> &'a str {
    &status.conditions.iter().find(|condition| condition.type_ == kind).expect("the condition").message
}

/// Ready, Reconciling, Stalled, DatabaseAvailable, CredentialsReady, MigrationsApplied,
/// VaultReachable.
fn all(status: &ServiceDatabaseStatus) -> [String; 7] {
    [
        kind::READY,
        kind::RECONCILING,
        kind::STALLED,
        kind::DATABASE_AVAILABLE,
        kind::CREDENTIALS_READY,
        kind::MIGRATIONS_APPLIED,
        kind::VAULT_REACHABLE,
    ]
    .map(|kind| condition(status, kind))
}

fn vault_down() -> Option<ConditionState> {
    Some(ConditionState::no(reason::VAULT_UNREACHABLE, "Vault at https://vault cannot be reached: timeout"))
}

fn files(versions: std::ops::RangeInclusive<i64>) -> source::MigrationSet {
    source::parse(versions.map(|version| (format!("{version:04}_step.up.sql"), b"SELECT 1;".to_vec()))).expect("a set")
}

fn record(version: i64, state: MigrationState) -> MigrationRecord {
    MigrationRecord {
        version: version.into(),
        name: "step".to_owned(),
        state,
        started_at: None,
        duration_ms: Some(3),
        error: None,
    }
}

fn ledger(revision: &str, version: i64, recent: Vec<MigrationRecord>) -> LedgerReport {
    LedgerReport {
        revision: Some(revision.to_owned()),
        version: Some(version.into()),
        applied: version,
        recent,
        ..LedgerReport::default()
    }
}

#[test]
fn initialising() {
    let status = Scene::new().status();
    assert_eq!(
        all(&status),
        [
            "False Initializing",
            "True Progressing",
            "False NotStalled",
            "False Initializing",
            "False CredentialsPending",
            "True NotDeclared",
            "True Available",
        ]
    );
    assert_eq!((status.instances.as_deref(), status.primary.as_deref()), (Some("0/1"), None));
    assert_eq!(status.database.as_deref(), Some("chat_db"));
    let endpoints = status.endpoints.expect("known before they answer");
    assert_eq!((endpoints.primary.as_str(), endpoints.replicas), ("chat-db.messaging.svc:5432", None));
}

#[test]
fn ready() {
    let mut scene = Scene::serving(3);
    scene.resource.spec.clients =
        serde_json::from_value(json!([{"serviceAccountName": "chat"}])).expect("a list of clients");
    let status = scene.status();
    assert_eq!(
        all(&status),
        [
            "True Ready",
            "False Idle",
            "False NotStalled",
            "True Available",
            "True Ready",
            "True NotDeclared",
            "True Available",
        ]
    );
    assert_eq!((status.instances.as_deref(), status.primary.as_deref()), (Some("3/3"), Some("chat-db-0")));
    assert_eq!(status.postgres_version.as_deref(), Some("17.5"));
    assert_eq!(status.observed_generation, Some(1));
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(1)));
    let credentials = status.credentials.expect("credentials");
    assert_eq!(credentials.generation, 1);
    assert_eq!(credentials.vault_path.as_deref(), Some("secret/dev/messaging/chat/runtime"));
    assert_eq!(credentials.vault_role.as_deref(), Some("servicedb.dev.messaging.chat.client"));
    assert_eq!(status.endpoints.expect("endpoints").replicas.as_deref(), Some("chat-db-replicas.messaging.svc:5432"));
}

/// Each line: a disturbance of a serving database, and the expected conditions.
#[test]
fn disturbed() {
    type Disturb = fn(&mut Scene);
    let cases: &[(&str, Disturb, [&str; 4])] = &[
        // what                    how                      Ready, DatabaseAvailable, CredentialsReady, VaultReachable
        (
            "no primary",
            |scene| scene.observed.leader = None,
            ["False NoPrimary", "False NoPrimary", "True Ready", "True Available"],
        ),
        (
            "the leader key is another's",
            |scene| scene.observed.leader = Some("chat-db-1".to_owned()),
            ["False NoPrimary", "False NoPrimary", "True Ready", "True Available"],
        ),
        (
            "no pod at all",
            |scene| scene.observed.pods.clear(),
            ["False NoPrimary", "False NoPrimary", "True Ready", "True Available"],
        ),
        (
            "the leader's report is removed from its pod",
            |scene| {
                scene.observed.pods[0].report = None;
                scene.observed.lease_lives = true;
            },
            ["False InstancesNotReady", "True Available", "True Ready", "True Available"],
        ),
        (
            "the same, and the lease is not renewed",
            |scene| scene.observed.pods[0].report = None,
            ["False NoPrimary", "False NoPrimary", "True Ready", "True Available"],
        ),
        (
            "the primary hangs and renews its lease",
            |scene| {
                scene.observed.lease_lives = true;
                scene.report(|report| report.role = None);
                scene.observed.pods[0].trouble = Some(Trouble {
                    reason: reason::SERVER_STALLED.to_owned(),
                    message: "PostgreSQL of chat-db-0 answers to no new connection".to_owned(),
                });
            },
            ["False ServerStalled", "False ServerStalled", "True Ready", "True Available"],
        ),
        (
            "the operator cannot reach Vault",
            |scene| scene.vault = vault_down(),
            ["True Ready", "True Available", "True Ready", "False VaultUnreachable"],
        ),
        (
            "the agent may not read in Vault",
            |scene| {
                scene.report(|report| {
                    report.vault = Some(VaultHealth {
                        ok: false,
                        reason: Some(reason::VAULT_PERMISSION_DENIED.to_owned()),
                        message: Some("denied".to_owned()),
                    });
                });
            },
            ["True Ready", "True Available", "True Ready", "False VaultPermissionDenied"],
        ),
        (
            "a replica is not ready",
            |scene| scene.observed.pods[2].ready = false,
            ["False InstancesNotReady", "True Available", "True Ready", "True Available"],
        ),
        (
            "a replica crashes",
            |scene| {
                scene.observed.pods[2].ready = false;
                scene.observed.pods[2].trouble =
                    Some(Trouble { reason: reason::CRASH_LOOP.to_owned(), message: "pod chat-db-2".to_owned() });
            },
            ["False CrashLoop", "True Available", "True Ready", "True Available"],
        ),
        (
            "the operator finds the record missing in Vault",
            |scene| scene.credentials.lost = Some("the record is missing".to_owned()),
            ["False CredentialsLost", "True Available", "False CredentialsLost", "True Available"],
        ),
        (
            "the leader finds the record missing in Vault",
            |scene| {
                scene.report(|report| {
                    let message = "the record is missing".to_owned();
                    report.trouble = Some(Trouble { reason: reason::CREDENTIALS_LOST.to_owned(), message });
                });
            },
            ["False CredentialsLost", "True Available", "False CredentialsLost", "True Available"],
        ),
        (
            "a foreign object has a required name",
            |scene| {
                scene.stalled =
                    Some(ConditionState::yes(reason::OBJECT_CONFLICT, "Service chat-db belongs to Deployment x"))
            },
            ["False ObjectConflict", "True Available", "True Ready", "True Available"],
        ),
        (
            "the API server refuses",
            |scene| scene.failed = Some(ConditionState::no(reason::KUBERNETES_ERROR, "quota exceeded (403)")),
            ["False KubernetesError", "True Available", "True Ready", "True Available"],
        ),
    ];
    for (what, disturb, expected) in cases {
        let mut scene = Scene::serving(3).remember();
        disturb(&mut scene);
        let status = scene.status();
        let kinds = [kind::READY, kind::DATABASE_AVAILABLE, kind::CREDENTIALS_READY, kind::VAULT_REACHABLE];
        assert_eq!(kinds.map(|kind| condition(&status, kind)), *expected, "{what}");
        // The trio agrees: of Ready, Reconciling and Stalled exactly one holds.
        let trio = [kind::READY, kind::RECONCILING, kind::STALLED];
        let holding = trio.iter().filter(|kind| condition(&status, kind).starts_with("True")).count();
        assert_eq!(holding, 1, "{what}: {:?}", all(&status));
    }
}

#[test]
fn a_failover_is_reported_as_no_primary_until_it_ends() {
    let mut scene = Scene::serving(2).remember();
    scene.observed.leader = None;
    assert_eq!(
        condition(&scene.status(), kind::SYNCHRONOUS_REPLICATION),
        "True Streaming",
        "as before, for a failover"
    );
    let mut scene = scene.remember();
    assert_eq!(condition(&scene.status(), kind::DATABASE_AVAILABLE), "False NoPrimary", "not initialising again");
    assert_eq!(
        condition(&scene.status(), kind::SYNCHRONOUS_REPLICATION),
        "False NoPrimary",
        "after a minute without one"
    );
    scene.observed.leader = Some("chat-db-1".to_owned());
    scene.observed.pods = vec![observed(&pod(0, false)), observed(&pod(1, true))];
    assert_eq!(condition(&scene.status(), kind::READY), "False NoStandby", "the former primary does not stream yet");
    let report = scene.observed.pods[1].report.as_mut().expect("a report");
    report.synchronous_standbys = vec!["chat-db-0".to_owned()];
    let status = scene.status();
    assert_eq!(condition(&status, kind::READY), "True Ready");
    assert_eq!(status.primary.as_deref(), Some("chat-db-1"));
}

#[test]
fn a_planned_switchover_is_no_failure_and_one_that_lasts_is() {
    let mut scene = Scene::serving(2).remember();
    let action = Action::Switchover { from: "chat-db-0".to_owned(), to: "chat-db-1".to_owned() };
    let id = OrderId::first(Cause::Planned { purpose: Purpose::Drain, decided_at: scene.now });
    let order = Some(Order { id, issued_at: scene.now, action });
    scene.observed.desired = Some(Desired { order, ..Desired::sample() });
    scene.observed.leader = None;
    let status = scene.status();
    assert_eq!(condition(&status, kind::DATABASE_AVAILABLE), "False SwitchingOver");
    assert_eq!(message(&status, kind::READY), "switching over from chat-db-0 to chat-db-1");
    let status = scene.remember().status();
    assert_eq!(condition(&status, kind::DATABASE_AVAILABLE), "False NoPrimary", "a minute later");
    assert!(message(&status, kind::DATABASE_AVAILABLE).contains("may lack commits"));
}

#[test]
fn an_outage_for_a_restore_or_an_upgrade_is_told_as_such_however_long_it_lasts() {
    type Begin = Box<dyn Fn(&mut Scene, bool)>;
    let upgrade = |from, to, stage| Upgrade {
        id: "t".to_owned(),
        pod: "chat-db-0".to_owned(),
        from,
        to,
        stage,
        since: time("2026-03-01T11:59:00Z"),
        limit_seconds: 120,
        rehearsal: None,
        warnings: Vec::new(),
        rehearsed: None,
    };
    let restore = |stage| InPlace {
        id: "t".to_owned(),
        pod: "chat-db-0".to_owned(),
        target: Target::Time(time("2026-03-01T11:00:00Z")),
        timeline: None,
        store: "main".to_owned(),
        stage,
        since: time("2026-03-01T11:59:00Z"),
    };
    let upgrades = |from, to| -> Begin {
        Box::new(move |scene: &mut Scene, stops: bool| {
            let stage = if stops { upgrade::Stage::Switch } else { upgrade::Stage::Rehearse };
            scene.upgrade.desired = Some(upgrade(from, to, stage));
        })
    };
    let cases: [(Begin, &str, &str); 3] = [
        (upgrades(17, 18), "Upgrading", "chat-db-0 is being upgraded from PostgreSQL 17 to 18 (status.upgrade)"),
        (upgrades(18, 17), "Upgrading", "chat-db-0 goes back from PostgreSQL 18 to 17 (status.upgrade)"),
        (
            Box::new(move |scene: &mut Scene, stops: bool| {
                let stage = if stops { in_place::Stage::Switch } else { in_place::Stage::Prepare };
                scene.in_place.desired = Some(restore(stage));
            }),
            "Restoring",
            "chat-db-0 is being replaced by a state from the archive (status.restore)",
        ),
    ];
    for (begin, reason, says) in cases {
        let mut scene = Scene::serving(2).remember();
        scene.observed.leader = None;
        begin(&mut scene, false);
        let status = scene.status();
        assert_eq!(
            condition(&status, kind::DATABASE_AVAILABLE),
            "False NoPrimary",
            "{reason}: the primary should serve"
        );
        begin(&mut scene, true);
        for when in ["at once", "a minute later"] {
            let status = scene.status();
            for kind in [kind::DATABASE_AVAILABLE, kind::READY, kind::SYNCHRONOUS_REPLICATION] {
                assert_eq!(condition(&status, kind), format!("False {reason}"), "{kind} {when}");
            }
            assert_eq!(message(&status, kind::DATABASE_AVAILABLE), says);
            scene = scene.remember();
        }
        // It has ended, and no instance leads.
        (scene.upgrade.desired, scene.in_place.desired) = (None, None);
        assert_eq!(condition(&scene.status(), kind::DATABASE_AVAILABLE), "False NoPrimary", "not initialising");
    }
}

#[test]
fn an_election_is_not_reported_as_waiting_too_early() {
    let mut scene = Scene::serving(2).remember();
    scene.observed.leader = None;
    assert!(!message(&scene.status(), kind::DATABASE_AVAILABLE).contains("may lack"));
}

#[test]
fn before_the_first_initialisation_ready_names_vault() {
    let mut scene = Scene::new();
    scene.vault = vault_down();
    let status = scene.status();
    assert_eq!(condition(&status, kind::READY), "False VaultUnreachable");
    assert_eq!(condition(&status, kind::DATABASE_AVAILABLE), "False Initializing");
    assert_eq!(condition(&status, kind::RECONCILING), "True Progressing", "waiting, not stalled");
    assert!(message(&status, kind::READY).contains("cannot be reached"));
}

#[test]
fn migrations() {
    let failed = Progress::Failed {
        reason: reason::MIGRATION_FAILED.to_owned(),
        message: "0002_b.up.sql, line 3: no such table (SQLSTATE 42P01)".to_owned(),
    };
    let missing = Progress::Waiting { reason: reason::CONFIG_MAP_NOT_FOUND, message: "create it".to_owned() };
    let hindered = |reason| Progress::Hindered { reason, message: "the Job's pod".to_owned() };
    // Progress, MigrationsApplied, Ready, Stalled.
    let cases = [
        (Progress::Running, "False MigrationsRunning", "False MigrationsRunning", "False NotStalled"),
        (Progress::Applied, "True Applied", "True Ready", "False NotStalled"),
        (failed, "False MigrationFailed", "False MigrationFailed", "True MigrationFailed"),
        (missing, "False ConfigMapNotFound", "False ConfigMapNotFound", "True ConfigMapNotFound"),
        (hindered(reason::POD_REFUSED), "False PodRefused", "False PodRefused", "True PodRefused"),
        (hindered(reason::UNSCHEDULABLE), "False Unschedulable", "False Unschedulable", "False NotStalled"),
    ];
    for (progress, migrations, ready, stalled) in cases {
        let mut scene = Scene::serving(1);
        scene.progress = Some(progress.clone());
        let status = scene.status();
        let found = [kind::MIGRATIONS_APPLIED, kind::READY, kind::STALLED].map(|kind| condition(&status, kind));
        assert_eq!(found, [migrations, ready, stalled], "{progress:?}");
        assert_eq!(
            condition(&status, kind::DATABASE_AVAILABLE),
            "True Available",
            "the database continues to serve: {progress:?}"
        );
        if let Progress::Failed { message: said, .. } = &progress {
            assert_eq!(
                (message(&status, kind::STALLED), message(&status, kind::READY)),
                (said.as_str(), said.as_str())
            );
        }
    }
}

/// Otherwise it would be written at each reconcile.
#[test]
fn a_status_equals_what_the_api_server_gives_back() {
    let mut scene = Scene::serving(1);
    let at = "2026-11-30T06:26:13.388597964Z".parse().expect("a time");
    scene.report(|report| report.capacity = Some(Capacity { at, ..Capacity::default() }));
    let status = scene.status();
    let measured = status.capacity.as_ref().and_then(|capacity| capacity.measured_at.clone()).expect("a time");
    assert_eq!(measured.0.subsec_nanosecond(), 0);
    let stored = serde_json::to_value(&status).expect("a document");
    assert_eq!(serde_json::from_value::<ServiceDatabaseStatus>(stored).expect("a status"), status);
}

/// Each line: a problem of a serving database that only a person can solve.
#[test]
fn problems_for_a_person_are_stalled() {
    let trouble = |scene: &mut Scene| {
        let message = "the extension \"nosuch\" is not in the image".to_owned();
        scene.report(|report| report.trouble = Some(Trouble { reason: reason::INVALID_SPEC.to_owned(), message }));
    };
    let volumes = |reason: &str| Some(ConditionState::no(reason, "the volumes"));
    type Disturb<'a> = &'a dyn Fn(&mut Scene);
    let cases: [(Disturb<'_>, &str, &str); 4] = [
        (&trouble, "False InvalidSpec", "True InvalidSpec"),
        (&|scene| scene.volumes = volumes(reason::INVALID_SPEC), "False InvalidSpec", "True InvalidSpec"),
        (
            &|scene| scene.volumes = volumes(reason::VOLUME_CANNOT_GROW),
            "False VolumeCannotGrow",
            "True VolumeCannotGrow",
        ),
        (&|scene| scene.volumes = volumes(reason::VOLUME_GROWING), "False VolumeGrowing", "False NotStalled"),
    ];
    for (disturb, ready, stalled) in cases {
        let mut scene = Scene::serving(1);
        disturb(&mut scene);
        let status = scene.status();
        assert_eq!([kind::READY, kind::STALLED].map(|kind| condition(&status, kind)), [ready, stalled]);
        let reconciling = if stalled.starts_with("True") { "False Idle" } else { "True Progressing" };
        assert_eq!(condition(&status, kind::RECONCILING), reconciling, "{ready}");
    }
}

#[test]
fn a_failure_is_reported_with_the_blocking_cause() {
    let mut scene = Scene::serving(1);
    scene.stalled = Some(ConditionState::yes(reason::POD_REFUSED, "the quota"));
    scene.failed = Some(ConditionState::no(reason::KUBERNETES_ERROR, "etcd is unavailable"));
    let status = scene.status();
    for condition in [kind::READY, kind::STALLED] {
        assert_eq!(message(&status, condition), "the quota; also, the last reconcile failed: etcd is unavailable");
    }
    // A refusal of the content is both.
    scene.stalled = Some(ConditionState::yes(reason::KUBERNETES_ERROR, "etcd is unavailable"));
    assert_eq!(message(&scene.status(), kind::STALLED), "etcd is unavailable");
}

#[test]
fn a_report_of_an_earlier_pod_or_container_is_ignored() {
    type Age = fn(&mut Pod);
    let cases: [(&str, Age); 2] = [
        ("another pod's", |pod| pod.metadata.uid = Some("uid-of-its-successor".to_owned())),
        ("an earlier container's", |pod| {
            let statuses = pod.status.as_mut().and_then(|status| status.container_statuses.as_mut()).expect("statuses");
            let state = json!({"running": {"startedAt": "2026-02-01T00:00:00Z"}});
            statuses[0].state = Some(serde_json::from_value(state).expect("a state"));
        }),
    ];
    for (what, age) in cases {
        let mut scene = Scene::serving(1);
        let mut pod = pod(0, true);
        age(&mut pod);
        scene.observed.pods = vec![observed(&pod)];
        let status = scene.status();
        assert_eq!(condition(&status, kind::DATABASE_AVAILABLE), "False Initializing", "{what}");
        assert_eq!((status.primary, status.instances.as_deref()), (None, Some("0/1")), "{what}");
    }
}

#[test]
fn the_trouble_of_an_unready_agent_counts() {
    let mut pod = pod(0, false);
    let mut report = crate::operator::tests::status_findings::report("uid-of-pod-0", false);
    report.trouble = Some(Trouble { reason: reason::VAULT_MOUNT_MISSING.to_owned(), message: "no mount".to_owned() });
    pod.metadata.annotations =
        Some([(crate::api::names::ANNOTATION_REPORT.to_owned(), json!(report).to_string())].into());
    pod.status.as_mut().and_then(|status| status.conditions.as_mut()).expect("conditions")[0].status = "False".into();
    let mut scene = Scene::new();
    scene.observed.pods = vec![observed(&pod)];
    assert_eq!(condition(&scene.status(), kind::READY), "False VaultMountMissing");
}

#[test]
fn an_unchanged_state_gives_the_same_status() {
    for scene in [Scene::new(), Scene::serving(1), Scene::serving(3)] {
        let scene = scene.remember();
        assert_eq!(Some(scene.status()), scene.resource.status, "a minute later");
    }
    let mut stalled = Scene::serving(1);
    stalled.stalled = Some(ConditionState::yes(reason::PAUSED, "paused"));
    (stalled.vault, stalled.progress) = (None, None);
    let stalled = stalled.remember();
    assert_eq!(Some(stalled.status()), stalled.resource.status);
}

#[test]
fn only_a_change_of_status_is_a_transition() {
    let scene = Scene::serving(1).remember();
    let since = |status: &ServiceDatabaseStatus, kind: &str| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind).expect("the condition");
        condition.last_transition_time.0
    };
    let mut scene = scene;
    scene.observed.leader = None;
    let lost = scene.status();
    assert_eq!(since(&lost, kind::READY), time("2026-03-01T12:01:00Z"), "Ready changed, in whole seconds");
    assert_eq!(since(&lost, kind::CREDENTIALS_READY), time("2026-03-01T12:00:00Z"), "the credentials did not");
    let mut scene = scene.remember();
    scene.stalled = Some(ConditionState::yes(reason::OBJECT_CONFLICT, "another reason"));
    let stalled = scene.status();
    assert_eq!(condition(&stalled, kind::READY), "False ObjectConflict");
    assert_eq!(since(&stalled, kind::READY), time("2026-03-01T12:01:00Z"), "still False, for another reason");
}

#[test]
fn the_list_of_migrations_is_bounded_and_newest_first() {
    let set = files(1..=50);
    let mut scene = Scene::serving(1);
    let recent = (1..=40).rev().take(20).map(|version| record(version, MigrationState::Completed)).collect();
    scene.report(|report| report.ledger = Some(ledger("an earlier one", 40, recent)));
    scene.declare(set.clone());
    scene.progress = Some(Progress::Running);
    let migrations = scene.status().migrations.expect("migrations");
    assert_eq!((migrations.applied, migrations.pending, migrations.failed), (40, 10, 0));
    let versions: Vec<_> = migrations.recent.iter().filter_map(|record| record.version.number()).collect();
    assert_eq!(versions, (31..=50).rev().collect::<Vec<_>>());
    let pending = migrations.recent.iter().filter(|record| record.state == MigrationState::Pending).count();
    assert_eq!(pending, 10);
    assert_eq!(migrations.revision.as_deref(), Some(set.revision.as_str()));
    assert_eq!(scene.status().schema_version.as_deref(), Some("40"));
}

#[test]
fn before_there_is_a_ledger_everything_is_pending() {
    let mut scene = Scene::new();
    scene.declare(files(1..=3));
    let migrations = scene.status().migrations.expect("migrations");
    assert_eq!((migrations.applied, migrations.pending), (0, 3));
}

#[test]
fn a_failed_migration_is_shown_with_its_error() {
    let mut failed = record(2, MigrationState::Failed);
    failed.error = Some("SQLSTATE 42P01".to_owned());
    let mut scene = Scene::serving(1);
    scene.declare(files(1..=3));
    let recent = vec![failed.clone(), record(1, MigrationState::Completed)];
    scene.report(|report| {
        let mut ledger = ledger("none", 1, recent);
        ledger.failed = 1;
        report.ledger = Some(ledger);
    });
    let migrations = scene.status().migrations.expect("migrations");
    assert_eq!((migrations.applied, migrations.pending, migrations.failed), (1, 2, 1), "2 will be retried");
    assert_eq!(migrations.recent.iter().filter_map(|record| record.version.number()).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(migrations.recent[1], failed);
}

/// Without a primary the known state is still reported, except the availability.
#[test]
fn the_known_state_is_kept_without_a_primary() {
    let mut scene = Scene::serving(1);
    scene.declare(files(1..=2));
    scene.progress = Some(Progress::Applied);
    let recent = vec![record(2, MigrationState::Completed), record(1, MigrationState::Completed)];
    scene.report(|report| report.ledger = Some(ledger("r", 2, recent)));
    let mut scene = scene.remember();
    scene.observed.leader = None;
    scene.progress = None;
    let status = scene.status();
    assert_eq!(status.schema_version.as_deref(), Some("2"));
    assert_eq!(status.migrations.as_ref().map(|migrations| (migrations.applied, migrations.pending)), Some((2, 0)));
    assert_eq!(status.credentials.as_ref().map(|credentials| credentials.generation), Some(1));
    assert_eq!(condition(&status, kind::MIGRATIONS_APPLIED), "True Applied");
    assert_eq!(status.primary, None);
}

#[test]
fn no_migrations_declared_shows_none() {
    let mut scene = Scene::serving(1);
    scene.declare(files(1..=2));
    let mut scene = scene.remember();
    scene.declared = None;
    assert_eq!(scene.status().migrations, None);
}

/// The credentials in the runtime record are valid until the next ones replace them.
#[test]
fn a_rotation_in_progress_is_no_trouble() {
    let mut scene = Scene::serving(1).remember();
    scene.credentials.generation = 2;
    let status = scene.status();
    let condition = |kind: &str| status.conditions.iter().find(|found| found.type_ == kind).expect("a condition");
    assert_eq!(condition(kind::READY).status, "True");
    assert_eq!(condition(kind::RECONCILING).status, "False");
    assert_eq!(condition(kind::CREDENTIALS_READY).status, "True");
    assert!(condition(kind::CREDENTIALS_READY).message.contains("2 is in progress"));
}

/// A request is complete when the generation that answers it is in Vault, and not before.
#[test]
fn a_request_is_reported_when_it_is_complete() {
    let mut scene = Scene::serving(3);
    scene.credentials.generation = 2;
    scene.credentials.requests.rotate = Some("monday".to_owned());
    let echo = |scene: &Scene| scene.status().credentials.expect("credentials").rotate_request;
    assert_eq!(echo(&scene), None);
    scene.report(|report| report.credentials.as_mut().expect("credentials").generation = 2);
    assert_eq!(echo(&scene).as_deref(), Some("monday"));
}

#[test]
fn sessions_of_the_old_login_are_counted_over_all_instances() {
    let mut scene = Scene::serving(3);
    let counted = |scene: &Scene| scene.status().credentials.expect("credentials").old_sessions;
    assert_eq!(counted(&scene), None, "no report");
    for (pod, count) in scene.observed.pods.iter_mut().zip([4, 0, 3]) {
        pod.report.as_mut().expect("a report").old_sessions = Some(OldSessions { generation: 1, count });
    }
    assert_eq!(counted(&scene), Some(7));
    scene.report(|report| report.credentials.as_mut().expect("credentials").generation = 2);
    assert_eq!(counted(&scene), None, "these were counted before the last rotation");
}

#[test]
fn sessions_are_those_of_all_instances_that_have_counted() {
    let mut scene = Scene::serving(3);
    let counted = |scene: &Scene| scene.status().credentials.expect("credentials").sessions;
    assert_eq!(counted(&scene), None, "no report");
    for (pod, shared) in scene.observed.pods.iter_mut().zip([4, 3]) {
        pod.report.as_mut().expect("a report").sessions = Some(Sessions { shared, ..Sessions::default() });
    }
    assert_eq!(counted(&scene), Some(7));
}

#[test]
fn the_status_of_the_gateway_names_a_cached_collection_that_does_not_exist() {
    let mut scene = Scene::serving(1);
    let cache = GatewayCache { collections: vec!["films".to_owned()], megabytes: 8 };
    scene.resource.spec.gateway = Some(GatewaySpec { cache: Some(cache), ..GatewaySpec::default() });
    let mut status = scene.status();
    status.gateway = Some(GatewayStatus { instances: Some("2/2".to_owned()), ..GatewayStatus::default() });
    scene.resource.status = Some(status);
    scene.report(|report| report.uncached = Some(vec!["films".to_owned()]));
    let gateway = scene.status().gateway.expect("a status");
    assert_eq!(gateway.instances.as_deref(), Some("2/2"));
    assert!(gateway.message.is_some_and(|message| message.contains("not cached: films. ")));
}
