//! The results of asynchronous archiving, which pgBackRest leaves in a folder: for each file that PostgreSQL has not
//! removed from its list yet, whether it is in the store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::contract::backup::Nth;
use crate::pgbackrest::STANZA;
use crate::pgbackrest::config::spool_of;

/// The folder of the results of one store.
pub fn results(nth: Nth) -> PathBuf {
    Path::new(spool_of(nth)).join("archive").join(STANZA).join("out")
}

/// The files that wait, according to PostgreSQL's folder.
///
/// # Errors
/// If it cannot be read.
pub fn waiting(folder: &Path) -> std::io::Result<BTreeSet<String>> {
    names(folder, ".ready")
}

/// The files that are in the store; none where nothing was archived since the container's start.
pub fn acknowledged(results: &Path) -> BTreeSet<String> {
    names(results, ".ok").unwrap_or_default()
}

/// The names of the files with this ending, without it.
fn names(folder: &Path, ending: &str) -> std::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        names.extend(entry?.file_name().to_string_lossy().strip_suffix(ending).map(str::to_owned));
    }
    Ok(names)
}

/// The error of the segment that failed first.
pub fn last_error(results: &Path) -> Option<String> {
    let mut errors: Vec<_> = std::fs::read_dir(results)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "error"))
        .collect();
    errors.sort();
    // The first line is pgBackRest's code.
    let text = std::fs::read_to_string(errors.first()?).ok()?;
    let (code, message) = text.split_once('\n')?;
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(format!("[{code}]: {message}"))
}
