//! Prisma: folders `<timestamp>_<name>` with `migration.sql`, in the order of JavaScript's
//! `localeCompare`.

use std::collections::BTreeSet;

use super::folder::{Folder, leading_digits};
use super::{Draft, Layout, Part, Run, Scheme, Version};
use crate::api::SchemaVersion;
use crate::migrate::source::SourceError;

/// The file of a folder.
pub const FILE: &str = "migration.sql";
/// The file beside the folders.
pub const LOCK: &str = "migration_lock.toml";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    let mut without = BTreeSet::new();
    for path in folder.names() {
        let Some((name, FILE)) = path.split_once('/') else {
            let of = path.split_once('/').map_or("", |(name, _)| name);
            if leading_digits(of).1.starts_with('_') && !leading_digits(of).0.is_empty() {
                without.insert(of.to_owned());
            }
            if path != LOCK {
                ignored.push(path.to_owned());
            }
            continue;
        };
        let part = Part { file: path.to_owned(), sql: folder.text(path)?, sum: None, run: Run::Query };
        let (_, title) = leading_digits(name);
        let title = title.trim_start_matches('_').to_owned();
        let version = Version::new(SchemaVersion::new(name), collated(name));
        drafts.push(Draft::up_only(version, title, part));
    }
    if let Some(name) = without.iter().find(|name| !folder.has(&format!("{name}/{FILE}"))) {
        let message =
            format!("the folder {name} has no {FILE}, and Prisma stops at it (P3015): add it, or remove the folder");
        return Err(SourceError::set(message));
    }
    Ok(Layout { drafts, scheme: Scheme::Listed, ignored })
}

/// The marks in their order.
const MARKS: &str = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";

/// A text whose bytes are in the order in which `localeCompare` has the name: marks before digits,
/// digits before letters, and small letters before large ones only if nothing else differs.
pub fn collated(name: &str) -> String {
    let first: String = name
        .chars()
        .map(|one| match one {
            'A'..='Z' | 'a'..='z' | '0'..='9' => one.to_ascii_lowercase(),
            _ => mark(one),
        })
        .collect();
    let second: String = name.chars().map(|one| if one.is_ascii_uppercase() { 'B' } else { 'A' }).collect();
    format!("{first}\u{1}{second}")
}

/// A mark as a character in front of the digits; any other character as it is.
fn mark(one: char) -> char {
    match MARKS.chars().position(|mark| mark == one).map(u8::try_from) {
        Some(Ok(at)) => char::from(at + 2),
        _ => one,
    }
}
