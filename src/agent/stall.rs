//! Detects a PostgreSQL that stands still: its postmaster is stopped or hangs, or its disk does. Open
//! connections continue, and Patroni and the probes use those; new ones are not accepted, or nothing is
//! committed. So a new connection is opened regularly, for one query.

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::lease;
use super::patroni::process::{Handle, Request};
use super::postmaster::{self, HeldProcess, ProcessState};
use super::report::{Area, Reporter};
use super::server::FactsWatch;
use crate::api::conditions::reason;
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::{ConnectError, over_socket};

/// Interval between two queries.
const ASK: Duration = Duration::from_secs(2);
/// Interval between two checks how long there was no answer.
const TICK: Duration = Duration::from_millis(250);
/// A stall of this length is reported: with the interval of the queries, within eight seconds.
const REPORTED: Duration = Duration::from_secs(5);
/// A stall of this length is ended: with the interval of the queries and the time of a failover, within the
/// lease's twenty seconds. An overloaded server answers a query in that time, since each query keeps its
/// place in the queue and is not repeated.
const ENDED: Duration = Duration::from_secs(13);
/// The same for new connections of a single instance, no process of which is stopped or held: no other instance could
/// lead, and on a machine without CPU time the next server would answer no sooner.
const SINGLE_ENDED: Duration = Duration::from_secs(60);
/// Interval between two decisions on the same stall, while none helps.
const AGAIN: Duration = Duration::from_secs(5);
/// The maximum number of open queries: more would only add load.
const OPEN: usize = 8;

/// The position up to which WAL is flushed, whether a session waits for a flush, and the active processes.
/// A write would wake idle replicas, and wait for them.
const QUERY: &str = "\
SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0')::bigint END,
       EXISTS (SELECT FROM pg_catalog.pg_stat_activity
               WHERE pg_catalog.lower(wait_event) IN ('walsync', 'walwrite', 'walinitsync', 'walinitwrite')),
       ARRAY(SELECT pid FROM pg_catalog.pg_stat_activity WHERE state = 'active' OR backend_type = 'walwriter')";

/// The result of a query.
#[derive(Clone, Debug, PartialEq)]
enum Reply {
    /// The server answered, or refused the session, as one that is full or starts.
    Answer(Option<Wal>),
    /// No server runs.
    NoServer,
    /// The queue of connections is full, or the login timed out.
    Silence,
}

/// The progress of WAL.
#[derive(Clone, Debug, PartialEq)]
struct Wal {
    /// Of a primary: the position up to which it is flushed.
    flushed: Option<i64>,
    /// Whether a session waits for a flush.
    waited_for: bool,
    /// The active processes that the kernel holds.
    held: Vec<HeldProcess>,
}

impl Wal {
    /// Whether nothing was flushed since, although a session waits for it, or the kernel holds a process in
    /// the same wait, which takes that long only on a disk that does not work.
    fn stands_since(&self, before: &Self) -> bool {
        let held = || self.held.iter().any(|held| before.held.contains(held));
        self.flushed.is_some() && self.flushed == before.flushed && (self.waited_for || held())
    }
}

/// The part that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// New connections are not answered.
    Connections,
    /// Nothing is flushed, and a session waits for it.
    Disk,
}

/// The time without a sign of life, by a clock that stops with this process: a machine on which nothing
/// runs proves nothing about the server.
#[derive(Default)]
struct Signs {
    clock: Duration,
    open: usize,
    unanswered_since: Option<Duration>,
    wal: Option<Wal>,
    unwritten_since: Option<Duration>,
}

impl Signs {
    /// Time has passed.
    fn pass(&mut self, time: Duration) {
        self.clock += time.min(2 * TICK);
    }

    fn ask(&mut self) {
        self.open += 1;
        self.unanswered_since.get_or_insert(self.clock);
    }

    fn receive(&mut self, reply: Reply) {
        self.open = self.open.saturating_sub(1);
        match reply {
            Reply::Answer(wal) => {
                self.unanswered_since = (self.open > 0).then_some(self.clock);
                self.set_wal(wal);
            }
            Reply::NoServer => *self = Self { clock: self.clock, open: self.open, ..Self::default() },
            Reply::Silence => {}
        }
    }

    fn set_wal(&mut self, wal: Option<Wal>) {
        let stands = wal.as_ref().zip(self.wal.as_ref()).is_some_and(|(now, before)| now.stands_since(before));
        self.wal = wal;
        if stands {
            self.unwritten_since.get_or_insert(self.clock);
        } else {
            self.unwritten_since = None;
        }
    }

    /// The part that has stood still for longest, with the time.
    fn stall(&self) -> Option<(Stall, Duration)> {
        let since = |moment: Option<Duration>| moment.map(|moment| self.clock - moment);
        let both = [(Stall::Connections, since(self.unanswered_since)), (Stall::Disk, since(self.unwritten_since))];
        let long = both.into_iter().filter_map(|(stall, time)| Some((stall, time?))).max_by_key(|(_, time)| *time);
        long.filter(|(_, time)| *time >= REPORTED)
    }
}

/// The response to a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is reported.
    Report,
    /// PostgreSQL is killed, and another instance leads.
    HandOver,
    /// PostgreSQL is killed, and started again here.
    Restart,
}

/// How long a stall lasts until it is ended.
fn patience(is_alone: bool, processes: ProcessState, stall: Stall) -> Duration {
    match (is_alone, processes, stall) {
        (true, ProcessState::Alive | ProcessState::Gone, Stall::Connections) => SINGLE_ENDED,
        _ => ENDED,
    }
}

/// A server that has stalled for long enough is ended where that helps: no signal ends a process that the
/// kernel holds, and without a successor the server continues when its disk does.
fn step(successor: bool, processes: ProcessState, stall: Stall) -> Step {
    match (successor, processes, stall) {
        (true, ..) => Step::HandOver,
        (false, ProcessState::Held, _) | (false, ProcessState::Alive | ProcessState::Gone, Stall::Disk) => Step::Report,
        (false, ..) => Step::Restart,
    }
}

/// The dependencies of the detection and of the response.
pub struct Watch {
    /// This pod.
    pub environment: Environment,
    /// The API server.
    pub client: kube::Client,
    /// The desired state.
    pub desired: DesiredState,
    /// The server, as the open connection shows it.
    pub server: FactsWatch,
    /// Patroni.
    pub patroni: Handle,
    /// The report of this pod.
    pub reporter: Reporter,
}

/// Detects stalls from now on. The value is whether PostgreSQL stands still.
pub fn follow(watch: Watch) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(watch.run(sender));
    receiver
}

impl Watch {
    async fn run(self, sender: watch::Sender<bool>) {
        let mut signs = Signs::default();
        let mut queries = JoinSet::new();
        let mut postmaster = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asked: Option<Instant> = None;
        let mut before = Instant::now();
        let mut decided: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(done) = queries.join_next() => {
                    let (reply, pid) = done.unwrap_or((Reply::Silence, None));
                    postmaster = pid.or(postmaster);
                    signs.receive(reply);
                }
                _ = tick.tick() => {
                    signs.pass(std::mem::replace(&mut before, Instant::now()).elapsed());
                    if signs.open < OPEN && asked.is_none_or(|asked| asked.elapsed() >= ASK) {
                        asked = Some(Instant::now());
                        signs.ask();
                        queries.spawn(ask());
                    }
                }
            }
            let stall = signs.stall().zip(postmaster);
            let changed =
                sender.send_if_modified(|before| std::mem::replace(before, stall.is_some()) != stall.is_some());
            let Some(((stall, silent), pid)) = stall else {
                if changed {
                    self.reporter.trouble(Area::Stall, None);
                }
                continue;
            };
            let state = ProcessState::of_family(pid);
            // While it is scaled down, another instance can still lead.
            let is_alone = desired::is_single(&self.desired) && !self.streams();
            let patience = patience(is_alone, state, stall);
            self.report(stall, state, patience);
            if silent < patience || decided.is_some_and(|decided| decided.elapsed() < AGAIN) {
                continue;
            }
            decided = Some(Instant::now());
            let successor = self.has_successor().await;
            match step(successor, state, stall) {
                Step::Report => continue,
                Step::HandOver => self.hand_over(pid, silent).await,
                Step::Restart => {
                    let seconds = silent.as_secs();
                    tracing::error!(%pid, seconds, "PostgreSQL stands still: killing it for a restart");
                    postmaster::kill_all(pid).await;
                }
            }
            queries.abort_all();
            while queries.join_next().await.is_some() {}
            (signs, postmaster, before) = (Signs::default(), None, Instant::now());
        }
    }

    fn report(&self, stall: Stall, state: ProcessState, patience: Duration) {
        let pod = &self.environment.pod;
        let what = match stall {
            Stall::Connections => format!("PostgreSQL of {pod} answers to no new connection"),
            Stall::Disk => {
                format!("PostgreSQL of {pod} waits for its disk: nothing is written, and sessions stand still")
            }
        };
        let how = match state {
            ProcessState::Stopped => "one of its processes is stopped (SIGSTOP)",
            ProcessState::Held => "the kernel holds one of its processes, as for a disk that does not answer",
            ProcessState::Gone | ProcessState::Alive => "its processes are neither stopped nor held",
        };
        let message = format!(
            "{what}; {how}. After {} s another instance takes over, or PostgreSQL is restarted where that can help; \
             if the stall persists, check the node and the volume of {pod}",
            patience.as_secs()
        );
        self.reporter.trouble(Area::Stall, Some((reason::SERVER_STALLED, message)));
    }

    /// Whether this is the leader, and another instance can lead with every acknowledged commit.
    async fn has_successor(&self) -> bool {
        let synchronous = self.desired.borrow().as_ref().is_none_or(|desired| desired.synchronous);
        lease::has_successor(&self.client, &self.environment, synchronous, self.streams()).await
    }

    /// Whether a standby receives WAL.
    fn streams(&self) -> bool {
        self.server.borrow().as_ref().is_some_and(|facts| facts.streams)
    }

    /// Patroni is ended first, or it would start PostgreSQL again; the lease is released last,
    /// when nothing here can acknowledge a write any more.
    async fn hand_over(&self, pid: Pid, silent: Duration) {
        let seconds = silent.as_secs();
        tracing::error!(%pid, seconds, "PostgreSQL stands still: killing it, so that another instance leads");
        self.patroni.request(Request::Restart).await;
        if !postmaster::kill_all(pid).await {
            tracing::error!(%pid, "the kernel still holds processes of PostgreSQL; they end when it releases them");
        }
        if let Err(error) = lease::release(&self.client, &self.environment).await {
            tracing::warn!(%error, "the lease cannot be released; another instance leads when it expires");
        }
    }
}

/// Runs one query. Returns its result, and the postmaster if it answered.
async fn ask() -> (Reply, Option<Pid>) {
    let reply = query().await;
    let pid = match &reply {
        Reply::Answer(_) => tokio::task::spawn_blocking(postmaster::running).await.ok().flatten(),
        Reply::NoServer | Reply::Silence => None,
    };
    (reply, pid)
}

async fn query() -> Reply {
    match over_socket(SOCKET_DIR, "postgres", "servicedb agent").await {
        Ok(connection) => match connection.client.query_one(QUERY, &[]).await {
            Ok(row) => {
                let (flushed, waited_for, at_work): (_, _, Vec<i32>) = (row.get(0), row.get(1), row.get(2));
                let held = tokio::task::spawn_blocking(move || postmaster::held(&at_work)).await;
                Reply::Answer(Some(Wal { flushed, waited_for, held: held.unwrap_or_default() }))
            }
            // The query was cancelled, or the server ends: it responds.
            Err(_) => Reply::Answer(None),
        },
        Err(ConnectError::Postgres { source, .. }) => unconnected(io_error(&source)),
        Err(ConnectError::Socket { source, .. }) => unconnected(Some(source.kind())),
        Err(ConnectError::Unanswered { .. }) => Reply::Silence,
        Err(ConnectError::Authority { .. }) => Reply::NoServer,
    }
}

fn unconnected(error: Option<ErrorKind>) -> Reply {
    match error {
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Reply::NoServer,
        Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => Reply::Silence,
        // Refused with a message, or broken off.
        _ => Reply::Answer(None),
    }
}

fn io_error(error: &tokio_postgres::Error) -> Option<ErrorKind> {
    Some(error.source()?.downcast_ref::<std::io::Error>()?.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pass(signs: &mut Signs, seconds: u32) {
        for _ in 0..4 * seconds {
            signs.pass(TICK);
        }
    }

    fn answer(flushed: i64, waited_for: bool) -> Reply {
        Reply::Answer(Some(Wal { flushed: Some(flushed), waited_for, held: vec![] }))
    }

    #[test]
    fn silence_is_a_stall_and_any_answer_ends_it() {
        let mut signs = Signs::default();
        signs.ask();
        pass(&mut signs, 4);
        assert_eq!(signs.stall(), None);
        pass(&mut signs, 1);
        assert_eq!(signs.stall(), Some((Stall::Connections, 5 * SECOND)));
        signs.ask();
        signs.receive(Reply::Answer(None));
        assert_eq!(signs.stall(), None, "the second query is open since its predecessor was answered");
        pass(&mut signs, 6);
        assert_eq!(signs.stall(), Some((Stall::Connections, 6 * SECOND)));
        signs.receive(Reply::Silence);
        assert!(signs.stall().is_some(), "a full queue is no answer");
        signs.receive(Reply::NoServer);
        assert_eq!(signs.stall(), None, "no server runs");
    }

    #[test]
    fn a_server_that_answers_late_is_not_stalled() {
        // Each query is answered twelve seconds late, in turn.
        let mut signs = Signs::default();
        for second in 0..60 {
            if second % 2 == 0 {
                signs.ask();
            }
            pass(&mut signs, 1);
            if second >= 12 && second % 2 == 0 {
                signs.receive(Reply::Answer(None));
            }
            assert!(signs.stall().is_none_or(|(_, silent)| silent < ENDED), "at {second} s");
        }
    }

    #[test]
    fn a_machine_that_stood_still_proves_nothing() {
        let mut signs = Signs::default();
        signs.ask();
        signs.pass(60 * SECOND);
        assert_eq!(signs.stall(), None);
    }

    #[test]
    fn wal_that_is_waited_for_and_not_flushed_is_a_stall() {
        let mut signs = Signs::default();
        let receive = |signs: &mut Signs, reply| {
            signs.ask();
            signs.receive(reply);
            pass(signs, 2);
        };
        for _ in 0..20 {
            receive(&mut signs, answer(7, false));
        }
        assert_eq!(signs.stall(), None, "idle");
        for flushed in 0..20 {
            receive(&mut signs, answer(flushed, true));
        }
        assert_eq!(signs.stall(), None, "busy");
        for _ in 0..4 {
            receive(&mut signs, answer(19, true));
        }
        assert_eq!(signs.stall().map(|(stall, _)| stall), Some(Stall::Disk));
        receive(&mut signs, answer(20, true));
        assert_eq!(signs.stall(), None);
    }

    #[test]
    fn a_process_that_the_kernel_holds_in_one_wait_is_a_stall() {
        let mut signs = Signs::default();
        let receive = |signs: &mut Signs, switches| {
            let held = vec![HeldProcess { pid: 42, switches }];
            signs.ask();
            signs.receive(Reply::Answer(Some(Wal { flushed: Some(7), waited_for: false, held })));
            pass(signs, 2);
        };
        for switches in 0..20 {
            receive(&mut signs, switches);
        }
        assert_eq!(signs.stall(), None, "a disk that is read continuously");
        for _ in 0..5 {
            receive(&mut signs, 20);
        }
        assert_eq!(signs.stall().map(|(stall, _)| stall), Some(Stall::Disk));
    }

    #[test]
    fn a_step_is_taken_only_where_it_helps() {
        let (connections, disk) = (Stall::Connections, Stall::Disk);
        assert_eq!(step(true, ProcessState::Held, disk), Step::HandOver);
        assert_eq!(step(false, ProcessState::Stopped, connections), Step::Restart);
        assert_eq!(step(false, ProcessState::Held, connections), Step::Report, "no signal ends it");
        assert_eq!(step(false, ProcessState::Alive, disk), Step::Report, "the next one has the same disk");
        assert_eq!(step(false, ProcessState::Stopped, disk), Step::Restart);
        assert_eq!(step(false, ProcessState::Alive, connections), Step::Restart);
    }

    #[test]
    fn a_single_instance_that_may_only_be_slow_has_more_time() {
        let (connections, disk) = (Stall::Connections, Stall::Disk);
        assert_eq!(patience(true, ProcessState::Alive, connections), SINGLE_ENDED);
        assert_eq!(patience(true, ProcessState::Stopped, connections), ENDED, "no load stops a process");
        assert_eq!(patience(true, ProcessState::Alive, disk), ENDED);
        assert_eq!(patience(false, ProcessState::Alive, connections), ENDED, "another instance may lead");
    }
}
