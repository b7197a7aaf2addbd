//! `kubectl servicedb restore`: says what will be left, asks, and puts the database back in place.

use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::args::{Connection, RestoreTo};
use super::confirm::approved;
use super::connection::{PluginError, connect, read};
use super::request;
use crate::api::{BackupStatus, RestoreTarget};

/// Reads a time, with its offset.
///
/// # Errors
/// What a time has.
pub fn time(text: &str) -> Result<String, String> {
    let parsed = text.parse::<Timestamp>();
    parsed.map(|_| text.to_owned()).map_err(|_| "a time has its offset from UTC: 2026-11-29T10:15:00Z".to_owned())
}

/// The target of the request.
pub fn target(to: RestoreTo, timeline: Option<i64>) -> RestoreTarget {
    RestoreTarget { time: to.to, lsn: to.lsn, name: to.point, immediate: to.immediate, timeline }
}

/// Asks, sends the request, and waits for its result, if there is a time to wait.
///
/// # Errors
/// If the resource cannot be read or changed.
pub async fn run(
    connection: &Connection,
    name: &str,
    target: &RestoreTarget,
    yes: bool,
    timeout: Duration,
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let Some(backup) = resource.status.as_ref().and_then(|status| status.backup.as_ref()) else {
        eprintln!(
            "error: {name} has no store for backups: see spec.backup, and backup.stores of the installation \
             (docs/backups.md)"
        );
        return Ok(ExitCode::FAILURE);
    };
    println!("{}", consequences(name, target, backup, Timestamp::now()));
    if !approved(yes)? {
        return Ok(ExitCode::FAILURE);
    }
    request::run(connection, name, &request::Request::Restore(target.clone()), timeout).await
}

/// What the restore does, for the person who is asked.
fn consequences(name: &str, target: &RestoreTarget, backup: &BackupStatus, now: Timestamp) -> String {
    let left = match target.time.as_ref().and_then(|time| time.parse::<Timestamp>().ok()) {
        Some(time) => {
            let minutes = now.duration_since(time).as_secs() / 60;
            format!("everything that was committed after {time} ({minutes} minutes)")
        }
        None if target.immediate => "everything that was committed after the newest backup".to_owned(),
        None => "everything that was committed after that state".to_owned(),
    };
    let from = backup
        .recoverable_from
        .as_ref()
        .map(|from| format!(", from which the database can be restored from {} on", from.0));
    format!(
        "{name} will be put back: {left} will not be in it, nor whatever is written until the restore has ended. Both \
         stay in the store {}{}. At the end the database is unavailable for some seconds.",
        backup.store,
        from.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_what_is_left() {
        let backup: BackupStatus = serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-28T00:00:00Z",
        }))
        .expect("a status");
        let now = "2026-11-29T12:00:00Z".parse().expect("a time");
        let target = RestoreTarget { time: Some("2026-11-29T12:30:00+01:00".into()), ..RestoreTarget::default() };
        let said = consequences("chat", &target, &backup, now);
        assert!(said.contains("committed after 2026-11-29T11:30:00Z (30 minutes)"), "{said}");
        assert!(
            said.contains("the store main, from which the database can be restored from 2026-11-28T00:00:00Z on"),
            "{said}"
        );
        assert!(time("2026-11-29 10:15").is_err());
        assert!(time("2026-11-29T10:15:00+01:00").is_ok());
    }
}
