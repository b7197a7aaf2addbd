//! The folders of other tools: read as they are, in the tools' order. What the tools did with the same
//! folders is recorded in `expected/`, by `dev/test-tools.sh`, which runs them.

mod folders;
mod generated;
mod speed;
mod takeover;
mod tools;
mod versions;

use servicedb::api::MigrationFormat;
use servicedb::migrate::source::{self, Kind, MigrationSet};

use crate::{database, query, run};
use folders::Files;

/// A tool, its folder, and the order in which it ran it.
struct Case {
    name: &'static str,
    format: MigrationFormat,
    /// Whether the folder is recognised.
    auto: bool,
    folder: fn() -> Files,
    /// The tool's version, and the files in the order in which it ran them.
    expected: &'static str,
}

macro_rules! case {
    ($name:ident, $format:ident, $auto:literal) => {
        Case {
            name: stringify!($name),
            format: MigrationFormat::$format,
            auto: $auto,
            folder: folders::$name,
            expected: include_str!(concat!("expected/", stringify!($name), ".txt")),
        }
    };
}

const CASES: [Case; 13] = [
    case!(diesel, Diesel, true),
    case!(golang_migrate, GolangMigrate, true),
    case!(goose, Goose, true),
    case!(dbmate, Dbmate, true),
    case!(sql_migrate, SqlMigrate, true),
    case!(tern, Tern, true),
    case!(sqlx, Sqlx, true),
    case!(flyway, Flyway, true),
    case!(refinery, Refinery, false),
    case!(prisma, Prisma, true),
    case!(drizzle, Drizzle, true),
    case!(supabase, Supabase, false),
    case!(atlas, Atlas, true),
];

impl Case {
    fn set(&self) -> MigrationSet {
        let files = (self.folder)().into_iter().map(|(name, text)| (name, text.into_bytes()));
        let format = if self.auto { MigrationFormat::Auto } else { self.format };
        let set = source::read(files, format).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert_eq!(set.format, self.format, "{}: recognised as", self.name);
        set
    }

    /// The files that the tool ran, in its order; the first line names the tool and its version.
    fn expected(&self) -> Vec<&'static str> {
        self.expected.lines().skip(1).collect()
    }
}

/// How many migrations are run in an empty database: all, or from the last checkpoint on.
fn fresh(set: &MigrationSet) -> usize {
    let checkpoint = set.migrations.iter().rposition(|migration| migration.kind == Kind::Baseline);
    set.migrations.len() - checkpoint.unwrap_or(0)
}

/// The table that each migration writes its file into.
const RAN: &str = "CREATE TABLE ran (n int GENERATED ALWAYS AS IDENTITY, what text)";
const ORDER: &str = "SELECT what FROM ran ORDER BY n";

/// A database with the table, which belongs to the owner.
async fn prepared(name: &str) -> crate::Database {
    let database = database(name).await;
    let admin = database.superuser().await;
    let table = format!("SET ROLE {}; {RAN}; RESET ROLE", database.owner());
    admin.client.batch_execute(&table).await.expect("the table");
    database
}

#[tokio::test]
async fn folders_are_run_in_the_order_of_their_tools() {
    for case in &CASES {
        let expected = case.expected();
        let set = case.set();
        assert!(set.migrations.len() >= 24, "{}: {}", case.name, set.migrations.len());
        let database = prepared(&format!("layout_{}", case.name)).await;
        let (applied, failure) = run(&database, &set).await;
        assert_eq!((usize::try_from(applied), failure), (Ok(fresh(&set)), None), "{}", case.name);
        assert_eq!(query(&database.superuser().await, ORDER).await, expected, "{}", case.name);
        // Everything is in the ledger, and nothing is run again.
        assert_eq!(run(&database, &set).await, (0, None), "{}", case.name);
    }
}
