//! The access to a store: every instance reads its keys and keeps pgBackRest's configuration for it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::progress::Marker;
use super::spool::results;
use crate::agent::desired::{self, DesiredState};
use crate::agent::records::{RecordsError, Source};
use crate::backoff::{Backoff, jittered};
use crate::contract::backup::{Nth, Place};
use crate::files;
use crate::pgbackrest::config;
use crate::pgbackrest::secrets::{Secrets, SecretsError};

/// Interval between two reads of the keys in Vault: keys that are refused are read again at once.
const KEYS_INTERVAL: Duration = Duration::from_secs(3600);
/// The same while nothing can be archived: the keys may have been rotated.
const KEYS_INTERVAL_ON_FAILURE: Duration = Duration::from_secs(30);
/// Options of the agents' commands. Segments are pushed beside PostgreSQL; how long it waits for one, in seconds,
/// is short, since at a shutdown it tries three times, and nobody leads meanwhile.
const OPTIONS: &str = "archive-async=y

[global:archive-push]
archive-timeout=30
";

/// One of the stores, as this instance has access to it; cheap to clone.
#[derive(Clone)]
pub struct Store {
    /// Which one.
    pub nth: Nth,
    /// The access.
    pub access: watch::Receiver<Access>,
    /// Whether the leader cannot archive: the keys are then read again soon.
    pub fails: watch::Sender<bool>,
    /// The end of a lead that gave WAL up, if its container ended with it.
    pub given_up: Option<Timestamp>,
}

/// The access to a store.
#[derive(Clone)]
pub enum Access {
    /// It is not known yet, or nothing is to be archived.
    Unknown,
    /// The keys cannot be read, or are no keys.
    Failed(String),
    /// The configuration opens it.
    Open(Arc<Opened>),
}

/// A store that the configuration opens.
pub struct Opened {
    place: Place,
    /// What opens it.
    pub secrets: Secrets,
    /// When the configuration was written.
    pub written: Instant,
}

impl Access {
    /// The store of this place, if the configuration opens it.
    pub fn opened(&self, place: &Place) -> Option<Arc<Opened>> {
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

/// Keeps the configuration for a store from now on.
pub fn follow(nth: Nth, desired: DesiredState, records: Source) -> Store {
    let (configured, access) = watch::channel(Access::Unknown);
    let fails = watch::Sender::new(false);
    // Of a lead that ended with its container: as a replica, this instance gives nothing up.
    let given_up = Marker::take(nth);
    tokio::spawn(keep_configured(nth, desired, records, configured, fails.subscribe()));
    Store { nth, access, fails, given_up }
}

async fn keep_configured(
    nth: Nth,
    mut state: DesiredState,
    records: Source,
    configured: watch::Sender<Access>,
    mut fails: watch::Receiver<bool>,
) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut former: Option<Place> = None;
    loop {
        let Some(place) = desired::first(&mut state).await.archive_in(nth).cloned() else {
            if let Err(error) = config::remove(nth) {
                tracing::warn!(%error, "pgBackRest's configuration cannot be removed");
            }
            configured.send_replace(Access::Unknown);
            desired::changed(&mut state).await;
            continue;
        };
        let is_open = configured.borrow().opened(&place).is_some();
        let wait = match configure(nth, &records, &place).await {
            Ok((secrets, changed)) => {
                backoff.reset();
                if changed {
                    tracing::info!(store = place.name, "the configuration of the WAL archive was written");
                }
                // What the former place has says nothing of this one.
                if former.replace(place.clone()).is_some_and(|former| former != place)
                    && let Err(error) = files::remove_tree(&results(nth))
                {
                    tracing::warn!(%error, "the results of the former WAL archive cannot be removed");
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
            () = another_place(nth, &mut state, &place) => backoff.reset(),
            () = tokio::time::sleep(wait) => {}
            Ok(()) = fails.changed() => {}
        }
    }
}

/// Waits until the desired state names another place.
async fn another_place(nth: Nth, state: &mut DesiredState, place: &Place) {
    while desired::first(state).await.archive_in(nth) == Some(place) {
        desired::changed(state).await;
    }
}

/// Reads the keys and writes the configuration; returns them, and whether it differs from the one
/// before.
async fn configure(nth: Nth, records: &Source, place: &Place) -> Result<(Secrets, bool), ConfigureError> {
    let vault = records.open().await?.vault;
    let secrets = Secrets::read(&*vault, place).await?;
    let spool = config::spool_of(nth);
    let config = config::Config { place, spool, options: OPTIONS, database: &config::local() };
    let changed = config.write(config::folder_of(nth), &secrets)?;
    Ok((secrets, changed))
}
