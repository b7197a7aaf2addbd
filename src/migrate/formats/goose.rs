//! goose: `<number>_<name>.sql` with `-- +goose Up` and `-- +goose Down`.

use super::folder::{Folder, is_sql, leading_digits, strip_ending};
use super::marks::{Side, comments_with, split};
use super::{Draft, Kind, Layout, NO_TRANSACTION, Scheme, TRANSACTION};
use crate::migrate::source::SourceError;

/// What makes a file one of goose.
pub const MARK: &str = "+goose";

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
        let annotations = comments_with(&text, MARK);
        if let Some((line, _)) = annotations.iter().find(|(_, text)| option(text).is_none()) {
            let message = "goose does not know this annotation, and refuses the file: correct or remove it";
            return Err(SourceError::line(file, *line, message));
        }
        let sides = split(file, &text, MARK, |line| match option(line) {
            Some("UP") => Some(Side::Up),
            Some("DOWN") => Some(Side::Down),
            _ => None,
        })?;
        if sides.up_line.is_none() {
            return Err(SourceError::file(file, "it has no line '-- +goose Up': put it above the statements"));
        }
        let bare = annotations.iter().any(|(_, text)| option(text) == Some("NO TRANSACTION"));
        let run = if bare { NO_TRANSACTION } else { TRANSACTION };
        let doubt = substituted(file, &text);
        let (up, down) = sides.parts(file, (run, run));
        drafts.push(Draft { version, name: name.to_owned(), kind: Kind::Versioned, up, down, doubt, key: None });
    }
    Ok(Layout { drafts, scheme: Scheme::Number, ignored })
}

/// What goose knows, whatever case it is written in.
const OPTIONS: [&str; 7] =
    ["UP", "DOWN", "STATEMENTBEGIN", "STATEMENTEND", "NO TRANSACTION", "ENVSUB ON", "ENVSUB OFF"];

/// The annotation of a line: all of it but the first `+goose`, without any `--`, also at its end.
fn option(line: &str) -> Option<&'static str> {
    if !line.contains(MARK) || !line.trim_start().starts_with("--") {
        return None;
    }
    let written = line.replace("--", "").replacen(MARK, "", 1);
    OPTIONS.into_iter().find(|option| option.eq_ignore_ascii_case(written.trim()))
}

/// With `ENVSUB ON`, goose replaces variables by values of its environment, and also `$$` by `$`.
fn substituted(file: &str, text: &str) -> Option<SourceError> {
    if !text.contains('$') {
        return None;
    }
    let mut on = false;
    let line = line_of_state(text, |line| {
        match option(line) {
            Some("ENVSUB ON") => on = true,
            Some("ENVSUB OFF") => on = false,
            _ => {}
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
