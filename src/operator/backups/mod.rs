//! Base backups and their tests: whether one is due, its Job, and the result. What is in the store is read by the
//! leader's agent; the result of a backup's Job only says whether it failed, and why.

mod due;
pub mod removal;
pub mod run;
pub mod schedule;
pub mod slots;

use std::mem;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::context::Context;
use super::observe::Observation;
use super::plan::backup;
use super::validate::Database;
use crate::api::{
    BackupRunStatus, BackupType, JobRun, MigrationRecord, MigrationState, RequestState, SchemaVersion,
    ServiceDatabaseStatus, VerifiedBackup,
};
use crate::contract::backup::{Nth, Place};
use crate::contract::backup_job::{BackupOutcome, VerificationOutcome};
use crate::contract::desired::BackupRun;
use crate::contract::report::{ArchiveReport, CatalogueEntry, Report};
use crate::operator::context::error::Error;
use due::{Due, Known};

/// How long ago a migration was applied that a restored ledger must have.
const ARCHIVED: SignedDuration = SignedDuration::from_hours(1);

/// The backups of one database in this reconcile.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last Job of a backup.
    pub last: Option<BackupRunStatus>,
    /// The same of a backup in the second store.
    pub second_last: Option<BackupRunStatus>,
    /// When a backup is to start next.
    pub next_at: Option<Timestamp>,
    /// The last Job of a test.
    pub last_verification: Option<JobRun>,
    /// The last backup whose test succeeded.
    pub verified: Option<VerifiedBackup>,
    /// When to look again; no part of status.
    pub again_at: Option<Timestamp>,
    /// When WAL was last given up, as status has it.
    given_up_at: Option<Timestamp>,
    /// The same of the second store.
    second_given_up_at: Option<Timestamp>,
    /// The stores in status.
    first_store: Option<String>,
    second_store: Option<String>,
    /// When a restore in place last left a timeline, as status has it.
    left_at: Option<Timestamp>,
    /// The Job that is to be created.
    start: Option<Start>,
}

/// A Job that is to be created.
#[derive(Clone, Debug)]
enum Start {
    /// A backup, and whether older ones expire after it.
    Backup(Nth, BackupRunStatus, bool),
    Verification(Nth, JobRun),
}

impl State {
    /// The state in status.
    pub fn recorded(status: &ServiceDatabaseStatus) -> Self {
        let Some(backup) = &status.backup else { return Self::default() };
        let second = backup.second.as_ref();
        Self {
            last: backup.last_run.clone(),
            second_last: second.and_then(|second| second.last_run.clone()),
            next_at: backup.next_at.as_ref().map(|at| at.0),
            last_verification: backup.last_verification.clone(),
            verified: backup.verified.clone(),
            again_at: None,
            given_up_at: backup.given_up_at.as_ref().map(|at| at.0),
            second_given_up_at: second.and_then(|second| second.given_up_at.as_ref()).map(|at| at.0),
            first_store: Some(backup.store.clone()),
            second_store: second.map(|second| second.store.clone()),
            left_at: backup.left_timelines.last().map(|left| left.left_at.0),
            start: None,
        }
    }

    /// Notes that the database became another one at this time, by a major upgrade: no backup from before is continued.
    pub fn note_upgrade(&mut self, at: Option<Timestamp>) {
        self.left_at = self.left_at.max(at);
    }

    /// The last Job of a backup, or the one that is to be created, as agents need to know it.
    pub fn run(&self) -> Option<BackupRun> {
        let run = match &self.start {
            Some(Start::Backup(_, run, _)) => run,
            _ => self.lasts().max_by_key(|(_, last)| (runs(&last.run), last.run.started_at.0))?.1,
        };
        Some(BackupRun { job: run.run.job.clone(), runs: runs(&run.run) })
    }

    /// The last Job of a backup in one of the stores.
    fn last_in(&self, nth: Nth) -> Option<&BackupRunStatus> {
        match nth {
            Nth::First => self.last.as_ref(),
            Nth::Second => self.second_last.as_ref(),
        }
    }

    fn last_in_mut(&mut self, nth: Nth) -> &mut Option<BackupRunStatus> {
        match nth {
            Nth::First => &mut self.last,
            Nth::Second => &mut self.second_last,
        }
    }

    /// When WAL was last given up for one of the stores, as status has it.
    fn given_up_in(&self, nth: Nth) -> Option<Timestamp> {
        match nth {
            Nth::First => self.given_up_at,
            Nth::Second => self.second_given_up_at,
        }
    }

    /// The last Jobs of backups.
    fn lasts(&self) -> impl Iterator<Item = (Nth, &BackupRunStatus)> {
        Nth::ALL.into_iter().filter_map(move |nth| Some((nth, self.last_in(nth)?)))
    }

    /// The newest usable backup of all stores, and its place. Of two that are equally new it is the first store's.
    pub fn newest_usable_of_all<'a>(
        &self,
        database: &'a Database,
        report: Option<&'a Report>,
        upgraded_at: Option<Timestamp>,
    ) -> Option<(&'a CatalogueEntry, &'a Place)> {
        let usable = Nth::ALL.into_iter().filter_map(|nth| {
            let place = database.archive_in(nth)?;
            let newest = self.newest_usable((nth, place.name.as_str()), report?.archive_in(nth), upgraded_at)?;
            Some((newest, place))
        });
        usable.reduce(|best, other| if other.0.started_at > best.0.started_at { other } else { best })
    }

    /// The newest backup in a store that leads to the present: what was archived after it is of the same database and has
    /// no gap. None if there is none, or the archive does not work. `upgraded_at`: when a major upgrade began another
    /// database.
    fn newest_usable<'a>(
        &self,
        (nth, store): (Nth, &str),
        archive: Option<&'a ArchiveReport>,
        upgraded_at: Option<Timestamp>,
    ) -> Option<&'a CatalogueEntry> {
        let archive = archive.filter(|archive| archive.store == store && archive.failure.is_none())?;
        let catalogue = archive.catalogue.as_ref()?;
        let (full, newest) = (catalogue.newest_full.as_ref()?, catalogue.newest.as_ref()?);
        let is_of_this = self.left_at.max(upgraded_at).is_none_or(|left| full.started_at > left);
        let is_whole = archive.given_up_at.max(self.given_up_in(nth)).is_none_or(|at| newest.started_at > at);
        Some(newest).filter(|_| is_of_this && is_whole)
    }

    /// To be looked at again at this time, at the latest.
    pub fn look_again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |before| before.min(at)));
    }

    fn is_running(&self) -> (bool, bool) {
        (self.lasts().any(|(_, last)| runs(&last.run)), self.last_verification.as_ref().is_some_and(runs))
    }

    /// The state of the database's stores: each keeps its own where the two changed places, and that of another second
    /// store is left.
    fn of(mut self, database: &Database) -> Self {
        let [first, second] = Nth::ALL.map(|nth| database.archive_in(nth).map(|place| &place.name));
        if first.is_some() && self.second_store.as_ref() == first && self.first_store.as_ref() != first {
            mem::swap(&mut self.last, &mut self.second_last);
            mem::swap(&mut self.given_up_at, &mut self.second_given_up_at);
            mem::swap(&mut self.first_store, &mut self.second_store);
        }
        if self.second_store.as_ref() == second && second.is_some() {
            return self;
        }
        Self { second_last: None, second_given_up_at: None, second_store: second.cloned(), ..self }
    }

    /// The store that a running Job loads.
    fn loaded<'a>(&self, database: &'a Database) -> Option<&'a Place> {
        let backs_up = self.lasts().find(|(_, last)| runs(&last.run)).map(|(nth, _)| nth);
        database.archive_in(backs_up.unwrap_or_else(|| self.to_verify(database, true)))
    }

    /// The store whose newest backup is tested next: the two take turns. One that failed has its turn again.
    fn to_verify(&self, database: &Database, has_second: bool) -> Nth {
        let is_seconds_turn = database.second_archive.as_ref().filter(|_| has_second).is_some_and(|second| {
            self.verified.as_ref().is_some_and(|verified| verified.store.as_ref() != Some(&second.name))
        });
        if is_seconds_turn { Nth::Second } else { Nth::First }
    }
}

fn runs(run: &JobRun) -> bool {
    run.state == RequestState::Running
}

/// Decides whether a Job starts, where one may, and reads the result of those that run.
///
/// # Errors
/// Any error of the API server.
pub async fn decide(
    context: &Context,
    database: &Database,
    observed: &Observation,
    (recorded, may_start): (State, bool),
    now: Timestamp,
) -> Result<State, Error> {
    let uid = &database.owner.uid;
    if database.archive.is_none() {
        context.backups.release(uid);
        return Ok(State { next_at: None, ..recorded });
    }
    let mut state = State { next_at: None, ..recorded.of(database) };
    find_unknown(context, database, observed, &mut state).await?;
    follow(context, database, &mut state, now).await?;
    let (backs_up, verifies) = state.is_running();
    if let Some(place) = state.loaded(database).filter(|_| backs_up || verifies) {
        context.backups.hold(uid, &place.name, now);
        // Nothing else may tell of a Job that does not start.
        state.again_at = Some(now + slots::WAIT);
    } else if may_start {
        // Otherwise the Job of a rehearsal may have it. One that is held without a word is free after a while.
        context.backups.release(uid);
    }
    if backs_up || !may_start {
        return Ok(state);
    }
    let Some((nth, due)) = choose(database, observed, &mut state, now) else { return Ok(state) };
    let Some(place) = database.archive_in(nth).filter(|_| due.is_some() || !verifies) else { return Ok(state) };
    if !context.backups.take(uid, &place.name, now) {
        state.again_at = Some(now + slots::WAIT);
        return Ok(state);
    }
    let (names, backups) = (database.names(), &database.backups);
    state.start = Some(if let Some((kind, expires)) = due {
        let failures = state.last_in(nth).map_or(0, |last| last.run.failures);
        // A Job of the schedule is no answer to a request for the other store.
        let request = request_in(database, nth).map(|(token, _)| token.to_owned());
        let run = run::starting(names.backup_job(now.as_second()), failures, request, now);
        Start::Backup(nth, BackupRunStatus { kind, run }, expires)
    } else {
        let failures = state.last_verification.as_ref().map_or(0, |last| last.failures);
        let request = backups.verification_request.clone();
        Start::Verification(nth, run::starting(names.verification_job(now.as_second()), failures, request, now))
    });
    Ok(state)
}

/// The store for which a Job is due: of a backup, with its type and whether older ones expire, or of a test. None is:
/// `state` has when to look again.
fn choose(
    database: &Database,
    observed: &Observation,
    state: &mut State,
    now: Timestamp,
) -> Option<(Nth, Option<(BackupType, bool)>)> {
    let report = observed.primary().and_then(|primary| primary.report.as_ref());
    let archive_in = |nth: Nth| {
        let (place, archive) = (database.archive_in(nth)?, report?.archive_in(nth)?);
        Some(archive).filter(|archive| archive.store == place.name && archive.failure.is_none())
    };
    let earlier = |one: Option<Timestamp>, other: Option<Timestamp>| [one, other].into_iter().flatten().min();
    for (nth, archive) in Nth::ALL.into_iter().filter_map(|nth| Some((nth, archive_in(nth)?))) {
        let decided = due::decide(&known(database, state, (nth, archive), now));
        match decided {
            // Where full backups are counted, nothing expires with an incremental one but what an extra one made surplus.
            Due::Now(kind) => {
                let expires = kind == BackupType::Full || database.backups.retention_full_backups.is_none();
                return Some((nth, Some((kind, expires))));
            }
            Due::Extra => return Some((nth, Some((BackupType::Full, false)))),
            Due::Later(next_at) => {
                state.again_at = earlier(state.again_at, next_at);
                state.next_at = earlier(state.next_at, next_at);
            }
        }
    }
    let newest = |nth: Nth| archive_in(nth)?.catalogue.as_ref()?.newest.as_ref();
    let turn = state.to_verify(database, newest(Nth::Second).is_some());
    // One that is away does not keep the other from being tested.
    let nth = [turn, turn.other()].into_iter().find(|nth| archive_in(*nth).is_some())?;
    let request = database.backups.verification_request.as_ref();
    let answered = state.last_verification.as_ref().and_then(|last| last.request.as_ref());
    let tested = due::Tested {
        schedule: &database.backups.schedule,
        newest: newest(nth),
        verified_at: state.verified.as_ref().map(|verified| verified.at.0),
        last: state.last_verification.as_ref(),
        is_asked_for: request.is_some() && request != answered,
        now,
    };
    match due::verification(&tested) {
        Due::Now(_) | Due::Extra => Some((nth, None)),
        Due::Later(next) => {
            state.again_at = earlier(state.again_at, next);
            None
        }
    }
}

/// The requested backup, if it is for this store.
fn request_in(database: &Database, nth: Nth) -> Option<(&str, BackupType)> {
    let backups = &database.backups;
    let is_meant = |place: &Place| backups.request_store.as_ref().is_none_or(|store| *store == place.name);
    let (token, kind) = backups.request.as_ref().filter(|_| database.archive_in(nth).is_some_and(is_meant))?;
    Some((token.as_str(), *kind))
}

/// What the decision about a backup in a store depends on.
fn known<'a>(
    database: &'a Database,
    state: &'a State,
    (nth, archive): (Nth, &'a ArchiveReport),
    now: Timestamp,
) -> Known<'a> {
    let (backups, last) = (&database.backups, state.last_in(nth));
    let request = request_in(database, nth);
    let answered = last.and_then(|last| last.run.request.as_deref());
    let is_answered = |token: &str| answered == Some(token);
    let has_failed = last.is_some_and(|last| last.run.state == RequestState::Failed);
    Known {
        schedule: &backups.schedule,
        catalogue: archive.catalogue.as_ref(),
        // The report of an agent that has just started has no earlier gap.
        given_up_at: archive.given_up_at.max(state.given_up_in(nth)),
        left_at: state.left_at,
        last: last.map(|last| &last.run),
        in_other_store: state.last_in(nth.other()).map(|last| &last.run),
        request: request.filter(|(token, _)| !is_answered(token)).map(|(_, kind)| kind),
        repetition: request.filter(|(token, _)| is_answered(token) && has_failed).map(|(_, kind)| kind),
        now,
    }
}

/// The store of a Job's backup; none for one that the database has no longer.
fn store_of(database: &Database, job: &Job) -> Option<Nth> {
    let Some(store) = backup::second_store(job) else { return Some(Nth::First) };
    database.second_archive.as_ref().filter(|second| second.name == store).map(|_| Nth::Second)
}

/// A Job that status does not know: an operator that ended before status had it left it. The desired state of the
/// agents names that of a backup; a test is found where the next one is created.
async fn find_unknown(
    context: &Context,
    database: &Database,
    observed: &Observation,
    state: &mut State,
) -> Result<(), Error> {
    let (backs_up, _) = state.is_running();
    let desired = observed.own_desired(&database.owner.uid);
    let desired = desired.and_then(|desired| desired.backup.as_ref()).filter(|run| run.runs);
    let is_known = |name: &str| state.lasts().any(|(_, last)| last.run.job == name);
    if let Some(run) = desired.filter(|run| !backs_up && !is_known(&run.job))
        && let Some(job) = run::read(context, database, &run.job).await?
        && let Some(nth) = store_of(database, &job)
    {
        let failures = state.last_in(nth).map_or(0, |last| last.run.failures);
        *state.last_in_mut(nth) = Some(BackupRunStatus { kind: backup::kind(&job), run: run::found(&job, failures) });
    }
    Ok(())
}

/// Creates the Job that was decided on, in place of those before it: their pods' logs were there to be read. What cannot
/// be created has failed, and is tried again like any other.
///
/// # Errors
/// Any error of the API server.
pub async fn start(
    context: &Context,
    database: &Database,
    observed: &Observation,
    state: &mut State,
) -> Result<(), Error> {
    let Some(start) = state.start.take() else { return Ok(()) };
    let (Start::Backup(nth, ..) | Start::Verification(nth, _)) = &start;
    let Some(place) = database.archive_in(*nth) else { return Ok(()) };
    let (component, planned) = match &start {
        Start::Backup(_, run, expires) => {
            (backup::COMPONENT, backup::job(database, &context.options, place, run, *expires))
        }
        Start::Verification(_, run) => {
            let ledger = observed.primary().and_then(|primary| primary.report.as_ref()?.ledger.as_ref());
            let applied = ledger.and_then(|ledger| long_applied(&ledger.recent, context.now()));
            let expected = (observed.system_identifier.as_deref(), applied);
            (backup::VERIFICATION, backup::verification(database, &context.options, place, expected, run))
        }
    };
    tracing::info!(job = planned.name, store = place.name, "starting a Job");
    let created = run::replace(context, database, component, &planned).await;
    let (refused, found) = match created {
        // The API server may have created it nevertheless: the next reconcile finds it.
        Err(error) if !error.is_refusal() => return Err(error),
        Err(error) => (Some(error.to_string()), None),
        Ok(found) => (None, found),
    };
    let recorded = |mut run: JobRun| {
        if let Some(refused) = &refused {
            run::fail(&mut run, context.now(), format!("the API server refuses the Job: {refused}"));
        }
        found.as_ref().map_or_else(|| run.clone(), |found| run::found(found, run.failures))
    };
    match start {
        Start::Backup(nth, BackupRunStatus { kind, run }, _) => {
            // The one that was found may be for the other store.
            let nth = found.as_ref().map_or(Some(nth), |job| store_of(database, job));
            let kind = found.as_ref().map_or(kind, backup::kind);
            if let Some(nth) = nth {
                *state.last_in_mut(nth) = Some(BackupRunStatus { kind, run: recorded(run) });
            }
        }
        Start::Verification(_, run) => state.last_verification = Some(recorded(run)),
    }
    Ok(())
}

/// The newest migration that the archive has: WAL of the last hour may still wait for it.
fn long_applied(recent: &[MigrationRecord], now: Timestamp) -> Option<SchemaVersion> {
    let is_old = |record: &&MigrationRecord| {
        let started = record.started_at.as_ref();
        record.state == MigrationState::Completed && started.is_some_and(|at| now.duration_since(at.0) > ARCHIVED)
    };
    recent.iter().find(is_old).map(|record| record.version.clone())
}

/// Reads the state of the Jobs that status says run.
async fn follow(context: &Context, database: &Database, state: &mut State, now: Timestamp) -> Result<(), Error> {
    for nth in Nth::ALL {
        let Some(last) = state.last_in_mut(nth).as_mut().filter(|last| runs(&last.run)) else { continue };
        let said = |text: &str| serde_json::from_str::<BackupOutcome>(text).ok()?.failure;
        run::follow(context, database, &mut last.run, now, said).await?;
    }
    let Some(last) = state.last_verification.as_mut().filter(|last| last.state == RequestState::Running) else {
        return Ok(());
    };
    let mut outcome = None;
    let said = |text: &str| {
        outcome = serde_json::from_str::<VerificationOutcome>(text).ok();
        let outcome = outcome.as_ref()?;
        let store = outcome.store.as_ref().filter(|_| database.second_archive.is_some());
        let of = store.map(|store| format!("store {store}: ")).unwrap_or_default();
        outcome.failure.as_ref().map(|failure| format!("{of}{failure}"))
    };
    run::follow(context, database, last, now, said).await?;
    let seconds = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    if last.state == RequestState::Done
        && let Some(VerificationOutcome {
            label: Some(label),
            store,
            recovered_until,
            restore_seconds,
            check_seconds,
            ..
        }) = outcome
    {
        let store = store.filter(|_| database.second_archive.is_some());
        let at = last.finished_at.clone().unwrap_or(Time(now));
        let (restore_seconds, check_seconds) = (seconds(restore_seconds), seconds(check_seconds));
        state.verified = Some(VerifiedBackup { label, store, at, recovered_until, restore_seconds, check_seconds });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::report::Catalogue;

    #[test]
    fn a_backup_before_a_gap_or_of_another_database_does_not_lead_to_the_present() {
        let at = |hour: u8| format!("2026-11-29T{hour:02}:00:00Z").parse::<Timestamp>().expect("a time");
        let entry = |kind, hour| CatalogueEntry {
            label: format!("b{hour}"),
            kind,
            started_at: at(hour),
            finished_at: at(hour),
            database_bytes: 1,
            stored_bytes: 1,
        };
        let archive = |given_up_at, failure: Option<&str>| ArchiveReport {
            store: "main".into(),
            archived_at: None,
            waiting: 0,
            failure: failure.map(str::to_owned),
            given_up_at,
            catalogue: Some(Catalogue {
                newest_full: Some(entry(BackupType::Full, 3)),
                newest: Some(entry(BackupType::Incremental, 6)),
                ..Catalogue::default()
            }),
        };
        let newest = |state: &State, archive: &ArchiveReport, upgraded: Option<u8>| {
            state
                .newest_usable((Nth::First, "main"), Some(archive), upgraded.map(at))
                .map(|newest| newest.label.clone())
        };
        let (state, whole) = (State::default(), archive(None, None));
        assert_eq!(newest(&state, &whole, None).as_deref(), Some("b6"));
        assert_eq!(newest(&state, &whole, Some(2)).as_deref(), Some("b6"));
        assert_eq!(newest(&state, &whole, Some(4)), None, "it stands on a full one of the former database");
        assert_eq!(
            newest(&State { left_at: Some(at(4)), ..State::default() }, &whole, Some(2)),
            None,
            "a restore in place"
        );
        assert_eq!(newest(&state, &archive(Some(at(5)), None), None).as_deref(), Some("b6"), "the gap is before it");
        assert_eq!(newest(&state, &archive(Some(at(7)), None), None), None);
        assert_eq!(newest(&state, &archive(None, Some("no answer")), None), None);
        assert!(
            state.newest_usable((Nth::First, "other"), Some(&whole), None).is_none(),
            "the report is of a former store"
        );
    }

    #[test]
    fn a_restored_ledger_must_have_what_was_applied_an_hour_before() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().expect("a time");
        let record = |version: i64, minutes: i64, state| MigrationRecord {
            version: version.into(),
            started_at: Some(Time(now - SignedDuration::from_mins(minutes))),
            state,
            name: String::new(),
            duration_ms: None,
            error: None,
        };
        let recent = [
            record(9, 5, MigrationState::Completed),
            record(8, 90, MigrationState::Failed),
            record(7, 120, MigrationState::Completed),
            record(6, 130, MigrationState::Completed),
        ];
        assert_eq!(long_applied(&recent, now), Some(7.into()));
        assert_eq!(long_applied(&recent[..2], now), None);
    }
}
