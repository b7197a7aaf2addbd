//! Folders that nobody would write down by hand.

use proptest::prelude::*;

use super::*;

/// Pieces of names and texts that some tool knows, in any order.
const NAMES: [&str; 30] = [
    "1",
    "01",
    "0",
    "99999999999999999999",
    "2019-01-01-000000",
    "1.2",
    "_",
    "__",
    "V",
    "U",
    "R",
    "B",
    "v",
    "-",
    " ",
    "a",
    "\u{e9}",
    "\n",
    "/",
    "/up.sql",
    "/down.sql",
    "/migration.sql",
    "/metadata.toml",
    ".up.sql",
    ".down.sql",
    ".sql",
    ".SQL",
    ".conf",
    "meta/_journal.json",
    "atlas.sum",
];
const TEXTS: [&str; 30] = [
    "SELECT 1;\n",
    "SELECT '",
    "$$",
    ";",
    "BEGIN;\n",
    "COMMIT;\n",
    "CREATE INDEX CONCURRENTLY i ON t (a);\n",
    "\r\n",
    "\n",
    "\u{feff}",
    "\0",
    "-- +goose Up\n",
    "-- +goose Down\n",
    "-- +goose ENVSUB ON\n",
    "-- migrate:up\n",
    "-- migrate:down\n",
    "-- +migrate Up\n",
    "-- +migrate Down\n",
    "---- create above / drop below ----\n",
    "---- tern: disable-tx ----\n",
    "-- no-transaction idempotent\n",
    "run_in_transaction = false\n",
    "=\n",
    "-- atlas:checkpoint\n\n",
    "-- atlas:txmode none\n",
    "-- atlas:delimiter \\n\n",
    "-- atlas:sum ignore\n",
    "h1:x\n1_a.sql h1:y\n",
    "{\"entries\": [{\"tag\": \"1_a\", \"when\": 1}]}",
    "\u{e9}",
];
const FORMATS: [MigrationFormat; 15] = [
    MigrationFormat::Auto,
    MigrationFormat::Servicedb,
    MigrationFormat::Diesel,
    MigrationFormat::GolangMigrate,
    MigrationFormat::Goose,
    MigrationFormat::Dbmate,
    MigrationFormat::SqlMigrate,
    MigrationFormat::Tern,
    MigrationFormat::Sqlx,
    MigrationFormat::Flyway,
    MigrationFormat::Refinery,
    MigrationFormat::Prisma,
    MigrationFormat::Drizzle,
    MigrationFormat::Supabase,
    MigrationFormat::Atlas,
];

fn joined(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(pieces), 1..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a folder has, it is read in one order without two of one version, or one of its files is named.
    #[test]
    fn no_folder_is_too_odd(
        files in proptest::collection::btree_map(joined(&NAMES), joined(&TEXTS), 0..5),
        format in proptest::sample::select(&FORMATS[..]),
    ) {
        let bytes = files.iter().map(|(name, text)| (name.clone(), text.clone().into_bytes()));
        match source::read(bytes, format) {
            Ok(set) => {
                prop_assert!(set.migrations.len() <= files.len());
                for pair in set.migrations.windows(2) {
                    prop_assert!(pair[0].version.ordinal <= pair[1].version.ordinal && pair[0].version != pair[1].version);
                }
                for migration in &set.migrations {
                    let text = files.get(&migration.up.name).expect("a file of the folder");
                    prop_assert!(migration.up.sql.lines().count() <= text.lines().count().max(1), "lines keep their numbers");
                    prop_assert!(migration.up.has_checksum(&migration.up.checksum));
                }
            }
            Err(error) => {
                let file = error.file.as_ref();
                prop_assert!(file.is_none_or(|file| files.contains_key(file)), "{}", error);
                let lines = file.and_then(|file| files.get(file)).map_or(1, |text| text.lines().count() + 1);
                prop_assert!(error.line.is_none_or(|line| line >= 1 && usize::try_from(line).is_ok_and(|line| line <= lines)), "{}", error);
            }
        }
    }
}
