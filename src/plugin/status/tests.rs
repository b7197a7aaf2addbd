//! From the objects of the API server to the text, for databases in different states.

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::overview::Overview;
use super::render::render;

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a time")
}

fn read<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object of the API server")
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "observedGeneration": 3, "lastTransitionTime": "2026-03-01T10:00:00Z"
    })
}

fn resource(spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "servicedb.dev/v1alpha1",
        "kind": "ServiceDatabase",
        "metadata": {
            "name": "chat", "namespace": "messaging", "uid": "u-chat", "generation": 3,
            "creationTimestamp": "2026-02-20T12:00:00Z"
        },
        "spec": spec,
        "status": status
    })
}

fn pod(ordinal: i32, role: &str, report: Value) -> Value {
    json!({
        "metadata": {
            "name": format!("chat-db-{ordinal}"),
            "uid": format!("u-{ordinal}"),
            "creationTimestamp": "2026-02-27T12:00:00Z",
            "labels": { "servicedb.dev/role": role },
            "annotations": { "servicedb.dev/agent": report.to_string() }
        },
        "spec": { "nodeName": "node-a", "containers": [] },
        "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }],
            "containerStatuses": [{
                "name": "database", "image": "i", "imageID": "", "ready": true, "restartCount": ordinal,
                "state": { "running": {} }
            }]
        }
    })
}

fn report(ordinal: i32, more: Value) -> Value {
    let mut report = json!({
        "version": 1, "podUid": format!("u-{ordinal}"), "agentStartedAt": "2026-02-27T12:00:00Z",
        "phase": "running", "timeline": 4
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        report[key] = value.clone();
    }
    report
}

fn volume(ordinal: i32) -> Value {
    json!({
        "metadata": { "name": format!("data-chat-db-{ordinal}") },
        "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "20Gi" } } },
        "status": { "phase": "Bound", "capacity": { "storage": if ordinal == 2 { "10Gi" } else { "20Gi" } } }
    })
}

fn event(seconds: i32, message: &str) -> Value {
    json!({
        "metadata": {},
        "type": "Normal", "reason": "Promoted", "message": message,
        "eventTime": format!("2026-03-01T11:59:{seconds:02}.000000Z"),
        "involvedObject": { "kind": "ServiceDatabase", "name": "chat" }
    })
}

fn healthy() -> Overview {
    let status = json!({
        "observedGeneration": 3,
        "conditions": [
            condition("Ready", "True", "Ready", "3 of 3 instances are ready"),
            condition("Reconciling", "False", "Idle", ""),
            condition("Stalled", "False", "NotStalled", ""),
            condition("DatabaseAvailable", "True", "Available", ""),
            condition("CredentialsReady", "True", "Available", ""),
            condition("MigrationsApplied", "True", "Applied", ""),
            condition("VaultReachable", "True", "Available", "")
        ],
        "database": "chat_db",
        "postgresVersion": "17.5",
        "primary": "chat-db-1",
        "instances": "3/3",
        "schemaVersion": "2",
        "endpoints": {
            "primary": "chat-db.messaging.svc:5432", "replicas": "chat-db-replicas.messaging.svc:5432"
        },
        "migrations": {
            "revision": "0123456789", "applied": 2, "pending": 0, "failed": 0,
            "recent": [
                { "version": 2, "name": "receipts", "state": "completed", "startedAt": "2026-03-01T09:00:00Z", "durationMs": 1250 },
                { "version": 1, "name": "messages", "state": "completed", "startedAt": "2026-02-20T12:00:09Z", "durationMs": 12 }
            ]
        },
        "credentials": {
            "generation": 10, "rotatedAt": "2026-02-28T12:00:00Z",
            "vaultPath": "secret/dev/messaging/chat/runtime", "vaultRole": "servicedb.dev.messaging.chat.client"
        }
    });
    let spec = json!({
        "instances": 3,
        "storage": { "size": "20Gi" },
        "migrations": { "source": { "configMap": { "name": "chat-migrations" } } }
    });
    let stale = json!({ "podUid": "another", "trouble": { "reason": "CrashLoop", "message": "of an earlier pod" } });
    let pods = [
        pod(2, "replica", report(2, stale)),
        pod(1, "primary", report(1, json!({}))),
        pod(0, "replica", report(0, json!({ "lagBucketBytes": 16 << 20, "restartPending": true }))),
    ];
    let events = (0..12).rev().map(|n| read(event(n, &format!("event {n}")))).collect();
    Overview::new(read(resource(spec, status)))
        .with_pods(&pods.map(read))
        .with_volumes(&[2, 0, 1].map(|ordinal| read(volume(ordinal))))
        .with_events(events)
}

#[test]
fn a_healthy_database() {
    insta::assert_snapshot!(render(&healthy(), now()));
}

/// A person sees conditions that need attention, and no others.
#[test]
fn conditions_that_are_bad_when_true_are_shown_when_true() {
    for kind in ["SchemaDrift", "VolumeNearlyFull", "CollationsChanged", "Stalled", "RolloutPending"] {
        let shown = |status: &str| {
            let mut overview = healthy();
            overview.conditions.retain(|condition| condition.type_ != kind);
            overview.conditions.push(read(condition(kind, status, "Reason", "the message")));
            render(&overview, now()).contains("the message")
        };
        assert!(shown("True") && !shown("False"), "{kind}");
    }
}

#[test]
fn the_document_for_programs() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&healthy()).expect("a document"));
}

#[test]
fn a_resource_that_no_operator_has_seen() {
    let overview = Overview::new(read(resource(json!({ "storage": { "size": "1Gi" } }), Value::Null)));
    insta::assert_snapshot!(render(&overview, now()));
}

#[test]
fn a_database_in_trouble() {
    let failed = "migration 3_index.up.sql failed at line 4 with SQLSTATE 42P07: relation exists";
    let status = json!({
        "observedGeneration": 2,
        "conditions": [
            condition("Ready", "False", "MigrationFailed", failed),
            condition("Stalled", "True", "MigrationFailed", failed),
            condition("VaultReachable", "False", "VaultUnreachable", "Vault at https://vault:8200 cannot be reached"),
            condition("DatabaseAvailable", "Unknown", "Initializing", "")
        ],
        "migrations": {
            "applied": 2, "pending": 1, "failed": 1,
            "recent": [{ "version": 3, "name": "index", "state": "failed", "error": "relation\n\u{1b}[31mexists (42P07)" }]
        }
    });
    let spec = json!({
        "database": "talk",
        "paused": true,
        "deletionPolicy": "Delete",
        "storage": { "size": "1Gi" },
        "migrations": { "source": { "configMap": { "name": "chat-migrations" } } }
    });
    let trouble = json!({
        "phase": "waitingForVault",
        "trouble": { "reason": "VaultUnreachable", "message": "the login waits\nfor Vault" }
    });
    let mut pulled = pod(0, "", report(0, trouble));
    pulled["metadata"]["labels"] = json!({});
    pulled["status"] = json!({
        "phase": "Pending",
        "containerStatuses": [{
            "name": "database", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ImagePullBackOff" } }
        }]
    });
    let unscheduled = json!({
        "metadata": { "name": "chat-db-1" },
        "status": { "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }] }
    });
    let mut overview = Overview::new(read(resource(spec, status))).with_pods(&[pulled, unscheduled].map(read));
    overview.not_read.push("events: events is forbidden: User \"team\" cannot list resource \"events\"".to_owned());
    insta::assert_snapshot!(render(&overview, now()));
}

#[test]
fn a_database_on_its_way_out() {
    let status = json!({
        "observedGeneration": 2,
        "conditions": [condition("Ready", "False", "Deleting", "the resource is being deleted")],
        "deletionWaitsFor": "the pods of the StatefulSet chat-db"
    });
    let mut object = resource(json!({ "storage": { "size": "1Gi" } }), status);
    object["metadata"]["deletionTimestamp"] = json!("2026-03-01T11:58:00Z");
    let mut last = pod(0, "primary", report(0, json!({ "phase": "stopping" })));
    last["metadata"]["deletionTimestamp"] = json!("2026-03-01T11:58:00Z");
    insta::assert_snapshot!(render(&Overview::new(read(object)).with_pods(&[read(last)]), now()));
}

#[test]
fn a_declared_state_is_no_problem() {
    let conditions = json!([
        condition("Ready", "True", "Ready", "the database serves as declared"),
        condition("SynchronousReplication", "False", "SingleInstance", "there is one instance"),
        condition("VolumeNearlyFull", "False", "VolumeHasRoom", ""),
        condition("SchemaDrift", "False", "SchemaMatches", "")
    ]);
    for condition in conditions.as_array().expect("conditions") {
        assert!(super::render::is_as_it_should_be(&read(condition.clone())), "{condition}");
    }
    let streams_not = condition("SynchronousReplication", "False", "NoStandby", "no replica streams");
    assert!(!super::render::is_as_it_should_be(&read(streams_not)));
}

#[test]
fn the_summary_says_how_old_the_newest_backup_is_and_when_one_was_tested() {
    let summary = |backup: Value| {
        let spec = json!({"storage": {"size": "1Gi"}});
        render(&Overview::new(read(resource(spec, json!({"backup": backup})))), now())
    };
    assert!(summary(json!({"store": "main", "path": "/p"})).contains("none yet, in the store main"));
    let backup = json!({
        "store": "main", "path": "/p", "recoverableFrom": "2026-02-20T03:00:00Z",
        "newest": {
            "label": "20260301-030000F", "type": "Full", "startedAt": "2026-03-01T09:59:00Z",
            "finishedAt": "2026-03-01T10:00:00Z", "databaseBytes": 30, "storedBytes": 4,
        },
        "verified": {"label": "20260301-030000F", "at": "2026-03-01T11:00:00Z", "restoreSeconds": 9, "checkSeconds": 2},
    });
    let text = summary(backup);
    for part in ["(Full) is 120m old, in the store main", "recoverable from 2026-02-20T03:00:00Z on", "took 9 s"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_summary_says_how_far_a_restore_in_place_is_and_keeps_the_way_back() {
    let summary = |restore: Value| {
        let spec = json!({"storage": {"size": "1Gi"}});
        render(&Overview::new(read(resource(spec, json!({ "restore": restore })))), now())
    };
    let run = |state: &str, message: &str| {
        let started_at = "2026-03-01T11:59:30Z";
        json!({"request": "t", "state": state, "startedAt": started_at, "message": message})
    };
    let text = summary(run("Running", "chat-db-0 restores"));
    assert!(text.contains("Restore:          Running, requested 30s ago: chat-db-0 restores\n"), "{text}");
    assert!(!text.contains("succeeded"), "{text}");
    let mut failed = run("Failed", "no such time");
    failed["lastDone"] = json!("restored; the way back: R");
    let text = summary(failed);
    assert!(text.contains("Restore:          Failed, requested 30s ago: no such time\n"), "{text}");
    assert!(text.contains("the last one that succeeded: restored; the way back: R\n"), "{text}");
}

#[test]
fn the_summary_says_what_was_restored() {
    let summary = |status: Value| {
        let spec = json!({"storage": {"size": "1Gi"}});
        render(&Overview::new(read(resource(spec, status))), now())
    };
    let restored = "the backup 20261122-030000F of chat, until 2026-11-28 16:29:58+00";
    let text = summary(json!({ "restored": restored }));
    assert!(text.contains(&format!("Restored:         {restored}\n")), "{text}");
    assert!(!summary(json!({})).contains("Restored"));
}

#[test]
fn each_client_is_shown_with_its_login_and_its_rights() {
    let spec = json!({
        "storage": { "size": "1Gi" },
        "clients": [
            { "serviceAccountName": "web" },
            { "serviceAccountName": "bot", "access": { "mode": "ReadWrite" } },
            { "serviceAccountName": "picker-account", "name": "picker", "access": {
                "mode": "Custom", "grants": [{ "tables": ["files"], "privileges": ["SELECT"] }] } },
            { "serviceAccountName": "late", "access": { "mode": "ReadOnly" } },
            { "serviceAccountName": "people", "access": { "mode": "ReadOnly", "dynamic": {} } },
            { "serviceAccountName": "reports/bot", "name": "reports-bot", "access": { "mode": "ReadOnly" } }
        ]
    });
    let own = |name: &str, account: &str, rights: &str, message: Value| {
        json!({
            "name": name, "serviceAccountName": account, "access": "of an earlier spec", "generation": 2,
            "rotatedAt": "2026-03-01T11:00:00Z", "sessions": 3, "vaultPath": "p", "vaultRole": "v", "role": "r", "rights": rights,
            "message": message
        })
    };
    let mut abroad = own("reports-bot", "bot", "Applied", Value::Null);
    abroad["serviceAccountNamespace"] = json!("reports");
    let status = json!({
        "credentials": { "generation": 10, "rotatedAt": "2026-02-28T12:00:00Z", "sessions": 12 },
        "clients": [
            own("bot", "bot", "Applied", Value::Null),
            own("picker", "picker-account", "GrantDrift", json!("not declared: DELETE on public.files")),
            own("late", "another account", "Applied", Value::Null),
            abroad
        ]
    });
    let overview = Overview::new(read(resource(spec, status)));
    let text = render(&overview, now());
    let rows: Vec<String> = text
        .lines()
        .skip_while(|line| *line != "Clients")
        .skip(2)
        .take(7)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        rows,
        [
            "web Shared 10 24h ago 12 all data",
            "bot ReadWrite 2 60m ago 3 Applied",
            "picker Custom 2 60m ago 3 GrantDrift",
            "late ReadOnly 0 - - Unknown",
            "people ReadOnly short-lived - - Unknown",
            "reports-bot ReadOnly 2 60m ago 3 Applied",
            "picker: not declared: DELETE on public.files",
        ],
        "{text}"
    );
}
