//! sql-migrate: `*.sql` with `-- +migrate Up` and `-- +migrate Down`. Names with a number in front
//! come first, in the order of the numbers, then the others by name.

use super::folder::{Folder, is_sql, leading_digits, strip_ending};
use super::marks::{Side, split, words};
use super::{Draft, Kind, Layout, NO_TRANSACTION, Run, Scheme, TRANSACTION, Version};
use crate::api::SchemaVersion;
use crate::migrate::source::SourceError;
use crate::migrate::version::padded;

/// What makes a file one of sql-migrate.
pub const MARK: &str = "+migrate ";
/// The option of a mark.
const BARE: &str = "notransaction";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    for file in folder.names() {
        let Some(stem) = strip_ending(file, ".sql").filter(|_| is_sql(file) && !file.contains('/')) else {
            ignored.push(file.to_owned());
            continue;
        };
        let text = folder.text(file)?;
        let sides = split(file, &text, side)?;
        if sides.up_line.is_none() {
            return Err(SourceError::file(file, "it has no line '-- +migrate Up': put it above the statements"));
        }
        let runs = (run(&text, Side::Up), run(&text, Side::Down));
        let (digits, name) = leading_digits(stem);
        let ordinal = if digits.is_empty() { format!("1{stem}") } else { format!("0{}{stem}", padded(digits)) };
        let version = Version::new(SchemaVersion::new(stem), ordinal);
        let name = name.trim_start_matches(['_', '-']).to_owned();
        let (up, down) = sides.parts(file, runs);
        drafts.push(Draft { version, name, kind: Kind::Versioned, up, down, doubt: None, key: None });
    }
    Ok(Layout { drafts, scheme: Scheme::Listed, ignored })
}

fn side(line: &str) -> Option<Side> {
    match words(line)[..] {
        ["+migrate", "Up", ..] => Some(Side::Up),
        ["+migrate", "Down", ..] => Some(Side::Down),
        _ => None,
    }
}

fn run(text: &str, wanted: Side) -> Run {
    let bare = |line: &str| side(line.trim()) == Some(wanted) && words(line.trim()).get(2) == Some(&BARE);
    if text.contains(BARE) && text.lines().any(bare) { NO_TRANSACTION } else { TRANSACTION }
}
