//! Whether a database has its place in a store.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::access::{Opened, Store};
use super::catch_up::Wal;
use crate::agent::desired::{self, DesiredState};
use crate::agent::ensure;
use crate::api::BackupType;
use crate::backoff::Backoff;
use crate::contract::backup::Place;
use crate::contract::pod::PGDATA;
use crate::pgbackrest::info::Backup;
use crate::pgbackrest::{command, config};
use crate::restore::control;

/// The error of a command that another one keeps from a lock.
const LOCKED: &str = "[050]";
/// The error of a stanza that is of another database.
const OTHER_DATABASE: &str = "[028]";
/// The pause after the former.
const UNLOCKS: Duration = Duration::from_secs(2);

/// The state of the stanza, pgBackRest's record of a database in a store.
#[derive(Clone, Debug)]
pub enum Stanza {
    /// It is being created or compared.
    Pending,
    /// Nothing can be archived.
    Failed(String),
    /// It exists.
    Ready {
        /// Where the archive was empty, since when.
        empty_at: Option<Timestamp>,
        /// Where the archive lacks WAL since its newest full backup, when that was found.
        gap: Option<Timestamp>,
    },
}

/// Creates the stanza, unless it exists: then its record is compared with this database. Afterwards what a
/// former leader has not archived is archived from here.
pub async fn create(desired: &DesiredState, store: &Store, place: &Place, stanza: watch::Sender<Stanza>) {
    let (config, mut access) = (config::path_of(store.nth), store.access.clone());
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let Some(opened) = access.borrow_and_update().opened(place) else {
            if access.changed().await.is_err() {
                return;
            }
            continue;
        };
        let created = async {
            compare(&config, desired).await?;
            let newest = command::info(&config).await?.newest_segment;
            Ok::<_, String>(newest.is_none().then(Timestamp::now))
        };
        match created.await {
            Ok(empty_at) => {
                stanza.send_replace(Stanza::Ready { empty_at, gap: None });
                // Nothing waits for it: with much WAL since the newest full backup it takes minutes.
                if catch_up(&config, desired, &opened).await {
                    stanza.send_replace(Stanza::Ready { empty_at, gap: Some(Timestamp::now()) });
                }
                return;
            }
            Err(error) => {
                let error = opened.secrets.redact(&error);
                tracing::warn!(error, store = place.name, "the archive cannot be created; trying again");
                // Another command of pgBackRest runs, such as a push, and lets it in between two of them.
                if error.starts_with(LOCKED) {
                    tokio::time::sleep(UNLOCKS).await;
                    continue;
                }
                stanza.send_replace(Stanza::Failed(error));
            }
        }
        tokio::select! {
            () = backoff.wait() => {}
            Ok(()) = access.changed() => backoff.reset(),
        }
    }
}

/// Creates the stanza or compares its record with this database, which may be another one since a major upgrade.
async fn compare(config: &Path, desired: &DesiredState) -> Result<(), String> {
    let Err(error) = command::create_stanza(config).await else { return Ok(()) };
    let desired = desired::first(&mut desired.clone()).await;
    let own = control::read(Path::new(PGDATA))?.system_identifier;
    let is_upgraded = desired.lineage.as_ref().is_some_and(|lineage| lineage.current == own);
    if !is_upgraded || !error.starts_with(OTHER_DATABASE) {
        return Err(error);
    }
    tracing::info!("the archive is upgraded: it is of the database from before a major upgrade");
    command::upgrade_stanza(config).await
}

/// Lets PostgreSQL archive what the archive lacks since the newest full backup; returns whether it has a gap that is on
/// the volume no more.
async fn catch_up(config: &Path, desired: &DesiredState, opened: &Opened) -> bool {
    let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
    loop {
        match mark(config, desired).await {
            Ok(has_gap) => return has_gap,
            Err(error) => {
                let error = opened.secrets.redact(&error);
                tracing::warn!(error, "the archive cannot be compared with the volume; trying again");
            }
        }
        backoff.wait().await;
    }
}

async fn mark(config: &Path, desired: &DesiredState) -> Result<bool, String> {
    let archives = desired::first(&mut desired.clone()).await.archive_command();
    let (folder, current) = (Path::new(PGDATA).join("pg_wal"), current_segment(archives).await?);
    let wal = Wal::read(&folder, &current).map_err(unread)?;
    let info = command::info(config).await?;
    let is_base = |backup: &&Backup| {
        backup.kind == BackupType::Full
            && Some(backup.incarnation) == info.incarnation
            && wal.continues(&backup.first_segment)
    };
    let first = info.backups.iter().rfind(is_base).map(|full| full.first_segment.as_str());
    let archived = command::archived(config, &wal.folders(first)).await?;
    let found = wal.mark(first, &archived).map_err(unread)?;
    if found.marked > 0 {
        tracing::info!(count = found.marked, "archiving what the archive lacks");
    }
    if found.missing > 0 {
        tracing::warn!(segments = found.missing, "the archive lacks WAL that this volume does not have any more");
    }
    Ok(found.missing > 0)
}

fn unread(error: std::io::Error) -> String {
    format!("the state of WAL segments cannot be read: {error}")
}

/// The segment that is being written, once the server archives with this command: until it has reloaded its settings,
/// each counts as archived.
async fn current_segment(archives: &str) -> Result<String, String> {
    let connection = ensure::connect("postgres").await.map_err(|error| error.to_string())?;
    let query = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()),
                        pg_catalog.current_setting('archive_command') = $1::text";
    let row =
        connection.client.query_one(query, &[&archives]).await.map_err(|error| crate::postgres::describe(&error))?;
    if !row.get::<_, bool>(1) {
        return Err("the server has not reloaded its settings and does not archive yet".to_owned());
    }
    Ok(row.get(0))
}
