//! One file that is run: a migration's up file, or the down file that it was applied with.

use super::source::{Migration, Mode};

/// A file, and what the ledger says of its migration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step<'a> {
    /// Whether it applies the migration or reverts it.
    pub direction: Direction<'a>,
    /// The migration's version.
    pub version: i64,
    /// The migration's name.
    pub name: &'a str,
    /// The file's name.
    pub file: &'a str,
    /// Its text.
    pub sql: &'a str,
    /// How it is run.
    pub mode: Mode,
}

/// Where a file leads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Direction<'a> {
    /// It applies the migration.
    Up {
        /// The checksum of its content.
        checksum: &'a str,
        /// The down file that the ledger keeps: name and text.
        down: Option<(&'a str, &'a str)>,
    },
    /// It reverts the migration.
    Down,
}

impl<'a> Step<'a> {
    /// Applies a migration.
    pub fn up(migration: &'a Migration) -> Self {
        Self {
            direction: Direction::Up {
                checksum: &migration.up.checksum,
                down: migration.down.as_ref().map(|down| (down.name.as_str(), down.sql.as_str())),
            },
            version: migration.version,
            name: &migration.name,
            file: &migration.up.name,
            sql: &migration.up.sql,
            mode: migration.mode,
        }
    }
}
