//! Options, marks and names that a tool takes for something else than their author meant.

use super::*;

#[test]
fn a_file_of_options_without_the_option_is_one_without_a_transaction_to_diesel() {
    let index = ("2019-01-02-000000_i/up.sql", "CREATE INDEX CONCURRENTLY i ON t (a)");
    let read = |options: &str| {
        let options = ("2019-01-02-000000_i/metadata.toml", options);
        auto(&[("2019-01-01-000000_t/up.sql", "SELECT 1"), index, options])
    };
    for (options, mode) in [
        ("", BARE),
        ("# run_in_transaction = true\n", BARE),
        ("owner = 'a team'\n", BARE),
        ("[more]\nrun_in_transaction = true\n", BARE),
        ("run_in_transaction=false\r\n", BARE),
        ("\"run_in_transaction\" = true\n", Mode::Transaction),
    ] {
        let set = read(options).expect(options);
        assert_eq!((set.format, set.migrations[1].mode), (MigrationFormat::Diesel, mode), "{options}");
    }
    let numbers = [("9_a/up.sql", "SELECT 9"), ("10_b/up.sql", "SELECT 10"), ("10_b/metadata.toml", "")];
    found(&numbers, MigrationFormat::Diesel, &["10", "9"]);
    for (options, expected) in [
        ("\nrun_in_transaction = \"false\"\n", "metadata.toml:2: run_in_transaction is neither true nor false"),
        ("run_in_transaction = false\nrun_in_transaction = true\n", "metadata.toml:2: this option is here twice"),
        ("run_in_transaction: false\n", "metadata.toml:1: this line is no option"),
    ] {
        let error = read(options).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("Diesel ignores the whole file"), "{error}");
    }
}

#[test]
fn a_mark_that_the_tool_does_not_know_is_refused() {
    // sql-migrate would run the DROP after the CREATE.
    let down = |mark: &str| format!("-- +migrate Up\nCREATE TABLE a ();\n{mark}\nDROP TABLE a;\n");
    for mark in ["-- +migrate down", "--  +migrate Down", "--+migrate Down", "-- +migrate Rollback"] {
        refused(&[("1_a.sql", &down(mark))], "1_a.sql:3: sql-migrate does not know this command");
    }
    refused(&[("1_a.sql", "-- +migrate Up NoTransaction\nVACUUM;\n")], "1_a.sql:1: sql-migrate does not know");
    let commented = "-- +migrate Up -- because notransaction\nVACUUM;\n";
    assert_eq!(auto(&[("1_a.sql", commented)]).expect("valid").migrations[0].mode, BARE);
    // goose finds its annotation between any number of dashes.
    let text = "-- +goose Up\nCREATE TABLE a ();\n------ +GOOSE DOWN ------\nDROP TABLE a;\n".replace("GOOSE", "goose");
    let set = found(&[("1_a.sql", &text)], MigrationFormat::Goose, &["1"]);
    assert!(!set.migrations[0].up.sql.contains("DROP") && set.migrations[0].down.is_some());
    refused(&[("1_a.sql", "-- +goose Up\n-- +goose Downwards\n")], "1_a.sql:2: goose does not know this annotation");
    let tern = ("1_a.sql", "SELECT 1;\n---- create above / drop below ----\n");
    refused(&[tern, ("2_b.sql", "SELECT 1;\n-- create above/drop below\nSELECT -1;")], "2_b.sql:2: this is not tern's");
}

#[test]
fn a_file_that_the_tool_leaves_out_by_its_name_is_refused() {
    let read = |list: &[(&str, &str)], format| source::read(files(list), format).expect_err("left out").to_string();
    for format in [MigrationFormat::Sqlx, MigrationFormat::Supabase, MigrationFormat::Atlas] {
        let error = read(&[("1_a.sql", "SELECT 1"), ("2_b.SQL", "SELECT 2")], format);
        assert_eq!(error, format!("2_b.SQL: {} leaves this file out: let its name end with .sql", format.name()));
    }
    refused(&[("1_a.sql", "-- +goose Up\n"), ("2_b.Sql", "-- +goose Up\n")], "2_b.Sql: Goose leaves this file out");
    let folder = [("20190101000000_a b/up.sql", "SELECT 1"), ("20190102000000_b/UP.SQL", "SELECT 2")];
    refused(&folder, "the folder 20190102000000_b has no up.sql");
    for name in ["V2__b-c.sql", "V1.2__b.sql", "sub/v2__b.sql", "V2_b.sql"] {
        let error = read(&[("V1__a.sql", "SELECT 1"), (name, "SELECT 2")], MigrationFormat::Refinery);
        assert!(error.starts_with(&format!("{name}: refinery leaves this file out")), "{error}");
    }
    let beside = [("V1__a.sql", "SELECT 1"), ("views.sql", ""), ("sub/V2__\u{e4}_b.sql", "SELECT 2")];
    let set = source::read(files(&beside), MigrationFormat::Refinery).expect("valid");
    assert_eq!((set.migrations.len(), set.ignored), (2, vec!["views.sql".to_owned()]));
}

/// The way out of an interrupted file without a transaction, in files that have marks.
#[test]
fn a_file_with_marks_can_say_that_it_may_be_run_again() {
    let again = Mode::NoTransaction { idempotent: true };
    let mark = "-- no-transaction idempotent\n";
    let up = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);\n";
    let down = "DROP INDEX CONCURRENTLY IF EXISTS i;\n";
    for text in [
        format!("{mark}-- +goose NO TRANSACTION\n-- +goose Up\n{up}-- +goose Down\n{mark}{down}"),
        format!("-- +goose NO TRANSACTION\n-- +goose Up\n{mark}{up}-- +goose Down\n-- why\n{mark}{down}"),
        format!("{mark}-- +migrate Up notransaction\n{up}-- +migrate Down notransaction\n{mark}{down}"),
        format!("{mark}-- migrate:up transaction:false\n{up}-- migrate:down transaction:false\n{mark}{down}"),
    ] {
        let migration = auto(&[("1_i.sql", &text)]).expect("valid").migrations.remove(0);
        assert_eq!((migration.mode, migration.down_mode), (again, again), "{text}");
    }
    let late = format!("-- +goose NO TRANSACTION\n-- +goose Up\n{up}{mark}");
    assert_eq!(auto(&[("1_i.sql", &late)]).expect("valid").migrations[0].mode, BARE);
}

#[test]
fn supabase_ends_its_transaction_before_what_cannot_be_in_one() {
    let text = "CREATE TABLE a (id int);\nCREATE INDEX CONCURRENTLY i ON a (id);\nCREATE TABLE b (id int);\n";
    let read = |format| source::read(files(&[("1_a.sql", text)]), format).expect("valid").migrations.remove(0).mode;
    assert_eq!((read(MigrationFormat::Supabase), read(MigrationFormat::Sqlx)), (BARE, Mode::Transaction));
}
