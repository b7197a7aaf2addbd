//! Diesel: folders `<version>_<name>` with `up.sql`, `down.sql` and `metadata.toml`. The version is
//! what stands before the first `_`, without dashes; versions are in the order of their texts.

use std::collections::BTreeMap;

use super::folder::Folder;
use super::marks::line_of;
use super::{Draft, Kind, Layout, Part, Run, Scheme, TRANSACTION};
use crate::migrate::source::SourceError;

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut ignored = Vec::new();
    for path in folder.names() {
        match path.split_once('/') {
            Some((one, file)) if matches!(file, "up.sql" | "down.sql" | "metadata.toml") => {
                folders.entry(one).or_default().push(file);
            }
            _ => ignored.push(path.to_owned()),
        }
    }
    let mut drafts = Vec::with_capacity(folders.len());
    for (name, files) in folders {
        let path = |file: &str| format!("{name}/{file}");
        if !files.contains(&"up.sql") {
            let message = "this folder has no up.sql, and Diesel refuses to run without: add it, or remove the folder";
            return Err(SourceError::file(&path(files.first().unwrap_or(&"up.sql")), message));
        }
        let run =
            if files.contains(&"metadata.toml") { metadata(folder, &path("metadata.toml"))? } else { TRANSACTION };
        let part = |file: &str| -> Result<Part, SourceError> {
            let file = path(file);
            let sql = folder.text(&file)?;
            // Without a transaction, the option is part of what was applied.
            let sum = (run != TRANSACTION).then(|| format!("-- run_in_transaction = false\n{sql}"));
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

/// How the files of a folder are run.
fn metadata(folder: &Folder, path: &str) -> Result<Run, SourceError> {
    let text = folder.text(path)?;
    let mut run = TRANSACTION;
    for line in text.lines() {
        let bare = line.split_once('#').map_or(line, |(bare, _)| bare).trim();
        let Some((key, value)) = bare.split_once('=') else { continue };
        if key.trim() != "run_in_transaction" {
            continue;
        }
        run = match value.trim() {
            "true" => TRANSACTION,
            "false" => Run::Query,
            _ => {
                let at = line_of(&text, |other| other == line).unwrap_or(1);
                return Err(SourceError::line(path, at, "run_in_transaction is neither true nor false"));
            }
        };
    }
    Ok(run)
}
