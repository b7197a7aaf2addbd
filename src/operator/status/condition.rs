//! The state of a condition, and its API object.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::conditions::{VAULT_REACHABLE, reason};
use crate::api::{ServiceDatabase, ServiceDatabaseStatus};
use crate::contract::time::seconds;

/// The state of one condition: status, reason, message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionState {
    /// Whether its status is True.
    pub holds: bool,
    /// A reason of `api::conditions::reason`.
    pub reason: String,
    /// The message for people.
    pub message: String,
}

impl ConditionState {
    /// True.
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self { holds: true, reason: reason.to_owned(), message: message.into() }
    }

    /// False.
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self { holds: false, reason: reason.to_owned(), message: message.into() }
    }
}

/// Whether a condition in status says that the API server refuses a pod.
pub fn is_reported_refused(resource: &ServiceDatabase, kind: &str) -> bool {
    let mut conditions = resource.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == kind && condition.reason == reason::POD_REFUSED)
}

/// The condition of a database with two stores: it holds if it holds for both, and its message tells of each.
pub fn both(first: ConditionState, second: ConditionState) -> ConditionState {
    let message = format!("{}; {}", first.message, second.message);
    // A failure is more than something that has not happened yet.
    let is_first = match (first.holds, second.holds) {
        (false, false) => first.reason != reason::PROGRESSING,
        (first, _) => !first,
    };
    ConditionState { message, ..if is_first { first } else { second } }
}

/// The condition as an API object; its transition time is kept while its status is the same.
pub fn condition(
    kind: &str,
    state: ConditionState,
    previous: &ServiceDatabaseStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    // Where Vault was not queried yet, that is no outage.
    let is_unknown = kind == VAULT_REACHABLE && state.reason == reason::PROGRESSING;
    let status = if state.holds {
        "True"
    } else if is_unknown {
        "Unknown"
    } else {
        "False"
    };
    let since = previous
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status)
        .map_or(Time(seconds(now)), |condition| condition.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: state.reason,
        message: state.message,
        observed_generation: generation,
        last_transition_time: since,
    }
}

/// The state of a condition in the previous status.
pub fn held(previous: &ServiceDatabaseStatus, kind: &str) -> Option<ConditionState> {
    let condition = previous.conditions.iter().find(|condition| condition.type_ == kind)?;
    let holds = condition.status == "True";
    Some(ConditionState { holds, reason: condition.reason.clone(), message: condition.message.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::BACKED_UP;

    #[test]
    fn vault_that_was_not_queried_is_unknown_and_not_away() {
        let previous = ServiceDatabaseStatus::default();
        let status = |kind, reason: &str| {
            let state = ConditionState::no(reason, "why");
            condition(kind, state, &previous, None, Timestamp::UNIX_EPOCH).status
        };
        assert_eq!(status(VAULT_REACHABLE, reason::PROGRESSING), "Unknown");
        assert_eq!(status(VAULT_REACHABLE, reason::VAULT_UNREACHABLE), "False");
        assert_eq!(status(BACKED_UP, reason::PROGRESSING), "False");
    }

    #[test]
    fn a_condition_of_two_stores_is_that_of_the_one_that_lacks_more() {
        let good = || ConditionState::yes(reason::ARCHIVING, "one has it");
        let pending = || ConditionState::no(reason::PROGRESSING, "one has nothing yet");
        let failed = || ConditionState::no(reason::ARCHIVING_FAILED, "one is away");
        let of = |first, second| {
            let state = both(first, second);
            (state.holds, state.reason)
        };
        let is = |holds, reason: &str| (holds, reason.to_owned());
        assert_eq!(of(good(), good()), is(true, reason::ARCHIVING));
        assert_eq!(of(good(), failed()), is(false, reason::ARCHIVING_FAILED));
        assert_eq!(of(pending(), good()), is(false, reason::PROGRESSING));
        for (first, second) in [(pending(), failed()), (failed(), pending())] {
            assert_eq!(of(first, second), is(false, reason::ARCHIVING_FAILED));
        }
        assert_eq!(both(good(), failed()).message, "one has it; one is away");
    }
}
