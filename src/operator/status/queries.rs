//! Whether a team's own queries give their metrics.

use super::condition::{ConditionState, held};
use super::findings::Findings;
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::contract::report::Report;

/// The condition; none where no queries are declared, or no agent has read them yet.
pub fn read(
    findings: &Findings<'_>,
    report: Option<&Report>,
    previous: &ServiceDatabaseStatus,
) -> Option<ConditionState> {
    let source = findings.resource.spec.monitoring.queries.as_ref()?;
    // Unknown during a change of the primary, and from an agent that has just started.
    let Some(queries) = report.and_then(|report| report.queries.as_ref()) else {
        return held(previous, kind::CUSTOM_METRICS_READ);
    };
    if let Some(problem) = &queries.problem {
        let message = format!("spec.monitoring.queries, ConfigMap {}: {problem}", source.name);
        return Some(ConditionState::no(reason::QUERIES_INVALID, message));
    }
    if queries.failed_count == 0 {
        let message = format!("{} queries of the ConfigMap {}", queries.count, source.name);
        return Some(ConditionState::yes(reason::QUERIES_READ, message));
    }
    let named: Vec<_> = queries.failed.iter().map(|failed| format!("{}: {}", failed.name, failed.message)).collect();
    let more = queries.failed_count.saturating_sub(named.len());
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let message = format!(
        "{} of {} queries of the ConfigMap {} give no metrics: {}{more}",
        queries.failed_count,
        queries.count,
        source.name,
        named.join("; "),
    );
    Some(ConditionState::no(reason::QUERY_FAILED, message))
}
