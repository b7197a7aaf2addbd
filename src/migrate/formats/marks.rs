//! Files that hold both directions, separated by marks on lines of their own.

use super::{Part, Run};
use crate::migrate::source::SourceError;

/// A side of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What applies the migration.
    Up,
    /// What reverts it.
    Down,
}

/// The sides of a file. Each text has the lines of the file, those of the other side empty.
pub struct Sides {
    /// What applies the migration.
    pub up: String,
    /// What reverts it, if the file has a mark for it.
    pub down: Option<String>,
    /// All but what reverts it: this must not change once it was applied.
    pub sum: String,
    /// The line of the first mark for what applies it, from 1.
    pub up_line: Option<u32>,
}

/// Splits a file at its marks; what stands before the first is part of neither side.
///
/// # Errors
/// If there are statements before the first mark.
pub fn split(file: &str, text: &str, mark: impl Fn(&str) -> Option<Side>) -> Result<Sides, SourceError> {
    let room = || String::with_capacity(text.len() + 1);
    let mut sides = Sides { up: room(), down: None, sum: room(), up_line: None };
    let mut down = room();
    let mut side = None;
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let trimmed = line.trim_start();
        let marked = if trimmed.starts_with("--") { mark(trimmed.trim_end()) } else { None };
        if marked.is_some() {
            side = marked;
            sides.up_line = sides.up_line.or((marked == Some(Side::Up)).then_some(number));
            if marked == Some(Side::Down) {
                sides.down = Some(String::new());
            }
        }
        let (in_up, in_down) = match (marked, side) {
            (None, Some(Side::Up)) => (true, false),
            (None, Some(Side::Down)) => (false, true),
            (None, None) if !trimmed.is_empty() && !trimmed.starts_with("--") => {
                let message =
                    "these lines stand before the first mark, where the tool does not run them: move them below it";
                return Err(SourceError::line(file, number, message));
            }
            _ => (false, false),
        };
        sides.up.push_str(if in_up { line } else { "\n" });
        down.push_str(if in_down { line } else { "\n" });
        if side != Some(Side::Down) {
            sides.sum.push_str(line);
        }
    }
    trim(&mut sides.up);
    trim(&mut sides.sum);
    trim(&mut down);
    sides.down = sides.down.map(|_| down);
    Ok(sides)
}

/// Removes empty lines at the end.
fn trim(text: &mut String) {
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    text.push('\n');
}

impl Sides {
    /// The two directions of a file; the second one only if it has any text.
    pub fn parts(self, file: &str, (up, down): (Run, Run)) -> (Part, Option<Part>) {
        let part = |sql, sum, run| Part { file: file.to_owned(), sql, sum, run };
        let reverts = self.down.filter(|sql| !sql.trim().is_empty()).map(|sql| part(sql, None, down));
        (part(self.up, Some(self.sum), up), reverts)
    }
}

/// The comments that have a word: their lines, from 1, and their texts.
pub fn comments_with<'a>(text: &'a str, word: &str) -> Vec<(u32, &'a str)> {
    let mut found: Vec<(u32, &str)> = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for (at, _) in text.match_indices(word) {
        // Another one in the same line.
        if at < counted {
            continue;
        }
        let start = text[..at].rfind('\n').map_or(0, |before| before + 1);
        let end = text[at..].find('\n').map_or(text.len(), |behind| at + behind);
        line += u32::try_from(text[counted..start].matches('\n').count()).unwrap_or(u32::MAX);
        counted = end;
        if text[start..end].trim_start().starts_with("--") {
            found.push((line, &text[start..end]));
        }
    }
    found
}

/// The words of a mark: what follows `--`.
pub fn words(line: &str) -> Vec<&str> {
    line.strip_prefix("--").unwrap_or_default().split_whitespace().collect()
}

/// The line of the first occurrence of a word, from 1.
pub fn line_of(text: &str, found: impl Fn(&str) -> bool) -> Option<u32> {
    text.lines().position(found).and_then(|at| u32::try_from(at + 1).ok())
}
