//! The WAL archive in status.

use super::condition::{ConditionState, both, held};
use super::findings::Findings;
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::contract::backup::Nth;
use crate::contract::report::{ArchiveReport, Report};

/// Whether WAL is archived continuously; none where it is not archived at all.
pub fn continuous(
    findings: &Findings<'_>,
    report: Option<&Report>,
    previous: &ServiceDatabaseStatus,
) -> Option<ConditionState> {
    let before = held(previous, kind::CONTINUOUS_ARCHIVING);
    let Some(database) = findings.database else { return before };
    database.archive.as_ref()?;
    let places = Nth::ALL.into_iter().filter_map(|nth| Some((nth, database.archive_in(nth)?)));
    let states = places.map(|(nth, place)| match report_of(report, nth, &place.name) {
        Some(archive) => (true, decide(archive)),
        None => (false, ConditionState::no(reason::PROGRESSING, format!("no WAL is in the store {} yet", place.name))),
    });
    let states: Vec<_> = states.collect();
    // Between two primaries nothing is known.
    if let Some(before) = before.filter(|_| states.iter().all(|(is_known, _)| !is_known)) {
        return Some(before);
    }
    states.into_iter().map(|(_, state)| state).reduce(both)
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
pub fn report_of<'a>(report: Option<&'a Report>, nth: Nth, store: &str) -> Option<&'a ArchiveReport> {
    report?.archive_in(nth).filter(|archive| archive.store == store)
}
