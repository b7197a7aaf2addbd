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

#[tokio::test]
async fn tables_of_one_name_are_told_apart() {
    // Supabase's services have tables of the same name.
    let table = "CREATE SCHEMA auth; CREATE TABLE auth.schema_migrations (version varchar(255));
                 CREATE SCHEMA realtime; CREATE TABLE realtime.schema_migrations (version bigint, inserted_at timestamp);
                 INSERT INTO auth.schema_migrations VALUES ('20171026211738');";
    let own = "CREATE SCHEMA supabase_migrations; CREATE TABLE supabase_migrations.schema_migrations
               (version text, statements text[], name text);
               INSERT INTO supabase_migrations.schema_migrations VALUES ('1')";
    let files = [("1_a.sql", "x"), ("2_b.sql", "CREATE TABLE t2 ()")];
    let database = with_table("take_supabase", &format!("{table} {own}")).await;
    assert_eq!(take(&database, MigrationFormat::Supabase, &files).await, Ok(vec!["2".to_owned()]));
    let files = [("1_a.sql", "CREATE TABLE t1 ()")];
    let fresh = with_table("take_services", table).await;
    assert_eq!(take(&fresh, MigrationFormat::Supabase, &files).await, Ok(vec!["1".to_owned()]));

    // golang-migrate's has the last version alone: to dbmate, all before it would be pending.
    let table = "CREATE TABLE schema_migrations (version bigint, dirty bool);
                 INSERT INTO schema_migrations VALUES (2, false)";
    let text = "-- migrate:up\nCREATE TABLE t1 ();\n-- migrate:down\n";
    let database = with_table("take_not_dbmate", table).await;
    let files = [("1_a.sql", text), ("2_b.sql", "-- migrate:up\n-- migrate:down\n")];
    let failure = take(&database, MigrationFormat::Dbmate, &files).await.expect_err("another tool's table");
    assert!(
        failure.message.contains("not the table of Dbmate, by its columns (version, dirty)"),
        "{}",
        failure.message
    );
    // With dbmate's own beside it, that is read.
    let both = format!("CREATE SCHEMA other; SET search_path TO other; {table}; SET search_path TO public;
                        CREATE TABLE schema_migrations (version varchar); INSERT INTO schema_migrations VALUES ('1'), ('2')");
    let database = with_table("take_dbmate", &both).await;
    assert_eq!(take(&database, MigrationFormat::Dbmate, &files).await, Ok(Vec::new()));
}

/// The tool's checksum is one of the whole file.
#[tokio::test]
async fn begin_and_commit_are_part_of_the_tools_checksum() {
    // `printf 'BEGIN;\nCREATE TABLE t1 ();\nCOMMIT;\n' | sha384sum`, and the CRC32 of its lines without their ends.
    let text = "BEGIN;\nCREATE TABLE t1 ();\nCOMMIT;\n";
    let table = "CREATE TABLE _sqlx_migrations (version bigint, success bool, checksum bytea);
                 INSERT INTO _sqlx_migrations VALUES (1, true, decode('264592f155dbc58ed7df916100f1b291bbf3ab8d9db671f6166360af7472425a5ef3bcf64cfc99675367e145082cac71', 'hex'))";
    let database = with_table("take_sqlx_wrapped", table).await;
    assert_eq!(take(&database, MigrationFormat::Sqlx, &[("1_a.sql", text)]).await, Ok(Vec::new()));
    let table = "CREATE TABLE flyway_schema_history (installed_rank int, version text, description text, type text,
                 script text, checksum int, success bool);
                 INSERT INTO flyway_schema_history VALUES (1, '1', 'a', 'SQL', 'V1__a.sql', -1701614061, true)";
    let database = with_table("take_flyway_wrapped", table).await;
    assert_eq!(take(&database, MigrationFormat::Flyway, &[("V1__a.sql", text)]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_checkpoint_of_atlas_stands_for_all_before_it() {
    let checkpoint = "-- atlas:checkpoint\n\nCREATE TABLE t1 (); CREATE TABLE t2 ();\n";
    let files = [
        ("1_a.sql", "CREATE TABLE t1 ();"),
        ("2_b.sql", "CREATE TABLE t2 ();"),
        ("3_all.sql", checkpoint),
        ("4_d.sql", "CREATE TABLE t4 ();"),
    ];
    let recorded = "SELECT version_text FROM servicedb.migrations ORDER BY ordinal";
    let fresh = with_table("atlas_fresh", "SELECT 1").await;
    take(&fresh, MigrationFormat::Atlas, &files).await.expect("from the checkpoint on");
    assert_eq!(query(&fresh.superuser().await, recorded).await, ["3", "4"]);
    let table = "CREATE SCHEMA atlas_schema_revisions; CREATE TABLE atlas_schema_revisions.atlas_schema_revisions
                 (version text, applied int, total int, type int);
                 INSERT INTO atlas_schema_revisions.atlas_schema_revisions VALUES ('.atlas_cloud_identifier', 0, 0, 2),
                 ('3', 2, 2, 2)";
    let taken = with_table("atlas_taken", table).await;
    assert_eq!(take(&taken, MigrationFormat::Atlas, &files).await, Ok(vec!["4".to_owned()]));
    let grown = with_table("atlas_grown", &table.replace("('3', 2, 2, 2)", "('1', 1, 1, 2), ('2', 1, 1, 2)")).await;
    assert_eq!(take(&grown, MigrationFormat::Atlas, &files).await, Ok(vec!["4".to_owned()]));
    let half = table.replace("('3', 2, 2, 2)", "('3', 1, 2, 2)");
    let left = with_table("atlas_left", &half).await;
    let failure = take(&left, MigrationFormat::Atlas, &files).await.expect_err("it has one of two statements");
    assert!(failure.message.contains("has 3 as begun and not finished"), "{}", failure.message);
    let resolved = with_table("atlas_resolved", &half.replace("1, 2, 2)", "1, 2, 6)")).await;
    assert_eq!(take(&resolved, MigrationFormat::Atlas, &files).await, Ok(vec!["4".to_owned()]));
    // With --baseline there is one row, for all up to its version.
    let baseline = with_table("atlas_baseline", &table.replace("('3', 2, 2, 2)", "('2', 0, 0, 1)")).await;
    assert_eq!(take(&baseline, MigrationFormat::Atlas, &files).await, Ok(vec!["4".to_owned()]));
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
