//! The results as a Markdown table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::call::Actor;
use super::gate::Fault;
use super::journal::{Entry, Verdict};
use super::scenario::Scenario;

#[derive(Default)]
struct Row<'a> {
    passed: usize,
    gave_up: usize,
    failed: usize,
    not_reached: usize,
    calls: BTreeSet<&'a str>,
    longest: f64,
}

/// The table.
pub fn of(entries: &[Entry]) -> String {
    let mut rows: BTreeMap<(Scenario, Actor, Fault), Row<'_>> = BTreeMap::new();
    for entry in entries {
        let key = (entry.case.scenario, entry.case.boundary.actor, entry.case.boundary.fault);
        let row = rows.entry(key).or_default();
        match entry.verdict {
            Verdict::Passed => row.passed += 1,
            Verdict::GaveUp => row.gave_up += 1,
            Verdict::Failed => row.failed += 1,
            Verdict::NotReached => row.not_reached += 1,
        }
        row.calls.extend(entry.call.as_deref());
        row.longest = row.longest.max(entry.seconds);
    }
    let mut text = "| Scenario | Whose call | Fault | Boundaries | Passed | Gave up | Failed | Not reached | Distinct calls | Slowest, s |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut all = Row::default();
    for ((scenario, actor, fault), row) in &rows {
        let actor = match actor {
            Actor::Operator => "operator",
            Actor::Agent => "agent, in Vault",
            Actor::AgentInPostgres => "agent, in PostgreSQL",
        };
        line(&mut text, scenario.name(), actor, fault.name(), row);
        all.passed += row.passed;
        all.gave_up += row.gave_up;
        all.failed += row.failed;
        all.not_reached += row.not_reached;
        all.calls.extend(&row.calls);
        all.longest = all.longest.max(row.longest);
    }
    line(&mut text, "all", "", "", &all);
    text
}

fn line(text: &mut String, scenario: &str, actor: &str, fault: &str, row: &Row<'_>) {
    let boundaries = row.passed + row.gave_up + row.failed + row.not_reached;
    let _ = writeln!(
        text,
        "| {scenario} | {actor} | {fault} | {boundaries} | {} | {} | {} | {} | {} | {:.0} |",
        row.passed,
        row.gave_up,
        row.failed,
        row.not_reached,
        row.calls.len(),
        row.longest,
    );
}
