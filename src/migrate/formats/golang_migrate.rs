//! golang-migrate, and morph with the same names: `<number>_<name>.up.<ending>` and `.down.<ending>`.

use std::collections::BTreeMap;

use super::build::taken;
use super::folder::{Folder, leading_digits};
use super::{Draft, Kind, Layout, NO_TRANSACTION, Part, Run, Scheme, TRANSACTION, Version};
use crate::api::MigrationFormat;
use crate::migrate::source::SourceError;
use crate::migrate::version::number;

/// The first line of a file that morph runs without a transaction.
pub const MORPH_BARE: &str = "morph:nontransactional";

/// Reads it.
pub fn read(folder: &Folder, format: MigrationFormat) -> Result<Layout, SourceError> {
    let (mut ups, mut downs) = (BTreeMap::new(), BTreeMap::new());
    let mut ignored = Vec::new();
    for file in folder.names() {
        let Some(Name { version, name, is_up }) = parse(file)? else {
            ignored.push(file.to_owned());
            continue;
        };
        let sql = folder.text(file)?;
        let run = match format {
            MigrationFormat::Morph if bare_by_mark(&sql) => NO_TRANSACTION,
            MigrationFormat::Morph => TRANSACTION,
            _ => Run::Query,
        };
        let part = Part { file: file.to_owned(), sql, sum: None, run };
        let side = if is_up { &mut ups } else { &mut downs };
        if let Some((_, first)) = side.insert(version, (name.to_owned(), part)) {
            return Err(taken(&version.to_string(), &first.file, file));
        }
    }
    let mut drafts = Vec::with_capacity(ups.len());
    for (number, (name, up)) in ups {
        let (version, down) = (Version::of_number(number), downs.remove(&number).map(|(_, part)| part));
        drafts.push(Draft { version, name, kind: Kind::Versioned, up, down, doubt: None, key: None });
    }
    if let Some((version, (_, down))) = downs.pop_first() {
        let message = format!(
            "no .up file applies version {version}, which this file reverts: golang-migrate counts it as a version, \
             and applies nothing"
        );
        return Err(SourceError::file(&down.file, message));
    }
    Ok(Layout { drafts, scheme: Scheme::Number, ignored })
}

fn bare_by_mark(sql: &str) -> bool {
    sql.lines().next().is_some_and(|line| line.trim_start().starts_with("--") && line.contains(MORPH_BARE))
}

struct Name<'a> {
    version: i64,
    name: &'a str,
    is_up: bool,
}

/// The parts of a name; none if it is no migration's.
fn parse(file: &str) -> Result<Option<Name<'_>>, SourceError> {
    let (digits, rest) = leading_digits(file);
    let Some(rest) = rest.strip_prefix('_').filter(|rest| !digits.is_empty() && !rest.contains('/')) else {
        return Ok(None);
    };
    // The name may have dots, too: the last direction counts.
    let (up, down) = (rest.rfind(".up."), rest.rfind(".down."));
    let Some(at) = up.max(down) else { return Ok(None) };
    let Some(version) = number(digits) else {
        return Err(SourceError::file(file, "its version is too large (the largest is 9223372036854775807)"));
    };
    Ok(Some(Name { version, name: &rest[..at], is_up: up == Some(at) }))
}
