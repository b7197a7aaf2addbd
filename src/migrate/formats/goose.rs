//! goose: `<number>_<name>.sql` with `-- +goose Up` and `-- +goose Down`.

use super::folder::{Folder, is_sql, leading_digits, strip_ending};
use super::marks::{Side, split, words};
use super::{Draft, Kind, Layout, NO_TRANSACTION, Scheme, TRANSACTION};
use crate::migrate::source::SourceError;

/// What makes a file one of goose.
pub const MARK: &str = "+goose ";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    for file in folder.names() {
        let is_go = file.ends_with(".go") && !file.ends_with("_test.go") && !leading_digits(file).0.is_empty();
        if is_go {
            let message =
                "goose runs this migration in Go, which is no SQL: use goose itself (spec.migrations.source.job)";
            return Err(SourceError::file(file, message));
        }
        if file.contains('/') || !is_sql(file) {
            ignored.push(file.to_owned());
            continue;
        }
        let (digits, rest) = leading_digits(file);
        let name = rest.strip_prefix('_').and_then(|name| strip_ending(name, ".sql"));
        let version = Scheme::Number.version(digits).filter(|version| version.number > 0);
        let (Some(name), Some(version)) = (name, version) else {
            let message = "goose refuses all files with this one: name it <number>_<name>.sql, with a number from 1";
            return Err(SourceError::file(file, message));
        };
        let text = folder.text(file)?;
        let sides = split(file, &text, |line| match words(line)[..] {
            ["+goose", side] if side.eq_ignore_ascii_case("up") => Some(Side::Up),
            ["+goose", side] if side.eq_ignore_ascii_case("down") => Some(Side::Down),
            _ => None,
        })?;
        if sides.up_line.is_none() {
            return Err(SourceError::file(file, "it has no line '-- +goose Up': put it above the statements"));
        }
        let bare = text.lines().any(|line| is_option(line, &["NO", "TRANSACTION"]));
        let run = if bare { NO_TRANSACTION } else { TRANSACTION };
        let doubt = substituted(file, &text);
        let (up, down) = sides.parts(file, (run, run));
        drafts.push(Draft { version, name: name.to_owned(), kind: Kind::Versioned, up, down, doubt, key: None });
    }
    Ok(Layout { drafts, scheme: Scheme::Number, ignored })
}

fn is_option(line: &str, option: &[&str]) -> bool {
    let line = line.trim();
    if !line.starts_with("--") {
        return false;
    }
    let words = words(line);
    words.first() == Some(&"+goose")
        && words.len() == option.len() + 1
        && words[1..].iter().zip(option).all(|(word, option)| word.eq_ignore_ascii_case(option))
}

/// With `ENVSUB ON`, goose replaces variables by values of its environment, and also `$$` by `$`.
fn substituted(file: &str, text: &str) -> Option<SourceError> {
    if !text.contains('$') {
        return None;
    }
    let mut on = false;
    let line = line_of_state(text, |line| {
        if is_option(line, &["ENVSUB", "ON"]) {
            on = true;
        } else if is_option(line, &["ENVSUB", "OFF"]) {
            on = false;
        }
        on && line.contains('$')
    })?;
    let message = "goose replaces this '$' by a value of its environment, or '$$' by '$' (-- +goose ENVSUB ON), and \
                   Servicedb has no such values: write what was meant, and remove the mark, in a new version of this \
                   file";
    Some(SourceError::line(file, line, message))
}

fn line_of_state(text: &str, mut found: impl FnMut(&str) -> bool) -> Option<u32> {
    let at = text.lines().position(&mut found)?;
    u32::try_from(at + 1).ok()
}
