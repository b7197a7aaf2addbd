//! The layouts of migration files: Servicedb's own and those of other tools, one file each. A layout
//! knows names, marks and the tool's order; what all of them share is here and in `build`.
//!
//! A file that holds both directions is given as two texts in which the lines of the other direction
//! are empty, so that every line keeps its number in messages.

mod atlas;
mod build;
mod dbmate;
mod detect;
mod diesel;
mod drizzle;
mod flyway;
mod folder;
mod golang_migrate;
mod goose;
mod marks;
mod own;
mod prisma;
mod refinery;
mod sql_migrate;
mod sqlx;
mod supabase;
mod tern;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::source::{Kind, MigrationSet, Mode, SourceError};
use super::version::{Scheme, Version};
use crate::api::MigrationFormat;
use folder::{Folder, is_sql};

/// A migration as a layout describes it.
struct Draft {
    version: Version,
    name: String,
    kind: Kind,
    up: Part,
    down: Option<Part>,
    doubt: Option<SourceError>,
    /// Its name in the tool's own table, if that follows from no other part.
    key: Option<String>,
}

impl Draft {
    /// A migration that nothing reverts.
    fn up_only(version: Version, name: String, up: Part) -> Self {
        Self { version, name, kind: Kind::Versioned, up, down: None, doubt: None, key: None }
    }
}

/// A direction of a migration.
struct Part {
    /// The file that has it.
    file: String,
    /// Its text; each line has its number in the file.
    sql: String,
    /// The text whose checksum is recorded, if it is another one.
    sum: Option<String>,
    /// How the tool runs it.
    run: Run,
}

/// How a tool runs a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// As Servicedb itself does.
    As(Mode),
    /// As one message without a transaction of its own: the server then makes one of all its
    /// statements, and a single statement may be one that no transaction can contain.
    Query,
    /// In a transaction, unless its statements are such that cannot be in one.
    Statements,
    /// In a transaction, which a statement that cannot be in one ends; another one follows it.
    Split,
}

const TRANSACTION: Run = Run::As(Mode::Transaction);
const NO_TRANSACTION: Run = Run::As(Mode::NoTransaction { idempotent: false });

/// What the checksum of a text begins with, by an option in a file beside it: none, Diesel's or Flyway's.
pub const BESIDE: [&str; 3] = ["", diesel::BARE, flyway::BARE];

/// The migrations of a folder.
struct Layout {
    drafts: Vec<Draft>,
    scheme: Scheme,
    /// The files that are no migrations.
    ignored: Vec<String>,
}

/// Reads the files of a tool.
///
/// # Errors
/// If there is no migration, one of them is invalid, or they do not fit together.
pub fn read(files: BTreeMap<String, Vec<u8>>, format: MigrationFormat) -> Result<MigrationSet, SourceError> {
    let folder = Folder::new(files);
    match format {
        MigrationFormat::Auto => detect::read(&folder),
        format => read_as(&folder, format),
    }
}

fn read_as(folder: &Folder, format: MigrationFormat) -> Result<MigrationSet, SourceError> {
    exact_endings(folder, format)?;
    let layout = match format {
        MigrationFormat::Auto | MigrationFormat::Servicedb => own::read(folder),
        MigrationFormat::Diesel => diesel::read(folder),
        MigrationFormat::GolangMigrate | MigrationFormat::Morph => golang_migrate::read(folder, format),
        MigrationFormat::Goose => goose::read(folder),
        MigrationFormat::Dbmate => dbmate::read(folder),
        MigrationFormat::SqlMigrate => sql_migrate::read(folder),
        MigrationFormat::Tern => tern::read(folder),
        MigrationFormat::Sqlx => sqlx::read(folder),
        MigrationFormat::Flyway => flyway::read(folder),
        MigrationFormat::Refinery => refinery::read(folder),
        MigrationFormat::Prisma => prisma::read(folder),
        MigrationFormat::Drizzle => drizzle::read(folder),
        MigrationFormat::Supabase => supabase::read(folder),
        MigrationFormat::Atlas => atlas::read(folder),
    }?;
    build::set(format, layout)
}

/// Refuses a file of SQL by another name, such as `2_b.SQL`, which a tool leaves out.
fn exact_endings(folder: &Folder, format: MigrationFormat) -> Result<(), SourceError> {
    let (by_ending, below) = match format {
        MigrationFormat::Goose
        | MigrationFormat::Dbmate
        | MigrationFormat::SqlMigrate
        | MigrationFormat::Tern
        | MigrationFormat::Sqlx
        | MigrationFormat::Supabase
        | MigrationFormat::Atlas => (true, false),
        MigrationFormat::Refinery => (true, true),
        _ => (false, false),
    };
    let is_left_out = |file: &&str| is_sql(file) && !file.ends_with(".sql") && (below || !file.contains('/'));
    match folder.names().find(is_left_out).filter(|_| by_ending) {
        Some(file) => {
            let message = format!("{} leaves this file out: let its name end with .sql", format.name());
            Err(SourceError::file(file, message))
        }
        None => Ok(()),
    }
}

/// The place of a version among those of a tool, by its name in the spec. The version of a team's own
/// tool has none: it is taken for numbers with dots.
pub fn place(format: Option<&str>, text: &str) -> Option<String> {
    match format {
        Some("SqlMigrate") => Some(sql_migrate::place(text)),
        Some("Prisma") => Some(prisma::collated(text)),
        Some("Diesel" | "Dbmate" | "Supabase" | "Atlas" | "Drizzle") => Some(text.to_owned()),
        _ => Scheme::Parts.version(text).map(|version| version.ordinal),
    }
}

/// What a tool does with a pending file that is older than the newest applied one.
pub fn late(format: MigrationFormat, file: &str) -> &'static str {
    match format {
        MigrationFormat::Auto | MigrationFormat::Servicedb | MigrationFormat::Morph | MigrationFormat::Tern => "",
        MigrationFormat::Diesel => " (Diesel would run it now)",
        MigrationFormat::Dbmate => " (dbmate would run it now)",
        MigrationFormat::SqlMigrate => " (sql-migrate would run it now)",
        MigrationFormat::Sqlx => " (sqlx would run it now)",
        MigrationFormat::Prisma => " (Prisma would run it now)",
        MigrationFormat::GolangMigrate => " (golang-migrate would never run it, and not say so)",
        MigrationFormat::Drizzle => " (drizzle would never run it, and not say so)",
        MigrationFormat::Refinery if refinery::may_be_late(file) => " (refinery would run it now)",
        MigrationFormat::Refinery => " (refinery would never run it)",
        MigrationFormat::Goose => " (goose would refuse it, too)",
        MigrationFormat::Flyway => " (Flyway would refuse it, too)",
        MigrationFormat::Supabase => " (Supabase would refuse it, too)",
        MigrationFormat::Atlas => " (Atlas would refuse it, too)",
    }
}
