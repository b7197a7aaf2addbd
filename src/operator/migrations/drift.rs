//! The drift check: a Job compares the schema with the migrations periodically and on request.
//! Differences are reported and never repaired.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};

use super::job_pods::{Hindrance, JobPods};
use super::progress::Declared;
use super::remove_job;
use super::unstarted::{self, HeldUp};
use crate::api::conditions as kind;
use crate::api::names::ANNOTATION_CHECK_DRIFT;
use crate::api::{DriftStatus, ServiceDatabase};
use crate::operator::apply::apply_uncached;
use crate::operator::apply::object::Planned;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::{JobState, ended, stands};
use crate::operator::plan::drift::ANNOTATION_GOAL;
use crate::operator::plan::migration::{self, Purpose};
use crate::operator::validate::{Database, Migrations, Source};

/// How long a pod of the Job may lack a node or its image before the Job is removed.
const PATIENCE: SignedDuration = SignedDuration::from_secs(300);
/// The delay after a failed check.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Advances the check, for a schema at its target; returns the current result.
///
/// # Errors
/// Any error of the API server.
pub async fn advance(
    context: &Context,
    resource: &ServiceDatabase,
    database: &Database,
    declared: &Declared,
    now: Timestamp,
) -> Result<Option<DriftStatus>, Error> {
    let before = resource.status.as_ref().and_then(|status| status.drift.clone());
    let (Some(migrations), Some(revision)) = (&database.migrations, declared.revision()) else { return Ok(None) };
    if matches!(migrations.source, Source::Tool(_)) {
        return Ok(None);
    }
    let goal = migrations.policy.goal(revision);
    let asks = Asks { migrations, goal: &goal, applied: applied_since(resource) };
    // A check is due until status has its result: if none is due, there is no Job to read.
    if migrations.policy.dry_run || !asks.due(before.as_ref(), now) {
        return Ok(before);
    }
    let name = database.names().drift_job();
    let api: Api<Job> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let parts: &[BTreeMap<_, _>] = if let Declared::Set { parts, .. } = declared { parts } else { &[] };
    let copies = migration::copies(database, revision, parts);
    let planned = migration::job(database, &context.options, (revision, migrations), &copies, Purpose::Compare);
    let Some(job) = api.get_opt(&name).await? else {
        for planned in migration::config_maps(database, &copies, parts).iter().chain([&planned]) {
            apply_uncached(context, &database.owner, planned).await?;
        }
        return Ok(before);
    };
    let at = match stands(&job) {
        JobState::Succeeded(at) => at,
        JobState::Failed(job) => ended(&job, now),
        JobState::Running(live) => return held_up(context, database, &asks, (&live, &planned), (before, now)).await,
        JobState::Absent => return Ok(before),
    };
    let is_told = before.as_ref().is_some_and(|before| before.checked_at.0 == at);
    let noted = |key: &str| job.annotations().get(key);
    let is_asked_for = noted(ANNOTATION_GOAL) == Some(&goal)
        && migrations.drift_request.as_ref().is_none_or(|token| noted(ANNOTATION_CHECK_DRIFT) == Some(token));
    if is_told || !is_asked_for {
        remove_job(context, database, &name).await?;
        return Ok(before);
    }
    found(context, database, &asks, at, before).await.map(Some)
}

/// The request.
struct Asks<'a> {
    migrations: &'a Migrations,
    goal: &'a str,
    applied: Option<Timestamp>,
}

impl Asks<'_> {
    /// The status after a failed comparison. Earlier differences are kept.
    fn failed(&self, at: Timestamp, error: String, before: Option<DriftStatus>) -> DriftStatus {
        let unknown = || (self.goal.to_owned(), 0, Vec::new());
        let (goal, count, differences) =
            before.map_or_else(unknown, |before| (before.goal, before.count, before.differences));
        let request = self.migrations.drift_request.clone();
        DriftStatus { checked_at: Time(at), goal, count, differences, error: Some(error), request }
    }

    fn due(&self, before: Option<&DriftStatus>, now: Timestamp) -> bool {
        let request = &self.migrations.drift_request;
        if request.is_some() && before.is_none_or(|before| before.request != *request) {
            return true;
        }
        let Some(interval) = self.migrations.drift_check else { return false };
        let age = |since: Timestamp| Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if before.is_some_and(|before| before.error.is_some() && age(before.checked_at.0) >= RETRY_AFTER.min(interval))
        {
            return true;
        }
        // A result for other migrations may be outdated.
        if before.is_some_and(|before| before.count > 0 && before.goal != self.goal) {
            return true;
        }
        let since = before.map(|before| before.checked_at.0).or(self.applied);
        since.is_some_and(|since| age(since) >= interval)
    }
}

fn applied_since(resource: &ServiceDatabase) -> Option<Timestamp> {
    let conditions = &resource.status.as_ref()?.conditions;
    let applied = conditions.iter().find(|condition| condition.type_ == kind::MIGRATIONS_APPLIED)?;
    (applied.status == "True").then_some(applied.last_transition_time.0)
}

/// Reports and removes a Job whose pod is refused or does not start: the next one is created after
/// [`RETRY_AFTER`].
async fn held_up(
    context: &Context,
    database: &Database,
    asks: &Asks<'_>,
    (job, planned): (&Job, &Planned),
    (before, now): (Option<DriftStatus>, Timestamp),
) -> Result<Option<DriftStatus>, Error> {
    let name = database.names().drift_job();
    let pods = JobPods::of(&context.client, database.names(), &name).await?;
    match unstarted::held_up(&context.client, (job, planned), &pods, false, now).await? {
        // A pod may be without a node or its image for a short time.
        Some(HeldUp::By(Hindrance { reason: why, message, .. }))
            if why == kind::reason::POD_REFUSED || unstarted::age(job, now) >= PATIENCE =>
        {
            remove_job(context, database, &name).await?;
            Ok(Some(asks.failed(now, message, before)))
        }
        Some(HeldUp::Replace) => {
            remove_job(context, database, &name).await?;
            Ok(before)
        }
        Some(HeldUp::By(..)) | None => Ok(before),
    }
}

async fn found(
    context: &Context,
    database: &Database,
    asks: &Asks<'_>,
    at: Timestamp,
    before: Option<DriftStatus>,
) -> Result<DriftStatus, Error> {
    let name = database.names().drift_job();
    let outcome = JobPods::of(&context.client, database.names(), &name).await?.outcome().unwrap_or_default();
    if let Some(found) = outcome.drift {
        return Ok(DriftStatus {
            checked_at: Time(at),
            goal: asks.goal.to_owned(),
            count: found.count,
            differences: found.differences,
            error: None,
            request: asks.migrations.drift_request.clone(),
        });
    }
    let namespace = &database.names().namespace;
    let silent =
        || format!("the Job {name} failed without a termination message: kubectl describe job {name} -n {namespace}");
    let error = outcome.failure.map_or_else(silent, |failure| failure.message);
    Ok(asks.failed(at, error, before))
}
