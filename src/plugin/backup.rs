//! `kubectl servicedb backup`: requests a backup, and follows it to its end; `kubectl servicedb backups` lists
//! what the store has.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::args::Connection;
use super::connection::{self, PluginError, annotate, connect, read};
use super::psql;
use crate::api::names::{ANNOTATION_BACKUP, ANNOTATION_BACKUP_TYPE};
use crate::api::{BackupRunStatus, BackupStatus, RequestState, ServiceDatabase};

/// The interval at which status is read.
const POLL: Duration = Duration::from_millis(500);
/// How long the leader may take to read the store after the Job.
const READS: Duration = Duration::from_secs(60);

/// Requests a backup, and waits for its end, if there is a time to wait.
///
/// # Errors
/// If the resource cannot be read or changed.
pub async fn run(
    connection: &Connection,
    name: &str,
    full: bool,
    timeout: Duration,
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    if resource.status.as_ref().and_then(|status| status.backup.as_ref()).is_none() {
        eprintln!(
            "error: {name} has no store for backups: see spec.backup, and backup.stores of the installation \
             (docs/backups.md)"
        );
        return Ok(ExitCode::FAILURE);
    }
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    let kind = full.then(|| "Full".to_owned());
    let asked = [(ANNOTATION_BACKUP, Some(token.clone())), (ANNOTATION_BACKUP_TYPE, kind)];
    annotate(&client, &namespace, name, &asked).await?;
    if timeout.is_zero() {
        println!("requested; kubectl servicedb status {name} shows its progress");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + timeout;
    let mut shown = String::new();
    let run = loop {
        let resource = read(&client, &namespace, name).await?;
        let run = answer(&resource, &token);
        if let Some(run) = run.filter(|run| run.state != RequestState::Running) {
            break run.clone();
        }
        let now = run.map(progress).unwrap_or_default();
        if now != shown {
            println!("{now}");
            shown = now;
        }
        if Instant::now() >= deadline {
            let state = run.map_or_else(|| waits(&resource), |run| format!("the Job {} runs", run.job));
            eprintln!("error: no result within {} s: {state}; the request is kept", timeout.as_secs());
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL).await;
    };
    if run.state == RequestState::Failed {
        eprintln!("error: {}: {}", run.job, run.message.as_deref().unwrap_or_default());
        return Ok(ExitCode::FAILURE);
    }
    let deadline = Instant::now() + READS;
    loop {
        let resource = read(&client, &namespace, name).await?;
        let newest = backup(&resource).and_then(|backup| backup.newest.as_ref());
        if let Some(newest) = newest.filter(|newest| newest.finished_at.0 >= run.started_at.0) {
            println!("{} is in the store: {:?}, {} bytes", newest.label, newest.kind, newest.stored_bytes);
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            println!("the Job {} succeeded; the primary has not read the store since", run.job);
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn backup(resource: &ServiceDatabase) -> Option<&BackupStatus> {
    resource.status.as_ref()?.backup.as_ref()
}

fn answer<'a>(resource: &'a ServiceDatabase, token: &str) -> Option<&'a BackupRunStatus> {
    backup(resource)?.last_run.as_ref().filter(|run| run.request.as_deref() == Some(token))
}

fn progress(run: &BackupRunStatus) -> String {
    let waits = run.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("the Job {} runs ({:?}){waits}", run.job, run.kind)
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
    let mut command = psql::in_primary(connection, &client, &namespace, &resource, &["servicedb", "backups"]).await?;
    psql::end_with(&mut command).await
}
