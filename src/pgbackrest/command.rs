//! pgBackRest's commands, and the errors of its output.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::STANZA;
use super::info::{Info, parse};

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

/// What the store has.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn info(config: &Path) -> Result<Info, String> {
    let text = within(LIMIT, run(config, "info", &["--output=json"])).await?;
    parse(&text).map_err(|error| format!("pgbackrest info: {error}"))
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
    let mut command = Command::new("pgbackrest");
    command
        .arg(format!("--config={}", config.display()))
        .args([&format!("--stanza={STANZA}"), "--log-level-stderr=error"])
        .args(options)
        .arg(name)
        .stdin(Stdio::null())
        .kill_on_drop(true);
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
    fn an_error_is_kept_without_what_changes_each_time() {
        let words = |text: &str| words(text, ExitStatus::from_raw(0));
        let text = "P00  ERROR: [039]: HTTP request failed with 403 (Forbidden):\n            *** Path/Query ***:\n            GET /backups/\n";
        assert_eq!(words(text), "[039]: HTTP request failed with 403 (Forbidden): *** Path/Query ***: GET /backups/");
        assert!(words("").starts_with("pgbackrest failed without a message"));
        assert!(words(&format!("ERROR: {}", "x".repeat(9000))).len() <= LONGEST_TEXT);
    }
}
