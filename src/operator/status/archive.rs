//! The WAL archive in status.

use super::condition::{ConditionState, held};
use super::findings::Findings;
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::contract::report::{ArchiveReport, Report};

/// Whether WAL is archived continuously; none where it is not archived at all.
pub fn continuous(
    findings: &Findings<'_>,
    report: Option<&Report>,
    previous: &ServiceDatabaseStatus,
) -> Option<ConditionState> {
    let before = held(previous, kind::CONTINUOUS_ARCHIVING);
    let Some(database) = findings.database else { return before };
    let place = database.archive.as_ref()?;
    let Some(archive) = report_of(report, &place.name) else {
        // Between two primaries nothing is known.
        let pending = || ConditionState::no(reason::PROGRESSING, format!("no WAL is in the store {} yet", place.name));
        return Some(before.unwrap_or_else(pending));
    };
    Some(decide(archive))
}

fn decide(archive: &ArchiveReport) -> ConditionState {
    let store = &archive.store;
    let waiting = match archive.waiting {
        0 => String::new(),
        count => format!("; up to {count} WAL segments wait"),
    };
    match (&archive.failure, &archive.archived_at) {
        (Some(failure), _) => {
            let message = format!("WAL cannot be archived to the store {store}: {failure}{waiting}");
            ConditionState::no(reason::ARCHIVING_FAILED, message)
        }
        (None, None) => ConditionState::no(reason::PROGRESSING, format!("no WAL is in the store {store} yet{waiting}")),
        (None, Some(_)) => {
            let gap = match archive.given_up_at {
                Some(at) => format!("; it has a gap: WAL was given up, or found missing, at {at}"),
                None => String::new(),
            };
            ConditionState::yes(reason::ARCHIVING, format!("WAL is archived to the store {store}{waiting}{gap}"))
        }
    }
}

/// The report of the archive in this store.
pub fn report_of<'a>(report: Option<&'a Report>, store: &str) -> Option<&'a ArchiveReport> {
    report?.archive.as_ref().filter(|archive| archive.store == store)
}
