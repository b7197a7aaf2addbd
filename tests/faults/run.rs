//! A run: the installed operator is scaled down, scenarios are recorded, cases are run.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use super::bench::{Bench, Desk};
use super::case::{self, End};
use super::compare::differences;
use super::journal::{Entry, Journal, Learned, Verdict};
use super::plan::{Case, Choice, cases, count};
use super::scenario::Scenario;
use super::snapshot::FORM;
use super::table;
use crate::harness::Cluster;
use crate::harness::cluster::RUNTIME;

/// How many cases work at once, unless `FAULTS_JOBS` says otherwise: they mostly wait.
const JOBS: usize = 4;

/// The part that `make test` has time for.
pub fn sample() {
    RUNTIME.block_on(run(Choice::Sample, None));
}

/// All, or some by name (`FAULTS_ONLY`), or those of some scenarios (`FAULTS_SCENARIOS=client-added,upgrade`), or a shard
/// (`FAULTS_SHARD=2/4`), continuing a journal (`FAULTS_RESUME`),
/// for a limited time (`FAULTS_SECONDS`).
pub fn all() {
    if let Some(wanted) = setting("FAULTS_ONLY") {
        // Asked for by name it runs, also if it is known.
        return RUNTIME.block_on(run(Choice::Only(wanted), None));
    }
    let choice = match setting("FAULTS_SHARD") {
        None => setting("FAULTS_SCENARIOS").map_or(Choice::Shard(0, 1), |names| Choice::scenarios_named(&names)),
        Some(text) => {
            let parsed = text.split_once('/').and_then(|(shard, of)| Some((shard.parse().ok()?, of.parse().ok()?)));
            let (shard, shards): (usize, usize) = parsed.expect("FAULTS_SHARD such as 2/4");
            assert!((1..=shards).contains(&shard), "FAULTS_SHARD such as 2/4");
            Choice::Shard(shard - 1, shards)
        }
    };
    RUNTIME.block_on(run(choice, setting("FAULTS_RESUME").map(PathBuf::from)));
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    setting(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Prints at once, also if the test passes.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn run(choice: Choice, journal: Option<PathBuf>) {
    if !Cluster::is_local() {
        return say(
            "not run: the proxies and the agents' processes must be on the cluster's node, so only the local cluster serves",
        );
    }
    let bench = Arc::new(Bench::new(Cluster::get().await).await);
    let mut terminate = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
    let journal = Mutex::new(Journal::open(journal));
    bench.installed.stand_aside().await;
    bench.sweep().await;
    let desks = join_all((0..number("FAULTS_JOBS").map_or(JOBS, |jobs| jobs as usize)).map(|_| bench.desk())).await;
    let problem = tokio::select! {
        problems = work(&bench, &desks, &choice, &journal) => problems,
        _ = tokio::signal::ctrl_c() => vec!["broken off".to_owned()],
        _ = terminate.recv() => vec!["broken off".to_owned()],
    };
    bench.cleaned_up().await;
    bench.sweep().await;
    bench.installed.come_back().await;
    let journal = journal.into_inner();
    let in_choice: Vec<_> = journal.entries.into_iter().filter(|entry| choice.has(&entry.case)).collect();
    say(&format!("\nat commit {}:\n\n{}", journal.commit, table::of(&in_choice)));
    assert!(problem.is_empty(), "{} problems:\n{}", problem.len(), problem.join("\n"));
}

async fn work(bench: &Arc<Bench>, desks: &[Desk], choice: &Choice, journal: &Mutex<Journal>) -> Vec<String> {
    let began = Instant::now();
    let stop = number("FAULTS_SECONDS").map(Duration::from_secs);
    let mut problems = learn(bench, desks, &choice.scenarios(), journal).await;
    let learned = journal.lock().await.learned.clone();
    problems.extend(learned.iter().flat_map(|one| beside(one, &learned)));
    let every: Vec<_> = learned.iter().flat_map(|learned| cases(learned.scenario, &learned.counts)).collect();
    let chosen: Vec<_> = every.iter().copied().filter(|case| choice.has(case)).collect();
    let known = journal.lock().await;
    let mut todo: Vec<_> = chosen.iter().copied().filter(|case| !known.has(case)).collect();
    // Every scenario and fault from the beginning on, should the time end before they do.
    todo.sort_by_key(|case| case.boundary.index);
    let todo = VecDeque::from(todo);
    problems.extend(known.entries.iter().filter(|entry| choice.has(&entry.case)).filter_map(failure));
    drop(known);
    match choice {
        Choice::Sample => {
            say(&format!("a part: {} of {} cases of its scenarios; all: make test-faults", chosen.len(), every.len()))
        }
        Choice::Only(_) | Choice::Scenarios(_) | Choice::Shard(..) => {
            say(&format!("{} cases, of which {} are to be run", chosen.len(), todo.len()))
        }
    }
    let (todo, problems) = (Mutex::new(todo), Mutex::new(problems));
    join_all(desks.iter().map(async |desk| {
        while stop.is_none_or(|stop| began.elapsed() < stop) {
            let Some(case) = todo.lock().await.pop_front() else { return };
            let entry = one(bench, desk, case, &learned, journal).await;
            problems.lock().await.extend(failure(&entry));
        }
    }))
    .await;
    let left = todo.into_inner().len();
    if left > 0 {
        say(&format!("{left} cases are left: run it again to continue"));
    }
    problems.into_inner()
}

async fn one(bench: &Arc<Bench>, desk: &Desk, case: Case, learned: &[Learned], journal: &Mutex<Journal>) -> Entry {
    let expected = learned.iter().find(|learned| learned.scenario == case.scenario).map(|learned| &learned.end);
    let outcome = case::run(bench, desk, case.scenario, Some(case.boundary), expected).await;
    let verdict = match (&outcome.end, &outcome.hit) {
        (Err(_), _) => Verdict::Failed,
        (Ok(_), None) => Verdict::NotReached,
        (Ok(End::GaveUp(_)), Some(_)) => Verdict::GaveUp,
        (Ok(End::As(_)), Some(_)) => Verdict::Passed,
    };
    let problem = match outcome.end {
        Err(problem) | Ok(End::GaveUp(problem)) => Some(problem),
        Ok(End::As(_)) => None,
    };
    let mut journal = journal.lock().await;
    let entry = Entry {
        commit: journal.commit.clone(),
        case,
        verdict,
        call: outcome.hit,
        seconds: (outcome.took.as_secs_f64() * 10.0).round() / 10.0,
        problem,
    };
    say(&line(&entry));
    journal.add(entry.clone());
    entry
}

fn line(entry: &Entry) -> String {
    format!(
        "{} ({}): {:?} after {} s{}",
        entry.case.name(),
        entry.call.as_deref().unwrap_or("not reached"),
        entry.verdict,
        entry.seconds,
        entry.problem.as_ref().map(|problem| format!("\n{problem}")).unwrap_or_default(),
    )
}

fn failure(entry: &Entry) -> Option<String> {
    (entry.verdict == Verdict::Failed).then(|| line(entry))
}

/// Runs the unknown scenarios without a fault.
async fn learn(bench: &Arc<Bench>, desks: &[Desk], scenarios: &[Scenario], journal: &Mutex<Journal>) -> Vec<String> {
    let known: Vec<_> = journal.lock().await.learned.iter().map(|learned| learned.scenario).collect();
    let todo: VecDeque<_> = scenarios.iter().copied().filter(|scenario| !known.contains(scenario)).collect();
    let (todo, problems) = (Mutex::new(todo), Mutex::new(Vec::new()));
    join_all(desks.iter().map(async |desk| {
        loop {
            let Some(scenario) = todo.lock().await.pop_front() else { return };
            let outcome = case::run(bench, desk, scenario, None, None).await;
            let (name, calls) = (scenario.name(), outcome.calls.len());
            match outcome.end {
                Ok(End::As(end)) => {
                    say(&format!("{name}, undisturbed: {calls} calls in {:.1} s", outcome.took.as_secs_f64()));
                    let mut journal = journal.lock().await;
                    let (commit, counts) = (journal.commit.clone(), count(&outcome.calls));
                    journal.learn(Learned {
                        commit,
                        form: FORM,
                        scenario,
                        counts,
                        sent_again: outcome.sent_again,
                        end,
                    });
                }
                Err(problem) | Ok(End::GaveUp(problem)) => {
                    problems.lock().await.push(format!("{name}, undisturbed: {problem}"))
                }
            }
        }
    }))
    .await;
    problems.into_inner()
}

/// Checks of a scenario without a fault: a restarted operator sends nothing, and two ways to one
/// spec have the same final state.
fn beside(one: &Learned, all: &[Learned]) -> Vec<String> {
    let mut problems = Vec::new();
    if !one.sent_again.is_empty() {
        problems.push(format!("{}: a restarted operator sent {}", one.scenario.name(), one.sent_again.join(", ")));
    }
    if let Some(other) = all.iter().find(|other| other.scenario == one.scenario.ends_as()) {
        let differ = differences(&other.end, &one.end);
        if !differ.is_empty() {
            problems.push(format!("{} ends otherwise: {}", one.scenario.name(), differ.join("\n")));
        }
    }
    problems
}
