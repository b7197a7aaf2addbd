//! The rehearsal of an upgrade on a database that a Job has restored from a backup (docs/decisions/0089): the steps of the
//! exchange, with their times.

use std::path::Path;
use std::time::Instant;

use super::build::{self, Server};
use super::room::size_of;
use crate::api::names::Names;
use crate::contract::desired::Desired;
use crate::contract::pod::VOLUME;
use crate::contract::upgrade::Rehearsed;
use crate::files;

/// Whether the volume of the Job has room for a copy of the restored database.
///
/// # Errors
/// What is missing.
pub async fn has_room(folder: &Path) -> Result<(), String> {
    let needed = size_of(folder).await?;
    let free = files::free(Path::new(VOLUME)).map_err(|error| format!("the volume: {error}"))?;
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "the volume of the rehearsal, which is as large as spec.storage.size, has {free} bytes free beside the restored \
         database, and an upgrade needs {needed} bytes for a copy"
    ))
}

/// Upgrades a copy of the restored database, whose server was shut down, as the exchange does with the data directory.
///
/// # Errors
/// What stops the upgrade, for people.
pub async fn rehearse(
    folder: &Path,
    (names, desired): (&Names, &Desired),
    (from, to): (u16, u16),
) -> Result<Rehearsed, String> {
    let started = Instant::now();
    build::copy(folder).await?;
    // The memory of the Job says nothing of that of an instance.
    let server = Server { names, desired, memory: None };
    let built = build::upgrade(&server, from, to).await?;
    let seconds = started.elapsed().as_secs() + 1;
    Ok(Rehearsed { seconds, upgrade_seconds: built.upgrade.as_secs(), warnings: built.warnings })
}
