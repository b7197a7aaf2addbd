//! A Job without a running pod: why it has none, and whether a new Job would get one.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::{Client, ResourceExt};

use super::job_pods::{Hindrance, JobPods};
use crate::api::conditions::reason;
use crate::operator::apply::object::Planned;
use crate::operator::context::error::Error;
use crate::operator::instances::admission;
use crate::operator::plan::job::ANNOTATION_POD;

/// How long a Job may lack a pod before a dry run: the Job controller creates it at once, and
/// reports a refusal only by an event.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

/// Why a Job that has not ended is held up.
#[derive(Debug, PartialEq, Eq)]
pub enum HeldUp {
    /// By this problem.
    By(Hindrance),
    /// The spec of its pods has changed, or a refused pod would be accepted now, while its
    /// controller waits for its next attempt: a new Job is faster.
    Replace,
}

/// Why a Job is held up, if it is. `refused_before`: according to status, the API server refused
/// its pod.
///
/// # Errors
/// Any error of the API server.
pub async fn held_up(
    client: &Client,
    (job, planned): (&Job, &Planned),
    pods: &JobPods,
    refused_before: bool,
    now: Timestamp,
) -> Result<Option<HeldUp>, Error> {
    if !pods.has_started() && is_of_another_spec(job, planned) {
        return Ok(Some(HeldUp::Replace));
    }
    if let Some(hindrance) = pods.hindrance(now) {
        return Ok(Some(HeldUp::By(hindrance)));
    }
    if !pods.is_empty() || has_had_a_pod(job) || age(job, now) < PATIENCE {
        return Ok(None);
    }
    Ok(match admission::job_refusal(client, job).await? {
        Some(why) => {
            let message = format!("{why}; {REMEDY}");
            Some(HeldUp::By(Hindrance { reason: reason::POD_REFUSED, message, away: false }))
        }
        None => refused_before.then_some(HeldUp::Replace),
    })
}

/// The remedy for a refusal.
const REMEDY: &str =
    "correct the named object, spec.migrations.resources or spec.podMetadata; the Job is retried automatically";

/// Whether the spec of a Job's pods has changed since its creation. False for a Job of an earlier
/// version, which does not record it.
pub fn is_of_another_spec(job: &Job, planned: &Planned) -> bool {
    let wanted = planned.body["metadata"]["annotations"][ANNOTATION_POD].as_str();
    job.annotations().get(ANNOTATION_POD).map(String::as_str) != wanted
}

/// Whether a Job records the spec of its pods.
pub fn names_its_spec(job: &Job) -> bool {
    job.annotations().contains_key(ANNOTATION_POD)
}

/// How old a Job is.
pub fn age(job: &Job, now: Timestamp) -> SignedDuration {
    job.creation_timestamp().map_or(SignedDuration::ZERO, |created| now.duration_since(created.0))
}

/// Whether pods of it were created, even if they no longer exist.
fn has_had_a_pod(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| {
        [status.active, status.failed, status.succeeded].into_iter().flatten().any(|pods| pods > 0)
    })
}
