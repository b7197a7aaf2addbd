//! Drizzle: the files that `meta/_journal.json` lists, in its order.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::folder::{Folder, is_sql, leading_digits};
use super::marks::line_of;
use super::{Draft, Layout, Part, Scheme, TRANSACTION, Version};
use crate::api::SchemaVersion;
use crate::migrate::source::SourceError;
use crate::migrate::version::padded;

/// The list of the files.
pub const JOURNAL: &str = "meta/_journal.json";
/// Separates statements; without a semicolon they would be one.
const BREAK: &str = "--> statement-breakpoint";

#[derive(Deserialize)]
struct Journal {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    tag: String,
    when: i64,
}

/// A place in the journal's text.
fn at(text: &str, tag: &str) -> u32 {
    let quoted = format!("\"{tag}\"");
    line_of(text, |line| line.contains(&quoted)).unwrap_or(1)
}

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    if !folder.has(JOURNAL) {
        return Err(SourceError::set(format!("{JOURNAL} is missing: Drizzle runs only the files that it lists")));
    }
    let text = folder.text(JOURNAL)?;
    let journal: Journal = serde_json::from_str(&text).map_err(|error| {
        let line = u32::try_from(error.line()).unwrap_or(1).max(1);
        SourceError::line(JOURNAL, line, format!("it is no journal of Drizzle: {error}"))
    })?;
    let mut drafts: Vec<Draft> = Vec::with_capacity(journal.entries.len());
    // As long as before, so that the rest keeps its place.
    let semicolon = format!("{:<1$}", ";", BREAK.len());
    let mut times: HashMap<i64, &Entry> = HashMap::new();
    let mut tags: HashSet<&str> = HashSet::new();
    for (index, entry) in journal.entries.iter().enumerate() {
        let file = format!("{}.sql", entry.tag);
        if !folder.has(&file) {
            let message =
                format!("it names {}, and there is no file {file}: put the file back, or remove the entry", entry.tag);
            return Err(SourceError::line(JOURNAL, at(&text, &entry.tag), message));
        }
        if !tags.insert(entry.tag.as_str()) {
            let message = format!("it names {} twice: remove one of the entries", entry.tag);
            return Err(SourceError::line(JOURNAL, at(&text, &entry.tag), message));
        }
        if let Some(before) = times.insert(entry.when, entry) {
            let message = format!(
                "{} and {} have the same 'when', by which Drizzle tells what it has run: give the later one a greater \
                 value",
                before.tag, entry.tag
            );
            return Err(SourceError::line(JOURNAL, at(&text, &entry.tag), message));
        }
        let written = folder.text(&file)?;
        let sql = written.replace(BREAK, &semicolon);
        let part = Part { file, sql, sum: Some(written), run: TRANSACTION };
        let name = leading_digits(&entry.tag).1.trim_start_matches('_').to_owned();
        let version = Version::new(SchemaVersion::new(&entry.tag), padded(&index.to_string()));
        drafts.push(Draft { key: Some(entry.when.to_string()), ..Draft::up_only(version, name, part) });
    }
    let files: HashSet<&str> = drafts.iter().map(|draft| draft.up.file.as_str()).collect();
    let listed = |file: &str| files.contains(file);
    // With numbers in all its names, another file is no migration.
    let numbered = journal.entries.iter().all(|entry| !leading_digits(&entry.tag).0.is_empty());
    let is_named = |file: &str| !numbered || !leading_digits(file).0.is_empty();
    let is_migration = |file: &&str| is_sql(file) && !file.contains('/') && is_named(file);
    if let Some(file) = folder.names().filter(is_migration).find(|file| !listed(file)) {
        let message =
            format!("{JOURNAL} does not name this file, so Drizzle never runs it: add it there, or remove it");
        return Err(SourceError::file(file, message));
    }
    let beside = |file: &&str| !listed(file) && !file.starts_with("meta/");
    let ignored = folder.names().filter(beside).map(str::to_owned).collect();
    Ok(Layout { drafts, scheme: Scheme::Listed, ignored })
}
