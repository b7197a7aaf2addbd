//! The soak: a fault every few seconds while clients write, and then the verification.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Way;
use crate::faults;
use crate::gaps::{gaps, longest};
use crate::harness::Cluster;
use crate::harness::cluster::RUNTIME;
use crate::nodes::{self, Break, Broken};
use crate::output::{leave, table};
use crate::plan::{Draw, Fault, draws};
use crate::settings::{number, say};
use crate::subject::{Subject, WHOLE, node};
use crate::verdict;
use crate::writers::{Account, Writers};
use crate::{changes, machine, place};

/// How long it takes, unless `SOAK_MINUTES` says otherwise.
const MINUTES: u64 = 30;
/// From one fault to the next, unless `SOAK_FAULT_SECONDS` says otherwise: short enough that the
/// last one is not always repaired.
const BETWEEN: u64 = 20;
/// How long a node stays broken: shorter than it takes Kubernetes to give its pods up.
const NODE: Duration = Duration::from_secs(30);
/// How long the API server is stopped, in seconds: longer than the lease.
const HANG: u32 = 30;
/// What comes before the first fault and after the last, at most.
const AROUND: Duration = Duration::from_secs(1200);

/// A fault that was brought about, or tried.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    /// Seconds since the first write, and the time of day, which the logs have.
    at: f64,
    time: String,
    fault: Fault,
    /// What it happened to, or why it did not.
    outcome: Result<String, String>,
    /// The longest time without an acknowledged write, until the next fault.
    longest: f64,
}

/// The result.
struct Outcome {
    accounts: Vec<Account>,
    events: Vec<Event>,
    longest: f64,
    stored: usize,
    problems: Vec<String>,
}

/// Runs it, and leaves target/dev/soak.md and .json. `SOAK_SEED` gives the same faults again, as
/// far as the database is as it was: who leads, and what cannot be while a node is broken, is its.
pub fn run() {
    RUNTIME.block_on(async {
        let cluster = Cluster::get().await;
        let minutes = number("SOAK_MINUTES").unwrap_or(MINUTES);
        let between = Duration::from_secs(number("SOAK_FAULT_SECONDS").unwrap_or(BETWEEN));
        let seed = number("SOAK_SEED").unwrap_or_else(|| rand::random::<u32>().into());
        let nodes = nodes::breakable(cluster).await;
        say(&format!("SOAK_SEED={seed}: {minutes} minutes, a fault every {} s; nodes: {nodes:?}", between.as_secs()));
        let length = Duration::from_secs(60 * minutes);
        let found = place::within("soak", length + AROUND, async |place| {
            let outcome = soak(place, &nodes, seed, length, between).await?;
            let machine = machine::described(cluster).await;
            let told = format!("{}\n{machine}; `make soak SOAK_SEED={seed}`\n", tell(&outcome, minutes));
            leave("soak", &told, &document(&outcome, seed, minutes, &machine));
            // Only now, so that the table is there, and in here, so that the logs are.
            if outcome.problems.is_empty() { Ok(()) } else { Err(outcome.problems.join("\n")) }
        });
        if let Err(problem) = found.await {
            panic!("with SOAK_SEED={seed}: {problem}");
        }
    });
}

async fn soak(
    place: Arc<crate::harness::Sandbox>,
    nodes: &[String],
    seed: u64,
    length: Duration,
    between: Duration,
) -> Result<Outcome, String> {
    let subject = Subject::create(place.clone()).await?;
    let way = Way::into(&place).await;
    let (writers, begun) = (Writers::start(&way), Instant::now());
    tokio::time::sleep(Duration::from_secs(3)).await;

    let mut hand = Hand { subject: &subject, nodes, broken: Arc::default(), mending: Vec::new() };
    let mut events = Vec::new();
    let mut draws = draws(seed, !nodes.is_empty());
    let mut next = Instant::now();
    while begun.elapsed() < length {
        let Some(draw) = draws.next() else { break };
        if !hand.can(draw).await {
            continue;
        }
        let (at, time) = (begun.elapsed().as_secs_f64(), Timestamp::now().to_string());
        let outcome = hand.inflict(draw).await;
        say(&format!("{at:7.1} s {}: {outcome:?}; {} rows", draw.fault.name(), writers.acknowledged()));
        events.push(Event { at, time, fault: draw.fault, outcome, longest: 0.0 });
        next += between;
        tokio::time::sleep_until(next).await;
    }
    let mut problems = hand.end().await;
    problems.extend(never_brought_about(&events));
    if events.iter().any(|event| event.fault == Fault::SpecChanged) {
        problems.extend(changes::put_back(&subject).await.err());
    }
    // With the writers at work: whole is what serves.
    let healed = subject.whole(WHOLE).await;
    let whole = healed.is_ok();
    problems.extend(healed.err());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let accounts = writers.stop().await;

    let mut times: Vec<_> =
        accounts.iter().flat_map(|account| &account.acknowledged).map(|row| (row.at - begun).as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let end = begun.elapsed().as_secs_f64();
    let ends: Vec<_> = events.iter().skip(1).map(|event| event.at).chain([end]).collect();
    for (event, end) in events.iter_mut().zip(ends) {
        event.longest = longest(&gaps(&times, (event.at, end))).map_or(0.0, |gap| gap.seconds());
    }
    let longest = longest(&gaps(&times, (0.0, end))).map_or(0.0, |gap| gap.seconds());
    problems.extend(faults::missing_objects(&place).await);
    let mut stored = 0;
    if whole {
        let (count, wrong) = verdict::of(&subject, &way, &accounts, begun).await;
        stored = count;
        problems.extend(wrong);
    } else {
        problems.push("what is stored was not compared: the database is not whole".to_owned());
    }
    Ok(Outcome { accounts, events, longest, stored, problems })
}

/// Injects faults, and repairs nodes after their time.
struct Hand<'a> {
    subject: &'a Subject,
    nodes: &'a [String],
    /// The node that is broken now.
    broken: Arc<Mutex<Option<String>>>,
    mending: Vec<JoinHandle<Result<(), String>>>,
}

impl Hand<'_> {
    /// Whether a fault can be: one node at a time, and nothing on it that needs it.
    async fn can(&self, draw: Draw) -> bool {
        let broken = self.broken.lock().await.clone();
        match (broken, draw.fault) {
            (None, _) => true,
            (Some(_), fault) if fault.is_of_a_node() => false,
            (Some(_), fault) if !fault.needs_the_node() => true,
            (Some(broken), _) => self.victim(draw).await.is_ok_and(|(_, on)| on != broken),
        }
    }

    /// The pod that a fault happens to, and its node.
    async fn victim(&self, draw: Draw) -> Result<(String, String), String> {
        let (primary, others) = self.subject.roles().await.map_err(|error| error.to_string())?;
        // Mostly the leader; a replica's Patroni and PostgreSQL must recover, too.
        let of_others = match draw.fault {
            Fault::StandbyForceDeleted => true,
            Fault::PostmasterKilled | Fault::PostmasterStopped | Fault::PatroniKilled | Fault::PatroniStopped => {
                draw.dice < 25
            }
            _ => false,
        };
        let pod = if of_others { others.get(draw.dice % others.len().max(1)) } else { primary.as_ref() };
        let pod = pod.ok_or("nobody leads at present, or nobody follows")?;
        Ok((pod.name_any(), node(pod)))
    }

    /// Injects a fault; returns its object.
    async fn inflict(&mut self, draw: Draw) -> Result<String, String> {
        let subject = self.subject;
        let place = &subject.place;
        match draw.fault {
            Fault::SpecChanged => Ok(format!("{} changes", changes::burst(subject, draw.dice).await?)),
            Fault::ObjectDeleted => faults::delete_object(place, draw.dice).await,
            Fault::ScaledToZero => faults::scale_to_zero(place).await.map(|()| "by another hand".to_owned()),
            _ => self.inflict_on_pod(draw).await,
        }
    }

    /// A fault of a pod or of its node; of the whole cluster those for which it matters who leads.
    async fn inflict_on_pod(&mut self, draw: Draw) -> Result<String, String> {
        let place = &self.subject.place;
        let (pod, on) = self.victim(draw).await?;
        match draw.fault {
            Fault::PodForceDeleted | Fault::StandbyForceDeleted => faults::delete(place, &pod, true).await?,
            Fault::PostmasterKilled => faults::signal_postmaster(place, &pod, "KILL").await?,
            Fault::PostmasterStopped => faults::signal_postmaster(place, &pod, "STOP").await?,
            Fault::PatroniKilled => faults::signal_patroni(place, &pod, "KILL").await?,
            Fault::PatroniStopped => faults::signal_patroni(place, &pod, "STOP").await?,
            Fault::Switchover => drop(faults::ask_for_switchover(place, None).await?),
            Fault::NodeCutOff => return self.break_node(on, Break::Cut, draw.dice).await,
            Fault::KubeletStopped => return self.break_node(on, Break::Kubelet, draw.dice).await,
            // Nothing else can be injected meanwhile.
            Fault::ApiServerHangs => nodes::hang_api_server(HANG).await?,
            Fault::ReportRemoved => faults::remove_report(place, &pod).await?,
            // The remaining one of a pod.
            _ => faults::delete(place, &pod, false).await?,
        }
        Ok(format!("{pod} on {on}"))
    }

    /// Breaks the primary's node, or, where that cannot be, another one.
    async fn break_node(&mut self, wanted: String, how: Break, dice: usize) -> Result<String, String> {
        let can = |name: &&String| matches!(how, Break::Kubelet) || *name != nodes::FIRST;
        let all: Vec<_> = self.nodes.iter().filter(can).collect();
        let chosen = all.iter().find(|name| ***name == wanted).or_else(|| all.get(dice % all.len().max(1)));
        let node = (*chosen.ok_or("no node can be broken")?).clone();
        let broken = Broken::begin(&node, how).await?;
        *self.broken.lock().await = Some(node.clone());
        let now = self.broken.clone();
        self.mending.push(tokio::spawn(async move {
            tokio::time::sleep(NODE).await;
            let mended = broken.mend().await;
            *now.lock().await = None;
            mended
        }));
        Ok(format!("{node}; the primary is on {wanted}"))
    }

    /// Waits until every node is repaired; returns the errors.
    async fn end(self) -> Vec<String> {
        let mut problems = Vec::new();
        for mending in self.mending {
            problems.extend(mending.await.map_err(|error| error.to_string()).and_then(|mended| mended).err());
        }
        problems
    }
}

/// The faults that were tried, and never once happened: the soak did not show what it says.
fn never_brought_about(events: &[Event]) -> Vec<String> {
    let tried: BTreeSet<Fault> = events.iter().map(|event| event.fault).collect();
    let happened = |fault: &Fault| events.iter().any(|event| event.fault == *fault && event.outcome.is_ok());
    tried
        .iter()
        .filter(|fault| !happened(fault))
        .map(|fault| format!("{}: never brought about", fault.name()))
        .collect()
}

fn tell(outcome: &Outcome, minutes: u64) -> String {
    let head = ["Fault", "times", "not brought about", "longest without a write after it, s"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut kinds: BTreeMap<Fault, Vec<&Event>> = BTreeMap::new();
    for event in &outcome.events {
        kinds.entry(event.fault).or_default().push(event);
    }
    for (fault, events) in kinds {
        let failed = events.iter().filter(|event| event.outcome.is_err()).count();
        let longest = events.iter().map(|event| event.longest).fold(0.0, f64::max);
        rows.push(vec![
            fault.name().to_owned(),
            (events.len() - failed).to_string(),
            failed.to_string(),
            format!("{longest:.2}"),
        ]);
    }
    let acknowledged: usize = outcome.accounts.iter().map(|account| account.acknowledged.len()).sum();
    let sent: u64 = outcome.accounts.iter().map(|account| account.sent).sum();
    let verdict = match outcome.problems.as_slice() {
        [] => "No acknowledged row is lost, none is there twice, and all instances hold the same.".to_owned(),
        problems => format!("**{} problems**\n\n- {}", problems.len(), problems.join("\n- ")),
    };
    format!(
        "{verdict}\n\n{}\n{minutes} minutes; {sent} rows were sent, {acknowledged} acknowledged, {} are stored; \
         the longest time without an acknowledged one: {:.2} s\n",
        table(&rows),
        outcome.stored,
        outcome.longest,
    )
}

fn document(outcome: &Outcome, seed: u64, minutes: u64, machine: &str) -> serde_json::Value {
    json!({
        "seed": seed,
        "minutes": minutes,
        "machine": machine,
        "acknowledged": outcome.accounts.iter().map(|account| account.acknowledged.len()).collect::<Vec<_>>(),
        "sent": outcome.accounts.iter().map(|account| account.sent).collect::<Vec<_>>(),
        "stored": outcome.stored,
        "longest": outcome.longest,
        "events": outcome.events,
        "problems": outcome.problems,
    })
}
