//! Removes the archive and the backups of a deleted resource (`servicedb remove-backups`).

use std::path::Path;
use std::process::ExitCode;

use super::job;
use crate::contract::backup_job::{BackupOutcome, BackupRemovalJob};
use crate::contract::pod::{ARCHIVE_DIR, ENV_BACKUP};
use crate::pgbackrest::command;
use crate::pgbackrest::config::{self, Config};

/// Removes them, and writes the outcome as the termination message.
pub async fn run() -> ExitCode {
    let outcome = BackupOutcome { failure: job::until_stopped(remove()).await.err() };
    match &outcome.failure {
        None => tracing::info!("the archive and the backups are removed"),
        Some(error) => tracing::error!(error, "the archive and the backups are not removed"),
    }
    job::leave(&outcome, outcome.failure.is_none())
}

async fn remove() -> Result<(), String> {
    let job: BackupRemovalJob = job::read(ENV_BACKUP)?;
    let secrets = job::secrets(&job.place).await?;
    let config = Config { place: &job.place, options: "", database: &config::local() };
    config.write(Path::new(ARCHIVE_DIR), &secrets).map_err(|error| format!("the configuration: {error}"))?;
    // pgBackRest deletes only what was stopped before. No agent runs any more.
    for (name, options) in [("stop", &[][..]), ("stanza-delete", &["--force"])] {
        let done = command::run(&config::path(), name, options).await;
        done.map_err(|failure| secrets.redact(&failure.message))?;
    }
    Ok(())
}
