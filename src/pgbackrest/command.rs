//! pgBackRest's commands, and the errors of its output.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::STANZA;
use super::info::{Info, parse, segment_of};

/// How long a command may take that only reads or writes some records.
const LIMIT: Duration = Duration::from_secs(120);
/// Characters of an error that are kept, once it has no secret any more.
pub const LONGEST_ERROR: usize = 500;
/// Characters of an error before that.
const LONGEST_TEXT: usize = 4000;

/// Creates the stanza, unless it exists: then its record is compared with this database.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn create_stanza(config: &Path) -> Result<(), String> {
    within(LIMIT, run(config, "stanza-create", &[])).await.map(drop)
}

/// Adds this database to the stanza, after a major upgrade or the way back: its record is of the former one.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn upgrade_stanza(config: &Path) -> Result<(), String> {
    within(LIMIT, run(config, "stanza-upgrade", &[])).await.map(drop)
}

/// Archives a segment and, asynchronously, everything else that waits.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn push(config: &Path, segment: &Path) -> Result<(), String> {
    let (stanza, segment) = (format!("--stanza={STANZA}"), segment.display().to_string());
    let arguments = [&*stanza, "--log-level-stderr=error", "archive-push", &segment];
    within(LIMIT, execute(config, &arguments)).await.map(drop)
}

/// What the store has.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn info(config: &Path) -> Result<Info, String> {
    let text = within(LIMIT, run(config, "info", &["--output=json"])).await?;
    parse(&text).map_err(|error| format!("pgbackrest info: {error}"))
}

/// The segments that the archive has in these of its folders: a folder has the first 16 characters of its segments' names.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn archived(config: &Path, folders: &BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    let mut archived = BTreeSet::new();
    let Some(root) = incarnation(config).await? else { return Ok(archived) };
    for folder in list(config, &root).await?.iter().filter(|name| folders.contains(*name)) {
        archived.extend(segments(config, &format!("{root}/{folder}")).await?);
    }
    Ok(archived)
}

/// The newest segment that the archive has of a timeline; none if it has none.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn newest_of(config: &Path, timeline: u32) -> Result<Option<String>, String> {
    let Some(root) = incarnation(config).await? else { return Ok(None) };
    let of = format!("{timeline:08X}");
    let folders = list(config, &root).await?;
    let Some(folder) = folders.iter().filter(|name| name.len() == 16 && name.starts_with(&of)).max() else {
        return Ok(None);
    };
    Ok(segments(config, &format!("{root}/{folder}")).await?.into_iter().max())
}

/// The timelines of which the archive has WAL or a history, in these incarnations of the database.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn timelines(config: &Path, incarnations: &BTreeSet<u32>) -> Result<BTreeSet<u32>, String> {
    let root = format!("archive/{STANZA}");
    let mut found = BTreeSet::new();
    for id in list(config, &root).await? {
        let number = id.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
        if number.is_some_and(|number| incarnations.contains(&number)) {
            let names = list(config, &format!("{root}/{id}")).await?;
            found.extend(names.iter().filter_map(|name| timeline_of(name)));
        }
    }
    Ok(found)
}

/// The timeline of a folder of WAL, or of a history, by its name.
fn timeline_of(name: &str) -> Option<u32> {
    let is_folder = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = if is_folder { name.get(..8) } else { name.strip_suffix(".history") };
    u32::from_str_radix(digits?, 16).ok()
}

/// The folder of the present incarnation of the database, such as `17-1`. It has one for each 256 segments of a timeline.
async fn incarnation(config: &Path) -> Result<Option<String>, String> {
    let root = format!("archive/{STANZA}");
    let number = |name: &str| name.rsplit_once('-').and_then(|(_, id)| id.parse::<u32>().ok());
    let ids = list(config, &root).await?;
    let newest = ids.iter().filter(|name| number(name).is_some()).max_by_key(|name| number(name));
    Ok(newest.map(|id| format!("{root}/{id}")))
}

/// The whole segments in a folder of the store.
async fn segments(config: &Path, folder: &str) -> Result<Vec<String>, String> {
    let files = list(config, folder).await?;
    Ok(files.iter().filter_map(|file| segment_of(file)).map(str::to_owned).collect())
}

/// The names in a folder of the store.
async fn list(config: &Path, folder: &str) -> Result<Vec<String>, String> {
    let text = within(LIMIT, execute(config, &["--log-level-stderr=error", "repo-ls", folder])).await?;
    Ok(text.lines().map(str::to_owned).collect())
}

async fn within(limit: Duration, run: impl Future<Output = Result<String, Failure>>) -> Result<String, String> {
    let run = tokio::time::timeout(limit, run).await;
    run.map_err(|_| format!("pgbackrest took longer than {} s", limit.as_secs()))?.map_err(|failure| failure.message)
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    /// pgBackRest's code; none where it did not exit by itself.
    pub code: Option<i32>,
    /// Its error; it may quote a key.
    pub message: String,
}

/// Runs a command in the present folder to its end; returns its output. It is killed with the future.
///
/// # Errors
/// pgBackRest's.
pub async fn run(config: &Path, name: &str, options: &[&str]) -> Result<String, Failure> {
    let stanza = format!("--stanza={STANZA}");
    let arguments: Vec<_> =
        [&*stanza, "--log-level-stderr=error"].iter().chain(options).chain([&name]).copied().collect();
    execute(config, &arguments).await
}

async fn execute(config: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("pgbackrest");
    command.arg(format!("--config={}", config.display())).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await;
    let output =
        output.map_err(|error| Failure { code: None, message: format!("pgbackrest cannot be run: {error}") })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let message = words(&String::from_utf8_lossy(&output.stderr), output.status);
        Err(Failure { code: output.status.code(), message })
    }
}

/// The first error of pgBackRest's output, without the time and the process.
fn words(text: &str, status: ExitStatus) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.skip_while(|line| !line.contains("ERROR:")).take(4).collect::<Vec<_>>().join(" ");
    let error = error.split_once("ERROR: ").map_or(error.as_str(), |(_, error)| error);
    let error: String = error.chars().take(LONGEST_TEXT).collect();
    if error.is_empty() { format!("pgbackrest failed without a message ({status})") } else { error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_timeline_is_known_by_its_folder_or_its_history() {
        assert_eq!(timeline_of("0000000A00000001"), Some(10));
        assert_eq!(timeline_of("0000000B.history"), Some(11));
        for name in ["archive.info", "backup.history.manifest", "17-1", ""] {
            assert_eq!(timeline_of(name), None, "{name}");
        }
    }

    #[test]
    fn an_error_is_kept_without_what_changes_each_time() {
        let words = |text: &str| words(text, ExitStatus::from_raw(0));
        let text = "P00  ERROR: [039]: HTTP request failed with 403 (Forbidden):\n            *** Path/Query ***:\n            GET /backups/\n";
        assert_eq!(words(text), "[039]: HTTP request failed with 403 (Forbidden): *** Path/Query ***: GET /backups/");
        assert!(words("").starts_with("pgbackrest failed without a message"));
        assert!(words(&format!("ERROR: {}", "x".repeat(9000))).len() <= LONGEST_TEXT);
    }
}
