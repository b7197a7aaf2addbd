//! The backup Job (`servicedb backup`), and the list of what a store has (`servicedb backups`).
//!
//! The Job is pgBackRest's repository host: it reads the data directory from an instance, a replica where one
//! streams, through the server that the agents run meanwhile, and writes to the store.

mod hosts;
mod list;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

pub use list::list;

use crate::api::BackupType;
use crate::backoff::Backoff;
use crate::contract::backup_job::{BackupJob, BackupOutcome};
use crate::contract::pod::{ARCHIVE_DIR, ENV_BACKUP};
use crate::pgbackrest::command::{self, Failure};
use crate::pgbackrest::config::{self, Config};
use crate::pgbackrest::secrets::Secrets;
use crate::vault::pod;

/// Where the kubelet reads the result.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// How long Vault may be away.
const VAULT_PATIENCE: Duration = Duration::from_secs(120);
/// pgBackRest's code for a standby that has not replayed what the backup needs.
const STANDBY_LAGS: i32 = 82;

/// Makes the backup, and writes the outcome as the termination message.
pub async fn run() -> ExitCode {
    let ended = match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            ended = back_up() => ended,
            _ = terminate.recv() => Err("the pod was stopped".to_owned()),
        },
        Err(error) => Err(format!("SIGTERM cannot be awaited: {error}")),
    };
    let outcome = BackupOutcome { failure: ended.err() };
    match &outcome.failure {
        None => tracing::info!("the backup is in the store"),
        Some(error) => tracing::error!(error, "there is no backup"),
    }
    // A document of strings can always be serialised.
    let text = serde_json::to_string(&outcome).unwrap_or_default();
    if let Err(error) = std::fs::write(TERMINATION_LOG, text) {
        tracing::error!(%error, "the result cannot be left for the operator");
    }
    if outcome.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn back_up() -> Result<(), String> {
    let job = std::env::var(ENV_BACKUP).map_err(|error| format!("{ENV_BACKUP}: {error}"))?;
    let job: BackupJob = serde_json::from_str(&job).map_err(|error| format!("{ENV_BACKUP}: {error}"))?;
    let secrets = secrets(&job).await?;
    let serving = hosts::serving(&job.hosts).await?;
    let options = format!(
        "repo1-retention-full-type=time
repo1-retention-full={}
start-fast=y
archive-timeout=300
backup-standby=prefer
",
        job.retention_days
    );
    let config = Config { place: &job.place, options: &options, database: &hosts::stanza(&serving) };
    config.write(Path::new(ARCHIVE_DIR), &secrets).map_err(|error| format!("the configuration: {error}"))?;
    let kind = match job.kind {
        BackupType::Full => "--type=full",
        BackupType::Incremental => "--type=incr",
    };
    tracing::info!(store = job.place.name, hosts = serving.join(", "), kind, "backing up");
    let done = match command::run(&config::path(), "backup", &[kind]).await {
        Err(Failure { code: Some(STANDBY_LAGS), .. }) => {
            tracing::warn!("the replica is too far behind: backing up from the primary");
            command::run(&config::path(), "backup", &[kind, "--backup-standby=n"]).await
        }
        done => done,
    };
    done.map(drop).map_err(|failure| secrets.redact(&failure.message))
}

/// Reads the keys; Vault may be away for a moment.
async fn secrets(job: &BackupJob) -> Result<Secrets, String> {
    let (vault, _) = pod::client().map_err(|error| error.to_string())?;
    let until = Instant::now() + VAULT_PATIENCE;
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
    loop {
        match Secrets::read(&vault, &job.place).await {
            Ok(secrets) => return Ok(secrets),
            Err(error) if Instant::now() > until => return Err(error.to_string()),
            Err(error) => {
                tracing::warn!(%error, "the keys of the store cannot be read; trying again");
                backoff.wait().await;
            }
        }
    }
}
