//! The list of cases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::call::{Actor, Call};
use super::gate::{Boundary, Fault};
use super::scenario::Scenario;

/// One fault at one call of one scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// The scenario.
    pub scenario: Scenario,
    /// The fault and its boundary.
    pub boundary: Boundary,
}

impl Case {
    /// The name by which it can be repeated, such as `create/agent/lost-reply/2`.
    pub fn name(&self) -> String {
        let word = |value: serde_json::Result<serde_json::Value>| {
            value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let Boundary { actor, fault, index } = self.boundary;
        let [scenario, actor, fault] =
            [serde_json::to_value(self.scenario), serde_json::to_value(actor), serde_json::to_value(fault)].map(word);
        format!("{scenario}/{actor}/{fault}/{index}")
    }
}

/// The number of calls of a sender at which a fault is possible, in a run without a fault.
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

/// The selection of cases for a run.
pub enum Choice {
    /// A fixed sample.
    Sample,
    /// Those with this name, or with this name and a slash as prefix.
    Only(String),
    /// All of these scenarios.
    Scenarios(Vec<Scenario>),
    /// All that belong to this shard, counted from 0, of so many.
    Shard(usize, usize),
}

impl Choice {
    /// All cases of the scenarios with these names, with commas between them.
    ///
    /// # Panics
    /// If there is no scenario of a name.
    pub fn scenarios_named(names: &str) -> Self {
        let named = |name: &str| {
            let of_name = |scenario: &Scenario| serde_json::to_value(scenario).is_ok_and(|value| value == name);
            Scenario::ALL.into_iter().find(of_name).unwrap_or_else(|| panic!("there is no scenario {name}"))
        };
        Self::Scenarios(names.split(',').map(named).collect())
    }

    /// Whether a case belongs to it. A case's shard does not hang on how many there are.
    pub fn has(&self, case: &Case) -> bool {
        match self {
            Self::Sample => sample().contains(case),
            Self::Only(wanted) => format!("{}/", case.name()).starts_with(&format!("{wanted}/")),
            Self::Scenarios(wanted) => wanted.contains(&case.scenario),
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
            Self::Only(wanted) => Self::scenarios_named(wanted.split('/').next().unwrap_or_default()).scenarios(),
            Self::Scenarios(wanted) => wanted.clone(),
            Self::Shard(..) => Scenario::ALL.to_vec(),
        }
    }
}

/// Each fault, each sender, early calls and late ones, of the most common scenarios.
fn sample() -> Vec<Case> {
    use Actor::{Agent, AgentInPostgres, Operator};
    use Fault::{AfterCommit, BeforeSend, Conflict, LostReply, ServerError};
    let case = |scenario, actor, fault, index| Case { scenario, boundary: Boundary { actor, fault, index } };
    vec![
        case(Scenario::Create, Operator, BeforeSend, 2),
        case(Scenario::Create, Operator, AfterCommit, 9),
        case(Scenario::Create, Operator, AfterCommit, 13),
        case(Scenario::Create, Operator, Conflict, 12),
        case(Scenario::Create, Operator, ServerError, 5),
        case(Scenario::Create, Operator, LostReply, 28),
        case(Scenario::Create, Agent, AfterCommit, 2),
        case(Scenario::Create, Agent, LostReply, 2),
        case(Scenario::DeleteData, Operator, BeforeSend, 6),
        case(Scenario::DeleteData, Operator, AfterCommit, 12),
        case(Scenario::ClientAdded, Operator, AfterCommit, 3),
        case(Scenario::ClientAdded, AgentInPostgres, AfterCommit, 2),
    ]
}

#[test]
fn a_case_is_asked_for_by_its_name_or_by_the_beginning_of_it() {
    let boundary = Boundary { actor: Actor::Agent, fault: Fault::LostReply, index: 1 };
    let case = Case { scenario: Scenario::DeleteData, boundary };
    assert_eq!(case.name(), "delete-data/agent/lost-reply/1");
    let has = |wanted: &str| Choice::Only(wanted.to_owned()).has(&case);
    assert!(has("delete-data/agent/lost-reply/1") && has("delete-data/agent") && !has("delete"));
    assert!(
        !Choice::Only("delete-data/agent/lost-reply/1".to_owned())
            .has(&Case { boundary: Boundary { index: 11, ..boundary }, ..case })
    );
    assert_eq!(Choice::Only("delete-data/agent".to_owned()).scenarios(), [Scenario::DeleteData]);
}
