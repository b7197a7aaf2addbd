//! Successful runs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use servicedb::contract::migration::Policy;
use servicedb::migrate::{Done, Run, stop};

use crate::interruptions::sleeping;
use crate::{database, ledger, limits, query, run, run_over, set, tables};

#[tokio::test]
async fn the_first_run_applies_all_and_the_second_finds_nothing_to_do() {
    let database = database("first").await;
    let migrations = set(&[
        ("0001_users", "CREATE TABLE users (id int PRIMARY KEY);\n-- ü\nINSERT INTO users VALUES (1), (2);"),
        ("0002_index", "CREATE INDEX users_desc ON users (id DESC)"),
        (
            "0003_function",
            "CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END;\nSELECT one() -- end",
        ),
        ("0004_nothing", "-- intentionally left blank"),
    ]);
    assert_eq!(run(&database, &migrations).await, (4, None));

    let admin = database.superuser().await;
    let expected = ["1 users completed", "2 index completed", "3 function completed", "4 nothing completed"];
    assert_eq!(ledger(&admin).await, expected);
    assert_eq!(tables(&admin).await, ["users first_owner"]);
    assert_eq!(query(&admin, "SELECT revision FROM servicedb.revision").await, [migrations.revision.as_str()]);
    let head =
        "SELECT version, checksum, error, duration_ms >= 0, started_at <= now() FROM servicedb.migrations LIMIT 1";
    assert_eq!(query(&admin, head).await, [format!("1 {} NULL t t", migrations.migrations[0].up.checksum)]);

    let before = query(&admin, "SELECT xmin, * FROM servicedb.migrations").await;
    assert_eq!(run(&database, &migrations).await, (0, None));
    assert_eq!(query(&admin, "SELECT xmin, * FROM servicedb.migrations").await, before, "nothing was written");
}

#[tokio::test]
async fn a_longer_source_goes_on_from_the_ledger_and_the_agent_is_told() {
    let database = database("longer").await;
    assert_eq!(run(&database, &set(&[("1_a", "CREATE TABLE a ()")])).await, (1, None));
    let longer = set(&[("1_a", "CREATE TABLE a ()"), ("20260101120000_b", "CREATE TABLE b ()")]);
    assert_eq!(run(&database, &longer).await, (1, None));
    let admin = database.superuser().await;
    assert_eq!(ledger(&admin).await, ["1 a completed", "20260101120000 b completed"]);
    assert_eq!(query(&admin, "SELECT revision FROM servicedb.revision").await, [longer.revision]);
}

#[tokio::test]
async fn what_a_file_sets_ends_with_it() {
    let database = database("settings").await;
    let migrations = set(&[
        (
            "1_dump",
            "SET standard_conforming_strings = off; SET lock_timeout = 0; SET client_min_messages = warning;\n\
             SELECT pg_catalog.set_config('search_path', '', false);\n\
             CREATE TABLE public.a (); RESET ROLE; SET default_transaction_isolation = 'serializable';",
        ),
        (
            "2_checks",
            r"CREATE TABLE b (path text DEFAULT 'C:\');
              INSERT INTO b SELECT current_setting('lock_timeout') || current_setting('transaction_isolation');",
        ),
    ]);
    assert_eq!(run(&database, &migrations).await, (2, None));
    let admin = database.superuser().await;
    assert_eq!(tables(&admin).await, ["a settings_owner", "b settings_owner"]);
    assert_eq!(query(&admin, "SELECT path FROM b").await, ["300msread committed"]);
}

#[tokio::test]
async fn of_two_runs_at_once_one_applies_and_the_other_finds_it_done() {
    let database = database("two").await;
    let migrations = set(&[
        ("1_slow", "CREATE TABLE a (); SELECT pg_sleep(0.6)"),
        ("2_index", "-- no-transaction\nCREATE INDEX CONCURRENTLY a_i ON a ((1))"),
    ]);
    let (one, other) = tokio::join!(run(&database, &migrations), run(&database, &migrations));
    assert_eq!((&one.1, &other.1), (&None, &None));
    assert_eq!((one.0.min(other.0), one.0.max(other.0)), (0, 2), "one applied all, the other nothing");
    assert_eq!(ledger(&database.superuser().await).await, ["1 slow completed", "2 index completed"]);
}

#[tokio::test]
async fn a_run_says_who_holds_the_lock_and_that_a_later_one_may_go_better() {
    let database = database("held").await;
    let migrations = set(&[("1_slow", "SELECT pg_sleep(10)")]);
    let first = tokio::spawn({
        let migrations = migrations.clone();
        let session = database.migrator().await;
        let owner = database.owner();
        async move {
            let (policy, mut done) = (Policy::default(), Done::default());
            servicedb::migrate::migrate(
                &session.client,
                Run { owner: &owner, set: &migrations, revision: &migrations.revision, policy: &policy },
                &limits(),
                &stop().1,
                &mut done,
            )
            .await
        }
    });
    sleeping(&database).await;
    let impatient = servicedb::migrate::Limits { run_lock: Duration::from_millis(400), ..limits() };
    let session = database.migrator().await;
    let (applied, failure) = run_over(&session, &database, &migrations, &impatient, &stop().1).await;
    let failure = failure.expect("the other run holds the lock");
    assert!(applied == 0 && failure.transient);
    assert!(failure.message.contains("migrate/test (PostgreSQL process "), "{}", failure.message);
    assert_eq!(first.await.expect("no panic"), Ok(()));
}

/// A measurement, for a quiet machine: `cargo test --test migrate -- --ignored --nocapture thousand`.
#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn a_thousand_small_migrations_against_psql() {
    let sql =
        |n: usize| format!("CREATE TABLE t{n} (id int PRIMARY KEY, name text);\nINSERT INTO t{n} VALUES ({n}, 'x');\n");
    let names: Vec<(String, String)> = (1..=1000).map(|n| (format!("{n:04}_t{n}"), sql(n))).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).collect();
    let migrations = set(&files);
    let folder = std::env::temp_dir().join(format!("servicedb-thousand-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let ours = database("thousand").await;
    let theirs = database("thousand_psql").await;

    let mut psql = theirs.server.psql(&theirs.name);
    for (name, sql) in &names {
        let file = folder.join(name);
        std::fs::write(&file, sql).expect("a file");
        // One transaction a file, as the run does it.
        psql.args(["-c", "BEGIN", "-f"]).arg(&file).args(["-c", "COMMIT"]);
    }
    let started = Instant::now();
    assert!(psql.stdout(Stdio::null()).status().expect("psql runs").success());
    let psql_took = started.elapsed();
    std::fs::remove_dir_all(&folder).expect("removed");

    let started = Instant::now();
    assert_eq!(run(&ours, &migrations).await, (1000, None));
    let took = started.elapsed();
    let started = Instant::now();
    assert_eq!(run(&ours, &migrations).await, (0, None));
    let again = started.elapsed();
    let ratio = took.as_secs_f64() / psql_took.as_secs_f64();
    println!("1,000 small migrations: {took:?}; psql: {psql_took:?}; ratio {ratio:.2}; run again: {again:?}");
}

/// What the application's sessions find without a schema in the name is where migrations create it.
#[tokio::test]
async fn a_migration_has_the_search_path_of_the_application() {
    let database = database("paths").await;
    let app = async |sql: &'static str| {
        let session = database.superuser().await;
        session.client.batch_execute("SET ROLE paths_owner").await.expect("the role");
        query(&session, sql).await
    };
    let files = [
        ("1_public", "CREATE TABLE a (id int)"),
        ("2_schema", "CREATE SCHEMA app; ALTER DATABASE paths SET search_path = app, public"),
        // In the same run already, as in the next one.
        ("3_app", "CREATE TABLE b (id int); SET search_path = public"),
        ("4_app_again", "CREATE TABLE c (id int)"),
    ];
    assert_eq!(run(&database, &set(&files)).await, (4, None));
    let longer = [&files[..], &[("5_later", "CREATE TABLE d (id int)")]].concat();
    assert_eq!(run(&database, &set(&longer)).await, (1, None));
    let placed = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind = 'r' AND n.nspname IN ('public', 'app') ORDER BY 1";
    assert_eq!(app(placed).await, ["app.b", "app.c", "app.d", "public.a"]);
    assert_eq!(app("SELECT to_regclass('a') || ' ' || to_regclass('d')").await, ["a d"]);
}

/// Editors and Git change the ends of lines; ledgers of earlier versions have the checksum of the bytes.
#[tokio::test]
async fn another_way_to_end_lines_is_the_same_migration() {
    let database = database("line_ends").await;
    let unix = set(&[("1_a", "CREATE TABLE a (\n  id int\n);\n")]);
    assert_eq!(run(&database, &unix).await, (1, None));
    let windows = set(&[("1_a", "CREATE TABLE a (\r\n  id int\r\n);")]);
    assert_eq!(run(&database, &windows).await, (0, None));
    // `printf 'CREATE TABLE a (\r\n  id int\r\n);' | sha256sum`.
    let admin = database.superuser().await;
    let earlier =
        "UPDATE servicedb.migrations SET checksum = encode(sha256(E'CREATE TABLE a (\\r\\n  id int\\r\\n);'), 'hex')";
    admin.client.batch_execute(earlier).await.expect("a checksum of an earlier version");
    assert_eq!(run(&database, &unix).await, (0, None));
    let edited = set(&[("1_a", "CREATE TABLE a (\n  id bigint\n);\n")]);
    let failure = run(&database, &edited).await.1.expect("an edited file");
    assert_eq!(failure.reason, "ChecksumMismatch");
}
