//! Applies several objects in one reconcile: if one cannot be applied, the others are still
//! restored.

use futures::future::join_all;

use super::apply;
use super::object::{Owner, Planned};
use crate::operator::context::Context;
use crate::operator::context::error::Error;

/// The errors of one reconcile so far.
#[derive(Default)]
pub struct Failures(Vec<Error>);

impl Failures {
    /// Applies all objects, in any order, even if one fails.
    pub async fn apply_all<'a>(
        &mut self,
        context: &Context,
        owner: &Owner,
        planned: impl IntoIterator<Item = &'a Planned>,
    ) {
        let planned: Vec<_> = planned.into_iter().collect();
        let applied = join_all(planned.iter().map(|planned| apply(context, owner, planned))).await;
        for (planned, applied) in planned.iter().zip(applied) {
            match applied {
                Ok(change) => context.metrics.applied(change),
                Err(error) => {
                    if !error.is_outdated() && !error.is_of_terminating_namespace() {
                        let (kind, object) = (&planned.resource.kind, &planned.name);
                        tracing::warn!(kind, object, %error, "an object cannot be applied; the others are applied");
                    }
                    self.0.push(error);
                }
            }
        }
    }

    /// Adds the error of another step, if it failed.
    pub fn note(&mut self, step: Result<(), Error>) {
        self.0.extend(step.err());
    }

    /// Whether nothing has failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a required object belongs to another owner.
    pub fn has_conflict(&self) -> bool {
        self.0.iter().any(|error| matches!(error, Error::ObjectConflict { .. }))
    }

    /// Whether the API server did not answer: further requests would time out too.
    pub fn is_unanswered(&self) -> bool {
        let unanswered =
            |error: &Error| matches!(error, Error::Kubernetes(error) if !matches!(error, kube::Error::Api(_)));
        self.0.iter().any(unanswered)
    }

    /// The error to report: one that requires intervention, otherwise the first.
    ///
    /// # Errors
    /// If anything has failed.
    pub fn first(mut self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let waits = |error: &Error| matches!(error, Error::ObjectConflict { .. } | Error::ForeignRecord { .. });
        let lasts = |error: &Error| !error.is_outdated();
        let first = self.0.iter().position(waits).or_else(|| self.0.iter().position(lasts)).unwrap_or_default();
        Err(self.0.swap_remove(first))
    }
}
