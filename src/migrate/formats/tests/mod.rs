//! What each layout reads, and what it refuses.

mod odd;
mod options;

use super::*;
use crate::migrate::source;

fn files(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

fn auto(list: &[(&str, &str)]) -> Result<MigrationSet, SourceError> {
    source::parse(files(list))
}

#[track_caller]
fn found(list: &[(&str, &str)], format: MigrationFormat, versions: &[&str]) -> MigrationSet {
    let set = auto(list).unwrap_or_else(|error| panic!("{error}"));
    let read: Vec<String> = set.migrations.iter().map(|migration| migration.version.to_string()).collect();
    assert_eq!((set.format, read), (format, versions.iter().map(|text| (*text).to_owned()).collect()));
    set
}

fn refused(list: &[(&str, &str)], expected: &str) {
    let error = auto(list).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error}");
}

const BARE: Mode = Mode::NoTransaction { idempotent: false };

#[test]
fn folders_of_diesel_are_in_the_order_of_their_texts() {
    let set = found(
        &[
            ("00000000000000_diesel_initial_setup/up.sql", "SELECT 0;"),
            ("00000000000000_diesel_initial_setup/down.sql", "SELECT -0;"),
            ("2019-02-26-002946-0000_first post/up.sql", "SELECT 1"),
            ("20190301000000_second/up.sql", "CREATE INDEX CONCURRENTLY i ON t (a)"),
            ("20190301000000_second/metadata.toml", "# why\nrun_in_transaction = false # yes\n"),
            ("README.md", ""),
            ("data/seed.csv", "\u{0}"),
        ],
        MigrationFormat::Diesel,
        &["00000000000000", "201902260029460000", "20190301000000"],
    );
    assert_eq!(set.migrations[1].name, "first post");
    assert_eq!((set.migrations[1].mode, set.migrations[2].mode), (Mode::Transaction, BARE));
    assert_eq!(set.ignored, ["README.md", "data/seed.csv"]);
    // As Servicedb's own, the numbers would give another order.
    found(
        &[("2019-02-26-002946-0000_a/up.sql", "SELECT 1"), ("20190301000000_b/up.sql", "SELECT 2")],
        MigrationFormat::Diesel,
        &["201902260029460000", "20190301000000"],
    );
    refused(
        &[("2019-03-01-000000_a b/up.sql", ""), ("20190301000000_b/up.sql", "")],
        "20190301000000_b/up.sql: version 20190301000000 is taken by 2019-03-01-000000_a b/up.sql",
    );
    refused(
        &[("20190301000000_a b/up.sql", ""), ("20190301000001_b/down.sql", "")],
        "20190301000001_b/down.sql: this folder has no up.sql",
    );
}

#[test]
fn goose_has_both_directions_in_one_file() {
    let text = "-- +goose Up\n-- +goose StatementBegin\nCREATE FUNCTION f() RETURNS int AS $$ SELECT 1; $$ LANGUAGE sql;\n\
                -- +goose StatementEnd\n\n-- +goose Down\nDROP FUNCTION f();\n";
    let bare = "-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY i ON t (a);\n";
    let set = found(&[("2_f.sql", text), ("00010_i.sql", bare)], MigrationFormat::Goose, &["2", "10"]);
    let (f, i) = (&set.migrations[0], &set.migrations[1]);
    assert_eq!((f.mode, i.mode, i.down.is_none()), (Mode::Transaction, BARE, true));
    assert_eq!(
        f.down.as_ref().expect("a way back").sql,
        "\n\n\n\n\n\nDROP FUNCTION f();\n",
        "lines keep their numbers"
    );
    assert!(f.up.sql.starts_with("\n-- +goose StatementBegin\nCREATE FUNCTION") && !f.up.sql.contains("DROP"));
    // Another way back is no change of what was applied, another option is one.
    let again = |text: &str| auto(&[("2_f.sql", text)]).expect("valid").migrations.remove(0).up.checksum;
    assert_eq!(again(text), again(&text.replace("DROP FUNCTION f", "DROP FUNCTION IF EXISTS f").replace('\n', "\r\n")));
    assert_eq!(again(text), again(&format!("\u{feff}{}", text.trim_end())));
    assert_ne!(again(text), again(&format!("-- +goose NO TRANSACTION\n{text}")));

    refused(&[("1_a.sql", text), ("x.sql", "-- +goose Up\n")], "x.sql: goose refuses all files");
    refused(&[("1_a.sql", text), ("01_b.sql", text)], "1_a.sql: version 1 is taken by 01_b.sql");
    refused(&[("1_a.sql", text), ("2_b.go", "package x")], "2_b.go: goose runs this migration in Go");
    refused(&[("1_a.sql", "SELECT 1;\n-- +goose Up\n")], "1_a.sql:1: these lines stand before the first mark");
    let substituted = "-- +goose Up\n-- +goose ENVSUB ON\nSELECT '$HOME';\n";
    let doubt = auto(&[("1_a.sql", substituted)]).expect("it may be applied").migrations.remove(0).doubt;
    assert_eq!(doubt.expect("pending, it is refused").line, Some(3));
}

#[test]
fn dbmate_goes_by_names_and_keeps_zeros() {
    let text = "-- migrate:up\nSELECT 1;\n-- migrate:down\n";
    let bare = "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY i ON t (a);\n-- migrate:down\nDROP INDEX i;";
    let set = found(
        &[("10_x.sql", text), ("1_x.sql", bare), ("002_y.sql", text), ("schema.sql", "-- a dump\nSELECT 1")][..3],
        MigrationFormat::Dbmate,
        &["002", "10", "1"],
    );
    assert_eq!((set.migrations[2].mode, set.migrations[2].down_mode), (BARE, Mode::Transaction));
    refused(&[("1_x.sql", "-- migrate:up\nSELECT 1;")], "1_x.sql: it has no line '-- migrate:down'");
    refused(&[("1_x.sql", "-- migrate:up tx:off\n-- migrate:down")], "1_x.sql:1: the option 'tx:off'");
    refused(&[("1_x.sql", text), ("1_y.sql", text)], "1_y.sql: version 1 is taken by 1_x.sql");
}

#[test]
fn sql_migrate_has_numbers_first() {
    let text = "-- +migrate Up\nSELECT 1;\n-- +migrate Down\nSELECT -1;\n";
    let bare = "-- +migrate Up notransaction\nVACUUM;\n";
    let set = found(
        &[("b.sql", text), ("10_x.sql", text), ("2_x.sql", bare), ("a.sql", text)],
        MigrationFormat::SqlMigrate,
        &["2_x", "10_x", "a", "b"],
    );
    assert_eq!((set.migrations[0].mode, set.migrations[1].mode), (BARE, Mode::Transaction));
    assert_eq!(set.version(&"2".to_owned().into()).expect("the name may be left out"), set.migrations[0].version);
    // The ending is part of the name that is compared; zeros in front are no part of the number.
    let list = [("a.sql", text), ("a-b.sql", text), ("02.sql", text), ("2-x.sql", text), ("1.sql", text)];
    found(&list, MigrationFormat::SqlMigrate, &["1", "02", "2-x", "a-b", "a"]);
}

#[test]
fn tern_has_no_gaps() {
    let text = "SELECT 1;\n---- create above / drop below ----\nSELECT -1;\n";
    let set = found(&[("001_a.sql", text), ("002_b.sql", "SELECT 2")], MigrationFormat::Tern, &["1", "2"]);
    assert_eq!(set.migrations[0].down.as_ref().expect("a way back").sql, "\n\nSELECT -1;\n");
    refused(&[("001_a.sql", text), ("003_b.sql", "SELECT 2")], "003_b.sql: tern needs migrations without gaps");
    let template = auto(&[("001_a.sql", &format!("SELECT '{{{{.x}}}}';\n{text}"))]).expect("it may be applied");
    assert_eq!(template.migrations[0].doubt.as_ref().expect("pending, it is refused").line, Some(1));
}

#[test]
fn plain_files_are_sqlxs_unless_the_order_depends_on_the_tool() {
    let bare = "-- no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a)";
    let set = found(&[("1_a.sql", "SELECT 1"), ("2_b.sql", bare)], MigrationFormat::Sqlx, &["1", "2"]);
    assert_eq!(set.migrations[1].mode, BARE);
    refused(&[("10_a.sql", "SELECT 1"), ("2_b.sql", "SELECT 2")], "depends on the tool");
    refused(&[("1_a.sql", ""), ("2_b.up.sql", "")], "in the layouts of different tools: 2_b.up.sql");
    let both = files(&[("1_a.sql", "SELECT 1"), ("2_b.up.sql", "SELECT 2"), ("2_b.down.sql", "SELECT -2")]);
    let set = source::read(both, MigrationFormat::Sqlx).expect("sqlx takes both");
    assert_eq!((set.migrations.len(), set.migrations[1].down.is_some()), (2, true));
    let two = files(&[("1_a.sql", ""), ("1_a.up.sql", "")]);
    let error = source::read(two, MigrationFormat::Sqlx).expect_err("one version").to_string();
    assert!(error.contains("1_a.up.sql: version 1 is taken by 1_a.sql"), "{error}");
    let below = source::read(files(&[("-5_x.sql", "SELECT 1")]), MigrationFormat::Sqlx).expect_err("below 0");
    assert!(below.to_string().starts_with("-5_x.sql: its version is below 0"), "{below}");
}

#[test]
fn names_of_servicedb_come_first_and_golang_migrate_has_more_of_them() {
    found(&[("2_b.up.sql", "SELECT 2"), ("1_a.up.sql", "SELECT 1")], MigrationFormat::Servicedb, &["1", "2"]);
    let set = found(
        &[
            ("1_a b.up.sql", "BEGIN;\nCREATE TABLE t (a int);\nCOMMIT;\n"),
            ("2_i.up.sql", "CREATE INDEX CONCURRENTLY i ON t (a);"),
            ("2_i.down.sql", "DROP INDEX i;"),
        ],
        MigrationFormat::GolangMigrate,
        &["1", "2"],
    );
    assert_eq!((set.migrations[0].mode, set.migrations[1].mode), (Mode::Transaction, BARE));
    assert_eq!(set.migrations[0].up.sql, "     ;\nCREATE TABLE t (a int);\n      ;\n");
    refused(&[("1_a b.up.sql", "SELECT 1;\nCOMMIT;")], "transaction control is not allowed");
    refused(&[("1_a.up.sql", "COPY t (a) FROM stdin;\n1\n\\.\n")], "1_a.up.sql:1: COPY with STDIN");
    refused(&[("1_a.up.sql", "SELECT 1;\n\\i x.sql")], "1_a.up.sql:2: a backslash command");
    refused(&[("1_a b.up.sql", "SELECT 1"), ("index.sql", "x")], "1_a b.up.sql: its name has characters");
    refused(&[("1_a.up.sql", "SELECT 1"), ("index.sql", "x")], "index.sql: it ends neither");
    let set = auto(&[("1_a.up.sql", "SELECT 1"), ("README.md", "#"), ("seed/data.sql", "x")]).expect("things beside");
    assert_eq!(
        (set.format, set.ignored),
        (MigrationFormat::Servicedb, vec!["README.md".into(), "seed/data.sql".into()])
    );
    let morph = "-- morph:nontransactional\nCREATE INDEX CONCURRENTLY i ON t (a);";
    let set = found(&[("000001_i.up.sql", morph)], MigrationFormat::Morph, &["1"]);
    assert_eq!(set.migrations[0].mode, BARE);
}

#[test]
fn flyway_has_parts_repeatables_undos_and_baselines() {
    let set = found(
        &[
            ("V1.10__c.sql", "SELECT 3"),
            ("V1_2__b x.sql", "CREATE INDEX CONCURRENTLY i ON t (a);"),
            ("sub/V2__d.SQL", "SELECT 4"),
            ("V01__a.sql", "SELECT 1"),
            ("U1.2__b.sql", "SELECT -2"),
            ("B1.2__all.sql", "SELECT 12"),
            ("R__view.sql", "SELECT 'r'"),
            ("notes.md", ""),
        ],
        MigrationFormat::Flyway,
        &["1", "1.2", "B1.2", "1.10", "2", "R__view"],
    );
    let kinds: Vec<Kind> = set.migrations.iter().map(|one| one.kind).collect();
    assert_eq!((kinds[2], kinds[5]), (Kind::Baseline, Kind::Repeatable));
    assert_eq!((set.migrations[1].mode, set.migrations[1].down.is_some()), (BARE, true));
    refused(&[("V1.2__a.sql", ""), ("V01.2__b.sql", "")], "version 1.2 is taken by V01.2__b.sql");
    refused(&[("V1.0__a.sql", ""), ("V1__b.sql", "")], "version 1 is taken by V1.0__a.sql");
    refused(&[("V1.1__a.sql", ""), ("v4__b.sql", "")], "v4__b.sql: its name begins with a small letter");
    refused(&[("V1.1__a.sql", ""), ("V5_x__b.sql", "")], "V5_x__b.sql: there is no '__' between a version of numbers");
    refused(&[("V1.1__a.sql", ""), ("sub/afterMigrate.sql", "")], "sub/afterMigrate.sql: Flyway runs this callback");
    refused(&[("V1.1__a.sql", ""), ("V2__B.java", "")], "V2__B.java: this migration is a program");
    refused(&[("V1__a.sql", ""), ("U2__b.sql", "")], "U2__b.sql: no V file has the version that this file undoes");
    refused(&[("V1.1__a.sql", "SELECT 1;\nVACUUM;")], "V1.1__a.sql:2: no transaction can contain this statement");
    let conf = [("V1.1__a.sql", "SELECT 1;"), ("V1.1__a.sql.conf", "executeInTransaction=false\n")];
    let bare = auto(&conf).expect("valid");
    assert_eq!((bare.migrations[0].mode, bare.ignored.len()), (BARE, 0));
    assert_ne!(bare.migrations[0].up.checksum, auto(&conf[..1]).expect("valid").migrations[0].up.checksum);
    let placeholder = auto(&[("V1__a.sql", "SELECT 1;\nSELECT '${x}'")]).expect("it may be applied");
    assert_eq!(placeholder.format, MigrationFormat::Servicedb);
    assert_eq!(placeholder.migrations[0].doubt.as_ref().expect("pending, it is refused").line, Some(2));
    // The way out is a file with options, which is another run of the same text.
    let kept =
        [("V1.1__a.sql", "BEGIN;\nSELECT '${x}';\nCOMMIT;\n"), ("V1.1__a.sql.conf", "placeholderReplacement=false")];
    let (doubted, kept) = (auto(&kept[..1]).expect("valid"), auto(&kept).expect("valid"));
    assert!(doubted.migrations[0].doubt.is_some() && kept.migrations[0].doubt.is_none());
    assert_eq!(doubted.migrations[0].up.checksum, kept.migrations[0].up.checksum);
    assert_ne!(doubted.revision, kept.revision);
    let up = &kept.migrations[0].up;
    assert_eq!(up.written.as_deref(), Some("BEGIN;\nSELECT '${x}';\nCOMMIT;\n"));
    assert_eq!(up.sql, "     ;\nSELECT '${x}';\n      ;\n");
}

#[test]
fn a_u_of_refinery_is_no_undo() {
    let list = [("V1__a.sql", "SELECT 1"), ("U2__b.sql", "SELECT 2"), ("sub/V10__c.sql", "SELECT 3")];
    let set = source::read(files(&list), MigrationFormat::Refinery).expect("valid");
    let versions: Vec<i64> = set.migrations.iter().map(|migration| migration.version.number).collect();
    assert_eq!(versions, [1, 2, 10]);
    assert_ne!(set.late("V1__a.sql"), set.late("sub/U2__b.sql"));
    let twice = files(&[("V1__a.sql", ""), ("U1__a.sql", "")]);
    let error = source::read(twice, MigrationFormat::Refinery).expect_err("one version").to_string();
    assert!(error.contains("V1__a.sql: version 1 is taken by U1__a.sql"), "{error}");
}

#[test]
fn prisma_sorts_folders_as_javascript_does() {
    let list = [
        ("20240102000000_b/migration.sql", "SELECT 2"),
        ("20240101000000_Z/migration.sql", "SELECT 1"),
        ("20240101000000_a/migration.sql", "SELECT 0"),
        ("migration_lock.toml", ""),
    ];
    let versions = ["20240101000000_a", "20240101000000_Z", "20240102000000_b"];
    let set = found(&list, MigrationFormat::Prisma, &versions);
    assert!(set.ignored.is_empty());
    // In the order of `localeCompare` (Node 20).
    let names = [
        "1_x",
        "10_x",
        "2_x",
        "2024_x",
        "20240101000000",
        "20240101000000_a",
        "20240101000000_A",
        "20240101000000_a b",
        "20240101000000_a_b",
        "20240101000000_a-b",
        "20240101000000_a1",
        "20240101000000_ab",
        "20240101000000_aB",
        "20240101000000_Ab",
        "20240101000000_b",
        "20240101000000_B",
        "20240101000000_ba",
        "20240101000000-c",
        "20240101000000a",
    ];
    let paths: Vec<String> = names.iter().map(|name| format!("{name}/migration.sql")).collect();
    let list: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "SELECT 1")).collect();
    found(&list, MigrationFormat::Prisma, &names);
    // A name is no mark of Flyway's.
    let repeated = [("20240101000000_a/migration.sql", "SELECT 1"), ("R__view/migration.sql", "SELECT 2")];
    let set = found(&repeated, MigrationFormat::Prisma, &["20240101000000_a", "R__view"]);
    assert!(!source::is_repeatable(&set.migrations[1].version));
    let long = format!("{}/migration.sql", "x".repeat(201));
    refused(&[(&long, "SELECT 1")], "its version has more than 200 characters");
    refused(
        &[("20240101000000_a/migration.sql", ""), ("20240102000000_b/notes.sql", "")],
        "the folder 20240102000000_b has no migration.sql",
    );
}

#[test]
fn drizzle_goes_by_its_journal() {
    let journal = |tags: &[&str]| {
        let entries: Vec<String> = tags
            .iter()
            .enumerate()
            .map(|(at, tag)| {
                format!("  {{\"idx\": {at}, \"when\": {}, \"tag\": \"{tag}\", \"breakpoints\": true}}", at + 10)
            })
            .collect();
        format!("{{\"version\": \"7\", \"dialect\": \"postgresql\", \"entries\": [\n{}\n]}}", entries.join(",\n"))
    };
    let text = "CREATE TABLE a (id int)\n--> statement-breakpoint\nCREATE TABLE b (id int);";
    let both = journal(&["0001_z", "0000_a"]);
    let list = [("0000_a.sql", text), ("0001_z.sql", "SELECT 1"), ("meta/_journal.json", both.as_str())];
    let set = found(&list, MigrationFormat::Drizzle, &["0001_z", "0000_a"]);
    assert!(set.migrations[1].up.sql.contains("(id int)\n; "), "{}", set.migrations[1].up.sql);
    assert_eq!(set.version(&"0000".to_owned().into()), Some(set.migrations[1].version.clone()));
    // Another time is another entry in the tool's table.
    let later = both.replace("\"when\": 11", "\"when\": 12");
    let moved = auto(&[list[0], list[1], ("meta/_journal.json", &later)]).expect("valid");
    assert_ne!(moved.revision, set.revision);
    refused(&[list[0], list[2]], "meta/_journal.json:2: it names 0001_z, and there is no file 0001_z.sql");
    let unnumbered = journal(&["first", "0000_a"]);
    let named = [list[0], ("first.sql", "SELECT 1"), ("meta/_journal.json", &unnumbered)];
    found(&named, MigrationFormat::Drizzle, &["first", "0000_a"]);
    let one = journal(&["0000_a"]);
    refused(
        &[list[0], list[1], ("meta/_journal.json", &one)],
        "0001_z.sql: meta/_journal.json does not name this file",
    );
}

#[test]
fn atlas_compares_its_sums() {
    let sum = atlas::tests::sum(&[("1_a.sql", "SELECT 1;\n"), ("2_b.sql", "SELECT 2;\n")]);
    let list = [("1_a.sql", "SELECT 1;\r\n"), ("2_b.sql", "-- atlas:txmode none\n\nVACUUM;\n"), ("atlas.sum", &sum)];
    refused(&list, "atlas.sum:3: the sum of 2_b.sql is another one");
    found(&[list[0], ("2_b.sql", "SELECT 2;\n"), list[2]], MigrationFormat::Atlas, &["1", "2"]);
    refused(&[list[0], list[2]], "atlas.sum:3: it names 2_b.sql, and there is no such file");
    let other = sum.replacen("h1:", "h1:A", 1);
    refused(&[list[0], ("2_b.sql", "SELECT 2;\n"), ("atlas.sum", &other)], "atlas.sum:1: the sum of all the others");
    let bare = source::read(files(&list[..2]), MigrationFormat::Atlas).expect("without sums");
    assert_eq!((bare.migrations[0].mode, bare.migrations[1].mode), (Mode::Transaction, BARE));
}

#[test]
fn atlas_has_options_at_the_start_of_a_file() {
    let read = |list: &[(&str, &str)]| source::read(files(list), MigrationFormat::Atlas);
    let checkpoint = "-- atlas:checkpoint v2\n-- atlas:txmode none\n\nCREATE TABLE a (id int);\n";
    let set = read(&[("1_a.sql", "SELECT 1;"), ("2_all.sql", checkpoint), ("3_c.sql", "SELECT 3;")]).expect("valid");
    assert_eq!((set.migrations[1].kind, set.migrations[1].mode), (Kind::Baseline, BARE));
    // With a statement directly below, they are a comment on that.
    let comment = read(&[("1_a.sql", "-- atlas:checkpoint\nSELECT 1;")]).expect("valid");
    assert_eq!(comment.migrations[0].kind, Kind::Versioned);

    let text = "-- atlas:delimiter \\n\\n\\n\nSELECT 1\n\n\nSELECT 2\n";
    let loosely = read(&[("1_a.sql", "# by hand\n--atlas:txmode none\n\nVACUUM;\n")]).expect("valid");
    assert_eq!(loosely.migrations[0].mode, BARE);
    for (options, line) in [("-- atlas:txmode all", 1), ("-- atlas:txmode none\n-- atlas:txmode file", 2)] {
        let error = read(&[("1_a.sql", &format!("{options}\n\nVACUUM;\n"))]).expect_err(options);
        assert_eq!(error.line, Some(line), "{error}");
    }
    let checks = "-- atlas:txtar\n\n-- checks.sql --\nSELECT false;\n-- migration.sql --\nDROP TABLE a;\n";
    let doubt = read(&[("1_a.sql", checks)]).expect("it may be applied").migrations.remove(0).doubt;
    assert!(doubt.expect("pending, it is refused").message.contains("checks of Atlas"));

    let divided = read(&[("1_a.sql", text)]).expect("valid");
    assert_eq!(divided.migrations[0].up.sql, "-- atlas:delimiter \\n\\n\\n\nSELECT 1;\n\n\nSELECT 2\n");
    let with_end =
        read(&[("1_a.sql", "-- atlas:delimiter -- end\nSELECT 1\n-- end\nSELECT 2\n-- end\n")]).expect("valid");
    assert!(with_end.migrations[0].up.sql.contains("SELECT 1;\n-- end\nSELECT 2;\n-- end"));
    let error = read(&[("1_a.sql", "-- atlas:delimiter //\nSELECT 1//")]).expect_err("tokens");
    assert!(error.to_string().starts_with("1_a.sql:1: this delimiter is neither"), "{error}");

    // The sums of later files have the name of one that they leave out.
    let out = "-- atlas:sum ignore\nSELECT 2;\n";
    let sum = atlas::tests::sum(&[("1_a.sql", "SELECT 1;\n"), ("2_b.sql", out), ("3_c.sql", "SELECT 3;\n")]);
    let list = [("1_a.sql", "SELECT 1;\n"), ("2_b.sql", out), ("3_c.sql", "SELECT 3;\n"), ("atlas.sum", sum.as_str())];
    found(&list, MigrationFormat::Atlas, &["1", "2", "3"]);
}

#[test]
fn layouts_of_two_tools_are_refused_with_a_file_of_each() {
    refused(
        &[("1_a.sql", "-- +goose Up\nSELECT 1;"), ("2_b.sql", "-- migrate:up\n-- migrate:down\n")],
        "in the layouts of different tools: 1_a.sql (goose), 2_b.sql (dbmate)",
    );
    refused(
        &[("1_a.sql", "-- +goose Up\nSELECT 1;"), ("2_b/migration.sql", "SELECT 1")],
        "1_a.sql (goose), 2_b/migration.sql (Prisma)",
    );
}
