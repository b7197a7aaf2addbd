//! One file to run: a migration's up file, or its stored down file.

use super::ledger::DownFile;
use super::source::{Migration, Mode};
use super::version::Version;

/// A file and its migration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step<'a> {
    /// Whether it applies the migration or reverts it.
    pub direction: Direction<'a>,
    /// The migration's version.
    pub version: &'a Version,
    /// The file's name.
    pub file: &'a str,
    /// Its text.
    pub sql: &'a str,
    /// How it is run.
    pub mode: Mode,
}

/// The direction of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Direction<'a> {
    /// It applies this migration.
    Up(&'a Migration),
    /// It reverts a migration, which the source may no longer contain.
    Down,
}

impl<'a> Step<'a> {
    /// Applies a migration.
    pub fn up(migration: &'a Migration) -> Self {
        Self {
            direction: Direction::Up(migration),
            version: &migration.version,
            file: &migration.up.name,
            sql: &migration.up.sql,
            mode: migration.mode,
        }
    }

    /// Reverts a migration.
    pub fn down(file: &'a DownFile) -> Self {
        let (name, sql) = (&file.name, &file.sql);
        Self { direction: Direction::Down, version: &file.version, file: name, sql, mode: file.mode }
    }
}
