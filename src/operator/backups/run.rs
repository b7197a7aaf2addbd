//! A Job of this resource's backups: its creation, its progress, its result.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::api::names::LABEL_NAME;
use crate::api::{JobRun, RequestState};
use crate::operator::apply::apply_uncached;
use crate::operator::apply::object::{Planned, controller_uid};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::migrations::job_pods::JobPods;
use crate::operator::migrations::remove_job;
use crate::operator::observe::{JobState, ended, stands};
use crate::operator::plan::backup;
use crate::operator::validate::Database;

/// How long a Job may lack a pod: its controller creates it at once.
const PATIENCE: SignedDuration = SignedDuration::from_secs(15);

/// How long the pod of a failed Job may take to end: longer than its grace.
const ENDS: SignedDuration = SignedDuration::from_mins(2);

/// How long a Job may lack a running container.
const STARTS: SignedDuration = SignedDuration::from_mins(15);

/// How the message of a Job begins that had no running container.
const NOT_STARTED: &str = "the Job did not start within";

/// Whether a Job failed because it did not start.
pub fn has_not_started(run: &JobRun) -> bool {
    run.state == RequestState::Failed && run.message.as_ref().is_some_and(|message| message.starts_with(NOT_STARTED))
}

/// A Job that starts now.
pub fn starting(job: String, failures: u32, request: Option<String>, now: Timestamp) -> JobRun {
    let started_at = Time(crate::contract::time::seconds(now));
    JobRun { job, state: RequestState::Running, started_at, finished_at: None, message: None, failures, request }
}

/// A Job that was found.
pub fn found(job: &Job, failures: u32) -> JobRun {
    let created = job.creation_timestamp().map_or_else(Timestamp::now, |time| time.0);
    starting(job.name_any(), failures, backup::request(job), created)
}

/// Reads the state of a Job that runs, according to status. `said` takes the failure from the termination message of
/// its pod.
///
/// # Errors
/// Any error of the API server.
pub async fn follow(
    context: &Context,
    database: &Database,
    run: &mut JobRun,
    now: Timestamp,
    mut said: impl FnMut(&str) -> Option<String>,
) -> Result<(), Error> {
    let Some(job) = read(context, database, &run.job).await? else {
        fail(run, now, "the Job was deleted before it ended".to_owned());
        return Ok(());
    };
    let pods = JobPods::of(&context.client, database.names(), &run.job).await?;
    match stands(&job) {
        JobState::Succeeded(at) => {
            let _ = pods.message().and_then(said);
            (run.state, run.finished_at) = (RequestState::Done, Some(Time(at)));
            (run.message, run.failures) = (None, 0);
        }
        JobState::Failed(job) => {
            let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let failed = conditions.into_iter().find(|condition| condition.type_ == "Failed");
            let reason = failed.and_then(|failed| failed.message.clone()).unwrap_or_default();
            let message = pods.message().and_then(&mut said);
            let message = message.unwrap_or_else(|| format!("the Job {} failed: {reason}", run.job));
            fail(run, ended(&job, now), message);
        }
        JobState::Running(job) if waits_for_its_pod(&job, now) => {
            remove_job(context, database, &run.job).await?;
            fail(run, now, format!("the Job {} has ended, and its pod does not: its node does not answer", run.job));
        }
        JobState::Running(_) | JobState::Absent => {
            let lacks_pod = pods.is_empty() && now.duration_since(run.started_at.0) > PATIENCE;
            let namespace = &database.names().namespace;
            let refused = || format!("the Job has no pod: kubectl describe job {} -n {namespace} shows why", run.job);
            let hindrance = pods.hindrance(now).map(|hindrance| hindrance.message);
            run.message = hindrance.or_else(|| lacks_pod.then(refused));
            // It holds up others.
            if !pods.has_started() && now.duration_since(run.started_at.0) > STARTS {
                remove_job(context, database, &run.job).await?;
                let message = run.message.take().unwrap_or_else(|| "its pod does not start".to_owned());
                fail(run, now, format!("{NOT_STARTED} {} minutes: {message}", STARTS.as_mins()));
            }
        }
    }
    Ok(())
}

/// Whether a Job has failed, and its controller waits for the end of its pod, on a node that is lost perhaps for ever. What
/// the pod still did would fail: the agents serve it no longer, and pgBackRest's lock keeps two of them apart.
fn waits_for_its_pod(job: &Job, now: Timestamp) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let since = |time: &Time| now.duration_since(time.0) > ENDS;
    conditions.into_iter().any(|condition| {
        condition.type_ == "FailureTarget"
            && condition.status == "True"
            && condition.last_transition_time.as_ref().is_some_and(since)
    })
}

/// Records a failure.
pub fn fail(run: &mut JobRun, at: Timestamp, message: String) {
    tracing::warn!(job = run.job, message, "a Job of the backups failed");
    (run.state, run.finished_at) = (RequestState::Failed, Some(Time(at)));
    run.message = Some(message);
    run.failures = run.failures.saturating_add(1);
}

/// A Job of this resource, if it exists.
///
/// # Errors
/// Any error of the API server.
pub async fn read(context: &Context, database: &Database, name: &str) -> Result<Option<Job>, Error> {
    let api: Api<Job> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let job = api.get_opt(name).await?;
    Ok(job.filter(|job| controller_uid(&job.metadata) == Some(database.owner.uid.as_str())))
}

/// Creates a Job in place of those of its component that have ended. One that has not is kept and returned: the resource
/// that this operator read may be older than its own last status.
///
/// # Errors
/// Any error of the API server.
pub async fn replace(
    context: &Context,
    database: &Database,
    component: &str,
    planned: &Planned,
) -> Result<Option<Job>, Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let ours = |job: &Job| controller_uid(&job.metadata) == Some(database.owner.uid.as_str());
    let jobs = jobs.list(&ListParams::default().labels(&selector(database, component))).await?.items;
    let (running, ended): (Vec<_>, Vec<_>) =
        jobs.into_iter().filter(ours).partition(|job| matches!(stands(job), JobState::Running(_)));
    if let Some(job) = running.into_iter().next() {
        return Ok(Some(job));
    }
    for job in ended {
        remove_job(context, database, &job.name_any()).await?;
    }
    apply_uncached(context, &database.owner, planned).await?;
    Ok(None)
}

fn selector(database: &Database, component: &str) -> String {
    format!("{LABEL_NAME}={},app.kubernetes.io/component={component}", database.names().name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_job_whose_pod_never_ends_is_not_waited_for() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().expect("a time");
        let job = |kind: &str, at: &str| -> Job {
            let condition = json!({"type": kind, "status": "True", "lastTransitionTime": at});
            serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [condition]}})).expect("a Job")
        };
        assert!(waits_for_its_pod(&job("FailureTarget", "2026-11-30T11:57:00Z"), now));
        assert!(!waits_for_its_pod(&job("FailureTarget", "2026-11-30T11:59:00Z"), now), "the pod ends");
        assert!(!waits_for_its_pod(&job("Suspended", "2026-11-30T11:57:00Z"), now));
    }
}
