//! The Jobs that make a backup (`servicedb backup`) and test one (`servicedb verify-backup`), and the list of what a
//! store has (`servicedb backups`).
//!
//! A backup Job is pgBackRest's repository host: it reads the data directory from an instance, a replica where one
//! streams, through the server that the agents run meanwhile, and writes to the store.

mod hosts;
mod job;
mod list;
mod verification;

use std::path::Path;
use std::process::ExitCode;

pub use list::list;
pub use verification::run as verify;

use crate::api::BackupType;
use crate::contract::backup_job::{BackupJob, BackupOutcome};
use crate::contract::pod::{ARCHIVE_DIR, ENV_BACKUP};
use crate::pgbackrest::command::{self, Failure};
use crate::pgbackrest::config::{self, Config};

/// pgBackRest's code for what did not come in time, such as the replay of a standby.
const STANDBY_LAGS: i32 = 82;

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
        Err(Failure { code: Some(STANDBY_LAGS), message }) if message.contains("standby") => {
            tracing::warn!("the replica is too far behind: backing up from the primary");
            command::run(&config::path(), "backup", &[kind, "--backup-standby=n"]).await
        }
        done => done,
    };
    done.map(drop).map_err(|failure| secrets.redact(&failure.message))
}
