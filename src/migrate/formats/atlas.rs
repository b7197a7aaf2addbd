//! Atlas: `<version>_<name>.sql` in the order of their names, with their sums in `atlas.sum`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::folder::{Folder, is_sql, strip_ending};
use super::{Draft, Layout, NO_TRANSACTION, Part, Scheme, TRANSACTION, Version};
use crate::api::SchemaVersion;
use crate::migrate::source::SourceError;

/// The file with the sums.
pub const SUM: &str = "atlas.sum";
const BARE: &str = "-- atlas:txmode none";

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
        let sql = folder.text(file)?;
        let run = if is_bare(&sql) { NO_TRANSACTION } else { TRANSACTION };
        let (version, name) = stem.split_once('_').unwrap_or((stem, ""));
        let version = Version::new(SchemaVersion::new(version), file.to_owned());
        let part = Part { file: file.to_owned(), sql, sum: None, run };
        drafts.push(Draft::up_only(version, name.to_owned(), part));
    }
    if folder.has(SUM) {
        compare(folder, &drafts)?;
    }
    Ok(Layout { drafts, scheme: Scheme::Listed, ignored })
}

/// The options stand at the start of a file, with an empty line below.
fn is_bare(sql: &str) -> bool {
    let head: Vec<&str> = sql.lines().map(str::trim).take_while(|line| line.starts_with("--")).collect();
    head.contains(&BARE) && sql.lines().nth(head.len()).is_none_or(|line| line.trim().is_empty())
}

/// Each sum is one of all files up to it. Line ends that were changed are no change.
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
    if let Some(file) = files.iter().find(|file| !listed.iter().any(|(_, name, _)| name == *file)) {
        return Err(SourceError::file(file, format!("{SUM} does not name this file; {remedy}")));
    }
    let mut names: Vec<&str> = listed.iter().map(|(_, name, _)| *name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(SourceError::file(SUM, format!("it names {} twice; {remedy}", pair[0])));
    }
    let (mut exact, mut unix) = (Sha256::new(), Sha256::new());
    for (line, name, sum) in listed {
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
