//! Whether the sort order of text may differ from the indexes'.

use super::condition::{ConditionState, held};
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::contract::report::{CollationReport, Report};

/// How many collations a message names, and indexes of each.
const NAMED: usize = 3;

/// The condition; none if no collation has or had a changed version.
pub fn changed(report: Option<&Report>, previous: &ServiceDatabaseStatus) -> Option<ConditionState> {
    let before = held(previous, kind::COLLATIONS_CHANGED);
    // Unknown during a change of the primary, and from an agent that has just started.
    let Some(changed) = report.and_then(|report| report.collations.as_deref()) else { return before };
    if changed.is_empty() {
        let message = "the collations have the versions with which the indexes were built";
        return before.map(|_| ConditionState::no(reason::COLLATIONS_UP_TO_DATE, message));
    }
    let named: Vec<_> = changed.iter().take(NAMED).map(describe).collect();
    let message = format!(
        "the sort order of text may have changed since the indexes were built: {}{}. Reindex, then record the new \
         versions (docs/operations.md: changed collation versions)",
        named.join("; "),
        more(changed.len()),
    );
    Some(ConditionState::yes(reason::COLLATION_VERSION_CHANGED, message))
}

fn describe(collation: &CollationReport) -> String {
    let name = match &collation.name {
        Some(name) => format!("the collation {name}"),
        None => "the database's collation".to_owned(),
    };
    let indexes = match collation.indexes.as_slice() {
        [] => "no index uses it".to_owned(),
        indexes => {
            let named: Vec<_> = indexes.iter().take(NAMED).map(String::as_str).collect();
            let count = usize::try_from(collation.index_count).unwrap_or(indexes.len());
            format!("reindex {}{}", named.join(", "), more(count))
        }
    };
    format!("{name} has version {}, recorded is {} ({indexes})", collation.actual, collation.recorded)
}

fn more(count: usize) -> String {
    if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() }
}
