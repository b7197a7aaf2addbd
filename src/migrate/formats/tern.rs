//! tern: `<number>_<name>.sql`, numbered without gaps from 1, with what reverts it below
//! `---- create above / drop below ----`.

use super::folder::{Folder, is_sql, leading_digits, strip_ending};
use super::marks::{comments_with, line_of};
use super::{Draft, Kind, Layout, NO_TRANSACTION, Part, Scheme, TRANSACTION};
use crate::migrate::source::SourceError;

/// What makes a file one of tern.
pub const MARK: &str = "---- create above / drop below ----";
const BARE: &str = "---- tern: disable-tx ----";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    for file in folder.names() {
        let (digits, rest) = leading_digits(file);
        let name = rest.strip_prefix('_').and_then(|name| strip_ending(name, ".sql"));
        let version = Scheme::Number.version(digits);
        let (Some(name), Some(version), false) = (name, version, file.contains('/') || !is_sql(file)) else {
            ignored.push(file.to_owned());
            continue;
        };
        let text = folder.text(file)?;
        let run = if text.contains(BARE) && text.lines().any(|line| line.trim() == BARE) {
            NO_TRANSACTION
        } else {
            TRANSACTION
        };
        let template = if text.contains("{{") { line_of(&text, |line| line.contains("{{")) } else { None };
        let doubt = template.map(|line| {
            let message = "tern fills this template when it runs, and writes '<no value>' for a name that it does not \
                           know; Servicedb has no such values: write what was meant";
            SourceError::line(file, line, message)
        });
        let like = |(_, line): &(u32, &str)| is_like_the_mark(line) && !line.contains(MARK);
        if let Some((line, _)) = comments_with(&text, "/").into_iter().find(like) {
            let message =
                format!("this is not tern's mark, so tern would run the lines below, too: write it as '{MARK}'");
            return Err(SourceError::line(file, line, message));
        }
        let (up, down) = halves(&text);
        let part = |sql, sum| Part { file: file.to_owned(), sql, sum, run };
        let (up, down) = (part(up, None), down.map(|sql| part(sql, None)));
        drafts.push(Draft { version, name: name.to_owned(), kind: Kind::Versioned, up, down, doubt, key: None });
    }
    drafts.sort_by(|one: &Draft, other| one.version.cmp(&other.version));
    for (expected, draft) in (1_i64..).zip(&drafts) {
        // Two of one number are reported as such.
        if draft.version.number > expected {
            let message = format!("tern needs migrations without gaps from 1, and there is none with {expected}");
            return Err(SourceError::file(&draft.up.file, message));
        }
        if draft.version.number < expected {
            break;
        }
    }
    Ok(Layout { drafts, scheme: Scheme::Number, ignored })
}

fn is_like_the_mark(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("create above") && line.contains("drop below")
}

/// What applies a migration, and what reverts it; lines keep their numbers.
fn halves(text: &str) -> (String, Option<String>) {
    let Some(at) = text.find(MARK) else { return (text.to_owned(), None) };
    let mut down: String = text[..at].bytes().filter(|byte| *byte == b'\n').map(char::from).collect();
    down.push_str(&text[at + MARK.len()..]);
    let up = format!("{}\n", text[..at].trim_end_matches(['\n', '\r']));
    (up, Some(down).filter(|down| !down.trim().is_empty()))
}
