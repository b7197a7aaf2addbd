//! Which cases there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::call::{Actor, Call};
use super::gate::{Boundary, Fault};
use super::scenario::Scenario;

/// One fault at one call of one scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// What is done.
    pub scenario: Scenario,
    /// Where the fault happens.
    pub boundary: Boundary,
}

/// How many calls of a sender a fault can befall, in a run that nothing disturbed.
pub type Counts = Vec<(Actor, Fault, usize)>;

/// Counts the calls of an undisturbed run.
pub fn count(calls: &[(Actor, Call)]) -> Counts {
    let mut counts = BTreeMap::<_, usize>::new();
    for (actor, call) in calls {
        for fault in Fault::ALL.into_iter().filter(|fault| fault.befalls(call)) {
            *counts.entry((*actor, fault)).or_default() += 1;
        }
    }
    counts.into_iter().map(|((actor, fault), count)| (actor, fault, count)).collect()
}

/// All cases of a scenario with these counts.
pub fn cases(scenario: Scenario, counts: &Counts) -> Vec<Case> {
    let tried = counts.iter().filter(|_| scenario.has_faults());
    tried
        .flat_map(|&(actor, fault, count)| {
            (1..=count).map(move |index| Case { scenario, boundary: Boundary { actor, fault, index } })
        })
        .collect()
}

/// What a run does of all cases.
pub enum Choice {
    /// A fixed sample.
    Sample,
    /// All that belong to this shard, counted from 0, of so many.
    Shard(usize, usize),
}

impl Choice {
    /// Whether a case belongs to it. A case's shard does not hang on how many there are.
    pub fn has(&self, case: &Case) -> bool {
        match self {
            Self::Sample => sample().contains(case),
            Self::Shard(shard, shards) => {
                let Boundary { actor, fault, index } = case.boundary;
                (case.scenario as usize + actor as usize + fault as usize + index) % shards == *shard
            }
        }
    }

    /// The scenarios of which it has cases.
    pub fn scenarios(&self) -> Vec<Scenario> {
        let sampled = |scenario: &Scenario| sample().iter().any(|case| case.scenario == *scenario);
        match self {
            Self::Sample => Scenario::ALL.into_iter().filter(sampled).collect(),
            Self::Shard(..) => Scenario::ALL.to_vec(),
        }
    }
}

/// Each fault, each sender, early calls and late ones, of what people do most.
fn sample() -> Vec<Case> {
    use Actor::{Agent, Operator};
    use Fault::{AfterCommit, BeforeSend, Conflict, LostReply, ServerError};
    let case = |scenario, actor, fault, index| Case { scenario, boundary: Boundary { actor, fault, index } };
    vec![
        case(Scenario::Create, Operator, BeforeSend, 2),
        case(Scenario::Create, Operator, BeforeSend, 21),
        case(Scenario::Create, Operator, AfterCommit, 9),
        case(Scenario::Create, Operator, AfterCommit, 13),
        case(Scenario::Create, Operator, Conflict, 12),
        case(Scenario::Create, Operator, ServerError, 5),
        case(Scenario::Create, Operator, LostReply, 11),
        case(Scenario::Create, Operator, LostReply, 28),
        case(Scenario::Create, Agent, AfterCommit, 2),
        case(Scenario::Create, Agent, LostReply, 2),
        case(Scenario::DeleteData, Operator, BeforeSend, 6),
        case(Scenario::DeleteData, Operator, AfterCommit, 12),
    ]
}
