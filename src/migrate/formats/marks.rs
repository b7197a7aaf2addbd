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

/// Splits a file at its marks, which are comments with a word; what stands before the first is part of neither
/// side.
///
/// # Errors
/// If there are statements before the first mark.
pub fn split(file: &str, text: &str, word: &str, mark: impl Fn(&str) -> Option<Side>) -> Result<Sides, SourceError> {
    let room = || String::with_capacity(text.len() + 1);
    let mut sides = Sides { up: room(), down: Some(room()), sum: room(), up_line: None };
    let (mut side, mut from, mut has_down) = (None, 0, false);
    for (number, start, line) in found(text, word) {
        let Some(marked) = mark(line.trim()) else { continue };
        if side.is_none() {
            only_comments(file, &text[..start])?;
        }
        sides.add(side, &text[from..start]);
        from = (start + line.len() + 1).min(text.len());
        let of_the_mark = &text[start..from];
        sides.add(None, of_the_mark);
        if marked == Side::Down {
            has_down = true;
            sides.sum.truncate(sides.sum.len() - of_the_mark.len());
        } else {
            sides.up_line = sides.up_line.or(Some(number));
        }
        side = Some(marked);
    }
    if side.is_none() {
        only_comments(file, text)?;
    }
    sides.add(side, &text[from..]);
    trim(&mut sides.up);
    trim(&mut sides.sum);
    sides.down.iter_mut().for_each(trim);
    sides.down = sides.down.filter(|_| has_down);
    Ok(sides)
}

/// Refuses statements before the first mark.
fn only_comments(file: &str, head: &str) -> Result<(), SourceError> {
    let is_statement = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with("--");
    match line_of(head, is_statement) {
        Some(line) => {
            let message =
                "these lines stand before the first mark, where the tool does not run them: move them below it";
            Err(SourceError::line(file, line, message))
        }
        None => Ok(()),
    }
}

/// Removes empty lines at the end.
fn trim(text: &mut String) {
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    text.push('\n');
}

impl Sides {
    /// Adds lines of a side; the other has as many empty ones.
    fn add(&mut self, side: Option<Side>, lines: &str) {
        let down = self.down.get_or_insert_default();
        let empty = "\n".repeat(lines.matches('\n').count());
        self.up.push_str(if side == Some(Side::Up) { lines } else { &empty });
        down.push_str(if side == Some(Side::Down) { lines } else { &empty });
        if side != Some(Side::Down) {
            self.sum.push_str(lines);
        }
    }

    /// The two directions of a file; the second one only if it has any text.
    pub fn parts(self, file: &str, (up, down): (Run, Run)) -> (Part, Option<Part>) {
        let part = |sql, sum, run| Part { file: file.to_owned(), sql, sum, run };
        let reverts = self.down.filter(|sql| !sql.trim().is_empty()).map(|sql| part(sql, None, down));
        (part(self.up, Some(self.sum), up), reverts)
    }
}

/// The comments that have a word: their lines, from 1, and their texts.
pub fn comments_with<'a>(text: &'a str, word: &str) -> Vec<(u32, &'a str)> {
    found(text, word).into_iter().map(|(line, _, comment)| (line, comment)).collect()
}

/// The same, with the places where they begin.
fn found<'a>(text: &'a str, word: &str) -> Vec<(u32, usize, &'a str)> {
    let mut found: Vec<(u32, usize, &str)> = Vec::new();
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
            found.push((line, start, &text[start..end]));
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
