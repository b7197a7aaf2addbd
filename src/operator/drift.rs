//! Whether the schema still is what the migrations give: a Job looks from time to time, and when
//! it is asked for. What it finds is told and never repaired.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::apply::apply;
use super::context::Context;
use super::error::Error;
use super::job_pods::JobPods;
use super::migrations::{Declared, remove_job};
use super::observe::{JobState, ended, job_state};
use super::plan::migration::{self, Purpose};
use super::validate::{Database, Migrations, Source};
use crate::api::conditions as kind;
use crate::api::{DriftStatus, ServiceDatabase};

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
    if !asks.due(before.as_ref(), now) {
        return Ok(before);
    }
    let checked = before.as_ref().map(|before| before.checked_at.0);
    let is_new = |at: Timestamp| checked.is_none_or(|checked| at > checked);
    let name = database.names().drift_job();
    match job_state(&context.client, database.names(), &name).await? {
        JobState::Absent => make(context, database, migrations, (revision, declared)).await?,
        JobState::Running => {}
        JobState::Succeeded(at) if is_new(at) => return found(context, database, &asks, at).await.map(Some),
        JobState::Failed(job) if is_new(ended(&job, now)) => {
            return found(context, database, &asks, ended(&job, now)).await.map(Some);
        }
        // What the last one found is in status.
        JobState::Succeeded(_) | JobState::Failed(_) => remove_job(context, database, &name).await?,
    }
    Ok(before)
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
        // What was found of other migrations may not be true any more.
        if before.is_some_and(|before| before.count > 0 && before.goal != self.goal) {
            return true;
        }
        let since = before.map(|before| before.checked_at.0).or(self.applied);
        since.is_some_and(|since| Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= interval))
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

async fn found(context: &Context, database: &Database, asks: &Asks<'_>, at: Timestamp) -> Result<DriftStatus, Error> {
    let name = database.names().drift_job();
    let outcome = JobPods::of(&context.client, database.names(), &name).await?.outcome().unwrap_or_default();
    let (found, failure) = (outcome.drift.unwrap_or_default(), outcome.failure);
    let silent = || format!("the Job {name} ended without a word: kubectl describe job {name}");
    let error = (outcome.revision.is_empty() || failure.is_some())
        .then(|| failure.map_or_else(silent, |failure| failure.message));
    Ok(DriftStatus {
        checked_at: Time(at),
        goal: asks.goal.to_owned(),
        count: found.count,
        differences: found.differences,
        error,
        request: asks.migrations.drift_request.clone(),
    })
}
