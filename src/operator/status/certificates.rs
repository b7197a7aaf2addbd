//! What status says of the certificates and their authority.

use std::time::Duration;

use super::condition::{ConditionState, held};
use super::findings::Findings;
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::api::status::CertificatesStatus;

impl Findings<'_> {
    /// How long until there is something to do about the certificates.
    pub fn certificates_due_in(&self) -> Option<Duration> {
        let told = || self.resource.status.as_ref()?.certificates.as_ref()?.change.as_ref()?.next_step_at.as_ref();
        let due = match &self.certificates {
            Some(certified) => certified.due?,
            None => told()?.0,
        };
        Some(Duration::try_from(due.duration_since(self.now)).unwrap_or_default() + Duration::from_secs(1))
    }
}

/// Whether the certificates are good, and can be renewed.
pub fn ready(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    let Some(certified) = &findings.certificates else {
        return held(previous, kind::CERTIFICATES_READY)
            .unwrap_or_else(|| ConditionState::no(reason::PROGRESSING, "the certificates are not made yet"));
    };
    if let Some(lost) = &certified.lost {
        return ConditionState::no(reason::AUTHORITY_LOST, lost.clone());
    }
    match &certified.status {
        CertificatesStatus { change: Some(change), .. } => {
            ConditionState::yes(reason::AUTHORITY_CHANGING, change.message.clone())
        }
        CertificatesStatus { not_after: Some(end), .. } => {
            let end = end.0.strftime("%Y-%m-%d");
            ConditionState::yes(reason::READY, format!("the certificates are good until {end}, and are renewed before"))
        }
        CertificatesStatus { .. } => ConditionState::no(reason::PROGRESSING, "the certificates are not made yet"),
    }
}
