//! The stanza: pgBackRest's record of a database in a store. Without it nothing can be archived.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::config;
use crate::contract::pod::PGDATA;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Characters of an error that are kept.
pub const LONGEST_ERROR: usize = 400;

/// Creates the stanza, unless it exists: then its record is compared with this database.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn create() -> Result<(), String> {
    run("stanza-create", &[]).await.map(drop)
}

/// The newest segment in the archive; none if it has none.
///
/// # Errors
/// What pgBackRest wrote; it may quote a key.
pub async fn newest() -> Result<Option<String>, String> {
    let text = run("info", &["--output=json"]).await?;
    newest_in(&text).map_err(|error| format!("pgbackrest info: {error}"))
}

fn newest_in(text: &str) -> serde_json::Result<Option<String>> {
    let info: serde_json::Value = serde_json::from_str(text)?;
    let archives = info[0]["archive"].as_array().into_iter().flatten();
    let newest = archives.filter_map(|archive| archive["max"].as_str());
    Ok(newest.max_by_key(|segment| super::catch_up::position(segment).map(str::to_owned)).map(str::to_owned))
}

async fn run(name: &str, options: &[&str]) -> Result<String, String> {
    let mut command = Command::new("pgbackrest");
    command
        .arg(format!("--config={}", config::path().display()))
        .args([&format!("--stanza={}", config::STANZA), "--log-level-stderr=error"])
        .args(options)
        .arg(name)
        .current_dir(PGDATA)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.map_err(|_| format!("pgbackrest {name} took longer than {} s", LIMIT.as_secs()))?;
    let output = output.map_err(|error| format!("pgbackrest cannot be run: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(words(&String::from_utf8_lossy(&output.stderr)))
    }
}

/// The first error of pgBackRest's output, without the time and the process.
pub fn words(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.skip_while(|line| !line.contains("ERROR:")).take(4).collect::<Vec<_>>().join(" ");
    let error = error.split_once("ERROR: ").map_or(error.as_str(), |(_, error)| error);
    let error: String = error.chars().take(LONGEST_ERROR).collect();
    if error.is_empty() { "pgbackrest failed without a message".to_owned() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_segment_is_that_of_the_latest_position_on_any_timeline() {
        let info = r#"[{"archive": [
            {"id": "17-1", "max": "0000000200000001000000AA", "min": "000000010000000000000001"},
            {"id": "17-1", "max": "000000030000000000000007"}
        ]}]"#;
        assert_eq!(newest_in(info).expect("JSON").as_deref(), Some("0000000200000001000000AA"));
        assert_eq!(newest_in(r#"[{"archive": []}]"#).expect("JSON"), None);
        assert!(newest_in("").is_err());
    }

    #[test]
    fn an_error_is_kept_without_what_changes_each_time() {
        let text = "P00  ERROR: [039]: HTTP request failed with 403 (Forbidden):\n            *** Path/Query ***:\n            GET /backups/\n";
        assert_eq!(words(text), "[039]: HTTP request failed with 403 (Forbidden): *** Path/Query ***: GET /backups/");
        assert_eq!(words(""), "pgbackrest failed without a message");
        assert!(words(&format!("ERROR: {}", "x".repeat(9000))).len() <= LONGEST_ERROR);
    }
}
