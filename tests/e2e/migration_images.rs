//! Migrations in an image: files that are copied from it, and teams' own tools.

use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use crate::examples::{documents, here};
use crate::harness::{READY, Sandbox, column, database, plugin, shared};

/// The example's ServiceDatabase.
async fn create(sandbox: &Sandbox, example: &str) {
    for object in documents(&format!("migration-images/{example}/servicedatabase.yaml")) {
        sandbox.create(here(object, sandbox)).await;
    }
}

fn version(database: &ServiceDatabase) -> Option<&str> {
    database.status.as_ref().and_then(|status| status.schema_version.as_deref())
}

/// Who owns the tables, each by its name.
const TABLES: &str = "SELECT tablename || ' of ' || tableowner FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";

#[test]
fn a_folder_of_an_image_is_applied() {
    shared("image", async |sandbox| {
        create(&sandbox, "sql").await;
        let ready = sandbox.ready("notes", READY).await;
        assert_eq!(version(&ready), Some("20260302101500"));
        let migrations = ready.status.and_then(|status| status.migrations).expect("migrations");
        assert_eq!((migrations.applied, migrations.pending, migrations.failed), (2, 0, 0));
        let connection = sandbox.connect("notes").await;
        assert_eq!(column(&connection, TABLES).await.expect("a query"), ["notes of notes_db_owner"]);

        let elsewhere = |name: &str, image: Value| database(name, json!({"migrations": {"source": {"image": image}}}));
        let reference = "localhost/servicedb/example-sql:dev";
        sandbox.create(elsewhere("lost", json!({"reference": reference, "path": "/nowhere"}))).await;
        sandbox.create(elsewhere("gone", json!({"reference": "localhost/servicedb/nothing:dev"}))).await;
        let lost = sandbox.condition("lost", "Stalled", "True", "InvalidMigrations", READY).await;
        assert!(lost.message.contains("/nowhere") && lost.message.contains(reference), "{}", lost.message);
        let gone = sandbox.condition("gone", "MigrationsApplied", "False", "ImagePullFailed", READY).await;
        assert!(gone.message.contains("localhost/servicedb/nothing:dev"), "{}", gone.message);
    });
}

/// Flask-Migrate goes forward, and back when its arguments say so.
#[test]
fn alembic_runs_as_it_is() {
    shared("flask", async |sandbox| {
        create(&sandbox, "flask").await;
        let ready = sandbox.ready("profiles", READY).await;
        assert_eq!(version(&ready), Some("8d3e64b90c12"));
        let connection = sandbox.connect("profiles").await;
        let tables = column(&connection, TABLES).await.expect("a query");
        assert_eq!(tables, ["alembic_version of profiles_db_owner", "profile of profiles_db_owner"]);
        // The application reads and writes what the tool has made.
        let insert = "INSERT INTO profile (email, display_name) VALUES ('a@example.org', 'A') RETURNING display_name";
        assert_eq!(column(&connection, insert).await.expect("a row"), ["A"]);
        nothing_secret(&sandbox).await;

        let back = json!({"command": ["flask", "db", "downgrade", "1f0c5a7e2b31"]});
        let source = json!({"spec": {"migrations": {"source": {"job": back}}}});
        sandbox.patch::<ServiceDatabase>("profiles", &source).await;
        sandbox.wait("the version before", "profiles", READY, |found| version(found) == Some("1f0c5a7e2b31")).await;

        // A failure of the tool is reported with the command that shows its log, and is not recorded.
        let wrong = json!({"command": ["flask", "db", "upgrade", "nonsense"]});
        let source = json!({"spec": {"migrations": {"source": {"job": wrong}}}});
        sandbox.patch::<ServiceDatabase>("profiles", &source).await;
        let failed = sandbox.condition("profiles", "Stalled", "True", "MigrationFailed", READY).await;
        assert!(failed.message.contains("exit code") && failed.message.contains("-c tool"), "{}", failed.message);
        assert_eq!(version(&sandbox.get("profiles").await), Some("1f0c5a7e2b31"));
    });
}

async fn jobs(sandbox: &Sandbox) -> Vec<Job> {
    sandbox.api::<Job>().list(&ListParams::default()).await.expect("the Jobs").items
}

/// The tool finds the database by files: its Job names no password, and no Vault.
async fn nothing_secret(sandbox: &Sandbox) {
    let jobs = jobs(sandbox).await;
    let job = serde_json::to_value(jobs.first().expect("a Job")).expect("JSON");
    let tool = &job["spec"]["template"]["spec"]["initContainers"][1];
    assert_eq!(tool["name"], "tool");
    let mounts = tool["volumeMounts"].to_string();
    assert!(!mounts.contains("vault") && !mounts.contains("secret-id"), "{mounts}");
    for variable in tool["env"].as_array().expect("an environment") {
        assert!(variable["valueFrom"].is_null(), "{variable}");
    }
}

/// goose, whose effect is unknown, waits for approval if required.
#[test]
fn a_tool_waits_for_approval() {
    shared("goose", async |sandbox| {
        for mut object in documents("migration-images/goose/servicedatabase.yaml") {
            object["spec"]["migrations"]["approval"] = json!("Manual");
            sandbox.create(here(object, &sandbox)).await;
        }
        let held = sandbox.condition("links", "MigrationsApplied", "False", "ApprovalRequired", READY).await;
        assert!(held.message.contains("example-goose"), "{}", held.message);
        assert!(jobs(&sandbox).await.is_empty(), "a tool ran that nobody has approved");
        let approved = plugin(&sandbox, &["approve", "links", "--yes"]).await;
        assert!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
        assert_eq!(version(&sandbox.ready("links", READY).await), Some("2"));
    });
}
