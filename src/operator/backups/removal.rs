//! The removal of a deleted resource's backups: a Job that is created once its pods are gone.

use crate::api::ServiceDatabase;
use crate::contract::backup_job::BackupOutcome;
use crate::operator::apply::apply_uncached;
use crate::operator::backups::run;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::migrations::job_pods::JobPods;
use crate::operator::migrations::remove_job;
use crate::operator::observe::{JobState, stands};
use crate::operator::plan::backup;
use crate::operator::validate::validate;

/// How far the removal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is to be removed any more.
    Done,
    /// The deletion waits for this.
    Waits(String),
}

/// Advances the removal. A resource whose spec is invalid, or has no store any more, keeps its backups: where they are is
/// not known.
///
/// # Errors
/// Any error of the API server.
pub async fn remove(context: &Context, resource: &ServiceDatabase) -> Result<Removal, Error> {
    let Ok(database) = validate(resource, &context.options) else {
        tracing::warn!("the spec is invalid: the backups stay in the store");
        return Ok(Removal::Done);
    };
    let Some(place) = &database.archive else { return Ok(Removal::Done) };
    let name = database.names().backup_removal_job();
    let job = run::read(context, &database, &name).await?;
    let waits = |why: String| Ok(Removal::Waits(format!("the Job {name} to remove the backups{why}")));
    match job.as_ref().map(stands) {
        None | Some(JobState::Absent) => {
            let planned = backup::removal(&database, &context.options, place);
            apply_uncached(context, &database.owner, &planned).await?;
            waits(String::new())
        }
        Some(JobState::Succeeded(_)) => Ok(Removal::Done),
        Some(JobState::Running(_)) => {
            let pods = JobPods::of(&context.client, database.names(), &name).await?;
            let hindrance = pods.hindrance(context.now());
            waits(hindrance.map(|hindrance| format!(": {}", hindrance.message)).unwrap_or_default())
        }
        Some(JobState::Failed(_)) => {
            let pods = JobPods::of(&context.client, database.names(), &name).await?;
            let said = |text: &str| serde_json::from_str::<BackupOutcome>(text).ok()?.failure;
            let failure = pods.message().and_then(said).unwrap_or_else(|| "it failed".to_owned());
            // It is created again at the next look.
            remove_job(context, &database, &name).await?;
            waits(format!(", which is tried again: {failure}"))
        }
    }
}
