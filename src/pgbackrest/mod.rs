//! pgBackRest, the engine of backups, behind our own boundary: its configuration, its commands, and what it
//! says of a store. Another engine would take the place of this folder.

pub mod command;
pub mod config;
pub mod info;
pub mod secrets;

/// The stanza: one database in each folder, so one name.
pub const STANZA: &str = "db";
