//! One case: a namespace, two proxies and an operator of its own, a scenario, and its final state.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use kube::ResourceExt;
use serde_json::Value;
use servicedb::api::ServiceDatabase;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::agents::Agents;
use super::bench::{Bench, Desk};
use super::call::{Actor, Call};
use super::compare::differences;
use super::gate::{Boundary, Gate};
use super::process::{Operator, Pulse, Start};
use super::proxy::{Proxy, Upstream, serve};
use super::scenario::{NAME, RESYNC_SECONDS, Scenario};
use super::snapshot::{Words, take, without_request};
use super::socket;
use crate::harness::Sandbox;

/// How long no request must be sent for the final state to count as reached.
const QUIET: Duration = Duration::from_millis(700);
/// The same in a run that others are compared with.
const VERY_QUIET: Duration = Duration::from_secs(3);
/// Between two looks, first and at most: most of a case is spent in waiting for what takes many seconds.
const BETWEEN_LOOKS: [Duration; 2] = [Duration::from_millis(400), Duration::from_secs(3)];
/// How much of the operator's log a failure shows.
const LINES: usize = 15;

/// How a scenario ended.
pub enum End {
    /// With this state.
    As(Value),
    /// With the state from before it, by design: why.
    GaveUp(String),
}

/// The states that a scenario may end with.
struct Expected<'a> {
    /// That of the run without a fault; absent in that run.
    after: Option<&'a Value>,
    /// That from before, where the scenario may give up.
    before: Option<Value>,
}

/// The result of a case.
pub struct Outcome {
    /// The final state, or its differences.
    pub end: Result<End, String>,
    /// The call with the fault.
    pub hit: Option<String>,
    /// The calls of the case.
    pub calls: Vec<(Actor, Call)>,
    /// The duration of the scenario.
    pub took: Duration,
    /// The requests of a restarted operator at the end; only in runs without a fault.
    pub sent_again: Vec<String>,
}

/// Runs a scenario with a fault, or with none; the end must be `expected`, if that is known.
pub async fn run(
    bench: &Arc<Bench>,
    desk: &Desk,
    scenario: Scenario,
    boundary: Option<Boundary>,
    expected: Option<&Value>,
) -> Outcome {
    let place = Place::new(bench, desk, scenario.resync_seconds()).await;
    let work = AssertUnwindSafe(place.work(scenario, boundary, expected)).catch_unwind();
    let began = Instant::now();
    let (end, took) = match work.await {
        Ok((end, took)) => (end, took),
        Err(panic) => (Err(words(panic.as_ref())), began.elapsed()),
    };
    let (hit, calls) = (place.gate.hit(), place.gate.calls());
    let mut sent_again = Vec::new();
    if boundary.is_none() && matches!(end, Ok(End::As(_))) {
        sent_again = place.look_again(scenario).await;
    }
    let end = end.map_err(|problem| format!("{problem}\n{}", place.log()));
    bench.clean_up(place.leave());
    Outcome { end, hit, calls, took, sent_again }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Whether a difference of two statuses is what agents measure now and then, of which the operator writes the newest: the
/// first capacity, for example, comes a minute after their start.
fn is_measured(change: &str) -> bool {
    let path = change.split(": ").next().unwrap_or_default();
    let begins = ["/capacity", "/maintenance"].iter().any(|field| path.starts_with(field));
    begins || ["/sessions", "/oldSessions"].iter().any(|field| path.ends_with(field))
}

struct Place {
    sandbox: Sandbox,
    gate: Arc<Gate>,
    operator: Operator,
    proxies: Vec<JoinHandle<()>>,
    vault_address: String,
    log: PathBuf,
}

impl Place {
    async fn new(bench: &Bench, desk: &Desk, resync_seconds: u64) -> Self {
        let sandbox = bench.namespace().await;
        let (gate, pulse) = (Arc::new(Gate::new()), Arc::new(Pulse::default()));
        let agents = Agents::of(&sandbox.namespace);
        let mut proxies = Vec::new();
        let mut open = async |address: std::net::IpAddr, upstream: &Upstream| {
            let listener = TcpListener::bind((address, 0)).await.expect("a port for a proxy");
            let address = listener.local_addr().expect("the proxy's address");
            let proxy = Proxy {
                upstream: upstream.clone(),
                gate: gate.clone(),
                operator: pulse.clone(),
                agents: agents.clone(),
                namespace: sandbox.namespace.clone(),
            };
            proxies.push(tokio::spawn(serve(listener, bench.tls.clone(), Arc::new(proxy))));
            format!("https://{address}")
        };
        let kubernetes_address = open([127, 0, 0, 1].into(), &bench.kubernetes).await;
        let vault_address = open(bench.node, &bench.vault).await;
        proxies.push(tokio::spawn(socket::watch(agents, gate.clone())));
        let log = bench.folder.join(format!("{}.log", sandbox.namespace));
        let environment =
            bench.environment(desk, &sandbox.namespace, &kubernetes_address, &vault_address, resync_seconds);
        let operator = Operator::start(Start { environment, log: log.clone() }, pulse);
        Self { sandbox, gate, operator, proxies, vault_address, log }
    }

    async fn work(
        &self,
        scenario: Scenario,
        boundary: Option<Boundary>,
        after: Option<&Value>,
    ) -> (Result<End, String>, Duration) {
        scenario.prepare(&self.sandbox).await;
        self.quiet(QUIET).await;
        let existing = self.uid().await;
        let words = |uid: &str| Words::new(&self.sandbox, uid, &self.vault_address);
        let mut expected = Expected { after, before: None };
        if let Some(uid) = existing.as_ref().filter(|_| after.is_some() && scenario.may_give_up()) {
            let before = take(&self.sandbox, &words(uid)).await;
            expected.before = Some(before.unwrap_or_else(|problem| panic!("the state from before: {problem}")));
        }
        self.gate.arm(boundary);
        let began = Instant::now();
        scenario.act(&self.sandbox).await;
        let uid = match existing {
            Some(uid) => uid,
            None => self.uid().await.unwrap_or_default(),
        };
        let end = self.end(scenario, &expected, &words(&uid)).await;
        (end, began.elapsed())
    }

    /// Waits for the end: the expected state, or one that stays.
    async fn end(&self, scenario: Scenario, expected: &Expected<'_>, words: &Words) -> Result<End, String> {
        let began = Instant::now();
        let patience = scenario.patience();
        let [mut pause, longest] = BETWEEN_LOOKS;
        loop {
            let is_last = began.elapsed() >= patience;
            match self.look(scenario, expected, words).await {
                Ok(end) => return Ok(end),
                Err(problem) if is_last => return Err(format!("not within {} s: {problem}", patience.as_secs())),
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.2).min(longest);
        }
    }

    async fn look(&self, scenario: Scenario, expected: &Expected<'_>, words: &Words) -> Result<End, String> {
        scenario.settled(&self.sandbox, expected.after.is_none()).await?;
        // The whole state costs some dozen requests and two logins: it is read when it may be the end.
        let quiet = if expected.after.is_some() { QUIET } else { VERY_QUIET };
        if self.gate.quiet_for() < quiet {
            return Err("calls are still sent".to_owned());
        }
        let state = take(&self.sandbox, words).await?;
        if scenario.may_give_up()
            && let Some(why) = scenario.gave_up(&self.sandbox.get(NAME).await)
        {
            // Without a fault nothing may be given up.
            let Some(before) = expected.before.clone() else { return Ok(End::GaveUp(why)) };
            let differ = differences(&without_request(before), &without_request(state));
            return if differ.is_empty() { Ok(End::GaveUp(why)) } else { Err(format!("{why}\n{}", differ.join("\n"))) };
        }
        let differ = match expected.after {
            Some(expected) => differences(expected, &state),
            None => differences(&state, &take(&self.sandbox, words).await?),
        };
        if differ.is_empty() { Ok(End::As(state)) } else { Err(differ.join("\n")) }
    }

    /// Triggers reconciles, and returns the operator's requests, with what they changed in status: by its resyncs, or
    /// restarted, with an empty cache.
    async fn look_again(&self, scenario: Scenario) -> Vec<String> {
        let before = self.status().await;
        self.gate.arm(None);
        if scenario == Scenario::Resync {
            // Two resyncs at least, with their jitter.
            tokio::time::sleep(Duration::from_secs(RESYNC_SECONDS * 3)).await;
        } else {
            self.operator.pulse.kill();
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        let mut sent: Vec<_> = self.gate.calls().into_iter().map(|(_, call)| call.name).collect();
        if !sent.is_empty() {
            let changed = differences(&before, &self.status().await);
            if !changed.is_empty() && changed.iter().all(|change| is_measured(change)) {
                sent.retain(|call| *call != format!("PATCH servicedatabases/{NAME}/status"));
            } else {
                sent.extend(changed.into_iter().map(|change| format!("status{change}")));
            }
        }
        sent
    }

    async fn status(&self) -> Value {
        let found = self.sandbox.api::<ServiceDatabase>().get_opt(NAME).await.ok().flatten();
        serde_json::to_value(found.and_then(|found| found.status)).unwrap_or_default()
    }

    async fn quiet(&self, time: Duration) {
        loop {
            let quiet_for = self.gate.quiet_for();
            if quiet_for >= time {
                return;
            }
            tokio::time::sleep(time.saturating_sub(quiet_for)).await;
        }
    }

    async fn uid(&self) -> Option<String> {
        self.sandbox.api::<ServiceDatabase>().get_opt(NAME).await.ok().flatten()?.uid()
    }

    /// The end of the operator's log.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LINES);
        format!(
            "the operator was started {} times; the end of {}:\n{}",
            self.operator.pulse.starts(),
            self.log.display(),
            lines[from..].join("\n")
        )
    }

    /// Ends the operator and the proxies; the namespace and the objects in Vault remain.
    fn leave(self) -> impl Future<Output = ()> + Send + 'static {
        drop(self.operator);
        for proxy in &self.proxies {
            proxy.abort();
        }
        super::bench::remove(self.sandbox)
    }
}

#[test]
fn a_measurement_in_status_is_told_from_other_changes() {
    let before = serde_json::json!({"credentials": {"generation": 1, "oldSessions": 0}, "instances": "1/1"});
    let after = serde_json::json!({
        "credentials": {"generation": 2, "oldSessions": 1, "sessions": 3}, "instances": "0/1",
        "capacity": {"databaseBytes": 1}, "clients": [{"name": "app", "sessions": 2}],
    });
    let others: Vec<_> = differences(&before, &after).into_iter().filter(|change| !is_measured(change)).collect();
    let paths: Vec<_> = others.iter().filter_map(|change| change.split(": ").next()).collect();
    assert_eq!(paths, ["/credentials/generation", "/instances", "/clients"], "{others:?}");
}
