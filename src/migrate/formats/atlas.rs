//! Atlas: `<version>_<name>.sql` in the order of their names, with their sums in `atlas.sum`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::folder::{Folder, is_sql, strip_ending};
use super::{Draft, Kind, Layout, NO_TRANSACTION, Part, Scheme, TRANSACTION, Version};
use crate::api::SchemaVersion;
use crate::migrate::lexer;
use crate::migrate::source::SourceError;

/// The file with the sums.
pub const SUM: &str = "atlas.sum";
/// How a sum begins.
const PREFIX: &str = "h1:";
/// How an option begins, in a comment.
const OPTION: &str = "atlas:";

/// Reads it.
pub fn read(folder: &Folder) -> Result<Layout, SourceError> {
    let (mut drafts, mut ignored) = (Vec::new(), Vec::new());
    for file in folder.names() {
        let Some(stem) = strip_ending(file, ".sql").filter(|_| is_sql(file) && !file.contains('/')) else {
            if file != SUM {
                ignored.push(file.to_owned());
            }
            continue;
        };
        let text = folder.text(file)?;
        let head = options(&text);
        let run = if is_bare(file, &head)? { NO_TRANSACTION } else { TRANSACTION };
        let doubt = with_checks(file, &head);
        // A state of the schema, for an empty database.
        let is_checkpoint = head.iter().any(|(_, name, _)| *name == "checkpoint");
        let kind = if is_checkpoint { Kind::Baseline } else { Kind::Versioned };
        let (version, name) = stem.split_once('_').unwrap_or((stem, ""));
        let version = Version::new(SchemaVersion::new(version), file.to_owned());
        let (sql, sum) = match delimiter(file, &text)? {
            Some(delimiter) => {
                let sql = lexer::delimited(&text, &delimiter)
                    .map_err(|error| SourceError::line(file, error.line, error.message))?;
                (sql, Some(text))
            }
            None => (text, None),
        };
        let part = Part { file: file.to_owned(), sql, sum, run };
        drafts.push(Draft { kind, doubt, ..Draft::up_only(version, name.to_owned(), part) });
    }
    if folder.has(SUM) {
        compare(folder, &drafts)?;
    }
    Ok(Layout { drafts, scheme: Scheme::Listed, ignored })
}

/// The options at the start of a file, which have an empty line below: their lines, names and values.
fn options(sql: &str) -> Vec<(u32, &str, &str)> {
    let is_comment = |line: &&str| line.starts_with("--") || line.starts_with('#');
    let head: Vec<&str> = sql.lines().take_while(is_comment).collect();
    if sql.lines().nth(head.len()).is_some_and(|line| !line.trim().is_empty()) {
        return Vec::new();
    }
    (1..).zip(head).filter_map(|(at, line)| option(line).map(|(_, name, value)| (at, name, value))).collect()
}

/// What stands before an option, its name, and its value. Anything may stand before.
fn option(line: &str) -> Option<(&str, &str, &str)> {
    let (before, option) = line.trim_end().rsplit_once(OPTION)?;
    let end = option.find(|one: char| !one.is_ascii_alphanumeric() && one != '_').unwrap_or(option.len());
    let (name, value) = option.split_at(end);
    Some((before, name, value.trim()))
}

/// Whether a file is run without a transaction of its own.
fn is_bare(file: &str, head: &[(u32, &str, &str)]) -> Result<bool, SourceError> {
    let mut modes = head.iter().filter(|(_, name, _)| *name == "txmode");
    let Some((line, _, mode)) = modes.next() else { return Ok(false) };
    match (*mode, modes.next()) {
        ("none", None) => Ok(true),
        ("file", None) => Ok(false),
        (_, other) => {
            let message = "Atlas refuses this: a file has txmode none or file, once";
            Err(SourceError::line(file, other.map_or(*line, |(line, _, _)| *line), message))
        }
    }
}

/// A file with checks beside the migration; they would be run as statements whose results nobody reads.
fn with_checks(file: &str, head: &[(u32, &str, &str)]) -> Option<SourceError> {
    let (line, _, _) = head.iter().find(|(_, name, _)| *name == "txtar")?;
    let message =
        "this file has checks of Atlas, which Servicedb does not evaluate: give the migration a file of its own";
    Some(SourceError::line(file, *line, message))
}

/// What ends a statement in place of a semicolon, by the first line of a file.
fn delimiter(file: &str, sql: &str) -> Result<Option<String>, SourceError> {
    let first = sql.lines().next().and_then(option);
    let Some(("-- ", "delimiter", written)) = first else { return Ok(None) };
    let delimiter = written.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t");
    let between_tokens = !delimiter.is_empty() && (delimiter.trim().is_empty() || delimiter.trim().starts_with("--"));
    if !between_tokens {
        let message = "this delimiter is neither white space nor a comment: end the statements with semicolons";
        return Err(SourceError::line(file, 1, message));
    }
    Ok(Some(delimiter))
}

/// Whether the sums leave a file out, by its first line.
fn is_unsummed(sql: &[u8]) -> bool {
    let first = sql.split(|byte| *byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(first).is_ok_and(|line| matches!(option(line), Some((_, "sum", "ignore"))))
}

/// Each sum is one of all files up to it; of a file that the sums leave out, its name alone. The first
/// line is a sum of the others. Line ends that were changed are no change.
fn compare(folder: &Folder, drafts: &[Draft]) -> Result<(), SourceError> {
    let text = folder.text(SUM)?;
    let listed: Vec<(u32, &str, &str)> = (2..)
        .zip(text.lines().skip(1))
        .filter_map(|(line, entry)| entry.rsplit_once(' ').map(|(name, sum)| (line, name.trim(), sum.trim())))
        .collect();
    let remedy = "run atlas migrate hash if this is meant";
    let mut files: Vec<&str> = drafts.iter().map(|draft| draft.up.file.as_str()).collect();
    files.sort_unstable();
    if let Some((line, name, _)) = listed.iter().find(|(_, name, _)| files.binary_search(name).is_err()) {
        return Err(SourceError::line(SUM, *line, format!("it names {name}, and there is no such file; {remedy}")));
    }
    let unsummed = |file: &str| is_unsummed(folder.bytes(file));
    let mut names: Vec<&str> = listed.iter().map(|(_, name, _)| *name).collect();
    names.sort_unstable();
    if let Some(file) = files.iter().find(|file| names.binary_search(file).is_err() && !unsummed(file)) {
        return Err(SourceError::file(file, format!("{SUM} does not name this file; {remedy}")));
    }
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(SourceError::file(SUM, format!("it names {} twice; {remedy}", pair[0])));
    }
    let mut total = Sha256::new();
    for (_, name, sum) in &listed {
        total.update(name.as_bytes());
        total.update(sum.trim_start_matches(PREFIX).as_bytes());
    }
    if text.lines().next() != Some(&format!("{PREFIX}{}", STANDARD.encode(total.finalize()))) {
        let message = format!("the sum of all the others is another one: a line was changed; {remedy}");
        return Err(SourceError::line(SUM, 1, message));
    }
    let left_out: Vec<&str> = files.into_iter().filter(|file| unsummed(file)).collect();
    let exact = first_other(folder, &listed, &left_out, Lines::AsTheyAre);
    let Some(one) = exact else { return Ok(()) };
    let Some(other) = first_other(folder, &listed, &left_out, Lines::OfUnix) else { return Ok(()) };
    let (line, name) = one.max(other);
    let message = format!("the sum of {name} is another one: the file, or one before it, was changed; {remedy}");
    Err(SourceError::line(SUM, line, message))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    AsTheyAre,
    OfUnix,
}

/// The line and the name of the first file whose sum is another one.
fn first_other<'a>(
    folder: &Folder,
    listed: &[(u32, &'a str, &str)],
    left_out: &[&str],
    lines: Lines,
) -> Option<(u32, &'a str)> {
    let mut hasher = Sha256::new();
    let mut left_out = left_out.iter().peekable();
    for (line, name, sum) in listed {
        while let Some(before) = left_out.next_if(|file| *file < name) {
            hasher.update(before.as_bytes());
        }
        hasher.update(name.as_bytes());
        match lines {
            Lines::AsTheyAre => hasher.update(folder.bytes(name)),
            Lines::OfUnix => {
                hasher.update(String::from_utf8_lossy(folder.bytes(name)).replace("\r\n", "\n").as_bytes())
            }
        }
        let is = STANDARD.encode(hasher.clone().finalize());
        if sum.strip_prefix(PREFIX) != Some(&is) {
            return Some((*line, name));
        }
    }
    None
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The sums of files, as Atlas writes them.
    pub fn sum(files: &[(&str, &str)]) -> String {
        let (mut hasher, mut total) = (Sha256::new(), Sha256::new());
        let mut text = String::new();
        for (name, sql) in files {
            hasher.update(name.as_bytes());
            // A file that the sums leave out.
            if is_unsummed(sql.as_bytes()) {
                continue;
            }
            hasher.update(sql.as_bytes());
            let sum = STANDARD.encode(hasher.clone().finalize());
            total.update(format!("{name}{sum}").as_bytes());
            text += &format!("{name} {PREFIX}{sum}\n");
        }
        format!("{PREFIX}{}\n{text}", STANDARD.encode(total.finalize()))
    }
}
