//! `kubectl servicedb backup` and `verify-backup`: request a backup, or a test of the newest one, and follow the Job
//! to its end; `kubectl servicedb backups` lists what the store has.

use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use super::args::Connection;
use super::connection::{self, PluginError, annotate, connect, read};
use super::psql;
use crate::api::names::{ANNOTATION_BACKUP, ANNOTATION_BACKUP_TYPE, ANNOTATION_VERIFY_BACKUP};
use crate::api::{BackupStatus, JobRun, RequestState, ServiceDatabase};

/// The interval at which status is read.
const POLL: Duration = Duration::from_millis(500);
/// How long the leader may take to read the store after a backup.
const READS: Duration = Duration::from_secs(60);

/// The request.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// A backup, full or incremental.
    Backup {
        /// Whether it is a full one.
        full: bool,
    },
    /// A test of the newest backup.
    Verification,
}

impl Request {
    fn annotations(self, token: &str) -> Vec<(&'static str, Option<String>)> {
        match self {
            // A type of an earlier request does not apply to this one.
            Self::Backup { full } => vec![
                (ANNOTATION_BACKUP, Some(token.to_owned())),
                (ANNOTATION_BACKUP_TYPE, full.then(|| "Full".to_owned())),
            ],
            Self::Verification => vec![(ANNOTATION_VERIFY_BACKUP, Some(token.to_owned()))],
        }
    }

    fn answer<'a>(self, resource: &'a ServiceDatabase, token: &str) -> Option<&'a JobRun> {
        let backup = backup(resource)?;
        let run = match self {
            Self::Backup { .. } => backup.last_run.as_ref().map(|last| &last.run),
            Self::Verification => backup.last_verification.as_ref(),
        };
        run.filter(|run| run.request.as_deref() == Some(token))
    }

    /// What status says of a Job that succeeded; none before it does.
    fn result(self, resource: &ServiceDatabase, run: &JobRun) -> Option<String> {
        let backup = backup(resource)?;
        match self {
            Self::Backup { .. } => {
                let newest = backup.newest.as_ref().filter(|newest| newest.finished_at.0 >= run.started_at.0)?;
                let second =
                    backup.second.as_ref().map(|second| format!("; the one in the store {} follows", second.store));
                Some(format!(
                    "{} is in the store {}: {:?}, {} bytes{}",
                    newest.label,
                    backup.store,
                    newest.kind,
                    newest.stored_bytes,
                    second.unwrap_or_default()
                ))
            }
            Self::Verification => {
                let verified = backup.verified.as_ref()?;
                Some(format!(
                    "{} was restored in {} s and checked in {} s",
                    verified.label, verified.restore_seconds, verified.check_seconds
                ))
            }
        }
    }
}

/// Sends the request, and waits for its end, if there is a time to wait.
///
/// # Errors
/// If the resource cannot be read or changed.
pub async fn run(
    connection: &Connection,
    name: &str,
    request: Request,
    timeout: Duration,
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    if backup(&resource).is_none() {
        eprintln!("error: {}", no_store(name));
        return Ok(ExitCode::FAILURE);
    }
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    annotate(&client, &namespace, name, &request.annotations(&token)).await?;
    if timeout.is_zero() {
        println!("requested; kubectl servicedb status {name} shows its progress");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + timeout;
    let mut shown = String::new();
    let run = loop {
        let resource = read(&client, &namespace, name).await?;
        let run = request.answer(&resource, &token);
        if let Some(run) = run.filter(|run| run.state != RequestState::Running) {
            break run.clone();
        }
        let now = run.map(progress).unwrap_or_default();
        if now != shown {
            println!("{now}");
            shown = now;
        }
        if Instant::now() >= deadline {
            let state = run.map_or_else(|| waits(&resource), progress);
            eprintln!("error: no result within {} s: {state}; the request is kept", timeout.as_secs());
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL).await;
    };
    if run.state == RequestState::Failed {
        eprintln!("error: {}: {}", run.job, run.message.as_deref().unwrap_or_default());
        if matches!(request, Request::Backup { .. }) {
            eprintln!(
                "the backup is tried again until it succeeds (kubectl servicedb status {name}); to cancel it: kubectl \
                 annotate -n {namespace} servicedatabase {name} {ANNOTATION_BACKUP}-"
            );
        }
        return Ok(ExitCode::FAILURE);
    }
    let deadline = Instant::now() + READS;
    loop {
        let resource = read(&client, &namespace, name).await?;
        if let Some(result) = request.result(&resource, &run) {
            println!("{result}");
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            println!("the Job {} succeeded; the primary has not read the store since", run.job);
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Why there are no backups of a database whose status has none.
pub fn no_store(name: &str) -> String {
    format!("{name} has no store for backups: see spec.backup, and backup.stores of the installation (docs/backups.md)")
}

fn backup(resource: &ServiceDatabase) -> Option<&BackupStatus> {
    resource.status.as_ref()?.backup.as_ref()
}

fn progress(run: &JobRun) -> String {
    let waits = run.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("the Job {} runs{waits}", run.job)
}

/// Why no Job was created for the request.
fn waits(resource: &ServiceDatabase) -> String {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let archiving = conditions.into_iter().find(|condition| condition.type_ == "ContinuousArchiving");
    match archiving.filter(|condition| condition.status != "True") {
        Some(archiving) => archiving.message.clone(),
        None => "no Job was created; others may run on this store (backup.concurrency)".to_owned(),
    }
}

/// Lists what the store has, from the primary's pod.
///
/// # Errors
/// If there is no primary to go to, or kubectl cannot be run.
pub async fn list(connection: &Connection, name: &str) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connection::connect(connection).await?;
    let resource = connection::read(&client, &namespace, name).await?;
    let Some(backup) = backup(&resource) else {
        eprintln!("error: {}", no_store(name));
        return Ok(ExitCode::FAILURE);
    };
    let mut command = psql::in_primary(connection, &client, &namespace, &resource, &["servicedb", "backups"]).await?;
    // The pod knows its stores by the fields that name them.
    if let Some(stores) = stores(backup) {
        println!("{stores}");
    }
    let ended = psql::end_with(&mut command).await;
    for line in left_windows(backup) {
        println!("{line}");
    }
    ended
}

/// The names of two stores, by the headings of their lists.
fn stores(backup: &BackupStatus) -> Option<String> {
    let second = backup.second.as_ref()?;
    Some(format!("spec.backup.store is {}, spec.backup.secondStore is {}", backup.store, second.store))
}

/// The timelines that restores in place have left, each with the moments to which it can be recovered.
fn left_windows(backup: &BackupStatus) -> Vec<String> {
    let Some(Time(from)) = backup.recoverable_from else { return Vec::new() };
    let left = backup.left_timelines.iter().filter(|left| left.left_at.0 > from);
    left.map(|left| {
        format!("timeline {}, which was left: recoverable from {from} to {}", left.timeline, left.left_at.0)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_left_timeline_is_recoverable_as_long_as_a_backup_leads_to_it() {
        let backup = |from: &str| -> BackupStatus {
            serde_json::from_value(serde_json::json!({
                "store": "main", "path": "/x", "recoverableFrom": from,
                "leftTimelines": [{"timeline": 2, "leftAt": "2026-11-29T12:00:00Z", "continuedAs": 3}],
            }))
            .expect("a status")
        };
        let lines = left_windows(&backup("2026-11-29T11:00:00Z"));
        assert_eq!(
            lines,
            ["timeline 2, which was left: recoverable from 2026-11-29T11:00:00Z to 2026-11-29T12:00:00Z"]
        );
        assert!(left_windows(&backup("2026-11-29T13:00:00Z")).is_empty());
    }

    #[test]
    fn each_store_is_named() {
        let mut resource: ServiceDatabase = serde_json::from_value(serde_json::json!({
            "apiVersion": "servicedb.dev/v1alpha1", "kind": "ServiceDatabase", "metadata": {"name": "chat"},
            "spec": {"storage": {"size": "1Gi"}},
            "status": {"backup": {
                "store": "main", "path": "/x",
                "newest": {
                    "label": "20261129-120000F", "type": "Full", "startedAt": "2026-11-29T12:00:01Z",
                    "finishedAt": "2026-11-29T12:01:00Z", "databaseBytes": 30, "storedBytes": 4,
                },
            }},
        }))
        .expect("a resource");
        let run: JobRun = serde_json::from_value(serde_json::json!({
            "job": "chat-backup", "state": "Done", "startedAt": "2026-11-29T12:00:00Z",
        }))
        .expect("a run");
        let told =
            |resource: &ServiceDatabase| Request::Backup { full: true }.result(resource, &run).expect("a result");
        assert_eq!(told(&resource), "20261129-120000F is in the store main: Full, 4 bytes");
        let backup = resource.status.as_mut().and_then(|status| status.backup.as_mut()).expect("backups");
        assert_eq!(stores(backup), None);
        let second = BackupStatus { store: "other".into(), path: "/x".into(), ..BackupStatus::default() };
        backup.second = Some(Box::new(second));
        assert_eq!(stores(backup).as_deref(), Some("spec.backup.store is main, spec.backup.secondStore is other"));
        assert!(told(&resource).ends_with("; the one in the store other follows"));
    }
}
