//! Targets, rollbacks and schemas of another tool.

use std::time::Duration;

use servicedb::api::MigrationAction;
use servicedb::api::conditions::reason;
use servicedb::contract::migration::Policy;
use servicedb::migrate::source::{self, MigrationSet};
use servicedb::migrate::{Limits, stop};

use crate::{Database, database, ledger, limits, query, run, run_as, run_with, set, tables};

/// A set with down files: name without ending, up, down.
fn reversible(files: &[(&str, &str, &str)]) -> MigrationSet {
    let both = |(name, up, down): &(&str, &str, &str)| {
        [(format!("{name}.up.sql"), up.as_bytes().to_vec()), (format!("{name}.down.sql"), down.as_bytes().to_vec())]
    };
    source::parse(files.iter().flat_map(both)).expect("valid migrations")
}

fn three() -> MigrationSet {
    reversible(&[
        ("1_a", "CREATE TABLE a (id int)", "DROP TABLE a"),
        ("2_b", "CREATE TABLE b (id int)", "DROP TABLE b"),
        ("3_c", "ALTER TABLE b ADD c int; CREATE TABLE c ()", "DROP TABLE c; ALTER TABLE b DROP c"),
    ])
}

fn to(target: i64) -> Policy {
    Policy { target_version: Some(target.into()), allow_rollback: true, ..Policy::default() }
}

async fn marked(database: &Database) -> Vec<String> {
    query(&database.superuser().await, "SELECT version, status, error FROM servicedb.migrations ORDER BY version").await
}

#[tokio::test]
async fn a_lower_target_rolls_back_by_what_the_ledger_kept_and_a_higher_one_applies_again() {
    let database = database("back").await;
    assert_eq!(run(&database, &three()).await, (3, None));
    let admin = database.superuser().await;
    let before = query(&admin, "SELECT xmin, * FROM servicedb.migrations WHERE version = 1").await;

    // The source is the previous release: it does not contain the rolled back files.
    let earlier = reversible(&[("1_a", "CREATE TABLE a (id int)", "SELECT 1/0")]);
    let (done, failure) = run_as(&database, &earlier, &to(1)).await;
    assert_eq!((done.applied, done.rolled_back, failure), (0, 2, None));
    assert_eq!(tables(&admin).await, ["a back_owner"]);
    assert_eq!(query(&admin, "SELECT xmin, * FROM servicedb.migrations").await, before, "what stays is untouched");
    assert_eq!(query(&admin, "SELECT revision FROM servicedb.revision").await, [to(1).goal(&earlier.revision)]);

    let (done, failure) = run_as(&database, &earlier, &to(1)).await;
    assert_eq!((done.applied, done.rolled_back, failure), (0, 0, None));
    assert_eq!(run(&database, &three()).await, (2, None));
    assert_eq!(ledger(&admin).await, ["1 a completed", "2 b completed", "3 c completed"]);
    let (done, failure) = run_as(&database, &three(), &to(0)).await;
    assert_eq!((done.rolled_back, failure), (3, None));
    assert_eq!((tables(&admin).await, ledger(&admin).await), (vec![], vec![]));
}

#[tokio::test]
async fn a_rollback_that_is_not_allowed_or_not_possible_runs_nothing() {
    let database = database("refused_back").await;
    let mixed = source::parse([
        ("1_a.up.sql".to_owned(), b"CREATE TABLE a ()".to_vec()),
        ("2_b.up.sql".to_owned(), b"CREATE TABLE b ()".to_vec()),
        ("3_c.up.sql".to_owned(), b"CREATE TABLE c ()".to_vec()),
        ("3_c.down.sql".to_owned(), b"DROP TABLE c".to_vec()),
    ])
    .expect("valid migrations");
    assert_eq!(run(&database, &mixed).await, (3, None));
    for (policy, expected, word) in [
        (Policy { target_version: Some(2.into()), ..Policy::default() }, reason::ROLLBACK_REFUSED, "3 (c)"),
        (to(1), reason::ROLLBACK_IMPOSSIBLE, "2 (b)"),
        (to(9), reason::TARGET_VERSION_NOT_FOUND, "newest is 3"),
    ] {
        let (done, failure) = run_as(&database, &mixed, &policy).await;
        let failure = failure.expect("a refusal");
        assert_eq!((done.rolled_back, failure.reason.as_str(), failure.transient), (0, expected, false));
        assert!(failure.message.contains(word), "{}", failure.message);
    }
    assert_eq!(tables(&database.superuser().await).await.len(), 3, "nothing was rolled back");
}

#[tokio::test]
async fn a_down_file_that_fails_leaves_the_migration_applied_and_is_told() {
    let database = database("bad_down").await;
    let bad = reversible(&[
        ("1_a", "CREATE TABLE a ()", "DROP TABLE a"),
        ("2_b", "CREATE TABLE b ()", "DROP TABLE b;\nDROP TABLE missing;"),
    ]);
    assert_eq!(run(&database, &bad).await, (2, None));
    let (done, failure) = run_as(&database, &bad, &to(0)).await;
    let failure = failure.expect("a failure");
    assert_eq!((done.rolled_back, failure.file.as_deref(), failure.line), (0, Some("2_b.down.sql"), Some(2)));
    assert_eq!(failure.sqlstate.as_deref(), Some("42P01"));
    let admin = database.superuser().await;
    assert_eq!(tables(&admin).await.len(), 2, "all of the file was rolled back");
    let marks = marked(&database).await;
    assert!(marks[1].starts_with("2 completed 2_b.down.sql:2: table \"missing\" does not exist"), "{marks:?}");
    // The schema has what stays declared, and the ledger says so again.
    assert_eq!(run(&database, &bad).await, (0, None));
}

#[tokio::test]
async fn a_down_file_without_a_transaction_that_did_not_end_is_looked_at_by_people() {
    let database = database("bare_down").await;
    let bare = reversible(&[(
        "1_a",
        "CREATE TABLE a ()",
        "-- no-transaction\nCREATE TABLE half (); DROP TABLE missing; DROP TABLE a",
    )]);
    assert_eq!(run(&database, &bare).await, (1, None));
    let (_, failure) = run_as(&database, &bare, &to(0)).await;
    assert_eq!(failure.expect("a failure").line, Some(2));
    for policy in [to(0), Policy::default()] {
        let (done, failure) = run_as(&database, &bare, &policy).await;
        let failure = failure.expect("a refusal");
        assert!(done.rolled_back == 0 && failure.message.contains("half reverted"), "{}", failure.message);
    }
    let session = database.superuser().await;
    session.client.batch_execute("UPDATE servicedb.migrations SET error = NULL").await.expect("as the message says");
    assert_eq!(run(&database, &bare).await, (0, None));
}

#[tokio::test]
async fn a_schema_of_another_tool_is_taken_as_it_is_up_to_the_baseline() {
    let database = database("baseline").await;
    let session = database.migrator().await;
    session
        .client
        .batch_execute("SET ROLE baseline_owner; CREATE TABLE a (id int); CREATE TABLE b (id int)")
        .await
        .expect("another tool's work");
    let policy = Policy { baseline_version: Some(2.into()), ..Policy::default() };
    let (done, failure) = run_as(&database, &three(), &policy).await;
    assert_eq!((done.applied, failure), (1, None));
    let admin = database.superuser().await;
    assert_eq!(ledger(&admin).await, ["1 a completed", "2 b completed", "3 c completed"]);
    assert_eq!(run_as(&database, &three(), &policy).await.0.applied, 0);
    // Recorded migrations can be rolled back like all others.
    assert_eq!(run_as(&database, &three(), &to(0)).await.0.rolled_back, 3);
    assert_eq!(tables(&admin).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_run_and_writes_nothing() {
    let database = database("dry").await;
    let dry = |policy: Policy| Policy { dry_run: true, ..policy };
    let (done, failure) = run_as(&database, &three(), &dry(Policy::default())).await;
    let plan = done.plan.expect("a plan");
    assert_eq!((plan.apply, plan.roll_back, plan.record, failure), (3, 0, 0, None));
    let admin = database.superuser().await;
    assert_eq!(query(&admin, "SELECT to_regclass('servicedb.migrations')").await, ["NULL"], "not even a ledger");

    assert_eq!(run(&database, &three()).await, (3, None));
    let before = query(&admin, "SELECT xmin, * FROM servicedb.migrations").await;
    let (done, _) = run_as(&database, &three(), &dry(to(1))).await;
    let steps: Vec<_> =
        done.plan.expect("a plan").steps.into_iter().map(|step| (step.version.number(), step.action)).collect();
    assert_eq!(steps, [(Some(3), MigrationAction::RollBack), (Some(2), MigrationAction::RollBack)]);
    assert_eq!(query(&admin, "SELECT xmin, * FROM servicedb.migrations").await, before);
}

#[tokio::test]
async fn a_hole_in_the_order_is_filled_when_that_is_allowed() {
    let database = database("hole").await;
    let late = set(&[("1_a", "CREATE TABLE a ()"), ("3_c", "CREATE TABLE c ()")]);
    assert_eq!(run(&database, &late).await, (2, None));
    let whole = set(&[("1_a", "CREATE TABLE a ()"), ("2_b", "CREATE TABLE b ()"), ("3_c", "CREATE TABLE c ()")]);
    let (_, failure) = run(&database, &whole).await;
    assert_eq!(failure.expect("a refusal").reason, reason::OUT_OF_ORDER);
    let policy = Policy { allow_out_of_order: true, ..Policy::default() };
    assert_eq!(run_as(&database, &whole, &policy).await.0.applied, 1);
    assert_eq!(run(&database, &whole).await, (0, None), "nothing is out of order any more");
}

#[tokio::test]
async fn a_statement_that_never_ends_is_ended() {
    let database = database("endless").await;
    let migrations = set(&[("1_a", "CREATE TABLE a ();\nSELECT pg_sleep(600);")]);
    let limits = Limits { statement: Duration::from_secs(3), ..limits() };
    let session = database.migrator().await;
    let (_, failure) = run_with(&session, &database, &migrations, &Policy::default(), &limits, &stop().1).await;
    let failure = failure.expect("it was ended");
    assert_eq!((failure.line, failure.sqlstate.as_deref()), (Some(2), Some("57014")));
    assert!(failure.message.contains("statement timeout"), "{}", failure.message);
    assert_eq!(tables(&database.superuser().await).await, Vec::<String>::new());
}

#[tokio::test]
async fn no_revision_is_complete_while_another_is_half_applied() {
    let database = database("stale").await;
    let one = reversible(&[("1_a", "CREATE TABLE a ()", "DROP TABLE a")]);
    assert_eq!(run_as(&database, &one, &to(1)).await.0.applied, 1);
    let admin = database.superuser().await;
    let revision = "SELECT revision FROM servicedb.revision";
    assert_eq!(query(&admin, revision).await, [to(1).goal(&one.revision)]);
    // The next release applies its second file and fails at the third.
    let three = reversible(&[
        ("1_a", "CREATE TABLE a ()", "DROP TABLE a"),
        ("2_b", "CREATE TABLE b ()", "DROP TABLE b"),
        ("3_c", "CREATE TABLE missing.c ()", "DROP TABLE c"),
    ]);
    let (done, failure) = run_as(&database, &three, &to(3)).await;
    assert!(done.applied == 1 && failure.is_some());
    assert_eq!(query(&admin, revision).await, [""], "the release before is not what the schema has");
    let (done, failure) = run_as(&database, &one, &to(1)).await;
    assert_eq!((done.rolled_back, failure), (1, None));
    assert_eq!(tables(&admin).await.len(), 1);
}

/// The ledger's copy of a down file is a person's to correct; COPY from the client would leave the
/// session waiting for data, with its locks.
#[tokio::test]
async fn a_corrected_down_file_cannot_leave_the_session_in_copy() {
    let database = database("copying").await;
    assert_eq!(run(&database, &three()).await, (3, None));
    let admin = database.superuser().await;
    let corrected = "UPDATE servicedb.migrations SET down_sql = 'COPY b FROM STDIN' WHERE version = 3";
    admin.client.batch_execute(corrected).await.expect("the ledger");
    let session = database.migrator().await;
    let (done, failure) = run_with(&session, &database, &three(), &to(2), &limits(), &stop().1).await;
    let failure = failure.expect("it is refused");
    assert_eq!((done.rolled_back, failure.reason.as_str(), failure.line), (0, reason::INVALID_MIGRATIONS, Some(1)));
    assert!(failure.message.contains("COPY"), "{}", failure.message);
    assert_eq!(query(&session, "SELECT 1").await, ["1"], "the session goes on");
}
