//! The migrations: when the Job is created, and the effect of its result.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::world::{World, names, object};
use crate::api::conditions as kind;
use crate::api::names::ANNOTATION_ROTATE;
use crate::contract::migration::{Failure, Outcome};
use crate::contract::pack::pack;
use crate::contract::report::LedgerReport;

/// A team's migrations.
pub const MIGRATIONS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: chat-migrations}
data:
  0001_create.up.sql: CREATE TABLE messages (id bigint);
  0002_index.up.sql: CREATE INDEX ON messages (id);
";

/// A resource that declares them.
pub const WITH_MIGRATIONS: &str = "
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: chat, namespace: messaging, uid: uid-of-chat, generation: 1}
spec:
  storage: {size: 1Gi}
  migrations: {source: {configMap: {name: chat-migrations}}}
";

/// Simulates a successful Job, and the agent that reads the ledger.
pub fn finish_job(world: &mut World) {
    let job = job(world).expect("a Job");
    let name = job["metadata"]["name"].as_str().expect("a name");
    end(world, name, "Complete", "2026-01-01T00:10:00Z");
    let variables = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("an environment");
    let revision = variables.iter().find(|variable| variable["name"] == "SERVICEDB_REVISION").expect("a revision");
    let revision = revision["value"].as_str().map(str::to_owned);
    world.ledger = Some(LedgerReport { revision, version: Some(2.into()), applied: 2, ..LedgerReport::default() });
    world.run_pods();
}

/// Simulates a failed Job, and its pod's termination message.
fn fail_job(world: &World, failure: Failure, at: &str) {
    let job = job(world).expect("a Job");
    let name = job["metadata"]["name"].as_str().expect("a name");
    end(world, name, "Failed", at);
    let outcome = Outcome { revision: "r".to_owned(), applied: 1, failure: Some(failure), ..Outcome::default() };
    let message = json!(outcome).to_string();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{name}-x"), "labels": {"batch.kubernetes.io/job-name": name}},
        "status": {"containerStatuses": [{
            "name": "migrate", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
            "state": {"terminated": {"exitCode": 1, "message": message}},
        }]},
    });
    world.api.store().create(&object("pods", &format!("{name}-x")), pod, "kubelet").expect("a pod");
}

/// Simulates the Job controller.
pub fn end(world: &World, job: &str, condition: &str, at: &str) {
    world.api.store().edit(&object("jobs", job), |job| {
        job["status"]["conditions"] = json!([{"type": condition, "status": "True", "lastTransitionTime": at}]);
        if condition == "Complete" {
            job["status"]["completionTime"] = at.into();
        }
    });
}

fn job(world: &World) -> Option<Value> {
    let jobs = world.api.store().list("jobs", "messaging", "")["items"].as_array().cloned().unwrap_or_default();
    assert!(jobs.len() < 2, "two Jobs at once");
    jobs.into_iter().next()
}

/// The ConfigMaps that a Job reads its files from.
fn copies(job: &Value) -> Vec<String> {
    let sources = job["spec"]["template"]["spec"]["volumes"][2]["projected"]["sources"].as_array().expect("sources");
    sources.iter().map(|source| source["configMap"]["name"].as_str().expect("a ConfigMap").to_owned()).collect()
}

fn permanent() -> Failure {
    Failure {
        reason: kind::reason::MIGRATION_FAILED.to_owned(),
        file: Some("0002_index.up.sql".to_owned()),
        line: Some(3),
        sqlstate: Some("42P01".to_owned()),
        reverting: false,
        message: "relation \"messages\" does not exist".to_owned(),
        transient: false,
    }
}

async fn with_job() -> World {
    let mut world = World::new();
    world.create(MIGRATIONS);
    world.create(WITH_MIGRATIONS);
    world.settle_all().await;
    assert!(job(&world).is_some());
    world
}

#[tokio::test]
async fn migrations_wait_for_a_missing_config_map() {
    let mut world = World::new();
    world.create(WITH_MIGRATIONS);
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "False ConfigMapNotFound");
    assert_eq!(world.condition(kind::STALLED), "True ConfigMapNotFound", "a person must act");
    assert_eq!(world.condition(kind::RECONCILING), "False Idle");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
    assert!(world.message(kind::READY).contains("chat-migrations"));
    world.create(MIGRATIONS);
    world.settle().await;
    assert!(job(&world).is_some());
    finish_job(&mut world);
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
}

#[tokio::test]
async fn invalid_migrations_are_reported_and_can_be_corrected() {
    let mut world = World::new();
    world.create(&MIGRATIONS.replace("0002_index.up.sql", "index.sql"));
    world.create(WITH_MIGRATIONS);
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "False InvalidMigrations");
    assert!(world.message(kind::READY).contains("index.sql"));
    assert!(job(&world).is_none());
    world.api.store().edit(&object("configmaps", "chat-migrations"), |map| {
        map["data"] = json!({"1_a.up.sql": "SELECT 1;"});
    });
    world.settle().await;
    assert!(job(&world).is_some());
}

/// kubectl writes a file into binaryData if it has a character that is not printable.
#[tokio::test]
async fn files_of_binary_data_are_part_of_the_revision() {
    let mut world = World::new();
    let in_base64 = MIGRATIONS.replace(
        "  0002_index.up.sql: CREATE INDEX ON messages (id);",
        "binaryData:\n  0002_index.up.sql: Q1JFQVRFIElOREVYIE9OIG1lc3NhZ2VzIChpZCk7",
    );
    world.create(&in_base64);
    world.create(WITH_MIGRATIONS);
    world.settle_all().await;
    let job = job(&world).expect("a Job");
    let copy = world.get("configmaps", &copies(&job)[0]).expect("the revision");
    assert_eq!(copy["data"]["0002_index.up.sql"], "CREATE INDEX ON messages (id);");
}

/// A pushed folder has names that a ConfigMap cannot have, and is unpacked by the Job, too.
#[tokio::test]
async fn a_packed_folder_is_copied_as_it_is() {
    let mut world = World::new();
    let folder = [
        ("00000000000000_diesel_initial_setup/up.sql", "SELECT 1;"),
        ("2026-01-02-030405-0000_a table/up.sql", "CREATE TABLE t (id int);"),
        ("README.md", "# Migrations"),
    ];
    let files = folder.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).into();
    let parts = pack(&files).expect("packed").into_iter();
    let parts: BTreeMap<String, ByteString> = parts.map(|(key, bytes)| (key, ByteString(bytes))).collect();
    world.create(
        &json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "chat-migrations"}, "binaryData": parts,
        })
        .to_string(),
    );
    world.create(WITH_MIGRATIONS);
    world.settle_all().await;
    let job = job(&world).expect("a Job");
    let copy = world.get("configmaps", &copies(&job)[0]).expect("the revision");
    assert_eq!(copy["binaryData"], json!(parts));
    assert!(copy.get("data").is_none());
    finish_job(&mut world);
    world.settle().await;
    let status = world.resource().status.and_then(|status| status.migrations).expect("the migrations");
    assert_eq!((status.format.as_deref(), status.ignored), (Some("Diesel"), vec!["README.md".to_owned()]));

    // A part that is missing.
    world.api.store().edit(&object("configmaps", "chat-migrations"), |map| {
        let whole = map["binaryData"].as_object_mut().expect("parts");
        let part = whole.values().next().cloned().expect("a part");
        *whole = [("servicedb-migrations.tar.gz.1-of-2".to_owned(), part)].into_iter().collect();
    });
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "False InvalidMigrations");
    assert!(world.message(kind::READY).contains("part 2 of 2 of the packed folder is missing"));
}

#[tokio::test]
async fn the_job_is_made_once_the_credentials_are_proved() {
    let mut world = World::new();
    world.create(MIGRATIONS);
    world.create(WITH_MIGRATIONS);
    world.settle().await;
    assert!(job(&world).is_none(), "nothing runs yet");
    assert_eq!(world.condition(kind::MIGRATIONS_APPLIED), "False Progressing");

    world.run_pods();
    let sent = world.settle().await;
    assert_eq!(world.condition(kind::MIGRATIONS_APPLIED), "False MigrationsRunning");
    let job = job(&world).expect("a Job");
    let made: Vec<_> = sent.iter().filter(|call| call.contains("migrat") && call.starts_with("POST")).collect();
    assert!(made[0].starts_with("POST configmaps chat-db-migrations-"), "the files exist before the Job: {made:?}");
    assert_eq!(made.len(), 2);
    let copy = world.get("configmaps", &copies(&job)[0]).expect("the revision");
    assert_eq!(copy["immutable"], true);
    assert_eq!(copy["data"], world.get("configmaps", "chat-migrations").expect("the source")["data"]);

    finish_job(&mut world);
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
    let status = world.resource().status.expect("a status");
    assert_eq!(status.schema_version.as_deref(), Some("2"));
    world.restart();
    assert_eq!(world.settle().await, Vec::<String>::new());
}

/// The credentials in the migrator's record are valid until the next ones replace them.
#[tokio::test]
async fn a_rotation_in_progress_does_not_delay_the_job() {
    let mut world = World::new();
    world.create(MIGRATIONS);
    world.create(WITH_MIGRATIONS);
    world.settle().await;
    assert!(job(&world).is_none(), "there are no credentials yet");
    world.run_pods();
    world.api.store().edit(&object("servicedatabases", "chat"), |resource| {
        resource["metadata"]["annotations"][ANNOTATION_ROTATE] = "monday".into();
    });
    world.settle().await;
    assert!(world.vault.content().kv.contains_key(&names().vault("dev").pending()), "the rotation is in progress");
    assert!(job(&world).is_some());
}

#[tokio::test]
async fn a_permanent_failure_stalls_with_file_and_sqlstate() {
    let mut world = with_job().await;
    fail_job(&world, permanent(), "2026-01-01T00:10:00Z");
    let sent = world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True MigrationFailed");
    assert_eq!(world.condition(kind::READY), "False MigrationFailed");
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available", "the database continues to serve");
    let message = world.message(kind::READY);
    for part in ["0002_index.up.sql", "line 3", "does not exist", "SQLSTATE 42P01"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!sent.iter().any(|call| call.contains(" jobs ")), "not retried: {sent:?}");
}

#[tokio::test]
async fn a_transient_failure_is_retried_after_a_delay() {
    let mut world = with_job().await;
    let failure = Failure { transient: true, file: None, line: None, sqlstate: None, ..permanent() };
    fail_job(&world, failure, &jiff::Timestamp::now().to_string());
    let sent = world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "False NotStalled");
    assert!(!sent.iter().any(|call| call.contains(" jobs ")), "not at once: {sent:?}");

    let first = job(&world).expect("a Job");
    end(&world, first["metadata"]["name"].as_str().expect("a name"), "Failed", "2026-01-01T00:10:00Z");
    let sent = world.settle().await;
    let of_jobs: Vec<_> = sent.iter().filter(|call| call.contains(" jobs ")).map(|call| &call[..4]).collect();
    assert_eq!(of_jobs, ["DELE", "POST"], "{sent:?}");
    assert_ne!(job(&world).expect("a Job")["metadata"]["uid"], first["metadata"]["uid"]);
}

const QUOTA: &str = "pods \"chat-db-migrate-x\" is forbidden: failed quota: team: must specify limits.cpu for: migrate";

/// Only the API server knows why a Job has no pod.
#[tokio::test]
async fn a_refused_pod_is_reported_with_the_message_of_the_api_server() {
    let mut world = with_job().await;
    world.api.store().refuse("pods", Some(QUOTA));
    // The Job controller may be about to create it until then.
    world.pass(SignedDuration::from_mins(1));
    world.settle().await;
    for condition in [kind::READY, kind::MIGRATIONS_APPLIED] {
        assert_eq!(world.condition(condition), "False PodRefused");
    }
    assert_eq!(world.condition(kind::STALLED), "True PodRefused");
    let message = world.message(kind::MIGRATIONS_APPLIED);
    assert!(message.contains(QUOTA) && message.contains("spec.migrations.resources"), "{message}");

    // The Job controller waits up to ten minutes before it retries.
    let uid = |world: &World| job(world).map(|job| job["metadata"]["uid"].clone());
    let refused = uid(&world);
    world.api.store().refuse("pods", None);
    world.settle().await;
    assert_eq!(world.condition(kind::MIGRATIONS_APPLIED), "False MigrationsRunning");
    assert_ne!(uid(&world), refused, "a new Job is created at once");
    finish_job(&mut world);
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
}

fn set_resources(world: &World, memory: &str) {
    world.edit(|resource| {
        resource["metadata"]["generation"] =
            (resource["metadata"]["generation"].as_i64().unwrap_or_default() + 1).into();
        resource["spec"]["migrations"]["resources"] = json!({"limits": {"memory": memory}});
    });
}

/// Changed resources apply to a Job without a pod, and to a failed one; a running Job is not
/// changed.
#[tokio::test]
async fn a_job_is_replaced_if_other_resources_can_help() {
    let mut world = with_job().await;
    let limit = |world: &World| {
        let job = job(world).expect("a Job");
        job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"].clone()
    };
    assert_eq!(limit(&world), "1Gi", "the default");
    set_resources(&world, "2Gi");
    world.settle().await;
    assert_eq!(limit(&world), "2Gi");

    fail_job(&world, permanent(), "2026-01-01T00:10:00Z");
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True MigrationFailed");
    let pod = job(&world).expect("a Job")["metadata"]["name"].as_str().map(|name| format!("{name}-x")).expect("a name");
    set_resources(&world, "3Gi");
    world.api.store().edit(&object("pods", &pod), |pod| pod["metadata"]["labels"] = json!({}));
    world.settle().await;
    assert_eq!((limit(&world), world.condition(kind::STALLED)), ("3Gi".into(), "False NotStalled".to_owned()));

    let name = job(&world).expect("a Job")["metadata"]["name"].clone();
    world.api.store().edit(&object("pods", &pod), |pod| {
        pod["metadata"]["labels"] = json!({"batch.kubernetes.io/job-name": name});
        pod["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    });
    set_resources(&world, "4Gi");
    world.settle().await;
    assert_eq!(limit(&world), "3Gi", "it is running");
}

#[tokio::test]
async fn a_pod_without_a_node_is_reported_with_the_message_of_the_scheduler() {
    let mut world = with_job().await;
    let name = job(&world).expect("a Job")["metadata"]["name"].as_str().map(str::to_owned).expect("a name");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{name}-x"), "labels": {"batch.kubernetes.io/job-name": name}},
        "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "message": "0/3 nodes are available: 3 Insufficient cpu.",
        }]},
    });
    world.api.store().create(&object("pods", &format!("{name}-x")), pod, "kubelet").expect("a pod");
    world.settle().await;
    assert_eq!(world.condition(kind::MIGRATIONS_APPLIED), "False Unschedulable");
    assert_eq!(world.condition(kind::STALLED), "False NotStalled", "a node may be added");
    assert!(world.message(kind::READY).contains("3 Insufficient cpu"));
}

#[tokio::test]
async fn a_new_revision_replaces_a_failed_one() {
    let mut world = with_job().await;
    let first = job(&world).expect("a Job");
    fail_job(&world, permanent(), "2026-01-01T00:10:00Z");
    world.settle().await;
    world.api.store().edit(&object("configmaps", "chat-migrations"), |map| {
        map["data"]["0002_index.up.sql"] = "CREATE INDEX messages_id ON messages (id);".into();
    });
    world.settle().await;
    let second = job(&world).expect("a Job");
    assert_ne!(second["metadata"]["name"], first["metadata"]["name"]);
    let copies = world.api.store().list("configmaps", "messaging", "app.kubernetes.io/component=migration");
    assert_eq!(copies["items"].as_array().map(Vec::len), Some(1), "the first revision's copy is deleted");
    assert_eq!(world.condition(kind::STALLED), "False NotStalled");
    finish_job(&mut world);
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
}

#[tokio::test]
async fn a_set_in_several_config_maps_is_one() {
    let mut world = World::new();
    world.create(MIGRATIONS);
    world.create(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: chat-more}
data:
  0003_more.up.sql: CREATE TABLE more (id bigint);
",
    );
    let source = "source: {configMaps: [{name: chat-migrations}, {name: chat-more}]}";
    world.create(&WITH_MIGRATIONS.replace("source: {configMap: {name: chat-migrations}}", source));
    world.settle_all().await;
    let job = job(&world).expect("a Job");
    let files = copies(&job).into_iter().map(|copy| {
        let data = world.get("configmaps", &copy).expect("a copy")["data"].clone();
        data.as_object().expect("files").keys().cloned().collect::<Vec<_>>()
    });
    assert_eq!(
        files.collect::<Vec<_>>(),
        [vec!["0001_create.up.sql", "0002_index.up.sql"], vec!["0003_more.up.sql"]],
        "each as large as its source"
    );
    // A file in both is invalid.
    world.api.store().edit(&object("configmaps", "chat-more"), |map| {
        map["data"] = json!({"0001_create.up.sql": "SELECT 1"});
    });
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "False InvalidMigrations");
    assert!(world.message(kind::READY).contains("0001_create.up.sql is in another ConfigMap"));
}

/// After a failover the new primary's agent has not read the ledger yet.
#[tokio::test]
async fn an_agent_that_has_not_read_the_ledger_does_not_change_what_is_applied() {
    let mut world = with_job().await;
    finish_job(&mut world);
    world.settle().await;
    let made = job(&world).expect("a Job");
    let read = world.ledger.take();
    world.run_pods();
    let sent = world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
    assert!(!sent.iter().any(|call| call.contains(" jobs ")), "{sent:?}");

    // Status had no result for other files.
    world.api.store().edit(&object("configmaps", "chat-migrations"), |map| {
        map["data"]["0003_more.up.sql"] = "CREATE TABLE more (id bigint);".into();
    });
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "False MigrationsRunning");
    assert_ne!(job(&world).expect("another Job")["metadata"]["name"], made["metadata"]["name"]);

    // A missing ledger was read, and does not exist.
    world.api.store().edit(&object("configmaps", "chat-migrations"), |map| {
        map["data"].as_object_mut().expect("files").remove("0003_more.up.sql");
    });
    world.ledger = read;
    world.run_pods();
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
    world.ledger = Some(LedgerReport::default());
    world.run_pods();
    world.settle().await;
    assert_eq!(world.condition(kind::READY), "False MigrationsRunning");
    assert!(job(&world).is_some());
}

#[tokio::test]
async fn migrations_are_counted_once_and_reported_by_events() {
    let mut world = with_job().await;
    fail_job(&world, permanent(), "2026-01-01T00:10:00Z");
    world.settle().await;
    let failures = "servicedb_migration_failures_total{reason=\"MigrationFailed\"} 1";
    assert!(world.metrics().contains(failures), "{}", world.metrics());
    world.settle_all().await;
    assert!(world.metrics().contains(failures), "counted twice");

    finish_job(&mut world);
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready");
    let metrics = world.metrics();
    assert!(metrics.contains("servicedb_migrations_applied_total 2"), "{metrics}");
    world.ledger.as_mut().expect("a ledger").applied = 1;
    world.ledger.as_mut().expect("a ledger").version = Some(1.into());
    world.run_pods();
    world.settle().await;
    assert!(world.metrics().contains("servicedb_migrations_rolled_back_total 1"), "{}", world.metrics());

    let events = world.api.store().list("events", "messaging", "")["items"].as_array().cloned().unwrap_or_default();
    let notes: Vec<_> = events
        .iter()
        .filter(|event| event["reason"] == "SchemaChanged")
        .filter_map(|event| event["note"].as_str().or(event["message"].as_str()))
        .collect();
    assert_eq!(
        notes,
        ["the schema changed from none to version 2", "the schema changed from version 2 to version 1"],
        "{events:?}"
    );
}

#[tokio::test]
async fn a_job_that_cannot_reach_vault_names_the_blocking_policies() {
    let mut world = with_job().await;
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 8200}]}]});
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "default-deny", "namespace": "messaging"}, "spec": spec,
    });
    world.api.store().create(&object("networkpolicies", "default-deny"), policy, "kubectl").expect("a policy");
    let failure = Failure {
        reason: "VaultUnreachable".to_owned(),
        transient: true,
        message: "failed to lookup address information".to_owned(),
        ..Failure::default()
    };
    fail_job(&world, failure, "2026-06-01T00:00:00Z");
    world.settle().await;
    let message = world.message(kind::MIGRATIONS_APPLIED);
    assert!(message.contains("failed to lookup address information"), "{message}");
    assert!(message.contains("NetworkPolicy default-deny") && message.contains("DNS (UDP 53)"), "{message}");
}
