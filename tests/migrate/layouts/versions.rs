//! Versions that are no numbers in the ledger, and ledgers of before there were any.

use servicedb::agent::ledger::look;
use servicedb::api::MigrationFormat;
use servicedb::api::conditions::reason;
use servicedb::contract::migration::Policy;
use servicedb::migrate::source::{self, MigrationSet};
use servicedb::migrate::stop;

use crate::hostile::tenant;
use crate::server::{Database, Server};
use crate::{database, limits, query, run, run_as, run_with};

fn read(files: &[(&str, &str)]) -> MigrationSet {
    source::parse(files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))).expect("valid")
}

/// The ledger of the version before, with a row of each state.
const EARLIER: &str = "
    CREATE SCHEMA servicedb;
    CREATE TABLE servicedb.migrations (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, version bigint NOT NULL UNIQUE CHECK (version >= 0),
        name text NOT NULL, status text NOT NULL CHECK (status IN ('pending', 'executing', 'completed', 'failed')),
        checksum text NOT NULL, started_at timestamptz NOT NULL DEFAULT clock_timestamp(), duration_ms bigint,
        error text, down_file text, down_sql text);
    CREATE TABLE servicedb.revision (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), revision text NOT NULL,
        version text, completed_at timestamptz NOT NULL DEFAULT clock_timestamp());
    INSERT INTO servicedb.revision (revision) VALUES ('of before');";

#[tokio::test]
async fn a_ledger_of_before_is_upgraded_where_it_stands() {
    let database = database("earlier").await;
    let admin = database.superuser().await;
    let set = read(&[
        ("2_a.up.sql", "CREATE TABLE a ()"),
        ("10_b.up.sql", "CREATE TABLE b ()"),
        ("11_c.up.sql", "CREATE TABLE c ()"),
    ]);
    let rows: Vec<String> = set.migrations[..2]
        .iter()
        .map(|one| {
            format!(
                "({}, '{}', 'completed', '{}', 'x.down.sql', 'DROP TABLE {}')",
                one.version, one.name, one.up.checksum, one.name
            )
        })
        .collect();
    let statements = format!(
        "SET ROLE {}; {EARLIER} INSERT INTO servicedb.migrations (version, name, status, checksum, down_file, down_sql) \
         VALUES {}; CREATE TABLE a (); CREATE TABLE b ();",
        database.owner(),
        rows.join(", ")
    );
    admin.client.batch_execute(&statements).await.expect("a ledger of the version before");
    // A dry run reads it as it is.
    let dry = Policy { dry_run: true, ..Policy::default() };
    let plan = run_as(&database, &set, &dry).await.0.plan.expect("a plan");
    assert_eq!((plan.apply, plan.roll_back), (1, 0));
    let upgraded =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'servicedb.migrations'::regclass AND attname = 'ordinal'";
    assert_eq!(query(&admin, upgraded).await, ["0"]);

    assert_eq!(run(&database, &set).await, (1, None));
    let ledger = "SELECT version, version_text, ordinal::numeric FROM servicedb.migrations ORDER BY ordinal";
    assert_eq!(query(&admin, ledger).await, ["2 2 2", "10 10 10", "11 11 11"]);
    // A Job of the version before writes a row without a text.
    let statement = "SET ROLE earlier_owner; INSERT INTO servicedb.migrations (version, name, status, checksum) \
                     VALUES (12, 'd', 'pending', 'x')";
    admin.client.batch_execute(statement).await.expect("a row of a former Job");
    let back = Policy { target_version: Some(2.into()), allow_rollback: true, ..Policy::default() };
    let (done, failure) = run_as(&database, &read(&[("2_a.up.sql", "CREATE TABLE a ()")]), &back).await;
    let failure = failure.expect("11 has no down file");
    assert_eq!((done.rolled_back, failure.reason.as_str()), (0, reason::ROLLBACK_IMPOSSIBLE));
    assert!(failure.message.contains("11 (c)"), "{}", failure.message);
}

#[tokio::test]
async fn texts_are_targets_and_the_agent_reports_them_in_their_order() {
    let (names, owner) = tenant("texts_db", &[]).await;
    owner
        .client
        .batch_execute("DELETE FROM servicedb.migrations; DELETE FROM servicedb.revision")
        .await
        .expect("empty");
    let database = Database { server: Server::on_socket(), name: names.database.clone() };
    let session = database.superuser().await;
    let apply = async |set: &MigrationSet, policy: &Policy| {
        run_with(&session, &database, set, policy, &limits(), &stop().1).await
    };
    let files = [
        ("V1.2__b.sql", "CREATE TABLE b ()"),
        ("V1.10__c.sql", "CREATE TABLE c ()"),
        ("V1.1__a.sql", "CREATE TABLE a ()"),
        ("U1.10__c.sql", "DROP TABLE c"),
        ("U1.2__b.sql", "-- no-transaction idempotent\nDROP TABLE IF EXISTS b"),
        ("R__view.sql", "CREATE OR REPLACE VIEW v AS SELECT 1 AS one"),
        ("README.md", ""),
    ];
    let set = read(&files);
    let to =
        |text: &str| Policy { target_version: Some(text.to_owned().into()), allow_rollback: true, ..Policy::default() };
    assert_eq!(apply(&set, &to("1.2")).await.0.applied, 2, "without the repeatable one");
    assert_eq!(apply(&set, &Policy::default()).await.0.applied, 2);
    let report = look(database.server.socket(), "texts_db").await.expect("a report");
    assert_eq!(report.schema_version().as_deref(), Some("1.10"));
    let recent: Vec<String> = report.recent.iter().map(|record| record.version.to_string()).collect();
    assert_eq!(recent, ["R__view", "1.10", "1.2", "1.1"]);
    let source = report.source.expect("a description");
    assert_eq!((source.format.as_str(), source.ignored), ("Flyway", vec!["README.md".to_owned()]));

    // A repeatable one runs again when it has changed, and alone.
    let mut changed = files;
    changed[5].1 = "CREATE OR REPLACE VIEW v AS SELECT 2 AS one";
    assert_eq!(apply(&read(&changed), &Policy::default()).await.0.applied, 1);
    assert_eq!(query(&database.superuser().await, "SELECT one FROM v").await, ["2"]);
    let (done, failure) = apply(&set, &to("01.1.0")).await;
    assert_eq!((done.rolled_back, failure), (2, None));
    let report = look(database.server.socket(), "texts_db").await.expect("a report");
    assert_eq!(report.schema_version().as_deref(), Some("1.1"));
    let refused = apply(&set, &to("3")).await.1.expect("no such version");
    assert!(refused.message.contains("the newest is 1.10"), "{}", refused.message);
    let edited = read(&[("V1.1__a.sql", "CREATE TABLE other ()")]);
    assert_eq!(apply(&edited, &Policy::default()).await.1.expect("edited").reason, reason::CHECKSUM_MISMATCH);
}

#[tokio::test]
async fn a_baseline_stands_for_all_up_to_it_on_an_empty_database_alone() {
    let files = [
        ("V1__a.sql", "CREATE TABLE a ()"),
        ("V2.1__b.sql", "CREATE TABLE b ()"),
        ("B2.1__all.sql", "CREATE TABLE a (); CREATE TABLE b ()"),
        ("V2.2__c.sql", "CREATE TABLE c ()"),
    ];
    let fresh = database("baseline_fresh").await;
    assert_eq!(run(&fresh, &read(&files)).await, (2, None));
    assert_eq!(run(&fresh, &read(&files)).await, (0, None));
    let ledger = "SELECT version_text FROM servicedb.migrations ORDER BY ordinal";
    assert_eq!(query(&fresh.superuser().await, ledger).await, ["B2.1", "2.2"]);

    let grown = database("baseline_grown").await;
    assert_eq!(run(&grown, &read(&files[..2])).await, (2, None));
    assert_eq!(run(&grown, &read(&files)).await, (1, None));
    assert_eq!(query(&grown.superuser().await, ledger).await, ["1", "2.1", "2.2"]);

    // A failed one is not in the way of its correction.
    let failing = database("baseline_failing").await;
    let mut broken = files;
    broken[2].1 = "CREATE TABLE a (); CREATE TABLE b (x nothing)";
    let failure = run(&failing, &read(&broken)).await.1.expect("it fails");
    assert_eq!((failure.file.as_deref(), failure.line), (Some("B2.1__all.sql"), Some(1)));
    assert_eq!(run(&failing, &read(&files)).await, (2, None));
}

#[tokio::test]
async fn a_late_file_is_told_with_the_habit_of_its_tool() {
    let up = |table: &str| format!("-- +goose Up\nCREATE TABLE {table} ();\n-- +goose Down\nDROP TABLE {table};\n");
    let (a, b) = (up("a"), up("b"));
    let database = database("late").await;
    assert_eq!(run(&database, &read(&[("2_b.sql", &b)])).await, (1, None));
    let both = read(&[("1_a.sql", &a), ("2_b.sql", &b)]);
    let failure = run(&database, &both).await.1.expect("1 is late");
    assert_eq!((failure.reason.as_str(), failure.file.as_deref()), (reason::OUT_OF_ORDER, Some("1_a.sql")));
    assert!(failure.message.contains("goose would refuse it, too"), "{}", failure.message);
    let allowed = Policy { allow_out_of_order: true, ..Policy::default() };
    assert_eq!(run_as(&database, &both, &allowed).await.0.applied, 1);

    // The stored way back is run, with its lines as in the file.
    let broken = "-- +goose Up\nCREATE TABLE c ();\n-- +goose Down\nDROP TABLE c;\nDROP TABLE nothing;\n";
    let three = read(&[("1_a.sql", &a), ("2_b.sql", &b), ("3_c.sql", broken)]);
    assert_eq!(run(&database, &three).await, (1, None));
    let back = Policy { target_version: Some(2.into()), allow_rollback: true, ..Policy::default() };
    let failure = run_as(&database, &three, &back).await.1.expect("the way back fails");
    assert_eq!((failure.file.as_deref(), failure.line, failure.reverting), (Some("3_c.sql"), Some(5), true));
}

#[tokio::test]
async fn another_layout_of_an_applied_schema_is_named() {
    let database = database("switched").await;
    assert_eq!(run(&database, &read(&[("1.5_x/migration.sql", "CREATE TABLE a ()")])).await, (1, None));
    let failure = run(&database, &read(&[("1_a.up.sql", "CREATE TABLE b ()")])).await.1.expect("other files");
    assert_eq!(failure.reason, reason::MIGRATIONS_MISSING);
    assert!(
        failure.message.contains("applied from files of Prisma") && failure.message.contains("of Servicedb"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_placeholder_is_refused_only_while_it_is_pending() {
    let database = database("placeholder").await;
    let files = [("V1__a.sql", "CREATE TABLE a (x text DEFAULT '${x}')")];
    let failure = run(&database, &read(&files)).await.1.expect("pending");
    assert_eq!((failure.reason.as_str(), failure.line), (reason::INVALID_MIGRATIONS, Some(1)));
    let files_of = |list: &[(&str, &str)], format| {
        let list: Vec<_> = list.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        source::read(list, format).expect("valid")
    };
    // Before tools were recognised, it was applied as it stood.
    let applied = files_of(&[("V1__a.sql", "CREATE TABLE a (x text DEFAULT '${x}')")], MigrationFormat::Servicedb);
    let record = format!(
        "SET ROLE placeholder_owner; INSERT INTO servicedb.migrations (version, name, status, checksum) \
         VALUES (1, 'a', 'completed', '{}')",
        applied.migrations[0].up.checksum
    );
    database.superuser().await.client.batch_execute(&record).await.expect("a row");
    assert_eq!(run(&database, &read(&files)).await, (0, None));
}

#[tokio::test]
async fn other_options_of_an_applied_file_are_named() {
    let database = database("options").await;
    let file = ("2019-01-01-000000_a/up.sql", "BEGIN;\nCREATE TABLE a ();\nCOMMIT;\n");
    let with = |options| read(&[file, ("2019-01-01-000000_a/metadata.toml", options)]);
    assert_eq!(run(&database, &with("run_in_transaction = true")).await, (1, None));
    let failure = run(&database, &with("run_in_transaction = false")).await.1.expect("another option");
    assert_eq!(failure.reason, reason::CHECKSUM_MISMATCH);
    assert!(failure.message.contains("the options in the file beside it (metadata.toml"), "{}", failure.message);
    let edited = [(file.0, "CREATE TABLE b ();"), ("2019-01-01-000000_a/metadata.toml", "run_in_transaction = false")];
    let failure = run(&database, &read(&edited)).await.1.expect("edited");
    assert!(failure.message.contains("its file was edited"), "{}", failure.message);
}
