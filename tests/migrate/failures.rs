//! Failing files: the position, the SQLSTATE, and the complete rollback.

use std::time::Duration;

use servicedb::api::conditions::reason;
use servicedb::migrate::{Limits, stop};

use crate::{database, ledger, limits, query, run, run_over, set, tables};

#[tokio::test]
async fn a_failing_file_leaves_nothing_and_its_mended_revision_goes_on() {
    let database = database("failing").await;
    let good = ("1_users", "CREATE TABLE users (id int)");
    let last = ("3_last", "CREATE TABLE last ()");
    let broken = "CREATE TABLE orders (id int);\n\n-- größe\nINSERT INTO orders\nSELECT id FROM userz;\nSELECT 1;";
    let (applied, failure) = run(&database, &set(&[good, ("2_orders", broken), last])).await;
    let failure = failure.expect("the second file is broken");
    assert_eq!(applied, 1);
    assert_eq!(failure.reason, reason::MIGRATION_FAILED);
    assert_eq!((failure.file.as_deref(), failure.line), (Some("2_orders.up.sql"), Some(5)));
    assert_eq!((failure.sqlstate.as_deref(), failure.transient), (Some("42P01"), false));
    assert!(failure.message.contains("relation \"userz\" does not exist"), "{}", failure.message);

    let admin = database.superuser().await;
    assert_eq!(ledger(&admin).await, ["1 users completed", "2 orders failed", "3 last pending"]);
    assert_eq!(tables(&admin).await, ["users failing_owner"]);
    assert_eq!(query(&admin, "SELECT count(*) FROM servicedb.revision").await, ["0"]);
    let error = query(&admin, "SELECT error FROM servicedb.migrations WHERE version = 2").await;
    assert!(error[0].starts_with("2_orders.up.sql:5: ") && error[0].ends_with("(SQLSTATE 42P01)"), "{error:?}");

    let mended = set(&[good, ("2_orders", "CREATE TABLE orders (id int)"), last]);
    assert_eq!(run(&database, &mended).await, (2, None));
    assert_eq!(ledger(&admin).await, ["1 users completed", "2 orders completed", "3 last completed"]);
    assert_eq!(query(&admin, "SELECT error FROM servicedb.migrations WHERE version = 2").await, ["NULL"]);
}

/// A long file is sent in parts, in one transaction.
#[tokio::test]
async fn a_file_of_many_statements_is_rolled_back_as_a_whole() {
    let database = database("many").await;
    let many = "INSERT INTO t VALUES (1);\n".repeat(25_000);
    // One whose error has a position, and one whose has none.
    for (broken, sqlstate) in [("SELECT nothing;", "42703"), ("INSERT INTO t VALUES (-1);", "23514")] {
        let sql = format!("CREATE TABLE t (a int CHECK (a > 0));\n-- größe\n{many}{broken}\n{many}");
        let (applied, failure) = run(&database, &set(&[("1_t", &sql)])).await;
        let failure = failure.expect("the statement in the middle fails");
        assert_eq!((applied, failure.line, failure.sqlstate.as_deref()), (0, Some(25_003), Some(sqlstate)));
        assert_eq!(tables(&database.superuser().await).await, Vec::<String>::new());
    }
    let sql = format!("CREATE TABLE t (a int);\n{many}");
    assert_eq!(run(&database, &set(&[("1_t", &sql)])).await, (1, None));
    assert_eq!(query(&database.superuser().await, "SELECT count(*) FROM t").await, ["25000"]);
}

#[tokio::test]
async fn the_line_is_told_whatever_the_server_says_of_it() {
    let database = database("lines").await;
    for (sql, line, sqlstate) in [
        // A syntax error, with a position in characters.
        ("SELECT 'äöü€';\nSELECT 1;\nSELEC 2;", Some(3), "42601"),
        ("\u{feff}SELECT 1;\nCREATE TABLE x (y nosuchtype);", Some(2), "42704"),
        // An error while running, without a position: the statement's first line.
        ("SELECT 1;\n\n-- c\nSELECT\n1/0;\nSELECT 1", Some(4), "22012"),
        ("SELECT 1;;\n;DO $$\nBEGIN\n  RAISE EXCEPTION 'no';\nEND $$;", Some(2), "P0001"),
        // The server's position is within a function's text.
        ("SELECT 1;\nCREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$\n  SELECT nope $$;", Some(3), "42703"),
        // Only the commit fails.
        (
            "CREATE TABLE p (id int PRIMARY KEY, r int REFERENCES p DEFERRABLE INITIALLY DEFERRED);\n\
             INSERT INTO p VALUES (1, 2);\nSELECT 1",
            None,
            "23503",
        ),
        ("CREATE PROCEDURE c() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';\nCALL c();", Some(2), "2D000"),
        ("CREATE TABLE t ();\nVACUUM t;", Some(2), "25001"),
        ("CREATE ROLE intruder SUPERUSER;", Some(1), "42501"),
    ] {
        let (applied, failure) = run(&database, &set(&[("1_a", sql)])).await;
        let failure = failure.expect(sql);
        assert_eq!(
            (applied, failure.line, failure.sqlstate.as_deref()),
            (0, line, Some(sqlstate)),
            "{sql}: {failure:?}"
        );
        assert!(!failure.transient, "{sql}");
        if sqlstate == "25001" {
            assert!(failure.message.contains("'-- no-transaction' the file's first line"), "{}", failure.message);
        }
    }
    let admin = database.superuser().await;
    assert_eq!(tables(&admin).await, Vec::<String>::new());
    assert_eq!(ledger(&admin).await, ["1 a failed"]);
}

#[tokio::test]
async fn rows_are_not_quoted_in_what_is_told() {
    let database = database("canary").await;
    let sql = "CREATE TABLE t (secret text UNIQUE); INSERT INTO t VALUES ('canary'); INSERT INTO t VALUES ('canary');";
    let (_, failure) = run(&database, &set(&[("1_a", sql)])).await;
    let failure = failure.expect("a duplicate");
    assert_eq!(failure.sqlstate.as_deref(), Some("23505"));
    assert!(!failure.message.contains("canary"), "{}", failure.message);
    let error = query(&database.superuser().await, "SELECT error FROM servicedb.migrations").await;
    assert!(error[0].contains("duplicate key") && !error[0].contains("canary"), "{error:?}");
}

#[tokio::test]
async fn a_lock_that_others_hold_is_waited_for_and_then_given_back() {
    let database = database("locks").await;
    assert_eq!(run(&database, &set(&[("1_t", "CREATE TABLE t ()")])).await, (1, None));
    let longer = set(&[("1_t", "CREATE TABLE t ()"), ("2_column", "SELECT 1;\nALTER TABLE t ADD c int")]);

    let other = database.superuser().await;
    other.client.batch_execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE").await.expect("a lock");
    let (applied, failure) = run(&database, &longer).await;
    let failure = failure.expect("the lock was held all the time");
    assert_eq!((applied, failure.sqlstate.as_deref(), failure.line), (0, Some("55P03"), Some(2)));
    assert!(failure.transient, "a later run may go better");
    assert_eq!(ledger(&database.superuser().await).await, ["1 t completed", "2 column failed"]);

    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        other.client.batch_execute("COMMIT").await.expect("released");
    };
    // The tries last for twenty seconds at least: a slow machine may be late with the release.
    let limits = Limits { conflict_pause: Duration::from_millis(300), conflict_attempts: 8, ..limits() };
    let (session, stop) = (database.migrator().await, stop().1);
    let (result, ()) = tokio::join!(run_over(&session, &database, &longer, &limits, &stop), release);
    assert_eq!(result, (1, None), "a later try found the lock free");
}

#[tokio::test]
async fn a_file_of_five_mebibytes_is_as_good_as_any() {
    let database = database("large").await;
    let row = format!("INSERT INTO a VALUES ('{}');\n", "x".repeat(1000));
    let sql = format!("CREATE TABLE a (body text);\n{}", row.repeat(5 * 1024));
    assert!(sql.len() > 5 << 20);
    assert_eq!(run(&database, &set(&[("1_a", &sql)])).await, (1, None));
    let admin = database.superuser().await;
    assert_eq!(query(&admin, "SELECT count(*) FROM public.a").await, ["5120"]);

    let broken = format!("{row}{row}SELECT nope;");
    let (_, failure) = run(&database, &set(&[("1_a", &sql), ("2_b", &broken)])).await;
    assert_eq!(failure.and_then(|failure| failure.line), Some(3));
    assert_eq!(query(&admin, "SELECT count(*) FROM public.a").await, ["5120"]);
}
