//! sql-migrate: `*.sql` with `-- +migrate Up` and `-- +migrate Down`. Names with a number in front
//! come first, in the order of the numbers, then the others by name.

use super::folder::{Folder, leading_digits};
use super::marks::{Side, line_of, split, words};
use super::{Draft, Kind, Layout, NO_TRANSACTION, Run, Scheme, TRANSACTION, Version};
use crate::api::SchemaVersion;
use crate::migrate::source::SourceError;
use crate::migrate::version::padded;

/// What makes a file one of sql-migrate.
pub const MARK: &str = "+migrate ";
/// The ending of a file's name, which is part of it in the tool's order.
const ENDING: &str = ".sql";
/// The option of a mark.
const BARE: &str = "notransaction";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    for file in folder.names() {
        let Some(stem) = file.strip_suffix(ENDING).filter(|_| !file.contains('/')) else {
            ignored.push(file.to_owned());
            continue;
        };
        let text = folder.text(file)?;
        if let Some(line) = line_of(&text, |line| is_command(line) && !is_known(line)) {
            let message = "sql-migrate does not know this command and does not say so: it would run the lines below with \
                           those above. It knows Up and Down (also with notransaction), StatementBegin and StatementEnd";
            return Err(SourceError::line(file, line, message));
        }
        let sides = split(file, &text, side)?;
        if sides.up_line.is_none() {
            return Err(SourceError::file(file, "it has no line '-- +migrate Up': put it above the statements"));
        }
        let runs = (run(&text, Side::Up), run(&text, Side::Down));
        let version = Version::new(SchemaVersion::new(stem), place(stem));
        let name = leading_digits(stem).1.trim_start_matches(['_', '-']).to_owned();
        let (up, down) = sides.parts(file, runs);
        drafts.push(Draft { version, name, kind: Kind::Versioned, up, down, doubt: None, key: None });
    }
    Ok(Layout { drafts, scheme: Scheme::Listed, ignored })
}

/// A text that sorts as the tool sorts the files: numbers first, then their names with the ending.
pub fn place(stem: &str) -> String {
    let digits = leading_digits(stem).0;
    let number = if digits.is_empty() { "1".to_owned() } else { format!("0{}", padded(digits)) };
    format!("{number}{stem}{ENDING}")
}

fn is_command(line: &str) -> bool {
    line.trim_start().starts_with("--") && line.contains(MARK.trim_end())
}

/// Whether the tool knows a command, as it is written. Other words behind it mean nothing.
fn is_known(line: &str) -> bool {
    let known = line.strip_prefix("-- ").is_some_and(|rest| rest.starts_with(MARK));
    let is_option = |word: &&&str| word.eq_ignore_ascii_case(BARE);
    known
        && match words(line)[1..] {
            ["Up" | "Down", ref rest @ ..] => rest.iter().filter(is_option).all(|word| *word == BARE),
            ["StatementBegin" | "StatementEnd", ..] => true,
            _ => false,
        }
}

fn side(line: &str) -> Option<Side> {
    match words(line)[..] {
        ["+migrate", "Up", ..] => Some(Side::Up),
        ["+migrate", "Down", ..] => Some(Side::Down),
        _ => None,
    }
}

fn run(text: &str, wanted: Side) -> Run {
    let bare = |line: &str| side(line.trim()) == Some(wanted) && words(line.trim()).contains(&BARE);
    if text.contains(BARE) && text.lines().any(bare) { NO_TRANSACTION } else { TRANSACTION }
}
