//! sql-migrate: `*.sql` with `-- +migrate Up` and `-- +migrate Down`. Names with a number in front
//! come first, in the order of the numbers, then the others by name.

use super::folder::{Folder, leading_digits};
use super::marks::{Side, comments_with, split, words};
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
        let commands = comments_with(&text, MARK.trim_end());
        if let Some((line, _)) = commands.iter().find(|(_, text)| !is_known(text)) {
            let message = "sql-migrate does not know this command and does not say so: it would run the lines below with \
                           those above. It knows Up and Down (also with notransaction), StatementBegin and StatementEnd";
            return Err(SourceError::line(file, *line, message));
        }
        let sides = split(file, &text, MARK.trim_end(), side)?;
        if sides.up_line.is_none() {
            return Err(SourceError::file(file, "it has no line '-- +migrate Up': put it above the statements"));
        }
        let runs = (run(&commands, Side::Up), run(&commands, Side::Down));
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

fn run(commands: &[(u32, &str)], wanted: Side) -> Run {
    let bare = |(_, text): &(u32, &str)| side(text.trim()) == Some(wanted) && words(text.trim()).contains(&BARE);
    if commands.iter().any(bare) { NO_TRANSACTION } else { TRANSACTION }
}
