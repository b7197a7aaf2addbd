//! Base backups: whether one is due, its Job, and the result. What is in the store is read by the leader's
//! agent; a Job's result only says whether it failed, and why.

mod due;
pub mod schedule;
pub mod slots;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::apply::{apply_uncached, delete_exactly};
use super::context::Context;
use super::migrations::job_pods::JobPods;
use super::observe::{JobState, Observation, ended, stands};
use super::plan::backup;
use super::validate::{Backups, Database};
use crate::api::names::LABEL_NAME;
use crate::api::{BackupRunStatus, BackupType, RequestState, ServiceDatabaseStatus};
use crate::contract::backup_job::BackupOutcome;
use crate::contract::desired::BackupRun;
use crate::operator::apply::object::{controller_uid, erased};
use crate::operator::context::error::Error;
use due::{Due, Known};

/// How long a Job may lack a pod: its controller creates it at once.
const PATIENCE: SignedDuration = SignedDuration::from_secs(15);

/// The backups of one database in this reconcile.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last Job.
    pub last: Option<BackupRunStatus>,
    /// When a backup is to start next.
    pub next_at: Option<Timestamp>,
    /// Whether the Job is still to be created.
    start: bool,
}

impl State {
    /// The state in status.
    pub fn recorded(status: &ServiceDatabaseStatus) -> Self {
        let backup = status.backup.as_ref();
        Self {
            last: backup.and_then(|backup| backup.last_run.clone()),
            next_at: backup.and_then(|backup| Some(backup.next_at.as_ref()?.0)),
            start: false,
        }
    }

    /// The last Job, as agents need to know it.
    pub fn run(&self) -> Option<BackupRun> {
        let last = self.last.as_ref()?;
        Some(BackupRun { job: last.job.clone(), runs: last.state == RequestState::Running })
    }
}

/// Decides whether a backup starts, and reads the result of one that runs.
///
/// # Errors
/// Any error of the API server.
pub async fn decide(
    context: &Context,
    database: &Database,
    observed: &Observation,
    recorded: State,
    now: Timestamp,
) -> Result<State, Error> {
    let uid = &database.owner.uid;
    let (Some(place), backups) = (&database.archive, &database.backups) else {
        context.backups.release(uid);
        return Ok(State { next_at: None, ..recorded });
    };
    let State { last, .. } = recorded;
    let last = match last {
        Some(last) if last.state == RequestState::Running => Some(follow(context, database, last, now).await?),
        last => last,
    };
    if last.as_ref().is_some_and(|last| last.state == RequestState::Running) {
        context.backups.hold(uid, &place.name);
        return Ok(State { last, next_at: None, start: false });
    }
    context.backups.release(uid);
    let archive = observed.primary().and_then(|primary| primary.report.as_ref()?.archive.as_ref());
    let archive = archive.filter(|archive| archive.store == place.name);
    let due = due::decide(&Known {
        schedule: &backups.schedule,
        catalogue: archive.filter(|archive| archive.failure.is_none()).and_then(|archive| archive.catalogue.as_ref()),
        given_up_at: archive.and_then(|archive| archive.given_up_at),
        last: last.as_ref(),
        request: request(backups, last.as_ref()),
        now,
    });
    let kind = match due {
        Due::Later(next_at) => return Ok(State { last, next_at, start: false }),
        Due::Now(kind) => kind,
    };
    // An operator that ended before status had the Job left it.
    if let Some(found) = running(context, database).await? {
        context.backups.hold(uid, &place.name);
        let last = BackupRunStatus { failures: failures(last.as_ref()), ..found };
        return Ok(State { last: Some(last), next_at: None, start: false });
    }
    if !context.backups.take(uid, &place.name, now) {
        return Ok(State { last, next_at: Some(now + slots::WAIT), start: false });
    }
    let run = BackupRunStatus {
        job: database.names().backup_job(now.as_second()),
        kind,
        state: RequestState::Running,
        started_at: Time(crate::operator::status::condition::seconds(now)),
        finished_at: None,
        message: None,
        failures: failures(last.as_ref()),
        request: backups.request.as_ref().map(|(token, _)| token.clone()),
    };
    Ok(State { last: Some(run), next_at: None, start: true })
}

/// Creates the Job that was decided on. Those before it are removed: their pods' logs were there to be read.
///
/// # Errors
/// Any error of the API server.
pub async fn start(context: &Context, database: &Database, state: &State) -> Result<(), Error> {
    let (Some(run), Some(place)) = (state.last.as_ref().filter(|_| state.start), &database.archive) else {
        return Ok(());
    };
    remove_ended(context, database).await?;
    tracing::info!(job = run.job, kind = ?run.kind, store = place.name, "starting a backup");
    let planned = backup::job(database, &context.options, place, run);
    apply_uncached(context, &database.owner, &planned).await.map(drop)
}

fn failures(last: Option<&BackupRunStatus>) -> u32 {
    last.map_or(0, |last| last.failures)
}

/// The request that no Job has answered.
fn request<'a>(backups: &'a Backups, last: Option<&BackupRunStatus>) -> Option<(&'a str, BackupType)> {
    let (token, kind) = backups.request.as_ref()?;
    (last.and_then(|last| last.request.as_ref()) != Some(token)).then_some((token, *kind))
}

/// The state of the Job that status says runs.
async fn follow(
    context: &Context,
    database: &Database,
    run: BackupRunStatus,
    now: Timestamp,
) -> Result<BackupRunStatus, Error> {
    let api: Api<Job> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let Some(job) = api.get_opt(&run.job).await? else {
        return Ok(failed(run, now, "the Job was deleted before it ended".to_owned()));
    };
    let pods = async || JobPods::of(&context.client, database.names(), &run.job).await;
    Ok(match stands(&job) {
        JobState::Succeeded(at) => BackupRunStatus {
            state: RequestState::Done,
            finished_at: Some(Time(at)),
            message: None,
            failures: 0,
            ..run
        },
        JobState::Failed(job) => {
            let said = pods().await?.message().and_then(|text| serde_json::from_str::<BackupOutcome>(text).ok());
            let reason = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let reason = reason.into_iter().find(|condition| condition.type_ == "Failed");
            let reason = reason.and_then(|failed| failed.message.clone()).unwrap_or_default();
            let message = said.and_then(|outcome| outcome.failure);
            let message = message.unwrap_or_else(|| format!("the Job {} failed: {reason}", run.job));
            failed(run, ended(&job, now), message)
        }
        JobState::Running(_) | JobState::Absent => {
            let pods = pods().await?;
            let lacks_pod = pods.is_empty() && now.duration_since(run.started_at.0) > PATIENCE;
            let refused = || format!("the Job has no pod: kubectl describe job {} shows why", run.job);
            let hindrance = pods.hindrance(now).map(|hindrance| hindrance.message);
            let message = hindrance.or_else(|| lacks_pod.then(refused));
            BackupRunStatus { message, ..run }
        }
    })
}

fn failed(run: BackupRunStatus, at: Timestamp, message: String) -> BackupRunStatus {
    tracing::warn!(job = run.job, message, "a backup failed");
    BackupRunStatus {
        state: RequestState::Failed,
        finished_at: Some(Time(at)),
        message: Some(message),
        failures: run.failures.saturating_add(1),
        ..run
    }
}

/// A Job of this resource that status does not know, and that has not ended.
async fn running(context: &Context, database: &Database) -> Result<Option<BackupRunStatus>, Error> {
    let api: Api<Job> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let jobs = api.list(&ListParams::default().labels(&selector(database))).await?.items;
    let ours = |job: &&Job| controller_uid(&job.metadata) == Some(&database.owner.uid);
    let running = jobs.iter().filter(ours).find(|job| matches!(stands(job), JobState::Running(_)));
    Ok(running.map(|job| BackupRunStatus {
        job: job.name_any(),
        kind: backup::kind(job),
        state: RequestState::Running,
        started_at: job.creation_timestamp().unwrap_or(Time(context.now())),
        finished_at: None,
        message: None,
        failures: 0,
        request: database.backups.request.as_ref().map(|(token, _)| token.clone()),
    }))
}

async fn remove_ended(context: &Context, database: &Database) -> Result<(), Error> {
    let api = erased::<Job>(&context.client, &database.names().namespace);
    for live in api.list(&ListParams::default().labels(&selector(database))).await?.items {
        if controller_uid(&live.metadata) == Some(database.owner.uid.as_str()) {
            delete_exactly(&api, &live).await?;
        }
    }
    Ok(())
}

fn selector(database: &Database) -> String {
    format!("{LABEL_NAME}={},app.kubernetes.io/component={}", database.names().name, backup::COMPONENT)
}

