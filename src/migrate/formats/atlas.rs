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
/// How an option begins.
const OPTION: &str = "-- atlas:";

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
        let bare = head.iter().any(|(name, value)| (*name, *value) == ("txmode", "none"));
        let run = if bare { NO_TRANSACTION } else { TRANSACTION };
        // A state of the schema, for an empty database.
        let is_checkpoint = head.iter().any(|(name, _)| *name == "checkpoint");
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
        drafts.push(Draft { kind, ..Draft::up_only(version, name.to_owned(), part) });
    }
    if folder.has(SUM) {
        compare(folder, &drafts)?;
    }
    Ok(Layout { drafts, scheme: Scheme::Listed, ignored })
}

/// The options at the start of a file, which have an empty line below: their names and values.
fn options(sql: &str) -> Vec<(&str, &str)> {
    let head: Vec<&str> = sql.lines().map(str::trim).take_while(|line| line.starts_with("--")).collect();
    if sql.lines().nth(head.len()).is_some_and(|line| !line.trim().is_empty()) {
        return Vec::new();
    }
    head.into_iter().filter_map(option).collect()
}

fn option(line: &str) -> Option<(&str, &str)> {
    let option = line.strip_prefix(OPTION)?;
    let (name, value) = option.split_once(' ').unwrap_or((option, ""));
    Some((name, value.trim()))
}

/// What ends a statement in place of a semicolon, by the first line of a file.
fn delimiter(file: &str, sql: &str) -> Result<Option<String>, SourceError> {
    let first = sql.lines().next().and_then(option);
    let Some(("delimiter", written)) = first else { return Ok(None) };
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
    std::str::from_utf8(first).is_ok_and(|line| option(line.trim_end()) == Some(("sum", "ignore")))
}

/// Each sum is one of all files up to it; of a file that the sums leave out, its name alone. Line ends
/// that were changed are no change.
fn compare(folder: &Folder, drafts: &[Draft]) -> Result<(), SourceError> {
    let text = folder.text(SUM)?;
    let listed: Vec<(u32, &str, &str)> = (2..)
        .zip(text.lines().skip(1))
        .filter_map(|(line, entry)| entry.rsplit_once(' ').map(|(name, sum)| (line, name.trim(), sum.trim())))
        .collect();
    let remedy = "run atlas migrate hash if this is meant";
    let mut files: Vec<&str> = drafts.iter().map(|draft| draft.up.file.as_str()).collect();
    files.sort_unstable();
    if let Some((line, name, _)) = listed.iter().find(|(_, name, _)| !files.contains(name)) {
        return Err(SourceError::line(SUM, *line, format!("it names {name}, and there is no such file; {remedy}")));
    }
    let unsummed = |file: &str| is_unsummed(folder.bytes(file));
    let is_listed = |file: &str| listed.iter().any(|(_, name, _)| *name == file);
    if let Some(file) = files.iter().find(|file| !is_listed(file) && !unsummed(file)) {
        return Err(SourceError::file(file, format!("{SUM} does not name this file; {remedy}")));
    }
    let mut names: Vec<&str> = listed.iter().map(|(_, name, _)| *name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(SourceError::file(SUM, format!("it names {} twice; {remedy}", pair[0])));
    }
    let (mut exact, mut unix) = (Sha256::new(), Sha256::new());
    let mut left_out = files.iter().filter(|file| unsummed(file)).peekable();
    for (line, name, sum) in listed {
        while let Some(before) = left_out.next_if(|file| **file < name) {
            exact.update(before.as_bytes());
            unix.update(before.as_bytes());
        }
        let bytes = folder.bytes(name);
        let lines = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        exact.update(name.as_bytes());
        exact.update(bytes);
        unix.update(name.as_bytes());
        unix.update(lines.as_bytes());
        let is = |hasher: &Sha256| format!("h1:{}", STANDARD.encode(hasher.clone().finalize())) == sum;
        if !is(&exact) && !is(&unix) {
            let message =
                format!("the sum of {name} is another one: the file, or one before it, was changed; {remedy}");
            return Err(SourceError::line(SUM, line, message));
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The sums of files, as Atlas writes them.
    pub fn sum(files: &[(&str, &str)]) -> String {
        let mut hasher = Sha256::new();
        let mut text = "h1:total\n".to_owned();
        for (name, sql) in files {
            hasher.update(name.as_bytes());
            hasher.update(sql.as_bytes());
            text += &format!("{name} h1:{}\n", STANDARD.encode(hasher.clone().finalize()));
        }
        text
    }
}
