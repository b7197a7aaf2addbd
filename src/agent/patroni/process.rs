//! Patroni's process: loaded before it is needed, restarted when it ends, stopped on request.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::config;
use crate::agent::report::{Area, Reporter};
use crate::api::conditions::reason;
use crate::backoff::Backoff;
use crate::contract::pod::RUN_DIR;
use crate::output::Output;
use crate::postgres::immune;

/// Loads Patroni's modules, which takes most of its start, and runs it after a line of input. It is written
/// to a file, since the child by which Patroni starts PostgreSQL loads it, too.
const LAUNCHER: &str = concat!(
    include_str!("lease.py"),
    include_str!("election.py"),
    include_str!("failsafe.py"),
    include_str!("aside.py"),
    include_str!("received.py"),
    include_str!("quiet.py"),
    include_str!("structured.py"),
    include_str!("launcher.py")
);
/// A process that ran for this long did not fail at its start.
const STARTED: Duration = Duration::from_secs(30);

/// A Patroni that has loaded, or is loading, and waits for its line of input.
pub struct Prepared {
    child: Child,
}

impl Prepared {
    /// Starts loading. Its log, and what PostgreSQL writes before its collector runs, goes to the output.
    ///
    /// # Errors
    /// If there is no Python.
    pub fn new(output: &Output) -> io::Result<Self> {
        let launcher = Path::new(RUN_DIR).join("patroni.py");
        std::fs::write(&launcher, LAUNCHER)?;
        let mut child = Command::new("python3")
            .arg("-I")
            .arg(launcher)
            .arg(config::path())
            .args([immune::ANY_LOGIN, immune::SUPERUSER, immune::WAL_RECEIVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        output.follow(&mut child);
        Ok(Self { child })
    }

    async fn go(mut self) -> io::Result<Child> {
        if let Some(mut input) = self.child.stdin.take() {
            input.write_all(b"\n").await?;
        }
        Ok(self.child)
    }
}

/// A request to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read the configuration and the certificates again.
    Reload,
    /// End at once, even if it hangs; it is started again.
    Restart,
    /// Shut PostgreSQL down, give the lease back, and end.
    Stop,
}

/// Sends requests to the running Patroni; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

impl Handle {
    /// Sends a request.
    pub async fn request(&self, request: Request) {
        // The supervisor ends only after a request to stop.
        let _ = self.requests.send(request).await;
    }
}

/// Runs Patroni, and restarts it until a request to stop. The task ends when the last process has
/// ended.
pub fn supervise(prepared: Prepared, reporter: Reporter, output: Output) -> (Handle, tokio::task::JoinHandle<()>) {
    let (requests, inbox) = mpsc::channel(8);
    (Handle { requests }, tokio::spawn(run(prepared, inbox, reporter, output)))
}

async fn run(prepared: Prepared, mut inbox: mpsc::Receiver<Request>, reporter: Reporter, output: Output) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut next = Some(prepared);
    let mut quick_ends = 0;
    loop {
        let started = Instant::now();
        let prepared = match next.take() {
            Some(prepared) => Ok(prepared),
            None => Prepared::new(&output),
        };
        let stopping = match async { prepared?.go().await }.await {
            Ok(child) => attend(child, &mut inbox).await,
            Err(error) => {
                tracing::error!(%error, "Patroni cannot be started");
                false
            }
        };
        if stopping {
            return;
        }
        if started.elapsed() > STARTED {
            backoff.reset();
            quick_ends = 0;
        }
        quick_ends += 1;
        if quick_ends == 3 {
            let message = "Patroni ends repeatedly; see the log of the pod's container database".to_owned();
            reporter.trouble(Area::Server, Some((reason::CRASH_LOOP, message)));
        }
        let wait = tokio::time::sleep(backoff.step());
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => break,
                request = inbox.recv() => if matches!(request, Some(Request::Stop) | None) { return },
            }
        }
    }
}

/// Waits for the end of one process, and passes requests on to it. Returns whether it was stopped.
async fn attend(mut child: Child, inbox: &mut mpsc::Receiver<Request>) -> bool {
    let mut stopping = false;
    loop {
        tokio::select! {
            status = child.wait() => {
                match status {
                    Ok(status) if stopping => tracing::info!(%status, "Patroni has ended"),
                    Ok(status) => tracing::warn!(%status, "Patroni has ended; restarting it"),
                    Err(error) => tracing::error!(%error, "waiting for the end of Patroni failed"),
                }
                return stopping;
            }
            request = inbox.recv(), if !stopping => {
                let signal = match request {
                    Some(Request::Reload) => Signal::SIGHUP,
                    Some(Request::Restart) => Signal::SIGKILL,
                    Some(Request::Stop) | None => {
                        stopping = true;
                        // A stopped process would not receive the signal to end.
                        send(&child, Signal::SIGCONT);
                        Signal::SIGTERM
                    }
                };
                send(&child, signal);
            }
        }
    }
}

fn send(child: &Child, signal: Signal) {
    let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    if let Err(error) = kill(Pid::from_raw(id), signal) {
        tracing::debug!(%error, %signal, "Patroni ended before its signal");
    }
}
