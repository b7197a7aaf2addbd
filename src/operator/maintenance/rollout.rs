//! Rollouts that wait for a window (`spec.updatePolicy: Window`). Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{UpdatePolicy, WindowRollout};
use crate::contract::time::seconds;

/// The input of a decision.
pub struct Known<'a> {
    /// When pods are updated.
    pub policy: UpdatePolicy,
    /// Whether a window admits a rollout now.
    pub admits: bool,
    /// The rollout that status says a window began.
    pub recorded: Option<&'a WindowRollout>,
    /// The rollout that a user approved.
    pub approved: Option<&'a str>,
}

/// Whether pods keep their template although it is outdated: the window that began the rollout is over.
pub fn is_held(known: &Known<'_>) -> bool {
    let Some(rollout) = known.recorded.filter(|_| known.policy == UpdatePolicy::Window) else { return false };
    !known.admits && known.approved != Some(&rollout.id)
}

/// The rollout that status has next: the one that this reconcile `began`, or the recorded one until each pod is of the
/// present template.
pub fn next(known: &Known<'_>, began: Option<String>, is_finished: bool, now: Timestamp) -> Option<WindowRollout> {
    let recorded = known.recorded.filter(|_| known.policy == UpdatePolicy::Window);
    match began {
        // It is taken in each reconcile until the StatefulSet has it.
        Some(id) => {
            let same = recorded.filter(|recorded| recorded.id == id).cloned();
            Some(same.unwrap_or(WindowRollout { id, started_at: Time(seconds(now)) }))
        }
        None => recorded.filter(|_| !is_finished).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_rollout_is_held_between_windows_unless_a_user_approves_it() {
        let rollout = WindowRollout { id: "one".to_owned(), started_at: Time(Timestamp::UNIX_EPOCH) };
        let known = |policy, admits, approved| Known { policy, admits, recorded: Some(&rollout), approved };
        assert!(is_held(&known(UpdatePolicy::Window, false, None)));
        assert!(is_held(&known(UpdatePolicy::Window, false, Some("another"))));
        assert!(!is_held(&known(UpdatePolicy::Window, false, Some("one"))));
        assert!(!is_held(&known(UpdatePolicy::Window, true, None)));
        assert!(!is_held(&known(UpdatePolicy::Manual, false, None)), "the policy was changed");
        assert!(!is_held(&Known { recorded: None, ..known(UpdatePolicy::Window, false, None) }));
    }

    #[test]
    fn it_is_recorded_until_the_last_pod_has_followed() {
        let rollout = WindowRollout { id: "one".to_owned(), started_at: Time(Timestamp::UNIX_EPOCH) };
        let known = Known { policy: UpdatePolicy::Window, admits: true, recorded: Some(&rollout), approved: None };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(next(&known, None, false, now), Some(rollout.clone()));
        assert_eq!(next(&known, None, true, now), None);
        assert_eq!(
            next(&known, Some("one".to_owned()), false, now + jiff::SignedDuration::from_mins(1)),
            Some(rollout.clone())
        );
        assert_eq!(next(&known, Some("two".to_owned()), false, now).map(|next| next.id), Some("two".to_owned()));
        assert_eq!(next(&Known { policy: UpdatePolicy::Manual, ..known }, None, false, now), None);
    }
}
