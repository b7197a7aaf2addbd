//! Migrations that fail, were edited or are missing: reported, without affecting the database.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use servicedb::api::{MigrationState, ServiceDatabase};

use crate::harness::{READY, SOON, Sandbox, column, condition, config_map, database, run, shared};

const FIRST: &str = "CREATE TABLE notes (id bigint PRIMARY KEY);\nINSERT INTO notes VALUES (1);\n";
const BROKEN: &str = "CREATE TABLE more (id bigint);\nALTER TABLE notse ADD COLUMN body text;\n";
const MENDED: &str = "CREATE TABLE more (id bigint);\nALTER TABLE notes ADD COLUMN body text;\n";

async fn set_files(sandbox: &Sandbox, files: &[(&str, Option<&str>)]) {
    let data: serde_json::Map<String, Value> =
        files.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    sandbox.patch::<ConfigMap>("migrations", &json!({"data": data})).await;
}

#[test]
fn a_migration_that_fails_is_told_and_a_mended_one_goes_on() {
    shared("failing", async |sandbox| {
        sandbox.create(config_map("migrations", &[("1_notes.up.sql", FIRST)])).await;
        sandbox
            .create(database("shop", json!({"migrations": {"source": {"configMap": {"name": "migrations"}}}})))
            .await;
        let ready = sandbox.ready("shop", READY).await;
        let status = ready.status.expect("a status");
        assert_eq!(status.schema_version.as_deref(), Some("1"));
        let revision = status.migrations.expect("migrations").revision;

        set_files(&sandbox, &[("2_body.up.sql", Some(BROKEN))]).await;
        let failed = sandbox.condition("shop", "MigrationsApplied", "False", "MigrationFailed", READY).await;
        assert!(failed.message.contains("2_body.up.sql"), "the message names no file: {}", failed.message);
        assert!(failed.message.contains("42P01"), "the message has no SQLSTATE: {}", failed.message);
        assert!(failed.message.contains("notse"), "the message has not what the server said: {}", failed.message);
        let told = sandbox
            .wait("the ledger's failure is in status", "shop", SOON, |database| {
                database
                    .status
                    .as_ref()
                    .and_then(|status| status.migrations.as_ref())
                    .is_some_and(|migrations| migrations.failed == 1)
            })
            .await;
        let word =
            |kind: &str| condition(&told, kind).map(|condition| (condition.status.clone(), condition.reason.clone()));
        assert_eq!(word("Ready"), Some(("False".to_owned(), "MigrationFailed".to_owned())));
        assert_eq!(word("Stalled"), Some(("True".to_owned(), "MigrationFailed".to_owned())));
        assert_eq!(word("DatabaseAvailable").map(|(status, _)| status).as_deref(), Some("True"));
        let status = told.status.clone().expect("a status");
        assert_eq!(status.schema_version.as_deref(), Some("1"), "the version of a schema whose migration failed");
        let migrations = status.migrations.expect("migrations");
        assert_eq!((migrations.applied, migrations.pending), (1, 1));
        let record =
            migrations.recent.iter().find(|record| record.version == 2.into()).expect("the failed migration in status");
        assert_eq!(record.state, MigrationState::Failed);
        assert!(record.error.as_deref().is_some_and(|error| error.contains("42P01")), "{record:?}");
        // It serves, and nothing of the failed file is left.
        let connection = sandbox.connect("shop").await;
        run(&connection, "INSERT INTO notes VALUES (2)").await.expect("a write while a migration has failed");
        let left = column(&connection, "SELECT count(*) FROM pg_class WHERE relname = 'more'").await.expect("a query");
        assert_eq!(left, ["0"], "a failed migration left a table");

        set_files(&sandbox, &[("2_body.up.sql", Some(MENDED))]).await;
        let ready = sandbox.ready("shop", READY).await;
        let status = ready.status.expect("a status");
        assert_eq!(status.schema_version.as_deref(), Some("2"));
        let migrations = status.migrations.expect("migrations");
        assert_eq!((migrations.applied, migrations.pending, migrations.failed), (2, 0, 0));
        assert_ne!(migrations.revision, revision);
        assert!(
            migrations.recent.iter().all(|record| record.state == MigrationState::Completed),
            "{:?}",
            migrations.recent
        );
        let stored =
            column(&connection, "SELECT id FROM notes WHERE body IS NULL ORDER BY id").await.expect("the new column");
        assert_eq!(stored, ["1", "2"]);
    });
}

#[test]
fn an_edited_or_missing_migration_runs_nothing() {
    shared("edited", async |sandbox| {
        let second = "CREATE TABLE more (id bigint);\n";
        sandbox.create(config_map("migrations", &[("1_notes.up.sql", FIRST), ("2_more.up.sql", second)])).await;
        sandbox
            .create(database("shop", json!({"migrations": {"source": {"configMap": {"name": "migrations"}}}})))
            .await;
        sandbox.ready("shop", READY).await;

        let third = ("3_third.up.sql", Some("CREATE TABLE third (id bigint);\n"));
        set_files(&sandbox, &[("1_notes.up.sql", Some("CREATE TABLE notes (id text PRIMARY KEY);\n")), third]).await;
        let refused = sandbox.condition("shop", "MigrationsApplied", "False", "ChecksumMismatch", READY).await;
        assert!(refused.message.contains("1_notes.up.sql"), "the message names no file: {}", refused.message);
        serves_as_before(&sandbox).await;

        set_files(&sandbox, &[("1_notes.up.sql", None)]).await;
        let refused = sandbox.condition("shop", "MigrationsApplied", "False", "MigrationsMissing", READY).await;
        assert!(refused.message.contains('1'), "the message names no version: {}", refused.message);
        serves_as_before(&sandbox).await;

        set_files(&sandbox, &[("1_notes.up.sql", Some(FIRST)), ("2_more.up.sql", None), ("3_third.up.sql", None)])
            .await;
        sandbox.condition("shop", "MigrationsApplied", "False", "AheadOfSource", READY).await;
        serves_as_before(&sandbox).await;

        set_files(&sandbox, &[("2_more.up.sql", Some(second)), third]).await;
        let ready = sandbox.ready("shop", READY).await;
        assert_eq!(ready.status.and_then(|status| status.schema_version).as_deref(), Some("3"));
    });
}

/// The application reads and writes, and the third migration was not run.
async fn serves_as_before(sandbox: &Sandbox) {
    let now: ServiceDatabase = sandbox.get("shop").await;
    assert_eq!(condition(&now, "DatabaseAvailable").map(|condition| condition.status.as_str()), Some("True"));
    let connection = sandbox.connect("shop").await;
    run(&connection, "UPDATE notes SET id = id").await.expect("a write");
    let third = column(&connection, "SELECT count(*) FROM pg_class WHERE relname = 'third'").await.expect("a query");
    assert_eq!(third, ["0"], "a refused set of migrations was run");
    // The application cannot forge the ledger.
    let forged = run(&connection, "UPDATE servicedb.migrations SET checksum = ''")
        .await
        .expect_err("the application wrote the ledger");
    assert_eq!(forged.sqlstate.as_deref(), Some("42501"), "{forged:?}");
}
