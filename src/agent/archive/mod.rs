//! Continuous archiving. Every instance keeps pgBackRest's configuration, so that whoever is promoted
//! archives at once; the leader creates the stanza, reports how far the archive is, and gives WAL up
//! before it fills the volume. With two stores all of this is done for each of them, and neither depends on the other.

mod access;
mod catalogue;
mod catch_up;
mod complete;
mod progress;
mod push_on;
mod segment;
mod server;
mod spool;
mod stanza;
mod writes;

use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;

use super::desired::{self, DesiredState};
use super::ensure;
use super::records::Source;
use super::report::Reporter;
use crate::contract::backup::{Nth, Place};
use crate::contract::desired::Desired;
use crate::contract::report::Catalogue;
use crate::output::Output;
pub use progress::room;

use access::{Access, Store};
use progress::Progress;
use segment::Segment;
use stanza::Stanza;
use writes::Writes;

/// Interval between two looks at the archive's progress.
const INTERVAL: Duration = Duration::from_secs(10);
/// Timeout of the checkpoint that removes WAL which was given up.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);

/// The archive of this instance; cheap to clone.
#[derive(Clone)]
pub struct Archive {
    desired: DesiredState,
    stores: [Store; 2],
}

/// Keeps the configurations of this instance from now on.
pub fn follow(desired: DesiredState, records: Source, output: Output) -> Archive {
    let stores = Nth::ALL.map(|nth| access::follow(nth, desired.clone(), records.clone()));
    tokio::spawn(server::follow(desired.clone(), output));
    Archive { desired, stores }
}

/// The stores that the desired state names.
fn places(desired: &Desired) -> Vec<(Nth, Place)> {
    Nth::ALL.into_iter().filter_map(|nth| Some((nth, desired.archive_in(nth)?.clone()))).collect()
}

/// Waits until the desired state names other places.
async fn other_places(state: &mut DesiredState, known: &[(Nth, Place)]) {
    loop {
        let desired = desired::first(state).await;
        if places(&desired) != known {
            return;
        }
        desired::changed(state).await;
    }
}

/// A store that the leader archives to.
struct Watched<'a> {
    store: &'a Store,
    place: &'a Place,
    stanza: watch::Receiver<Stanza>,
    catalogue: watch::Receiver<Option<Catalogue>>,
    progress: Progress,
}

impl Archive {
    /// Archives for as long as this pod leads.
    pub async fn keep(self, reporter: &Reporter) {
        let mut state = self.desired.clone();
        loop {
            let desired = desired::first(&mut state).await;
            let places = places(&desired);
            for store in &self.stores {
                if places.iter().all(|(nth, _)| *nth != store.nth) {
                    store.fails.send_replace(false);
                    reporter.update(|report| *report.archive_in_mut(store.nth) = None);
                }
            }
            if places.is_empty() {
                // An archive that filled the volume may have been turned off for it.
                Writes::new(reporter).follow(None).await;
                desired::changed(&mut state).await;
                continue;
            }
            let (mut kept, mut watched) = (Vec::new(), Vec::new());
            let is_one_of_two = places.len() > 1;
            let chosen = places.iter().filter_map(|(nth, place)| {
                let store = self.stores.iter().find(|store| store.nth == *nth)?;
                Some((store, place))
            });
            for (store, place) in chosen {
                let (stanza, known) = watch::channel(Stanza::Pending);
                let (read, catalogue) = watch::channel(None);
                let progress = Progress::new(store.nth, is_one_of_two, store.given_up);
                watched.push(Watched { store, place, stanza: known.clone(), catalogue, progress });
                kept.push(self.keep_store((store, place), (stanza, known), read, is_one_of_two));
            }
            // Neither waits for the other: a store that does not answer must not keep the volume from being watched.
            let work = async { tokio::join!(join_all(kept), self.watch_progress(watched, reporter)) };
            tokio::select! {
                _ = work => {}
                () = other_places(&mut state, &places) => {}
            }
        }
    }

    async fn keep_store(
        &self,
        (store, place): (&Store, &Place),
        (stanza, known): (watch::Sender<Stanza>, watch::Receiver<Stanza>),
        read: watch::Sender<Option<Catalogue>>,
        is_one_of_two: bool,
    ) {
        let push_on = async {
            if is_one_of_two {
                push_on::keep(store.nth).await;
            }
        };
        tokio::join!(
            stanza::create(&self.desired, store, place, stanza),
            catalogue::keep(store.nth, self.desired.clone(), known, read),
            push_on
        );
    }

    async fn watch_progress(&self, mut watched: Vec<Watched<'_>>, reporter: &Reporter) {
        let mut segment = Segment::default();
        let mut writes = Writes::new(reporter);
        loop {
            let access: Vec<_> = watched.iter().map(|it| it.store.access.borrow().clone()).collect();
            let opened: Vec<_> = watched.iter().zip(&access).map(|(it, access)| access.opened(it.place)).collect();
            let refused: Vec<_> = watched.iter_mut().zip(&access).map(|(it, access)| it.refusal(access)).collect();
            let read = tokio::time::timeout(INTERVAL, async {
                let connection = ensure::connect("postgres").await.map_err(|error| error.to_string())?;
                segment.end_if_late(&connection.client).await?;
                for (it, opened) in watched.iter_mut().zip(&opened) {
                    let written = opened.as_ref().map(|opened| opened.written);
                    it.progress.read_statistics(&connection.client, written).await?;
                }
                Ok::<_, String>(())
            });
            if let Ok(Err(error)) = read.await {
                tracing::debug!(error, "the statistics of the archiver cannot be read");
            }
            let policy = desired::first(&mut self.desired.clone()).await.when_volume_fills;
            let (mut frees, mut stops, mut is_known) = (false, None, true);
            for ((it, opened), refused) in watched.iter_mut().zip(&opened).zip(&refused) {
                match it.progress.look(refused.is_some() || opened.is_none(), policy) {
                    Ok(look) => {
                        frees |= look.gives_up;
                        stops = stops.or(look.stops_writes.then_some(it.place.name.as_str()));
                    }
                    Err(error) => {
                        is_known = false;
                        tracing::warn!(%error, "the WAL that waits for the archive cannot be counted");
                    }
                }
            }
            if is_known {
                writes.follow(stops).await;
            }
            let mut reports = Vec::new();
            for ((it, opened), refused) in watched.iter_mut().zip(opened).zip(refused) {
                let redact =
                    |text: &str| opened.as_ref().map_or_else(|| text.to_owned(), |opened| opened.secrets.redact(text));
                let mut report = it.progress.report(&it.place.name, redact);
                report.failure = refused.or(report.failure);
                report.catalogue.clone_from(&it.catalogue.borrow());
                let now = report.failure.is_some();
                it.store.fails.send_if_modified(|before| std::mem::replace(before, now) != now);
                reports.push((it.store.nth, report));
            }
            reporter.update(|before| {
                for (nth, report) in reports {
                    *before.archive_in_mut(nth) = Some(report);
                }
            });
            // After the report: this lead may end before the checkpoint does.
            if frees {
                free_wal().await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Watched<'_> {
    /// Why nothing can be archived to this store at all; otherwise what its stanza says is noted.
    fn refusal(&mut self, access: &Access) -> Option<String> {
        match (access, self.stanza.borrow().clone()) {
            (Access::Failed(error), _) => Some(error.clone()),
            (_, Stanza::Failed(error)) => Some(error),
            (_, Stanza::Ready { empty_at, gap }) => {
                self.progress.counts_since(empty_at);
                self.progress.has_gap(gap);
                None
            }
            (_, Stanza::Pending) => None,
        }
    }
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
