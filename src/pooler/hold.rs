//! Holds queries during a planned change: transactions under way end, new ones wait, the lead changes, and
//! they go to the new server. A hold always ends: by itself when the server is another one, when the order
//! is withdrawn, and after the order's time. A process of its own ends the pause soon after that, even if this one hangs.
//!
//! A server that is lost is waited for in the same way, for a bounded time, also right after a hold: PgBouncer alone would
//! refuse each query from its first failed login on, until one succeeds.

use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use super::console::Console;
use super::environment::Environment;
use super::orders::Orders;
use super::probes::State;
use super::process::Handle;
use super::report::Reporter;
use super::server::{Identity, Monitor, accepts_writes, identity};
use crate::contract::pooler::{Hold, HoldReport, HoldState};

/// Age of an order from which on it is from the past, whatever the clocks.
const LATEST: SignedDuration = SignedDuration::from_secs(60);
/// How far this pod's clock may be ahead of the operator's.
const CLOCKS: SignedDuration = SignedDuration::from_secs(10);
/// Interval between two looks at PgBouncer, or at the server.
const POLL: Duration = Duration::from_millis(20);
/// How long logins to PostgreSQL that are under way are waited for before a pause.
const LOGINS: Duration = Duration::from_millis(500);
/// Interval between two looks at them.
const LOGINS_POLL: Duration = Duration::from_millis(5);
/// How long the server may take to answer during a planned change.
const ANSWER: Duration = Duration::from_millis(500);
/// The same after a failure: a slow server must not count as none.
const LATE_ANSWER: Duration = Duration::from_secs(2);

/// Why a hold ends as it is meant to.
const ANOTHER_LEADS: &str = "another server leads";
/// Why a hold ends that the present PgBouncer knows nothing of.
const STARTED_AGAIN: &str = "PgBouncer was started again";
/// How much later than this process the one of its own ends a pause: this one may have something better to do at its end.
const LATER: Duration = Duration::from_secs(2);
/// How long queries wait for a server that was lost. Longer than a failover within the lease (20 s).
const OUTAGE: Duration = Duration::from_secs(30);

/// Follows the orders, and the server, from now on.
pub async fn follow(
    environment: Environment,
    mut orders: watch::Receiver<Orders>,
    pooler: Handle,
    reporter: Reporter,
    state: watch::Sender<State>,
) {
    let mut last: Option<String> = None;
    let mut monitor = Monitor::default();
    let holding = Holding { environment: &environment, pooler: &pooler, reporter: &reporter, state: &state };
    loop {
        let hold = orders.borrow_and_update().hold.clone();
        if let Some(hold) = hold.filter(|hold| is_due(hold, last.as_deref(), Timestamp::now())) {
            last = Some(hold.id.clone());
            // Otherwise a connection that has ended meanwhile tells that the server is lost.
            if holding.execute(&hold, &mut orders).await {
                monitor.forget();
            }
            continue;
        }
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            () = monitor.lost(&environment) => holding.wait_for_a_server().await,
        }
    }
}

/// Whether an order is to be executed: not one that was, that was given up, or that is from the past, as
/// after a restart of this process.
fn is_due(hold: &Hold, last: Option<&str>, now: Timestamp) -> bool {
    // Not its own time, which this pod's clock may be ahead of: a pause ends by this pod's measure anyway.
    let age = now.duration_since(hold.issued_at);
    last != Some(hold.id.as_str()) && hold.given_up.is_none() && age < LATEST && !left(hold, now).is_zero()
}

/// How long queries are held for an order at most: what is left of its time for a pod that comes late.
fn left(hold: &Hold, now: Timestamp) -> Duration {
    let late = now.duration_since(hold.issued_at) - CLOCKS;
    let whole = Duration::from_secs(hold.seconds);
    whole.saturating_sub(Duration::try_from(late).unwrap_or_default())
}

struct Holding<'a> {
    environment: &'a Environment,
    pooler: &'a Handle,
    reporter: &'a Reporter,
    state: &'a watch::Sender<State>,
}

impl Holding<'_> {
    /// Returns whether what is known of the server is to be forgotten: another one leads, or was waited for.
    async fn execute(&self, hold: &Hold, orders: &mut watch::Receiver<Orders>) -> bool {
        let time = left(hold, Timestamp::now());
        let until = Instant::now() + time;
        let report = |state: HoldState| {
            self.reporter.update(|report| report.hold = Some(HoldReport { id: hold.id.clone(), state }));
        };
        // Without this process no pause: nothing else ends it if this one hangs.
        let Some(end) = self.end_after(time + LATER) else {
            report(HoldState::Resumed);
            return false;
        };
        // The order is taken: a pod that said nothing for long would count as one that is gone.
        report(HoldState::Waiting);
        let process = self.pooler.id();
        let before = identity(self.environment, ANSWER).await.ok();
        // A login that a pause breaks off counts as failed, and PgBouncer refuses the next client for it.
        if tokio::time::timeout(LOGINS, no_login()).await.is_err() {
            tracing::debug!("logins to PostgreSQL are under way all the time");
        }
        tracing::info!(change = hold.change, "holding queries");
        let began = Instant::now();
        self.pooler.pause();
        self.state.send_modify(|state| state.holds = true);
        let mut is_held = false;
        let why = loop {
            if self.pooler.id() != process {
                // The new one was not told to pause.
                break STARTED_AGAIN;
            }
            if Instant::now() >= until {
                break "the time is over";
            }
            if orders.borrow().hold.as_ref().is_none_or(|now| now.id != hold.id || now.given_up.is_some()) {
                break "the order is withdrawn";
            }
            if !is_held && is_quiet().await {
                is_held = true;
                report(HoldState::Held);
                tracing::info!(milliseconds = began.elapsed().as_millis(), "no transaction is left");
            }
            if is_held && self.has_changed(before.as_ref()).await {
                break ANOTHER_LEADS;
            }
            tokio::time::sleep(POLL).await;
        };
        // The operator may see the new leader first, and withdraw the order. Without this look, the end of the connection to
        // the former one would pause again at once, and break off the logins of this moment.
        let is_another = why == ANOTHER_LEADS || self.has_changed(before.as_ref()).await;
        // So would the pause for a lost server, if the change takes longer than its time and nobody leads.
        let is_lost = !is_another && why != STARTED_AGAIN && !accepts_writes(self.environment, ANSWER).await;
        let next = if is_lost { self.end_after(OUTAGE) } else { None };
        if next.is_none() {
            self.pooler.resume();
        }
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.state.send_modify(|state| {
            state.holds = next.is_some();
            state.held_count += u64::from(is_held);
            state.held_milliseconds += milliseconds;
        });
        tracing::info!(change = hold.change, milliseconds, why, is_lost, "the hold ends");
        forget(end);
        report(HoldState::Resumed);
        match next {
            Some(next) => {
                // The process of the hold may have ended the pause by now.
                self.pooler.pause();
                self.until_back(next).await;
                true
            }
            None => is_another,
        }
    }

    /// Holds queries until a server accepts writes again.
    async fn wait_for_a_server(&self) {
        let Some(end) = self.end_after(OUTAGE) else { return };
        self.pooler.pause();
        self.state.send_modify(|state| state.holds = true);
        self.until_back(end).await;
    }

    /// Resumes once a server accepts writes again, or after the longest time.
    async fn until_back(&self, end: Child) {
        tracing::warn!("the server is lost; queries wait for the next one");
        let began = Instant::now();
        let is_back = async {
            while !accepts_writes(self.environment, LATE_ANSWER).await {
                tokio::time::sleep(POLL).await;
            }
        };
        let is_back = tokio::time::timeout(OUTAGE, is_back).await.is_ok();
        self.pooler.resume();
        self.state.send_modify(|state| state.holds = false);
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(milliseconds, is_back, "queries are served again");
        forget(end);
    }

    /// Whether another server accepts writes than before the change.
    async fn has_changed(&self, before: Option<&Identity>) -> bool {
        match identity(self.environment, ANSWER).await {
            Ok(now) => !now.read_only && before.is_some_and(|before| *before != now),
            Err(_) => false,
        }
    }

    /// A process that ends the pause after this time, whatever happens to this one.
    fn end_after(&self, time: Duration) -> Option<Child> {
        let id = self.pooler.id()?;
        let started = Command::new("sh")
            .args(["-c", "sleep \"$0\" && kill -USR2 \"$1\"", &time.as_secs().to_string(), &id.to_string()])
            .stdin(Stdio::null())
            .spawn();
        started.inspect_err(|error| tracing::error!(%error, "queries are not held: the pause could not be ended")).ok()
    }
}

/// Ends a process that is not needed any more. Its zombie would stay as long as this process runs.
fn forget(mut process: Child) {
    if let Err(error) = process.start_kill() {
        tracing::debug!(%error, "the process that ends the pause has ended");
    }
    tokio::spawn(async move { process.wait().await });
}

/// Resolves when no login to PostgreSQL is under way, or that cannot be known.
async fn no_login() {
    let Ok(console) = Console::open().await else { return };
    while let Ok(pools) = console.table("SHOW POOLS").await {
        if pools.iter().all(|pool| pool.get("sv_login").is_none_or(|logins| logins == "0")) {
            return;
        }
        tokio::time::sleep(LOGINS_POLL).await;
    }
}

/// Whether no server connection is left: each is closed when its transaction has ended.
async fn is_quiet() -> bool {
    let servers = async { Console::open().await?.table("SHOW SERVERS").await };
    match servers.await {
        Ok(servers) => servers.is_empty(),
        Err(error) => {
            tracing::debug!(error, "the server connections cannot be counted");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_executed_once_and_never_from_the_past() {
        let now = Timestamp::now();
        let hold = |age: i64, given_up: Option<&str>| Hold {
            version: 1,
            id: "7".into(),
            change: "switchover of chat-db-0".into(),
            issued_at: now - SignedDuration::from_secs(age),
            seconds: 5,
            given_up: given_up.map(str::to_owned),
        };
        assert!(is_due(&hold(0, None), None, now));
        assert!(is_due(&hold(-1, None), None, now), "the operator's clock may be ahead");
        assert!(is_due(&hold(0, None), Some("6"), now));
        assert!(!is_due(&hold(0, None), Some("7"), now));
        assert!(is_due(&hold(5, None), None, now), "the clock of this pod may be ahead");
        assert!(!is_due(&hold(60, None), None, now));
        assert!(!is_due(&hold(0, Some("a transaction")), None, now));
        // A pod that comes late does not hold for the whole time again.
        let long = |age: i64| Hold { seconds: 60, ..hold(age, None) };
        let left_of = |age: i64| left(&long(age), now).as_secs();
        assert_eq!((left_of(-3), left_of(0), left_of(10), left_of(40)), (60, 60, 60, 30));
        assert!(!is_due(&hold(16, None), None, now), "nothing is left of five seconds");
    }
}
