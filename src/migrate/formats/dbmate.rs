//! dbmate: `<digits>….sql` with `-- migrate:up` and `-- migrate:down`. The version is the digits, with
//! their zeros; the files are in the order of their names.

use super::folder::{Folder, is_sql, leading_digits, strip_ending};
use super::marks::{Side, comments_with, split, words};
use super::{Draft, Kind, Layout, Run, Scheme, TRANSACTION, Version};
use crate::api::SchemaVersion;
use crate::migrate::source::SourceError;

/// What makes a file one of dbmate.
pub const MARK: &str = "migrate:up";

/// What all its marks have.
const WORD: &str = "migrate:";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    for file in folder.names() {
        let (digits, rest) = leading_digits(file);
        if digits.is_empty() || file.contains('/') || !is_sql(file) {
            ignored.push(file.to_owned());
            continue;
        }
        let text = folder.text(file)?;
        let sides = split(file, &text, WORD, side)?;
        if sides.up_line.is_none() {
            return Err(SourceError::file(file, "it has no line '-- migrate:up': put it above the statements"));
        }
        if sides.down.is_none() {
            let message = "it has no line '-- migrate:down', and dbmate refuses it: add one at the end, with or without \
                           statements below";
            return Err(SourceError::file(file, message));
        }
        let marks = comments_with(&text, WORD);
        let run = |wanted| run(file, &marks, wanted);
        let runs = (run(Side::Up)?, run(Side::Down)?);
        let name = strip_ending(rest, ".sql").unwrap_or(rest).trim_start_matches(['_', '-']).to_owned();
        let (up, down) = sides.parts(file, runs);
        let version = Version::new(SchemaVersion::new(digits), file.to_owned());
        drafts.push(Draft { version, name, kind: Kind::Versioned, up, down, doubt: None, key: None });
    }
    Ok(Layout { drafts, scheme: Scheme::Listed, ignored })
}

fn side(line: &str) -> Option<Side> {
    match words(line).first() {
        Some(&"migrate:up") => Some(Side::Up),
        Some(&"migrate:down") => Some(Side::Down),
        _ => None,
    }
}

/// How a side is run, by the options behind its mark.
fn run(file: &str, marks: &[(u32, &str)], wanted: Side) -> Result<Run, SourceError> {
    let mut run = TRANSACTION;
    for (number, line) in marks {
        let line = line.trim();
        if side(line) != Some(wanted) {
            continue;
        }
        for option in &words(line)[1..] {
            match *option {
                "transaction:false" => run = Run::Query,
                "transaction:true" => run = TRANSACTION,
                other => {
                    let message = format!("the option '{other}' of the mark is not known: only transaction:false is");
                    return Err(SourceError::line(file, *number, message));
                }
            }
        }
    }
    Ok(run)
}
