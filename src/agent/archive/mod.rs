//! Continuous archiving. Every instance keeps pgBackRest's configuration, so that whoever is promoted
//! archives at once; the leader creates the stanza, reports how far the archive is, and gives WAL up
//! before it fills the volume.

mod catalogue;
mod catch_up;
mod progress;
mod segment;
mod server;
mod stanza;
mod writes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::desired::{self, DesiredState};
use super::ensure;
use super::records::{RecordsError, Source};
use super::report::Reporter;
use super::server_log::output::Output;
use crate::api::BackupType;
use crate::backoff::{Backoff, jittered};
use crate::contract::backup::Place;
use crate::contract::pod::{ARCHIVE_COMMAND, ARCHIVE_DIR, PGDATA};
use crate::contract::report::Catalogue;
use crate::pgbackrest::info::Backup;
use crate::pgbackrest::secrets::{Secrets, SecretsError};
use crate::pgbackrest::{command, config};
use crate::restore::control;
pub use progress::room;

use catch_up::Wal;
use progress::Progress;
use segment::Segment;
use stanza::Stanza;
use writes::Writes;

/// Interval between two reads of the keys in Vault: keys that are refused are read again at once.
const KEYS_INTERVAL: Duration = Duration::from_secs(3600);
/// The same while nothing can be archived: the keys may have been rotated.
const KEYS_INTERVAL_ON_FAILURE: Duration = Duration::from_secs(30);
/// Interval between two looks at the archive's progress.
const INTERVAL: Duration = Duration::from_secs(10);
/// Options of the agents' commands. Segments are pushed beside PostgreSQL; how long it waits for one, in seconds,
/// is short, since at a shutdown it tries three times, and nobody leads meanwhile.
const OPTIONS: &str = "archive-async=y

[global:archive-push]
archive-timeout=30
";
/// Timeout of the checkpoint that removes WAL which was given up.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);
/// The error of a command that another one keeps from a lock.
const LOCKED: &str = "[050]";
/// The error of a stanza that is of another database.
const OTHER_DATABASE: &str = "[028]";
/// The pause after the former.
const UNLOCKS: Duration = Duration::from_secs(2);

/// The archive of this instance; cheap to clone.
#[derive(Clone)]
pub struct Archive {
    desired: DesiredState,
    access: watch::Receiver<Access>,
    /// Whether the leader cannot archive: the keys are then read again soon.
    fails: watch::Sender<bool>,
    /// The end of a lead that gave WAL up, if its container ended with it.
    given_up: Option<Timestamp>,
}

/// The access to a store.
#[derive(Clone)]
enum Access {
    /// It is not known yet, or nothing is to be archived.
    Unknown,
    /// The keys cannot be read, or are no keys.
    Failed(String),
    /// The configuration opens it.
    Open(Arc<Opened>),
}

/// A store that the configuration opens.
struct Opened {
    place: Place,
    secrets: Secrets,
    written: Instant,
}

impl Access {
    fn opened(&self, place: &Place) -> Option<Arc<Opened>> {
        match self {
            Self::Open(opened) if opened.place == *place => Some(opened.clone()),
            _ => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ConfigureError {
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("pgBackRest's configuration cannot be written: {0}")]
    Io(#[from] std::io::Error),
}

/// Keeps the configuration of this instance from now on.
pub fn follow(desired: DesiredState, records: Source, output: Output) -> Archive {
    let (configured, access) = watch::channel(Access::Unknown);
    let fails = watch::Sender::new(false);
    // Of a lead that ended with its container: as a replica, this instance gives nothing up.
    let given_up = progress::Marker::take();
    tokio::spawn(keep_configured(desired.clone(), records, configured, fails.subscribe()));
    tokio::spawn(server::follow(desired.clone(), output));
    Archive { desired, access, fails, given_up }
}

async fn keep_configured(
    mut state: DesiredState,
    records: Source,
    configured: watch::Sender<Access>,
    mut fails: watch::Receiver<bool>,
) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let Some(place) = desired::first(&mut state).await.archive.clone() else {
            if let Err(error) = config::remove() {
                tracing::warn!(%error, "pgBackRest's configuration cannot be removed");
            }
            configured.send_replace(Access::Unknown);
            desired::changed(&mut state).await;
            continue;
        };
        let is_open = configured.borrow().opened(&place).is_some();
        let wait = match configure(&records, &place).await {
            Ok((secrets, changed)) => {
                backoff.reset();
                if changed {
                    tracing::info!(store = place.name, "the configuration of the WAL archive was written");
                }
                // The file outlives a restart of the container.
                if changed || !is_open {
                    let opened = Opened { place: place.clone(), secrets, written: Instant::now() };
                    configured.send_replace(Access::Open(Arc::new(opened)));
                }
                jittered(if *fails.borrow_and_update() { KEYS_INTERVAL_ON_FAILURE } else { KEYS_INTERVAL })
            }
            Err(error) => {
                tracing::warn!(%error, store = place.name, "the keys of the store cannot be read; trying again");
                if !is_open {
                    configured.send_replace(Access::Failed(error.to_string()));
                }
                backoff.step()
            }
        };
        tokio::select! {
            () = another_place(&mut state, &place) => backoff.reset(),
            () = tokio::time::sleep(wait) => {}
            Ok(()) = fails.changed() => {}
        }
    }
}

/// Waits until the desired state names another place.
async fn another_place(state: &mut DesiredState, place: &Place) {
    while desired::first(state).await.archive.as_ref() == Some(place) {
        desired::changed(state).await;
    }
}

/// Reads the keys and writes the configuration; returns them, and whether it differs from the one
/// before.
async fn configure(records: &Source, place: &Place) -> Result<(Secrets, bool), ConfigureError> {
    let vault = records.open().await?.vault;
    let secrets = Secrets::read(&*vault, place).await?;
    let config = config::Config { place, options: OPTIONS, database: &config::local() };
    let changed = config.write(Path::new(ARCHIVE_DIR), &secrets)?;
    Ok((secrets, changed))
}

impl Archive {
    /// Archives for as long as this pod leads.
    pub async fn keep(self, reporter: &Reporter) {
        let mut state = self.desired.clone();
        loop {
            let Some(place) = desired::first(&mut state).await.archive.clone() else {
                self.fails.send_replace(false);
                reporter.update(|report| report.archive = None);
                // An archive that filled the volume may have been turned off for it.
                Writes::new(reporter).follow(None).await;
                desired::changed(&mut state).await;
                continue;
            };
            let (stanza, known) = watch::channel(Stanza::Pending);
            // Neither waits for the other: a store that does not answer must not keep the volume from being watched.
            let (read, catalogue) = watch::channel(None);
            let work = async {
                tokio::join!(
                    self.create_stanza(&place, stanza),
                    catalogue::keep(self.desired.clone(), known.clone(), read),
                    self.watch_progress(&place, (known, catalogue), reporter)
                )
            };
            tokio::select! {
                _ = work => {}
                () = another_place(&mut state, &place) => {}
            }
        }
    }

    /// Creates the stanza, unless it exists: then its record is compared with this database. Afterwards what a
    /// former leader has not archived is archived from here.
    async fn create_stanza(&self, place: &Place, stanza: watch::Sender<Stanza>) {
        let mut access = self.access.clone();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let Some(opened) = access.borrow_and_update().opened(place) else {
                if access.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let created = async {
                self.compare_stanza().await?;
                let newest = command::info(&config::path()).await?.newest_segment;
                Ok::<_, String>(newest.is_none().then(Timestamp::now))
            };
            match created.await {
                Ok(empty_at) => {
                    stanza.send_replace(Stanza::Ready { empty_at, gap: None });
                    // Nothing waits for it: with much WAL since the newest full backup it takes minutes.
                    if self.catch_up(&opened).await {
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

    /// Lets PostgreSQL archive what the archive lacks since the newest full backup; returns whether it has a gap that is on
    /// the volume no more.
    async fn catch_up(&self, opened: &Opened) -> bool {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
        loop {
            match catch_up().await {
                Ok(has_gap) => return has_gap,
                Err(error) => {
                    let error = opened.secrets.redact(&error);
                    tracing::warn!(error, "the archive cannot be compared with the volume; trying again");
                }
            }
            backoff.wait().await;
        }
    }

    /// Creates the stanza or compares its record with this database, which may be another one since a major upgrade.
    async fn compare_stanza(&self) -> Result<(), String> {
        let Err(error) = command::create_stanza(&config::path()).await else { return Ok(()) };
        let desired = desired::first(&mut self.desired.clone()).await;
        let own = control::read(Path::new(PGDATA))?.system_identifier;
        let is_upgraded = desired.lineage.as_ref().is_some_and(|lineage| lineage.current == own);
        if !is_upgraded || !error.starts_with(OTHER_DATABASE) {
            return Err(error);
        }
        tracing::info!("the archive is upgraded: it is of the database from before a major upgrade");
        command::upgrade_stanza(&config::path()).await
    }

    async fn watch_progress(
        &self,
        place: &Place,
        (stanza, catalogue): (watch::Receiver<Stanza>, watch::Receiver<Option<Catalogue>>),
        reporter: &Reporter,
    ) {
        let (mut progress, mut segment) = (Progress::new(self.given_up), Segment::default());
        let mut writes = Writes::new(reporter);
        loop {
            let access = self.access.borrow().clone();
            let opened = access.opened(place);
            let refused = match (&access, stanza.borrow().clone()) {
                (Access::Failed(error), _) => Some(error.clone()),
                (_, Stanza::Failed(error)) => Some(error),
                (_, Stanza::Ready { empty_at, gap }) => {
                    progress.counts_since(empty_at);
                    progress.has_gap(gap);
                    None
                }
                (_, Stanza::Pending) => None,
            };
            let read = tokio::time::timeout(INTERVAL, async {
                let connection = ensure::connect("postgres").await.map_err(|error| error.to_string())?;
                segment.end_if_late(&connection.client).await?;
                progress.read_statistics(&connection.client, opened.as_ref().map(|opened| opened.written)).await
            });
            if let Ok(Err(error)) = read.await {
                tracing::debug!(error, "the statistics of the archiver cannot be read");
            }
            let policy = desired::first(&mut self.desired.clone()).await.when_volume_fills;
            let mut frees = false;
            match progress.look(refused.is_some() || opened.is_none(), policy) {
                Ok(look) => {
                    frees = look.gives_up;
                    writes.follow(look.stops_writes.then_some(place.name.as_str())).await;
                }
                Err(error) => tracing::warn!(%error, "the WAL that waits for the archive cannot be counted"),
            }
            let redact =
                |text: &str| opened.as_ref().map_or_else(|| text.to_owned(), |opened| opened.secrets.redact(text));
            let mut report = progress.report(&place.name, redact);
            report.failure = refused.or(report.failure);
            report.catalogue.clone_from(&catalogue.borrow());
            let now = report.failure.is_some();
            self.fails.send_if_modified(|before| std::mem::replace(before, now) != now);
            reporter.update(|before| before.archive = Some(report));
            // After the report: this lead may end before the checkpoint does.
            if frees {
                free_wal().await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

async fn catch_up() -> Result<bool, String> {
    let (folder, current) = (Path::new(PGDATA).join("pg_wal"), current_segment().await?);
    let wal = Wal::read(&folder, &current).map_err(unread)?;
    let info = command::info(&config::path()).await?;
    let is_base = |backup: &&Backup| {
        backup.kind == BackupType::Full
            && Some(backup.incarnation) == info.incarnation
            && wal.continues(&backup.first_segment)
    };
    let first = info.backups.iter().rfind(is_base).map(|full| full.first_segment.as_str());
    let archived = command::archived(&config::path(), &wal.folders(first)).await?;
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

/// The segment that is being written, once the server archives: until it has reloaded its settings, each counts as
/// archived.
async fn current_segment() -> Result<String, String> {
    let connection = ensure::connect("postgres").await.map_err(|error| error.to_string())?;
    let query = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()),
                        pg_catalog.current_setting('archive_command') = $1::text";
    let row = connection
        .client
        .query_one(query, &[&ARCHIVE_COMMAND])
        .await
        .map_err(|error| crate::postgres::describe(&error))?;
    if !row.get::<_, bool>(1) {
        return Err("the server has not reloaded its settings and does not archive yet".to_owned());
    }
    Ok(row.get(0))
}

/// PostgreSQL removes WAL at a checkpoint.
async fn free_wal() {
    let checkpoint = async {
        let connection = ensure::connect("postgres").await.map_err(|error| error.to_string())?;
        connection.client.batch_execute("CHECKPOINT").await.map_err(|error| crate::postgres::describe(&error))
    };
    if let Ok(Err(error)) = tokio::time::timeout(CHECKPOINT_LIMIT, checkpoint).await {
        tracing::warn!(error, "no checkpoint removes the WAL that was given up");
    }
}
