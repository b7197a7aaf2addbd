//! The certificates and their authority in status.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::condition::{ConditionState, held};
use super::findings::Findings;
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::api::status::CertificatesStatus;

/// How long before its expiry an authority is reported that should have been replaced 400 days
/// before.
const REPORTED_BEFORE: SignedDuration = SignedDuration::from_hours(390 * 24);

impl Findings<'_> {
    /// The time until the next step for the certificates is due.
    pub fn certificates_due_in(&self) -> Option<Duration> {
        let reported = || self.resource.status.as_ref()?.certificates.as_ref()?.change.as_ref()?.next_step_at.as_ref();
        let due = match &self.certificates {
            Some(certified) => certified.due?,
            None => reported()?.0,
        };
        Some(Duration::try_from(due.duration_since(self.now)).unwrap_or_default() + Duration::from_secs(1))
    }
}

/// Whether the certificates are valid, and can be renewed.
pub fn ready(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    let Some(certified) = &findings.certificates else {
        return held(previous, kind::CERTIFICATES_READY)
            .unwrap_or_else(|| ConditionState::no(reason::PROGRESSING, "the certificates are not created yet"));
    };
    if let Some(lost) = &certified.lost {
        return ConditionState::no(reason::AUTHORITY_LOST, lost.clone());
    }
    match &certified.status {
        CertificatesStatus { change: Some(change), .. } => {
            ConditionState::yes(reason::AUTHORITY_CHANGING, change.message.clone())
        }
        CertificatesStatus { not_after: Some(end), authority_not_after, .. } => {
            let day = |time: &Time| time.0.strftime("%Y-%m-%d").to_string();
            let mut message = format!("the certificates are valid until {}, and are renewed before", day(end));
            let ends = authority_not_after.as_ref();
            // Past the day of its automatic replacement: the database is not being changed.
            if let Some(ends) = ends.filter(|ends| ends.0.duration_since(findings.now) < REPORTED_BEFORE) {
                message = format!(
                    "{message}; the certificate authority expires on {} and is not replaced while spec.paused is \
                     true or the spec is invalid: no client can connect after that day",
                    day(ends)
                );
            }
            ConditionState::yes(reason::READY, message)
        }
        CertificatesStatus { .. } => ConditionState::no(reason::PROGRESSING, "the certificates are not created yet"),
    }
}
