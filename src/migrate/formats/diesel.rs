//! Diesel: folders `<version>_<name>` with `up.sql`, `down.sql` and `metadata.toml`. The version is
//! what stands before the first `_`, without dashes; versions are in the order of their texts.

use std::collections::BTreeMap;

use super::folder::Folder;
use super::{Draft, Kind, Layout, Part, Run, Scheme, TRANSACTION};
use crate::migrate::source::SourceError;

/// The options of a folder.
pub const METADATA: &str = "metadata.toml";
/// The one that it has.
const KEY: &str = "run_in_transaction";
/// What the checksum of a file without a transaction begins with.
pub const BARE: &str = "-- run_in_transaction = false\n";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut ignored = Vec::new();
    for path in folder.names() {
        match path.split_once('/') {
            Some((one, file)) if matches!(file, "up.sql" | "down.sql" | METADATA) => {
                folders.entry(one).or_default().push(file);
            }
            other => {
                if let Some((one, _)) = other.filter(|(one, _)| is_migrations(one)) {
                    folders.entry(one).or_default();
                }
                ignored.push(path.to_owned());
            }
        }
    }
    let mut drafts = Vec::with_capacity(folders.len());
    for (name, files) in folders {
        let path = |file: &str| format!("{name}/{file}");
        if !files.contains(&"up.sql") {
            let message = "has no up.sql, and Diesel refuses to run without: add it, or remove the folder";
            return Err(match files.first() {
                Some(file) => SourceError::file(&path(file), format!("this folder {message}")),
                None => SourceError::set(format!("the folder {name} {message}")),
            });
        }
        let run = if files.contains(&METADATA) { metadata(folder, &path(METADATA))? } else { TRANSACTION };
        let part = |file: &str| -> Result<Part, SourceError> {
            let file = path(file);
            let sql = folder.text(&file)?;
            // Without a transaction, the option is part of what was applied.
            let sum = (run != TRANSACTION).then(|| format!("{BARE}{sql}"));
            Ok(Part { file, sql, sum, run })
        };
        let (version, title) = name.split_once('_').unwrap_or((name, name));
        let version = Scheme::Text.version(&version.replace('-', ""));
        let version = version.filter(|version| !version.text.as_str().is_empty());
        let version = version.ok_or_else(|| {
            SourceError::file(&path("up.sql"), "the name of its folder does not begin with a version")
        })?;
        let up = part("up.sql")?;
        let down = if files.contains(&"down.sql") { Some(part("down.sql")?) } else { None };
        drafts.push(Draft { version, name: title.to_owned(), kind: Kind::Versioned, up, down, doubt: None, key: None });
    }
    Ok(Layout { drafts, scheme: Scheme::Text, ignored })
}

/// Whether a folder is one of a migration by its name: others have data.
fn is_migrations(name: &str) -> bool {
    name.starts_with(|one: char| one.is_ascii_digit()) && name.contains('_')
}

/// How the files of a folder are run. Diesel takes a file without the key for `false`, and one that it
/// cannot read for none at all: the latter is refused.
fn metadata(folder: &Folder, path: &str) -> Result<Run, SourceError> {
    let text = folder.text(path)?;
    let mut found = None;
    for (at, line) in text.lines().enumerate() {
        let refuse = |problem: &str| {
            let message = format!(
                "{problem}, so Diesel ignores the whole file and does not say so: write run_in_transaction = true or false"
            );
            Err(SourceError::line(path, u32::try_from(at + 1).unwrap_or(u32::MAX), message))
        };
        let bare = line.split_once('#').map_or(line, |(bare, _)| bare).trim();
        // The keys below are those of a table.
        if bare.starts_with('[') {
            break;
        }
        match bare.split_once('=').map(|(key, value)| (key.trim().trim_matches('"'), value.trim())) {
            None if bare.is_empty() => {}
            None => return refuse("this line is no option"),
            Some((KEY, _)) if found.is_some() => return refuse("this option is here twice"),
            Some((KEY, "true")) => found = Some(TRANSACTION),
            Some((KEY, "false")) => found = Some(Run::Query),
            Some((KEY, _)) => return refuse("run_in_transaction is neither true nor false"),
            Some(_) => {}
        }
    }
    Ok(found.unwrap_or(Run::Query))
}
