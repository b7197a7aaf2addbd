//! The rehearsal of a major upgrade (`servicedb rehearse-upgrade`): a Job restores the newest backup into a volume of its
//! own, recovers to the end of the archive, and upgrades that database as the primary's agent will upgrade the living one
//! (docs/decisions/0089). Nothing of the running database or of its archive is changed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use super::job;
use crate::agent::upgrade::restored::{has_room, rehearse};
use crate::api::names::Names;
use crate::contract::backup::Target;
use crate::contract::desired::{Desired, KEY};
use crate::contract::pod::{DESIRED_DIR, ENV_REHEARSAL, PGDATA_NEW};
use crate::contract::rehearsal::{RehearsalJob, RehearsalOutcome};
use crate::postgres::servers;
use crate::restore::{self, control, recovery};

/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 900;

/// Rehearses, and writes the outcome as the termination message.
pub async fn run() -> ExitCode {
    let mut outcome = RehearsalOutcome::default();
    let failure = job::until_stopped(restore_and_rehearse(&mut outcome)).await.err();
    outcome.stopped = failure.as_deref() == Some(job::STOPPED);
    outcome.failure = failure.map(|error| error.chars().take(LONGEST_ERROR).collect());
    match &outcome.failure {
        None => tracing::info!(label = outcome.label, "the major upgrade was rehearsed"),
        Some(error) => tracing::error!(error, label = outcome.label, "the rehearsal of the major upgrade failed"),
    }
    job::leave(&outcome, outcome.failure.is_none())
}

async fn restore_and_rehearse(outcome: &mut RehearsalOutcome) -> Result<(), String> {
    let job: RehearsalJob = job::read(ENV_REHEARSAL)?;
    let desired = desired(Path::new(DESIRED_DIR))?;
    let secrets = job::secrets(&job.place).await?;
    let (folder, started) = (Path::new(PGDATA_NEW), Instant::now());
    let restored = restore::Restore {
        folder,
        spare: 0,
        place: &job.place,
        target: &Target::Latest,
        timeline: None,
        // After the way back from an upgrade, the newest backup may be of the database that was left.
        database: job.system_identifier.as_deref(),
        secrets: &secrets,
        // Damage is for the test of a backup to find: the upgrade of the living database is of other pages.
        refuses_damage: false,
        settings: recovery::write_settings,
    };
    let restored = restored.run().await?;
    restored.server.stop().await?;
    check(folder, &job)?;
    // Volumes of instances may be larger than the spec says, since they do not shrink: whether theirs has room is the
    // primary's to say.
    has_room(folder).await?;
    outcome.restore_seconds = started.elapsed().as_secs();
    outcome.label = Some(restored.set);
    let names = Names::new(job.namespace, job.name);
    outcome.rehearsed = Some(rehearse(folder, (&names, &desired), (job.from, job.to)).await?);
    Ok(())
}

fn desired(folder: &Path) -> Result<Desired, String> {
    let file = folder.join(KEY);
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Checks that the restored database is the one that is to be upgraded.
fn check(folder: &Path, job: &RehearsalJob) -> Result<(), String> {
    let found = control::read(folder)?.system_identifier;
    if let Some(wanted) = job.system_identifier.as_ref().filter(|wanted| **wanted != found) {
        return Err(format!("the backup is of another database: its system identifier is {found}, and not {wanted}"));
    }
    let major = servers::major_of(folder).unwrap_or_default();
    if major != job.from {
        return Err(format!("the backup is of PostgreSQL {major}, and the database of {}", job.from));
    }
    Ok(())
}
