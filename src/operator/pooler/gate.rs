//! Decides whether a planned change is made now: first every pod of the pooler holds its queries.
//!
//! Half of the time of a hold is for the transactions under way, the other half for the change; a major upgrade has a
//! longer time, of which they have a quarter. If a pod does not hold its queries in time, the hold is given up, and the
//! change is made anyway or put off.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::observe::{Observed, PoolerPod};
use crate::api::{OnTimeout, PoolerSpec};
use crate::contract::pooler::{Hold, HoldState, VERSION};

/// How long a change that was put off waits.
const POSTPONED: SignedDuration = SignedDuration::from_secs(60);

/// A planned change that interrupts clients.
pub struct Change {
    /// Its name, for people; it identifies the change, too.
    pub name: String,
    /// Whether its order was given to an agent.
    pub ordered: bool,
    /// How long queries are held for it.
    pub time: HoldTime,
}

/// How long queries are held for a change.
#[derive(Clone, Copy)]
pub struct HoldTime {
    /// At most, in seconds; 0: not at all.
    pub seconds: u64,
    /// For the transactions under way.
    pub for_transactions: SignedDuration,
    /// The field that sets the latter, for people.
    pub field: &'static str,
}

impl HoldTime {
    /// For a handover of the lead or a restart.
    pub fn of_switchover(spec: &PoolerSpec) -> Self {
        Self::new(spec.hold_seconds(), 2, "half of spec.pooler.plannedChanges.holdSeconds")
    }

    /// For a major upgrade, or the way back.
    pub fn of_upgrade(spec: &PoolerSpec) -> Self {
        Self::new(spec.upgrade_hold_seconds(), 4, "a quarter of spec.pooler.plannedChanges.upgradeHoldSeconds")
    }

    fn new(seconds: u64, part: i32, field: &'static str) -> Self {
        let whole = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or_default());
        Self { seconds, for_transactions: whole / part, field }
    }

    /// What is left for the change, in seconds.
    pub fn for_change(&self) -> u64 {
        self.seconds.saturating_sub(u64::try_from(self.for_transactions.as_secs()).unwrap_or_default())
    }
}

/// The result.
#[derive(Debug, PartialEq)]
pub struct Gate {
    /// The order for the pods.
    pub hold: Option<Hold>,
    /// Whether the change is made now.
    pub passes: bool,
    /// When to decide again, at the latest.
    pub again_in: Option<Duration>,
    /// Why the queries are not held, or the change waits.
    pub message: Option<String>,
}

impl Gate {
    fn open(hold: Option<Hold>) -> Self {
        let message = hold.as_ref().and_then(|hold| hold.given_up.clone());
        Self { hold, passes: true, again_in: None, message }
    }

    fn closed(hold: Hold, again_in: SignedDuration) -> Self {
        let message = hold.given_up.clone();
        let again_in = Duration::try_from(again_in).unwrap_or_default() + Duration::from_millis(20);
        Self { hold: Some(hold), passes: false, again_in: Some(again_in), message }
    }
}

/// Decides on a change.
pub fn decide(spec: &PoolerSpec, change: Option<&Change>, found: &Observed, now: Timestamp) -> Gate {
    let Some(change) = change.filter(|change| change.time.seconds > 0) else { return Gate::open(None) };
    let whole = SignedDuration::from_secs(i64::try_from(change.time.seconds).unwrap_or_default());
    let known = found.hold.clone().filter(|hold| hold.change == change.name);
    let age = |hold: &Hold| now.duration_since(hold.issued_at);
    if change.ordered {
        return Gate::open(known.filter(|hold| age(hold) < whole));
    }
    match known {
        Some(hold) if hold.given_up.is_some() => match spec.planned_changes.on_timeout {
            OnTimeout::Proceed if age(&hold) < POSTPONED => Gate::open(Some(hold)),
            OnTimeout::Postpone if age(&hold) < POSTPONED => {
                let rest = POSTPONED - age(&hold);
                Gate::closed(hold, rest)
            }
            _ => begin(change, found, now),
        },
        // Never again at once, also where this comes late: clients would be held time after time.
        Some(hold) if age(&hold) < POSTPONED => {
            let waiting = waiting(found, &hold.id);
            let patience = change.time.for_transactions;
            let in_time = age(&hold) < patience;
            if waiting.is_empty() && in_time {
                Gate::open(Some(hold))
            } else if in_time {
                let rest = patience - age(&hold);
                Gate::closed(hold, rest)
            } else {
                give_up(spec, hold, &waiting, change.time)
            }
        }
        _ => begin(change, found, now),
    }
}

fn begin(change: &Change, found: &Observed, now: Timestamp) -> Gate {
    let time = change.time;
    let id = format!("{}-{}", change.name.replace(' ', "-"), now.as_millisecond());
    let change = change.name.clone();
    if waiting(found, &id).is_empty() {
        // There is no pod that could have clients.
        return Gate::open(None);
    }
    let hold = Hold { version: VERSION, id, change, issued_at: now, seconds: time.seconds, given_up: None };
    Gate::closed(hold, time.for_transactions)
}

fn give_up(spec: &PoolerSpec, hold: Hold, waiting: &[Waiting<'_>], time: HoldTime) -> Gate {
    let next = match spec.planned_changes.on_timeout {
        OnTimeout::Proceed => "the change is made, and cuts them",
        OnTimeout::Postpone => "the change is put off for a minute",
    };
    let within = format!("within {:.1} s ({})", time.for_transactions.as_secs_f64(), time.field);
    let names =
        |busy: bool| -> Vec<&str> { waiting.iter().filter(|pod| pod.is_busy == busy).map(|pod| pod.name).collect() };
    let (busy, silent) = (names(true), names(false));
    // A pod that does not answer at all, as one on a node that is gone, puts nothing off.
    if busy.is_empty() {
        let why = match silent.is_empty() {
            true => format!("the change was not made {within} after the queries were held"),
            false => format!("{} did not answer {within}", silent.join(", ")),
        };
        return Gate::open(Some(Hold { given_up: Some(format!("{why}: the change is made")), ..hold }));
    }
    let message = format!("transactions of {} did not end {within}: {next}", busy.join(", "));
    let hold = Hold { given_up: Some(message), ..hold };
    match spec.planned_changes.on_timeout {
        OnTimeout::Proceed => Gate::open(Some(hold)),
        OnTimeout::Postpone => Gate::closed(hold, POSTPONED),
    }
}

/// A pod that does not hold its queries.
struct Waiting<'a> {
    name: &'a str,
    /// Whether it has taken the order, and waits for the end of transactions.
    is_busy: bool,
}

/// The pods that do not hold their queries for this order.
fn waiting<'a>(found: &'a Observed, id: &str) -> Vec<Waiting<'a>> {
    let state = |pod: &PoolerPod| Some(pod.report.as_ref()?.hold.as_ref().filter(|hold| hold.id == id)?.state);
    let waiting = |pod: &'a PoolerPod| match state(pod) {
        Some(HoldState::Held) => None,
        state => Some(Waiting { name: &pod.name, is_busy: state == Some(HoldState::Waiting) }),
    };
    found.pods.iter().filter_map(waiting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::pooler::{HoldReport, PodReport};

    fn change(ordered: bool) -> Change {
        let time = HoldTime::of_switchover(&PoolerSpec::default());
        Change { name: "switchover of chat-db-0".to_owned(), ordered, time }
    }

    fn found(hold: Option<&Hold>, held: &[bool]) -> Observed {
        let id = hold.map(|hold| hold.id.clone()).unwrap_or_default();
        let pod = |(number, held): (usize, &bool)| PoolerPod {
            name: format!("pooler-{number}"),
            report: Some(PodReport {
                version: 1,
                uid: "u".into(),
                trouble: None,
                hold: Some(HoldReport {
                    id: id.clone(),
                    state: if *held { HoldState::Held } else { HoldState::Waiting },
                }),
            }),
        };
        Observed { hold: hold.cloned(), pods: held.iter().enumerate().map(pod).collect(), ..Observed::default() }
    }

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_second(1_000_000).expect("a time") + SignedDuration::from_secs_f64(seconds)
    }

    fn begun(spec: &PoolerSpec) -> Hold {
        let gate = decide(spec, Some(&change(false)), &found(None, &[false, false]), at(0.0));
        assert!(!gate.passes);
        gate.hold.expect("an order")
    }

    #[test]
    fn a_change_is_made_once_every_pod_holds_its_queries() {
        let spec = PoolerSpec::default();
        let hold = begun(&spec);
        let after =
            |held: &[bool], seconds| decide(&spec, Some(&change(false)), &found(Some(&hold), held), at(seconds));
        assert!(!after(&[true, false], 0.1).passes);
        let passed = after(&[true, true], 0.2);
        assert!(passed.passes && passed.hold.as_ref() == Some(&hold) && passed.message.is_none());
        // While the lead changes, the order stands, and not longer than its time.
        let while_ordered =
            |seconds| decide(&spec, Some(&change(true)), &found(Some(&hold), &[true, true]), at(seconds)).hold;
        assert_eq!(while_ordered(1.0), Some(hold.clone()));
        assert_eq!(while_ordered(5.0), None);
        assert_eq!(decide(&spec, None, &found(Some(&hold), &[true, true]), at(1.0)), Gate::open(None));
    }

    #[test]
    fn a_long_transaction_is_cut_or_puts_the_change_off() {
        let mut spec = PoolerSpec::default();
        let hold = begun(&spec);
        let late = |spec: &PoolerSpec| decide(spec, Some(&change(false)), &found(Some(&hold), &[true, false]), at(2.6));
        let cut = late(&spec);
        assert!(cut.passes && cut.message.as_ref().is_some_and(|why| why.contains("pooler-1")), "{cut:?}");
        spec.planned_changes.on_timeout = OnTimeout::Postpone;
        let put_off = late(&spec);
        assert!(!put_off.passes && put_off.hold.as_ref().is_some_and(|hold| hold.given_up.is_some()), "{put_off:?}");
        let again =
            |seconds| decide(&spec, Some(&change(false)), &found(put_off.hold.as_ref(), &[false, false]), at(seconds));
        assert_eq!(again(30.0).hold, put_off.hold);
        assert_ne!(again(61.0).hold.expect("another order").id, hold.id);
    }

    #[test]
    fn an_operator_that_was_away_does_not_hold_clients_again_at_once() {
        let spec = PoolerSpec::default();
        let hold = begun(&spec);
        let later = |seconds| decide(&spec, Some(&change(false)), &found(Some(&hold), &[true, true]), at(seconds));
        for seconds in [2.6, 4.9, 7.0] {
            let gate = later(seconds);
            let hold = gate.hold.expect("the order");
            assert!(gate.passes && hold.given_up.is_some_and(|why| why.contains("was not made")), "{seconds}");
        }
        let gate = later(61.0);
        assert!(!gate.passes && gate.hold.expect("another order").id != hold.id);
    }

    #[test]
    fn a_pod_that_does_not_answer_puts_nothing_off() {
        let mut spec = PoolerSpec::default();
        spec.planned_changes.on_timeout = OnTimeout::Postpone;
        let hold = begun(&spec);
        let mut silent = found(Some(&hold), &[true, false]);
        silent.pods[1].report = None;
        let gate = decide(&spec, Some(&change(false)), &silent, at(2.6));
        assert!(gate.passes, "{gate:?}");
        assert!(gate.message.is_some_and(|why| why.contains("pooler-1 did not answer")));
    }

    #[test]
    fn an_upgrade_has_a_time_of_its_own() {
        let spec = PoolerSpec::default();
        let time = HoldTime::of_upgrade(&spec);
        assert_eq!((time.seconds, time.for_change()), (60, 45));
        let change = |ordered| Change { name: "upgrade of chat-db-0".to_owned(), ordered, time };
        let hold = decide(&spec, Some(&change(false)), &found(None, &[false]), at(0.0)).hold.expect("an order");
        assert_eq!(hold.seconds, 60);
        let after = |held, seconds| decide(&spec, Some(&change(false)), &found(Some(&hold), &[held]), at(seconds));
        assert!(!after(false, 14.0).passes && after(true, 14.0).passes);
        let given_up = after(false, 15.1);
        assert!(given_up.passes && given_up.message.is_some_and(|why| why.contains("upgradeHoldSeconds")));
        let while_ordered =
            |seconds| decide(&spec, Some(&change(true)), &found(Some(&hold), &[true]), at(seconds)).hold;
        assert_eq!((while_ordered(59.0), while_ordered(60.0)), (Some(hold.clone()), None));
    }

    #[test]
    fn nothing_is_held_in_session_mode_or_without_pods() {
        let mut spec = PoolerSpec { mode: crate::api::PoolMode::Session, ..PoolerSpec::default() };
        for time in [HoldTime::of_switchover(&spec), HoldTime::of_upgrade(&spec)] {
            let change = Change { time, ..change(false) };
            assert_eq!(decide(&spec, Some(&change), &found(None, &[false]), at(0.0)), Gate::open(None));
        }
        spec.mode = crate::api::PoolMode::Transaction;
        assert_eq!(decide(&spec, Some(&change(false)), &found(None, &[]), at(0.0)), Gate::open(None));
    }
}
