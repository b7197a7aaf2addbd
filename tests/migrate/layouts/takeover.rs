//! The tables of other tools, with what a tool leaves that was killed.

use servicedb::api::MigrationFormat;
use servicedb::api::conditions::reason;
use servicedb::contract::migration::{Failure, Policy};
use servicedb::migrate::source;

use crate::{Database, database, query, run_as};

/// Makes a table as the owner.
async fn with_table(name: &str, statements: &str) -> Database {
    let database = database(name).await;
    let admin = database.superuser().await;
    let statements = format!("SET ROLE {}; {statements}", database.owner());
    admin.client.batch_execute(&statements).await.expect(name);
    database
}

/// Runs files of a tool with its table; returns the versions that were applied and not only recorded: each
/// makes a table of its name.
async fn take(database: &Database, format: MigrationFormat, files: &[(&str, &str)]) -> Result<Vec<String>, Failure> {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
    let set = source::read(files, format).expect("valid");
    let policy = Policy { baseline_from_tool: true, ..Policy::default() };
    let (_, failure) = run_as(database, &set, &policy).await;
    match failure {
        Some(failure) => Err(failure),
        None => {
            let query_text = "SELECT version_text FROM servicedb.migrations
                              WHERE to_regclass('public.t' || version_text) IS NOT NULL ORDER BY ordinal";
            Ok(query(&database.superuser().await, query_text).await)
        }
    }
}

/// A later release brings the version: it would run a second time.
#[tokio::test]
async fn a_version_that_the_source_lacks_is_refused() {
    let table =
        "CREATE TABLE schema_migrations (version bigint, dirty bool); INSERT INTO schema_migrations VALUES (12, false)";
    let database = with_table("take_newer", table).await;
    let files = [("1_a.up.sql", "CREATE TABLE t1 ()"), ("10_b.up.sql", "CREATE TABLE t10 ()")];
    let failure = take(&database, MigrationFormat::GolangMigrate, &files).await.expect_err("12 is not in the source");
    assert!(failure.message.contains("12"), "{}", failure.message);

    let table = "CREATE TABLE gorp_migrations (id text, applied_at timestamptz);
                 INSERT INTO gorp_migrations VALUES ('1_users.sql', now())";
    let database = with_table("take_other_name", table).await;
    let files = [("1_users_index.sql", "-- +migrate Up\nCREATE TABLE t1 ();")];
    let failure = take(&database, MigrationFormat::SqlMigrate, &files).await.expect_err("another migration");
    assert!(failure.message.contains("1_users"), "{}", failure.message);
}

const GOOSE: &str = "-- +goose Up\nCREATE TABLE t1 (id int);\n";

#[tokio::test]
async fn only_what_the_tool_has_not_applied_is_run() {
    let table = "CREATE TABLE goose_db_version (id int GENERATED ALWAYS AS IDENTITY, version_id bigint, is_applied bool);
                 INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (1, true), (2, true), (2, false)";
    let database = with_table("take_goose", table).await;
    let two = GOOSE.replace("t1", "t2");
    let applied = take(&database, MigrationFormat::Goose, &[("1_a.sql", GOOSE), ("2_b.sql", &two)]).await;
    assert_eq!(applied, Ok(vec!["2".to_owned()]), "2 was applied and reverted");

    let table =
        "CREATE TABLE schema_migrations (version bigint, dirty bool); INSERT INTO schema_migrations VALUES (2, false)";
    let database = with_table("take_migrate", table).await;
    let files = [("1_a.up.sql", "x"), ("2_b.up.sql", "x"), ("3_c.up.sql", "CREATE TABLE t3 ()")];
    assert_eq!(take(&database, MigrationFormat::GolangMigrate, &files).await, Ok(vec!["3".to_owned()]));

    let policy = Policy { baseline_from_tool: true, target_version: Some(1.into()), ..Policy::default() };
    let above = with_table("take_above", table).await;
    let set = source::parse(files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))).expect("valid");
    let failure = run_as(&above, &set, &policy).await.1.expect("2 is above the target");
    assert!(failure.message.contains("has applied version 2, above"), "{}", failure.message);

    // The table is in another schema, and there is none at all.
    let table =
        "CREATE SCHEMA app; CREATE TABLE app.__diesel_schema_migrations (version varchar(50), run_on timestamp);
                 INSERT INTO app.__diesel_schema_migrations VALUES ('00000000000000')";
    let database = with_table("take_diesel", table).await;
    let files = [("00000000000000_a/up.sql", "x"), ("2019-01-01-120000_b/up.sql", "CREATE TABLE t20190101120000 ()")];
    assert_eq!(take(&database, MigrationFormat::Diesel, &files).await, Ok(vec!["20190101120000".to_owned()]));
    let fresh = with_table("take_nothing", "SELECT 1").await;
    let files = [("1_a.up.sql", "CREATE TABLE t1 ()")];
    assert_eq!(take(&fresh, MigrationFormat::GolangMigrate, &files).await, Ok(vec!["1".to_owned()]));
}

/// A database's name, the tool, its table, the files, and the reason and a part of the message of the refusal.
type LeftCase =
    (&'static str, MigrationFormat, &'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

#[tokio::test]
async fn what_a_killed_tool_left_is_refused_before_anything_is_run() {
    let cases: [LeftCase; 5] = [
        (
            "left_migrate",
            MigrationFormat::GolangMigrate,
            "CREATE TABLE schema_migrations (version bigint, dirty bool); INSERT INTO schema_migrations VALUES (1, true)",
            &[("1_a.up.sql", "CREATE TABLE t1 ()")],
            reason::MIGRATION_FAILED,
            "has 1 as begun and not finished",
        ),
        (
            "left_prisma",
            MigrationFormat::Prisma,
            "CREATE TABLE _prisma_migrations (migration_name text, finished_at timestamptz, rolled_back_at timestamptz,
             started_at timestamptz); INSERT INTO _prisma_migrations VALUES ('1_a', NULL, now(), now()),
             ('1_a', NULL, NULL, now())",
            &[("1_a/migration.sql", "CREATE TABLE t1 ()")],
            reason::MIGRATION_FAILED,
            "has 1_a as begun and not finished",
        ),
        (
            "left_sqlx",
            MigrationFormat::Sqlx,
            "CREATE TABLE _sqlx_migrations (version bigint, success bool, checksum bytea);
             INSERT INTO _sqlx_migrations VALUES (1, true, '\\x00')",
            &[("1_a.sql", "CREATE TABLE t1 ()")],
            reason::CHECKSUM_MISMATCH,
            "sqlx has applied this migration with another content",
        ),
        (
            "left_missing",
            MigrationFormat::Dbmate,
            "CREATE TABLE schema_migrations (version varchar); INSERT INTO schema_migrations VALUES ('1'), ('01')",
            &[("1_a.sql", "-- migrate:up\nCREATE TABLE t1 ();\n-- migrate:down\n")],
            reason::MIGRATIONS_MISSING,
            "the source lacks: 01",
        ),
        (
            "left_late",
            MigrationFormat::Drizzle,
            "CREATE SCHEMA drizzle; CREATE TABLE drizzle.__drizzle_migrations (created_at bigint);
             INSERT INTO drizzle.__drizzle_migrations VALUES (3)",
            &[
                ("0000_a.sql", "CREATE TABLE t1 ()"),
                ("0001_b.sql", "CREATE TABLE t2 ()"),
                ("meta/_journal.json", r#"{"entries": [{"tag": "0000_a", "when": 2}, {"tag": "0001_b", "when": 3}]}"#),
            ],
            reason::OUT_OF_ORDER,
            "0000_a was never applied, but the newer version 0001_b was (drizzle would never run it, and not say so)",
        ),
    ];
    for (name, format, table, files, reason, words) in cases {
        let database = with_table(name, table).await;
        let failure = take(&database, format, files).await.expect_err(name);
        assert_eq!(failure.reason, reason, "{name}: {}", failure.message);
        assert!(failure.message.contains(words) && !failure.transient, "{name}: {}", failure.message);
        let made = "SELECT relname FROM pg_class WHERE relname IN ('t1', 't2')";
        assert_eq!(query(&database.superuser().await, made).await, Vec::<String>::new(), "{name}");
    }
}
