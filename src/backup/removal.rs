//! Removes the archive and the backups of a deleted resource (`servicedb remove-backups`).

use std::path::Path;
use std::process::ExitCode;

use super::job;
use crate::contract::backup::Place;
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
    // A store that does not answer keeps nothing in the other one.
    let mut removed = Ok(());
    for place in std::iter::once(&job.place).chain(&job.second) {
        let done = remove_from(place).await.map_err(|error| format!("the store {}: {error}", place.name));
        removed = removed.and(done);
    }
    removed
}

async fn remove_from(place: &Place) -> Result<(), String> {
    let secrets = job::secrets(place).await?;
    let config = Config { place, spool: config::SPOOL, options: "", database: &config::local() };
    config.write(Path::new(ARCHIVE_DIR), &secrets).map_err(|error| format!("the configuration: {error}"))?;
    // pgBackRest deletes only what was stopped before. No agent runs any more.
    for (name, options) in [("stop", &[][..]), ("stanza-delete", &["--force"])] {
        let done = command::run(&config::path(), name, options).await;
        done.map_err(|failure| secrets.redact(&failure.message))?;
    }
    Ok(())
}
