//! A PostgreSQL that stands still: its postmaster is stopped or hangs, or its disk does. What is
//! connected already goes on, and that is what Patroni and the probes look at; nobody new gets in,
//! or nothing is committed. So a new connection is opened regularly, and asked.

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::desired::DesiredState;
use super::environment::Environment;
use super::lease;
use super::patroni::process::{Handle, Order};
use super::postmaster::{self, Held, State};
use super::report::{Area, Reporter};
use super::server::Seen;
use crate::api::conditions::reason;
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::{ConnectError, over_socket};

/// How often a question is asked.
const ASK: Duration = Duration::from_secs(2);
/// How often it is looked how long there was no answer.
const TICK: Duration = Duration::from_millis(250);
/// A stall this long is told of: with the time until the next question, within eight seconds.
const TOLD: Duration = Duration::from_secs(5);
/// One this long is ended: with the time until the next question, and for a replica to take over,
/// within the lease's twenty seconds. An overloaded server answers some question in that time,
/// since each keeps its turn until it is answered: nothing is asked again instead.
const ENDED: Duration = Duration::from_secs(13);
/// How long after it was found that nothing helps it is thought about again.
const AGAIN: Duration = Duration::from_secs(5);
/// Questions that may be open: more would only be a burden.
const OPEN: usize = 8;

/// What the server is asked: how far its log is written, whether somebody waits for that, and who
/// is at work. To write something would wake replicas that are at rest, and wait for them.
const QUESTION: &str = "\
SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0')::bigint END,
       EXISTS (SELECT FROM pg_catalog.pg_stat_activity
               WHERE pg_catalog.lower(wait_event) IN ('walsync', 'walwrite', 'walinitsync', 'walinitwrite')),
       ARRAY(SELECT pid FROM pg_catalog.pg_stat_activity WHERE state = 'active' OR backend_type = 'walwriter')";

/// What became of a question.
#[derive(Clone, Debug, PartialEq)]
enum Reply {
    /// The server said something, be it that it is full, or starts; and how far its log is.
    Answer(Option<Log>),
    /// There is no server.
    Nobody,
    /// The queue before it is full.
    Silence,
}

/// How writing goes.
#[derive(Clone, Debug, PartialEq)]
struct Log {
    /// Of a primary: how far the log is written.
    flushed: Option<i64>,
    /// Whether somebody waits for that.
    waited_for: bool,
    /// Of those who are at work: whom the kernel holds.
    held: Vec<Held>,
}

impl Log {
    /// Whether nothing was written since, though somebody waits for it, or is held by the kernel in
    /// one and the same wait, which no disk that works makes so long.
    fn stands_since(&self, before: &Self) -> bool {
        let held = || self.held.iter().any(|held| before.held.contains(held));
        self.flushed.is_some() && self.flushed == before.flushed && (self.waited_for || held())
    }
}

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// New connections are not answered.
    Connections,
    /// Nothing is written, and somebody waits for it.
    Disk,
}

/// For how long there was no sign, by a clock that stands still when this process does: a machine
/// on which nothing runs shows nothing about the server.
#[derive(Default)]
struct Signs {
    clock: Duration,
    open: usize,
    unanswered_since: Option<Duration>,
    log: Option<Log>,
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

    fn hear(&mut self, reply: Reply) {
        self.open = self.open.saturating_sub(1);
        match reply {
            Reply::Answer(log) => {
                self.unanswered_since = (self.open > 0).then_some(self.clock);
                self.see_log(log);
            }
            Reply::Nobody => *self = Self { clock: self.clock, open: self.open, ..Self::default() },
            Reply::Silence => {}
        }
    }

    fn see_log(&mut self, log: Option<Log>) {
        let stands = log.as_ref().zip(self.log.as_ref()).is_some_and(|(now, before)| now.stands_since(before));
        self.log = log;
        if stands {
            self.unwritten_since.get_or_insert(self.clock);
        } else {
            self.unwritten_since = None;
        }
    }

    /// What stands still, and for how long.
    fn stall(&self) -> Option<(Stall, Duration)> {
        let since = |moment: Option<Duration>| moment.map(|moment| self.clock - moment);
        let both = [(Stall::Connections, since(self.unanswered_since)), (Stall::Disk, since(self.unwritten_since))];
        let long = both.into_iter().filter_map(|(stall, time)| Some((stall, time?))).max_by_key(|(_, time)| *time);
        long.filter(|(_, time)| *time >= TOLD)
    }
}

/// What is done about a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is told.
    Tell,
    /// PostgreSQL is killed, and another instance leads.
    HandOver,
    /// PostgreSQL is killed, and started again in its place.
    Restart,
}

/// A stalled server is ended once it was silent for long enough, where that helps: nothing ends a
/// process that the kernel holds, and without a successor it may as well go on when its disk does.
fn step(silent: Duration, successor: bool, processes: State, stall: Stall) -> Step {
    match (successor, processes, stall) {
        _ if silent < ENDED => Step::Tell,
        (true, ..) => Step::HandOver,
        (false, State::Held, _) | (false, State::Alive | State::Gone, Stall::Disk) => Step::Tell,
        (false, ..) => Step::Restart,
    }
}

/// What it takes to look, and to do something about it.
pub struct Watch {
    /// Who this pod is.
    pub environment: Environment,
    /// The API server.
    pub client: kube::Client,
    /// What it shall be.
    pub desired: DesiredState,
    /// What connections tell that are open.
    pub server: Seen,
    /// Patroni.
    pub patroni: Handle,
    /// Where it is told.
    pub reporter: Reporter,
}

/// Looks from now on; whether PostgreSQL stands still.
pub fn follow(watch: Watch) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(watch.run(sender));
    receiver
}

impl Watch {
    async fn run(self, sender: watch::Sender<bool>) {
        let mut signs = Signs::default();
        let mut questions = JoinSet::new();
        let mut postmaster = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asked: Option<Instant> = None;
        let mut before = Instant::now();
        let mut thought: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(done) = questions.join_next() => {
                    let (reply, pid) = done.unwrap_or((Reply::Silence, None));
                    postmaster = pid.or(postmaster);
                    signs.hear(reply);
                }
                _ = tick.tick() => {
                    signs.pass(std::mem::replace(&mut before, Instant::now()).elapsed());
                    if signs.open < OPEN && asked.is_none_or(|asked| asked.elapsed() >= ASK) {
                        asked = Some(Instant::now());
                        signs.ask();
                        questions.spawn(ask());
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
            let state = State::of_family(pid);
            self.tell(stall, state);
            if silent < ENDED || thought.is_some_and(|thought| thought.elapsed() < AGAIN) {
                continue;
            }
            thought = Some(Instant::now());
            let successor = self.has_successor().await;
            match step(silent, successor, state, stall) {
                Step::Tell => continue,
                Step::HandOver => self.hand_over(pid, silent).await,
                Step::Restart => {
                    let seconds = silent.as_secs();
                    tracing::error!(%pid, seconds, "PostgreSQL stands still: killing it, to be started again");
                    postmaster::kill_all(pid).await;
                }
            }
            questions.abort_all();
            while questions.join_next().await.is_some() {}
            (signs, postmaster, before) = (Signs::default(), None, Instant::now());
        }
    }

    fn tell(&self, stall: Stall, state: State) {
        let pod = &self.environment.pod;
        let what = match stall {
            Stall::Connections => format!("PostgreSQL of {pod} answers to no new connection"),
            Stall::Disk => {
                format!("PostgreSQL of {pod} waits for its disk: nothing is written, and sessions stand still")
            }
        };
        let how = match state {
            State::Stopped => "somebody has stopped a process of it",
            State::Held => "the kernel holds a process of it, as for a disk that does not answer",
            State::Gone | State::Alive => "its processes are neither stopped nor held",
        };
        let message = format!(
            "{what}; {how}. After {} s another instance takes over, or it is started \
             again where that can help; if it stays so, look at the node and the volume of {pod}",
            ENDED.as_secs()
        );
        self.reporter.trouble(Area::Stall, Some((reason::SERVER_STALLED, message)));
    }

    /// Whether this is the leader, and another instance can lead with all that was acknowledged.
    async fn has_successor(&self) -> bool {
        let synchronous = self.desired.borrow().as_ref().is_none_or(|desired| desired.synchronous);
        let streams = self.server.borrow().as_ref().is_some_and(|facts| facts.streams);
        lease::has_successor(&self.client, &self.environment, synchronous, streams).await
    }

    /// Patroni is ended first, or it would start PostgreSQL again; the lease is given back last,
    /// when nothing here can acknowledge a write any more.
    async fn hand_over(&self, pid: Pid, silent: Duration) {
        let seconds = silent.as_secs();
        tracing::error!(%pid, seconds, "PostgreSQL stands still: killing it, so that another instance leads");
        self.patroni.order(Order::Restart).await;
        if !postmaster::kill_all(pid).await {
            tracing::error!(%pid, "the kernel still holds processes of PostgreSQL; they end when it lets them go");
        }
        if let Err(error) = lease::release(&self.client, &self.environment).await {
            tracing::warn!(%error, "the lease is not given back; another instance leads when it is over");
        }
    }
}

/// Asks once; the postmaster, if it answered.
async fn ask() -> (Reply, Option<Pid>) {
    let reply = question().await;
    let pid = match &reply {
        Reply::Answer(_) => tokio::task::spawn_blocking(postmaster::running).await.ok().flatten(),
        Reply::Nobody | Reply::Silence => None,
    };
    (reply, pid)
}

async fn question() -> Reply {
    match over_socket(SOCKET_DIR, "postgres", "servicedb agent").await {
        Ok(connection) => match connection.client.query_one(QUESTION, &[]).await {
            Ok(row) => {
                let (flushed, waited_for, at_work): (_, _, Vec<i32>) = (row.get(0), row.get(1), row.get(2));
                let held = tokio::task::spawn_blocking(move || postmaster::held(&at_work)).await;
                Reply::Answer(Some(Log { flushed, waited_for, held: held.unwrap_or_default() }))
            }
            // It was cancelled, or the server ends: it lives.
            Err(_) => Reply::Answer(None),
        },
        Err(ConnectError::Postgres { source, .. }) => unconnected(io_error(&source)),
        Err(ConnectError::Socket { source, .. }) => unconnected(Some(source.kind())),
        Err(ConnectError::Authority { .. }) => Reply::Nobody,
    }
}

fn unconnected(error: Option<ErrorKind>) -> Reply {
    match error {
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Reply::Nobody,
        Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => Reply::Silence,
        // Refused in words, or broken off.
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
        Reply::Answer(Some(Log { flushed: Some(flushed), waited_for, held: vec![] }))
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
        signs.hear(Reply::Answer(None));
        assert_eq!(signs.stall(), None, "the second question is open since its predecessor was answered");
        pass(&mut signs, 6);
        assert_eq!(signs.stall(), Some((Stall::Connections, 6 * SECOND)));
        signs.hear(Reply::Silence);
        assert!(signs.stall().is_some(), "a full queue is no answer");
        signs.hear(Reply::Nobody);
        assert_eq!(signs.stall(), None, "nobody is there to stand still");
    }

    #[test]
    fn a_server_that_answers_late_is_not_stalled() {
        // Each question is answered twelve seconds late, in turn.
        let mut signs = Signs::default();
        for second in 0..60 {
            if second % 2 == 0 {
                signs.ask();
            }
            pass(&mut signs, 1);
            if second >= 12 && second % 2 == 0 {
                signs.hear(Reply::Answer(None));
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
    fn a_log_that_is_waited_for_and_not_written_is_a_stall() {
        let mut signs = Signs::default();
        let hear = |signs: &mut Signs, reply| {
            signs.ask();
            signs.hear(reply);
            pass(signs, 2);
        };
        for _ in 0..20 {
            hear(&mut signs, answer(7, false));
        }
        assert_eq!(signs.stall(), None, "at rest");
        for flushed in 0..20 {
            hear(&mut signs, answer(flushed, true));
        }
        assert_eq!(signs.stall(), None, "busy");
        for _ in 0..4 {
            hear(&mut signs, answer(19, true));
        }
        assert_eq!(signs.stall().map(|(stall, _)| stall), Some(Stall::Disk));
        hear(&mut signs, answer(20, true));
        assert_eq!(signs.stall(), None);
    }

    #[test]
    fn a_process_that_the_kernel_holds_in_one_wait_is_a_stall() {
        let mut signs = Signs::default();
        let hear = |signs: &mut Signs, switches| {
            let held = vec![Held { pid: 42, switches }];
            signs.ask();
            signs.hear(Reply::Answer(Some(Log { flushed: Some(7), waited_for: false, held })));
            pass(signs, 2);
        };
        for switches in 0..20 {
            hear(&mut signs, switches);
        }
        assert_eq!(signs.stall(), None, "a disk that is read all the time");
        for _ in 0..5 {
            hear(&mut signs, 20);
        }
        assert_eq!(signs.stall().map(|(stall, _)| stall), Some(Stall::Disk));
    }

    #[test]
    fn only_what_helps_is_done() {
        let (connections, disk) = (Stall::Connections, Stall::Disk);
        assert_eq!(step(12 * SECOND, true, State::Stopped, connections), Step::Tell);
        assert_eq!(step(ENDED, true, State::Held, disk), Step::HandOver);
        assert_eq!(step(ENDED, false, State::Stopped, connections), Step::Restart);
        assert_eq!(step(ENDED, false, State::Held, connections), Step::Tell, "nothing ends it");
        assert_eq!(step(ENDED, false, State::Alive, disk), Step::Tell, "the next one has the same disk");
        assert_eq!(step(ENDED, false, State::Stopped, disk), Step::Restart);
        assert_eq!(step(ENDED, false, State::Alive, connections), Step::Restart);
    }
}
