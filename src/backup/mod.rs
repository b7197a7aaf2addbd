//! The Jobs that make a backup (`servicedb backup`), test one (`servicedb verify-backup`) and rehearse a major upgrade on
//! one (`servicedb rehearse-upgrade`), and the list of what a store has (`servicedb backups`).
//!
//! A backup Job is pgBackRest's repository host: it reads the data directory from an instance, a replica where one
//! streams, through the server that the agents run meanwhile, and writes to the store.

mod hosts;
mod job;
mod list;
mod rehearsal;
mod removal;
mod verification;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

pub use list::list;
pub use rehearsal::run as rehearse;
pub use removal::run as remove;
pub use verification::run as verify;

use crate::api::BackupType;
use crate::contract::backup_job::{BackupJob, BackupOutcome};
use crate::contract::pod::{ARCHIVE_DIR, ENV_BACKUP};
use crate::pgbackrest::command::{self, Failure};
use crate::pgbackrest::config::{self, Config};
use crate::pgbackrest::secrets::Secrets;

/// pgBackRest's code for what did not come in time, such as the replay of a standby.
const STANDBY_LAGS: i32 = 82;
/// pgBackRest's code where none of the instances is the primary.
const NO_PRIMARY_FOUND: i32 = 56;
/// How long there may be none.
const NO_PRIMARY: Duration = Duration::from_secs(300);
/// The pause between two attempts.
const BETWEEN: Duration = Duration::from_secs(5);

/// Makes the backup, and writes the outcome as the termination message.
pub async fn run() -> ExitCode {
    let outcome = BackupOutcome { failure: job::until_stopped(back_up()).await.err() };
    match &outcome.failure {
        None => tracing::info!("the backup is in the store"),
        Some(error) => tracing::error!(error, "there is no backup"),
    }
    job::leave(&outcome, outcome.failure.is_none())
}

async fn back_up() -> Result<(), String> {
    let job: BackupJob = job::read(ENV_BACKUP)?;
    let secrets = job::secrets(&job.place).await?;
    let until = Instant::now() + NO_PRIMARY;
    loop {
        match attempt(&job, &secrets).await {
            // A failover, or the primary's agent does not serve yet.
            Err(Failure { code: Some(NO_PRIMARY_FOUND), message }) if Instant::now() < until => {
                tracing::warn!(message, "no primary is among the instances; trying again");
                tokio::time::sleep(BETWEEN).await;
            }
            Err(failure) => return Err(secrets.redact(&failure.message)),
            Ok(()) => return Ok(()),
        }
    }
}

async fn attempt(job: &BackupJob, secrets: &Secrets) -> Result<(), Failure> {
    let serving = hosts::serving(&job.hosts).await.map_err(|message| Failure { code: None, message })?;
    let options = format!(
        "{}start-fast=y
archive-timeout=300
backup-standby=prefer
",
        job.retention()
    );
    let config =
        Config { place: &job.place, spool: config::SPOOL, options: &options, database: &hosts::stanza(&serving) };
    let written = config.write(Path::new(ARCHIVE_DIR), secrets);
    written.map_err(|error| Failure { code: None, message: format!("the configuration: {error}") })?;
    let kind = match job.kind {
        BackupType::Full => "--type=full",
        BackupType::Incremental => "--type=incr",
    };
    tracing::info!(store = job.place.name, hosts = serving.join(", "), kind, "backing up");
    let mut arguments = vec![kind];
    if !job.expires {
        arguments.push("--no-expire-auto");
    }
    let done = match command::run(&config::path(), "backup", &arguments).await {
        Err(Failure { code: Some(STANDBY_LAGS), message }) if message.contains("standby") => {
            tracing::warn!("the replica is too far behind: backing up from the primary");
            arguments.push("--backup-standby=n");
            command::run(&config::path(), "backup", &arguments).await
        }
        done => done,
    };
    done.map(drop)
}
