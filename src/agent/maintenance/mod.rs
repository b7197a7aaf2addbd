//! The maintenance of the tenant's database, by the leader: reads what is due, once an hour, and works through it while
//! the operator has a run open, one thing after another. docs/maintenance.md describes it.

pub mod bloat;
mod extension;
pub mod history;
pub mod plan;
pub mod session;
pub mod survey;
pub mod work;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use self::bloat::Bloat;
use self::history::{Entry, History, time};
use self::plan::{Found, Room};
use self::session::{Session, WorkError};
use self::work::{Outcome, Place};
use super::desired::{self, DesiredState, changed};
use super::ensure;
use super::report::Reporter;
use super::statement::EnsureError;
use super::volume;
use crate::api::MaintenanceAction;
use crate::api::names::Names;
use crate::contract::maintenance::{Maintenance, MaintenanceReport, REPORTED, Run, RunReport};
use crate::contract::pod::SOCKET_DIR;

/// Interval between two surveys outside of a run.
const SURVEY: Duration = Duration::from_secs(3600);
/// The same after one that failed.
const RETRY: Duration = Duration::from_secs(60);
/// The pause after an error in a run.
const PAUSE: Duration = Duration::from_secs(5);
/// Indexes with a smaller unused part are not told, in percent.
const TOLD: u8 = 20;

/// What is known of the database's state.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What was last found.
    pub found: Vec<Found>,
    /// The bloat of tables; none before the first measurement.
    pub bloat: Option<Bloat>,
}

/// What is known; empty while another instance leads.
pub type KnownWatch = watch::Receiver<Arc<Known>>;

/// The error of a step.
#[derive(Debug, thiserror::Error)]
enum MaintenanceError {
    /// A session of the maintaining login failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The history cannot be read or written.
    #[error(transparent)]
    History(#[from] EnsureError),
}

/// The maintenance of a database.
pub struct Keeper {
    /// The names.
    pub names: Names,
    /// The desired state.
    pub desired: DesiredState,
    /// The report of this pod.
    pub reporter: Reporter,
    /// Takes what is known, for the metrics.
    pub known: watch::Sender<Arc<Known>>,
}

/// Empties what is known once the work is dropped: another instance leads.
struct Emptied<'a>(&'a watch::Sender<Arc<Known>>);

impl Drop for Emptied<'_> {
    fn drop(&mut self) {
        self.0.send_replace(Arc::default());
    }
}

/// The state between two steps.
#[derive(Default)]
struct Progress {
    history: Option<History>,
    bloat: Option<Bloat>,
    /// The run in which it was measured.
    measured_in: Option<String>,
    /// What was tried in the run with this id: nothing is tried twice in one.
    run: Option<(String, HashSet<(MaintenanceAction, String)>)>,
    tasks: Option<crate::contract::maintenance::Tasks>,
}

impl Keeper {
    /// Maintains until dropped.
    pub async fn keep(&self) {
        let _emptied = Emptied(&self.known);
        let mut state = self.desired.clone();
        let mut progress = Progress::default();
        let mut next = Instant::now();
        loop {
            let desired = desired::first(&mut state).await;
            // An operator that knows no maintenance opens no run.
            let maintenance = desired.maintenance.clone().unwrap_or_default();
            let open = maintenance.run.as_ref().filter(|run| !self.has_ended(run));
            let result = match open {
                Some(run) => self.step(&desired.database, &maintenance, run, &mut progress).await,
                None if Instant::now() >= next || progress.tasks != Some(maintenance.tasks) => {
                    self.survey(&desired.database, &maintenance, &mut progress).await.map(|_| {
                        next = Instant::now() + SURVEY;
                    })
                }
                None => {
                    tokio::select! {
                        () = changed(&mut state) => {}
                        () = tokio::time::sleep_until(next) => {}
                    }
                    continue;
                }
            };
            if let Err(error) = result {
                tracing::warn!(%error, "the maintenance cannot be continued; retrying");
                progress.tasks = Some(maintenance.tasks);
                next = Instant::now() + RETRY;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// The extensions whose version the spec declares: they are not updated to the image's.
    fn pinned_extensions(&self) -> HashSet<String> {
        let state = self.desired.borrow();
        let options = state.iter().flat_map(|desired| &desired.extension_options);
        let pinned = options.filter(|(_, options)| options.version.is_some());
        pinned.map(|(name, _)| name.clone()).collect()
    }

    /// Whether this agent has nothing more to do for a run.
    fn has_ended(&self, run: &Run) -> bool {
        let report = self.reporter.follow();
        let report = report.borrow();
        let known = report.maintenance.as_ref().and_then(|known| known.run.as_ref());
        known.is_some_and(|known| known.id == run.id && known.ended)
    }

    /// Reads what is due, and reports it.
    async fn survey(
        &self,
        database: &str,
        maintenance: &Maintenance,
        progress: &mut Progress,
    ) -> Result<Vec<Found>, MaintenanceError> {
        if progress.history.is_none() {
            let connection = ensure::connect("postgres").await?;
            progress.history = Some(history::read(&connection.client, database).await?);
            progress.bloat = bloat::read(&connection.client, database).await?;
        }
        let history = progress.history.get_or_insert_default();
        let session = Session::monitor(SOCKET_DIR, database).await?;
        let limit = maintenance.tasks.reindex_percent.unwrap_or(TOLD).min(TOLD);
        let mut found = survey::read(session.client(), limit).await.map_err(WorkError::from)?;
        let pinned = self.pinned_extensions();
        let is_update = |found: &Found| matches!(found.cause, plan::Cause::OtherVersion { .. });
        found.retain(|found| !(is_update(found) && pinned.contains(found.object.trim_matches('"'))));
        for found in &mut found {
            if let plan::Cause::Bloat(size) = &mut found.cause {
                *size = size.corrected(history.rebuilt.get(&found.object));
            }
        }
        let due = plan::due(&found, &maintenance.tasks, &history.rebuilt);
        self.known.send_replace(Arc::new(Known { found, bloat: progress.bloat.clone() }));
        progress.tasks = Some(maintenance.tasks);
        let done = history.done.clone();
        self.report(|report| {
            report.surveyed_at = Some(time(Timestamp::now()).0);
            report.due = due.iter().take(REPORTED).map(Found::item).collect();
            report.due_count = i64::try_from(due.len()).unwrap_or(i64::MAX);
            report.done = done;
        });
        Ok(due)
    }

    fn report(&self, change: impl FnOnce(&mut MaintenanceReport)) {
        self.reporter.update(|report| change(report.maintenance.get_or_insert_default()));
    }

    /// Does the next thing of a run, or ends the run.
    async fn step(
        &self,
        database: &str,
        maintenance: &Maintenance,
        run: &Run,
        progress: &mut Progress,
    ) -> Result<(), MaintenanceError> {
        if progress.run.as_ref().is_none_or(|(id, _)| *id != run.id) {
            progress.run = Some((run.id.clone(), HashSet::new()));
            let started_at = time(Timestamp::now()).0;
            let begun = RunReport { id: run.id.clone(), started_at, ..RunReport::default() };
            self.report(|report| report.run = Some(begun));
        }
        if Timestamp::now() >= run.until {
            self.end();
            return Ok(());
        }
        let due = self.survey(database, maintenance, progress).await?;
        let Some((_, tried)) = &mut progress.run else { return Ok(()) };
        let key = |found: &Found| (found.action(), found.object.clone());
        let Some(next) = due.into_iter().find(|due| !tried.contains(&key(due))) else {
            // What is withdrawn meanwhile is measured once the run is open again.
            tokio::select! {
                measured = self.measure(database, run, progress) => measured?,
                () = self.withdrawn(run) => return Ok(()),
            }
            self.end();
            return Ok(());
        };
        tracing::info!(action = ?next.action(), object = next.object, "maintaining");
        self.report_run(|report| report.doing = Some(next.item()));
        let names = self.names.postgres(database);
        let place = Place {
            socket: SOCKET_DIR,
            names: &names,
            reindex_percent: maintenance.tasks.reindex_percent.unwrap_or(100),
            room: volume::size().ok().zip(volume::free().ok()).map(|(size, free)| Room { size, free }),
        };
        let outcome = work::perform(place, &next, run.until, self.withdrawn(run)).await;
        // What was withdrawn is tried again once the run is open again.
        if self.is_open(run) {
            tried.insert(key(&next));
        }
        match outcome {
            Outcome::Ended(entry) => self.record(database, entry, progress).await,
            Outcome::NotDue => {
                self.report_run(|report| report.doing = None);
                Ok(())
            }
        }
    }

    /// Measures the bloat of tables, the last thing in a run, and once in it.
    async fn measure(&self, database: &str, run: &Run, progress: &mut Progress) -> Result<(), MaintenanceError> {
        if progress.measured_in.as_ref() == Some(&run.id) {
            return Ok(());
        }
        let session = Session::monitor(SOCKET_DIR, database).await?;
        let measured = bloat::measure(session.client(), run.until).await.map_err(WorkError::from)?;
        progress.measured_in = Some(run.id.clone());
        let Some(measured) = measured else { return Ok(()) };
        self.known.send_modify(|known| Arc::make_mut(known).bloat = Some(measured.clone()));
        let connection = ensure::connect("postgres").await?;
        bloat::keep(&connection.client, database, &measured).await?;
        progress.bloat = Some(measured);
        Ok(())
    }

    async fn record(&self, database: &str, entry: Entry, progress: &mut Progress) -> Result<(), MaintenanceError> {
        let done = entry.done.clone();
        match &done.failure {
            None => tracing::info!(action = ?done.action, object = done.object, "maintained"),
            Some(failure) => {
                tracing::warn!(action = ?done.action, object = done.object, failure, "the maintenance failed");
            }
        }
        let history = progress.history.get_or_insert_default();
        let added = async {
            let connection = ensure::connect("postgres").await?;
            history.add(&connection.client, database, entry).await
        };
        let added = added.await;
        let newest = history.done.clone();
        self.report(|report| {
            report.done = newest;
            let Some(run) = &mut report.run else { return };
            run.doing = None;
            match done.failure {
                None => run.completed += 1,
                Some(failure) => {
                    run.failed += 1;
                    run.failure = Some(format!("{}: {failure}", done.object));
                }
            }
            run.freed_bytes += done.freed_bytes.unwrap_or_default();
        });
        Ok(added?)
    }

    fn report_run(&self, change: impl FnOnce(&mut RunReport)) {
        self.report(|report| {
            if let Some(run) = &mut report.run {
                change(run);
            }
        });
    }

    fn end(&self) {
        self.report_run(|run| (run.doing, run.ended) = (None, true));
    }

    fn is_open(&self, run: &Run) -> bool {
        let state = self.desired.borrow();
        state
            .as_ref()
            .and_then(|desired| desired.maintenance.as_ref()?.run.as_ref())
            .is_some_and(|open| open.id == run.id)
    }

    /// Resolves once the operator has withdrawn a run.
    async fn withdrawn(&self, run: &Run) {
        let mut state = self.desired.clone();
        while self.is_open(run) {
            changed(&mut state).await;
        }
    }
}
