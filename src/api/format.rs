//! The layouts of migration files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A layout of migration files: that of a tool.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationFormat {
    /// The one that the files are recognised by.
    #[default]
    Auto,
    /// `<version>_<name>.up.sql` and `.down.sql`, `V<version>__<name>.sql`, or folders with `up.sql`.
    Servicedb,
    /// Folders `<version>_<name>` with `up.sql`, `down.sql` and `metadata.toml`.
    Diesel,
    /// `<version>_<name>.up.sql` and `.down.sql`.
    GolangMigrate,
    /// The same, of morph.
    Morph,
    /// `<version>_<name>.sql` with `-- +goose Up`.
    Goose,
    /// `<version>_<name>.sql` with `-- migrate:up`.
    Dbmate,
    /// `<name>.sql` with `-- +migrate Up`.
    SqlMigrate,
    /// `<number>_<name>.sql`, with `---- create above / drop below ----`.
    Tern,
    /// `<version>_<name>.sql`, or `.up.sql` and `.down.sql`.
    Sqlx,
    /// `V1.2__<name>.sql`, `R__<name>.sql`, `U1.2__<name>.sql`, `B1.2__<name>.sql`.
    Flyway,
    /// `V1__<name>.sql`, `U1__<name>.sql` (not an undo).
    Refinery,
    /// Folders with `migration.sql`.
    Prisma,
    /// Files that `meta/_journal.json` lists.
    Drizzle,
    /// `<timestamp>_<name>.sql`.
    Supabase,
    /// `<version>_<name>.sql` with `atlas.sum`.
    Atlas,
}

impl MigrationFormat {
    /// Its name, as in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::Servicedb => "Servicedb",
            Self::Diesel => "Diesel",
            Self::GolangMigrate => "GolangMigrate",
            Self::Morph => "Morph",
            Self::Goose => "Goose",
            Self::Dbmate => "Dbmate",
            Self::SqlMigrate => "SqlMigrate",
            Self::Tern => "Tern",
            Self::Sqlx => "Sqlx",
            Self::Flyway => "Flyway",
            Self::Refinery => "Refinery",
            Self::Prisma => "Prisma",
            Self::Drizzle => "Drizzle",
            Self::Supabase => "Supabase",
            Self::Atlas => "Atlas",
        }
    }

    /// Whether it is left to the files.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}
