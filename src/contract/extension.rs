//! The extensions that a spec declares. The names alone are older than their options, so both documents and Jobs have
//! the options beside the names: an agent or a Job of an earlier image creates the extension where it always did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The scheduler of jobs.
pub const CRON: &str = "pg_cron";
/// The schema that it creates.
pub const CRON_SCHEMA: &str = "cron";
/// The extensions whose library, of the same name, the server must load when it starts. It loads them only where they
/// are declared: each has a process of its own.
pub const PRELOADED: [&str; 1] = [CRON];

/// How an extension is created and kept.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// The version; absent: at creation the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The schema; absent: the one that follows from the extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// Options by the extension's name.
pub type OptionsByName = BTreeMap<String, Options>;

/// An extension to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name, as in `CREATE EXTENSION`.
    pub name: String,
    /// Its options.
    pub options: Options,
}

impl Extension {
    /// An extension without options.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), options: Options::default() }
    }
}

/// The extensions with these names, each with its options.
pub fn declared(names: &[String], options: &OptionsByName) -> Vec<Extension> {
    let of = |name: &String| options.get(name).cloned().unwrap_or_default();
    names.iter().map(|name| Extension { name: name.clone(), options: of(name) }).collect()
}
