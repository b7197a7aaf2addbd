//! A source that contradicts the ledger: no statement is run.

use servicedb::api::conditions::reason;

use crate::{database, ledger, run, set, tables};

#[tokio::test]
async fn a_contradiction_runs_nothing() {
    let database = database("refusals").await;
    let (a, b, c) = (("1_a", "CREATE TABLE a ()"), ("3_b", "CREATE TABLE b ()"), ("5_c", "CREATE TABLE c ()"));
    assert_eq!(run(&database, &set(&[a, b])).await, (2, None));
    let admin = database.superuser().await;
    let before = (ledger(&admin).await, tables(&admin).await);

    for (files, expected, file) in [
        (vec![("1_a", "CREATE TABLE a ( )"), b, c], reason::CHECKSUM_MISMATCH, Some("1_a.up.sql")),
        (vec![b, c], reason::MIGRATIONS_MISSING, None),
        (vec![a], reason::AHEAD_OF_SOURCE, None),
        (vec![a, ("2_late", "CREATE TABLE late ()"), b, c], reason::OUT_OF_ORDER, Some("2_late.up.sql")),
    ] {
        let (applied, failure) = run(&database, &set(&files)).await;
        let failure = failure.expect(expected);
        assert_eq!((applied, failure.reason.as_str(), failure.file.as_deref()), (0, expected, file));
        assert!(!failure.transient);
        assert_eq!((ledger(&admin).await, tables(&admin).await), before, "{expected}");
    }

    // A file may get another name as long as its version and content stay.
    assert_eq!(run(&database, &set(&[("0001_renamed", a.1), b, c])).await, (1, None));
    assert_eq!(ledger(&admin).await, ["1 a completed", "3 b completed", "5 c completed"]);
}

#[tokio::test]
async fn a_failed_file_that_the_source_gave_up_is_forgotten() {
    let database = database("given_up").await;
    let good = ("1_a", "CREATE TABLE a ()");
    let (_, failure) = run(&database, &set(&[good, ("2_bad", "SELECT 1/0")])).await;
    assert!(failure.is_some());
    assert_eq!(run(&database, &set(&[good, ("3_other", "CREATE TABLE b ()")])).await, (1, None));
    assert_eq!(ledger(&database.superuser().await).await, ["1 a completed", "3 other completed"]);
}

#[tokio::test]
async fn a_migrator_that_may_not_be_the_owner_is_told_as_such() {
    let database = database("no_role").await;
    let admin = database.superuser().await;
    admin.client.batch_execute("REVOKE no_role_owner FROM no_role_migrator_a").await.expect("revoked");
    let (applied, failure) = run(&database, &set(&[("1_a", "SELECT 1")])).await;
    let failure = failure.expect("the role is not granted");
    assert_eq!((applied, failure.sqlstate.as_deref()), (0, Some("42501")));
    assert!(failure.transient, "the agent grants it at the next promotion");
}
