//! The Job that rehearses a major upgrade on the newest backup (docs/decisions/0089): its state, its creation, its end.
//! The desired state of the agents names it, so it is not lost with the operator.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::{JobRun, RequestState};
use crate::contract::backup::{Nth, Place};
use crate::contract::rehearsal::{RehearsalJob, RehearsalOutcome, VERSION};
use crate::contract::upgrade::{RehearsalRun, Rehearsed, Stage, Upgrade};
use crate::operator::backups::run;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::migrations::remove_job;
use crate::operator::plan::backup;
use crate::operator::validate::Database;

/// How long the Job may be missing, as where the API server refuses it.
const CREATED_WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// How far the Job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is to be created.
    Absent,
    /// It is to be created once the store has a slot.
    Queued,
    /// It has not ended; with the reason where it does not run.
    Runs(Option<String>),
    /// The restored database was upgraded.
    Rehearsed {
        /// The backup.
        label: String,
        /// The times.
        rehearsed: Rehearsed,
    },
    /// The backup could not be restored, or the Job not be started.
    NotRestored(String),
    /// It was ended from outside: another one may succeed.
    Ended(String),
    /// The restored database cannot be upgraded.
    Failed(String),
}

/// The Job of the stage that the agents know.
pub fn of(upgrade: Option<&Upgrade>) -> Option<(&Upgrade, &RehearsalRun)> {
    let upgrade = upgrade.filter(|upgrade| upgrade.stage == Stage::Rehearse)?;
    Some((upgrade, upgrade.rehearsal.as_ref()?))
}

/// The place of the backup that the Job restores; none if the store is not declared any more.
pub fn place<'a>(database: &'a Database, rehearsal: &RehearsalRun) -> Option<&'a Place> {
    let is_its = |place: &&Place| rehearsal.store.as_ref().is_none_or(|store| *store == place.name);
    Nth::ALL.into_iter().filter_map(|nth| database.archive_in(nth)).find(is_its)
}

/// Reads the state of the Job of the stage that the agents know; none without one.
///
/// # Errors
/// Any error of the API server.
pub async fn observe(
    context: &Context,
    database: &Database,
    known: Option<&Upgrade>,
    now: Timestamp,
) -> Result<Option<Progress>, Error> {
    let Some((upgrade, rehearsal)) = of(known) else { return Ok(None) };
    let Some(job) = run::read(context, database, &rehearsal.job).await? else {
        return Ok(Some(missing(context, database, rehearsal, now.duration_since(upgrade.since), now)));
    };
    let mut found = run::found(&job, 0);
    let mut outcome = None;
    let said = |text: &str| {
        outcome = serde_json::from_str::<RehearsalOutcome>(text).ok();
        outcome.as_ref()?.failure.clone()
    };
    run::follow(context, database, &mut found, now, said).await?;
    Ok(Some(progress(&found, outcome)))
}

fn missing(
    context: &Context,
    database: &Database,
    rehearsal: &RehearsalRun,
    waited: SignedDuration,
    now: Timestamp,
) -> Progress {
    match place(database, rehearsal) {
        None => Progress::NotRestored("spec.backup does not name the store of the backup any more".to_owned()),
        Some(place) if !context.backups.take(&database.owner.uid, &place.name, now) => Progress::Queued,
        Some(_) if waited > CREATED_WITHIN => {
            let job = &rehearsal.job;
            Progress::NotRestored(format!("the Job {job} was deleted, or the API server does not accept it"))
        }
        Some(_) => Progress::Absent,
    }
}

/// What the end of a Job means.
fn progress(job: &JobRun, outcome: Option<RehearsalOutcome>) -> Progress {
    if job.state == RequestState::Running {
        return Progress::Runs(job.message.clone());
    }
    let name = &job.job;
    let ended = || job.message.clone().unwrap_or_else(|| format!("the Job {name} has ended, and its result is lost"));
    match outcome {
        Some(RehearsalOutcome { label: Some(label), rehearsed: Some(rehearsed), failure: None, .. }) => {
            Progress::Rehearsed { label, rehearsed }
        }
        Some(RehearsalOutcome { stopped: true, .. }) => {
            Progress::Ended(format!("the pod of the Job {name} was stopped"))
        }
        Some(RehearsalOutcome { label: None, failure: Some(failure), .. }) => Progress::NotRestored(failure),
        Some(RehearsalOutcome { failure: Some(failure), .. }) => Progress::Failed(failure),
        None if run::has_not_started(job) => Progress::NotRestored(ended()),
        _ => Progress::Ended(ended()),
    }
}

/// Ends the Job of a stage that does not hold any more. One that has ended stays for its log.
///
/// # Errors
/// Any error of the API server.
pub async fn withdraw(
    context: &Context,
    database: &Database,
    (known, desired): (Option<&Upgrade>, Option<&Upgrade>),
    progress: Option<&Progress>,
) -> Result<(), Error> {
    let (before, after) = (of(known).map(|(_, run)| &run.job), of(desired).map(|(_, run)| &run.job));
    match (before, progress) {
        // Unknown where the API server did not answer.
        (Some(job), Some(Progress::Runs(_)) | None) if after != Some(job) => {
            tracing::info!(job, "ending the rehearsal of a major upgrade that is not wanted any more");
            remove_job(context, database, job).await
        }
        _ => Ok(()),
    }
}

/// Creates the Job of the desired stage, unless it exists. The value is the refusal of the API server.
///
/// # Errors
/// Any other error of the API server.
pub async fn start(
    context: &Context,
    database: &Database,
    place: &Place,
    system_identifier: Option<&str>,
    (upgrade, rehearsal): (&Upgrade, &RehearsalRun),
) -> Result<Option<String>, Error> {
    let names = database.names();
    let order = RehearsalJob {
        version: VERSION,
        place: place.clone(),
        namespace: names.namespace.clone(),
        name: names.name.clone(),
        system_identifier: system_identifier.map(str::to_owned),
        from: upgrade.from,
        to: upgrade.to,
    };
    let planned = backup::rehearsal(database, &context.options, &rehearsal.job, &order);
    tracing::info!(job = planned.name, store = place.name, "starting a Job");
    match run::replace(context, database, backup::REHEARSAL, &planned).await {
        // Of a stage that does not hold any more: this one follows it.
        Ok(Some(other)) if other.name_any() != planned.name => {
            remove_job(context, database, &other.name_any()).await?;
            Ok(None)
        }
        Ok(_) => Ok(None),
        Err(error) if error.is_refusal() => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: RequestState, message: Option<&str>) -> JobRun {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().expect("a time");
        let job = run::starting("chat-db-rehearse-1".to_owned(), 0, None, now);
        JobRun { state, message: message.map(str::to_owned), ..job }
    }

    fn failed(label: Option<&str>, failure: &str) -> RehearsalOutcome {
        let (label, failure) = (label.map(str::to_owned), Some(failure.to_owned()));
        RehearsalOutcome { label, failure, ..RehearsalOutcome::default() }
    }

    #[test]
    fn the_result_says_whether_the_backup_or_the_database_or_the_pod_was_the_cause() {
        let run = ended(RequestState::Running, Some("pending"));
        assert_eq!(progress(&run, None), Progress::Runs(Some("pending".into())));
        let rehearsed = Rehearsed { seconds: 9, upgrade_seconds: 3, warnings: Vec::new() };
        let outcome = RehearsalOutcome {
            label: Some("b".into()),
            rehearsed: Some(rehearsed.clone()),
            ..RehearsalOutcome::default()
        };
        let done = ended(RequestState::Done, None);
        assert_eq!(progress(&done, Some(outcome)), Progress::Rehearsed { label: "b".into(), rehearsed });
        assert!(matches!(progress(&done, None), Progress::Ended(why) if why.contains("result is lost")));
        let job = ended(RequestState::Failed, Some("said"));
        let of = |outcome| progress(&job, Some(outcome));
        assert_eq!(
            of(failed(None, "the store does not answer")),
            Progress::NotRestored("the store does not answer".into())
        );
        assert_eq!(of(failed(Some("b"), "pg_upgrade: no")), Progress::Failed("pg_upgrade: no".into()));
        let stopped = RehearsalOutcome { stopped: true, ..failed(Some("b"), "the pod was stopped") };
        assert!(matches!(of(stopped), Progress::Ended(why) if why.contains("chat-db-rehearse-1")));
        assert_eq!(progress(&job, None), Progress::Ended("said".into()), "killed without a word");
        let unstarted = ended(RequestState::Failed, Some("the Job did not start within 15 minutes: no volume"));
        assert!(matches!(progress(&unstarted, None), Progress::NotRestored(why) if why.contains("no volume")));
    }
}
