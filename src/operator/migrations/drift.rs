//! Whether the schema still is what the migrations give: a Job looks from time to time, and when
//! it is asked for. What it finds is told and never repaired.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};

use super::job_pods::JobPods;
use super::progress::Declared;
use super::remove_job;
use crate::api::conditions as kind;
use crate::api::names::ANNOTATION_CHECK_DRIFT;
use crate::api::{DriftStatus, ServiceDatabase};
use crate::operator::apply::apply;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::{JobState, ended, stands};
use crate::operator::plan::drift::ANNOTATION_GOAL;
use crate::operator::plan::migration::{self, Purpose};
use crate::operator::validate::{Database, Migrations, Source};

/// How long after a look that failed the next one is.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Brings the look a step further, for a schema that is at its target; what is known now.
///
/// # Errors
/// Whatever the API server said.
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
    // It is due until what was found is in status: so there is no Job to look at when it is not.
    if migrations.policy.dry_run || !asks.due(before.as_ref(), now) {
        return Ok(before);
    }
    let name = database.names().drift_job();
    let api: Api<Job> = Api::namespaced(context.client.clone(), &database.names().namespace);
    let Some(job) = api.get_opt(&name).await? else {
        make(context, database, migrations, (revision, declared)).await?;
        return Ok(before);
    };
    let at = match stands(&job) {
        JobState::Succeeded(at) => at,
        JobState::Failed(job) => ended(&job, now),
        JobState::Absent | JobState::Running => return Ok(before),
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

/// What is asked for.
struct Asks<'a> {
    migrations: &'a Migrations,
    goal: &'a str,
    applied: Option<Timestamp>,
}

impl Asks<'_> {
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
        // What was found of other migrations may not be true any more.
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

async fn make(
    context: &Context,
    database: &Database,
    migrations: &Migrations,
    (revision, declared): (&str, &Declared),
) -> Result<(), Error> {
    let parts: &[BTreeMap<_, _>] = if let Declared::Set { parts, .. } = declared { parts } else { &[] };
    let copies = migration::copies(database, revision, parts);
    for planned in migration::config_maps(database, &copies, parts) {
        apply(context, &database.owner, &planned).await?;
    }
    let job = migration::job(database, &context.options, (revision, migrations), &copies, Purpose::Compare);
    apply(context, &database.owner, &job).await.map(drop)
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
    let request = asks.migrations.drift_request.clone();
    let status = |error, goal: &str, count, differences| DriftStatus {
        checked_at: Time(at),
        goal: goal.to_owned(),
        count,
        differences,
        error,
        request,
    };
    if let Some(found) = outcome.drift {
        return Ok(status(None, asks.goal, found.count, found.differences));
    }
    let silent = || format!("the Job {name} ended without a word: kubectl describe job {name}");
    let error = outcome.failure.map_or_else(silent, |failure| failure.message);
    // What was found before is not unsaid by a look that failed.
    Ok(match before {
        Some(before) => status(Some(error), &before.goal, before.count, before.differences),
        None => status(Some(error), asks.goal, 0, Vec::new()),
    })
}
