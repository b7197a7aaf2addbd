//! PgBouncer's process: restarted when it ends, or when it does not answer; told by signals, which need no
//! connection.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::config;
use super::console::Console;
use super::probes::State;
use crate::backoff::Backoff;

/// Interval between two checks whether PgBouncer answers.
const INTERVAL: Duration = Duration::from_secs(1);
/// Consecutive checks without an answer after which it is killed; each takes up to three seconds.
const SILENT: u32 = 2;
/// A process that ran for this long did not fail at its start.
const STARTED: Duration = Duration::from_secs(30);

/// The running PgBouncer; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    running: watch::Receiver<Option<Pid>>,
}

impl Handle {
    /// The process, once it answers: a signal before that would end it.
    pub fn id(&self) -> Option<Pid> {
        *self.running.borrow()
    }

    /// Has it read its configuration and certificates again.
    pub fn reload(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Has it serve no new transaction, and close each server connection whose transaction has ended.
    pub fn pause(&self) {
        self.signal(Signal::SIGUSR1);
    }

    /// Ends a pause; without one it has no effect.
    pub fn resume(&self) {
        self.signal(Signal::SIGUSR2);
    }

    /// Ends the process with its last transaction, or after this time.
    pub async fn end(&self, patience: Duration) {
        let mut running = self.running.clone();
        self.signal(Signal::SIGINT);
        let ended = running.wait_for(Option::is_none);
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("transactions have not ended within {} s; they are cut", patience.as_secs());
            self.signal(Signal::SIGKILL);
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(id) = self.id() else { return };
        if let Err(error) = kill(id, signal) {
            tracing::debug!(%error, %signal, "PgBouncer ended before its signal");
        }
    }
}

/// Runs PgBouncer from now on, until the pod ends.
pub fn supervise(state: watch::Sender<State>) -> Handle {
    let (sender, running) = watch::channel(None);
    tokio::spawn(run(sender, state));
    Handle { running }
}

async fn run(running: watch::Sender<Option<Pid>>, state: watch::Sender<State>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let started = Instant::now();
        match start() {
            Ok(mut child) => {
                let status = attend(&mut child, &running, &state).await;
                state.send_modify(|state| state.answers = false);
                if state.borrow().ending {
                    running.send_replace(None);
                    tracing::info!(status, "PgBouncer has ended");
                    return;
                }
                running.send_replace(None);
                tracing::warn!(status, "PgBouncer has ended; restarting it");
            }
            Err(error) => tracing::error!(%error, "PgBouncer cannot be started"),
        }
        if started.elapsed() > STARTED {
            backoff.reset();
        }
        backoff.wait().await;
    }
}

fn start() -> std::io::Result<Child> {
    // A connection is an open file, and container runtimes allow about a thousand unless asked for more.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Command::new("pgbouncer").arg("-q").arg(config::path()).kill_on_drop(true).spawn()
}

/// Waits for the end of one process. One that does not answer is killed: its clients would wait for ever.
async fn attend(child: &mut Child, running: &watch::Sender<Option<Pid>>, state: &watch::Sender<State>) -> String {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut silent = 0;
    loop {
        tokio::select! {
            status = child.wait() => return match status {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            answers = answers() => match answers {
                Ok(()) => {
                    silent = 0;
                    if running.send_if_modified(|running| std::mem::replace(running, id) != id) {
                        // What changed while it started.
                        Handle { running: running.subscribe() }.reload();
                    }
                    state.send_if_modified(|state| !std::mem::replace(&mut state.answers, true));
                    tokio::time::sleep(INTERVAL).await;
                }
                Err(error) => {
                    silent += 1;
                    tracing::debug!(error, silent, "PgBouncer does not answer");
                    if silent >= SILENT && state.borrow().answers {
                        tracing::error!(error, "PgBouncer does not answer, and is killed");
                        if let Err(error) = child.start_kill() {
                            tracing::debug!(%error, "PgBouncer ended before");
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn answers() -> Result<(), String> {
    Console::open().await?.run("SHOW VERSION").await
}
