//! Patroni's process: started ahead of its work, restarted when it ends, told to stop.

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
use crate::postgres::immune;

/// Loads what Patroni needs, which takes most of its start, and runs it once it may. A file,
/// since the child by which Patroni starts PostgreSQL loads it too.
const LAUNCHER: &str = concat!(include_str!("lease.py"), include_str!("launcher.py"));
/// A process that lived this long did not end at once.
const SETTLED: Duration = Duration::from_secs(30);

/// A Patroni that has loaded, or is loading, and waits to be let go.
pub struct Prepared {
    child: Child,
}

impl Prepared {
    /// Starts loading.
    ///
    /// # Errors
    /// If there is no Python.
    pub fn new() -> io::Result<Self> {
        let launcher = Path::new(RUN_DIR).join("patroni.py");
        std::fs::write(&launcher, LAUNCHER)?;
        let child = Command::new("python3")
            .arg("-I")
            .arg(launcher)
            .arg(config::path())
            .args([immune::ANY_LOGIN, immune::SUPERUSER, immune::WAL_RECEIVER])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child })
    }

    async fn go(mut self) -> io::Result<Child> {
        if let Some(mut input) = self.child.stdin.take() {
            input.write_all(b"\n").await?;
        }
        Ok(self.child)
    }
}

/// What the process can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration and the certificates again.
    Reload,
    /// End now, even if it hangs; it is started again.
    Restart,
    /// Shut PostgreSQL down, give the lease back, and end.
    Stop,
}

/// The running Patroni: it is told things here; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
}

impl Handle {
    /// Gives an order.
    pub async fn order(&self, order: Order) {
        // The supervisor is gone only once it has been told to stop.
        let _ = self.orders.send(order).await;
    }
}

/// Lets Patroni go, and keeps one running until it is told to stop. The task ends when the
/// last one has ended.
pub fn supervise(prepared: Prepared, reporter: Reporter) -> (Handle, tokio::task::JoinHandle<()>) {
    let (orders, inbox) = mpsc::channel(8);
    (Handle { orders }, tokio::spawn(run(prepared, inbox, reporter)))
}

async fn run(prepared: Prepared, mut inbox: mpsc::Receiver<Order>, reporter: Reporter) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut next = Some(prepared);
    let mut quick_ends = 0;
    loop {
        let started = Instant::now();
        let prepared = match next.take() {
            Some(prepared) => Ok(prepared),
            None => Prepared::new(),
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
        if started.elapsed() > SETTLED {
            backoff.reset();
            quick_ends = 0;
        }
        quick_ends += 1;
        if quick_ends == 3 {
            let message = "Patroni ends again and again; the pod's log says why".to_owned();
            reporter.trouble(Area::Server, Some((reason::CRASH_LOOP, message)));
        }
        let wait = tokio::time::sleep(backoff.step());
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => break,
                order = inbox.recv() => if matches!(order, Some(Order::Stop) | None) { return },
            }
        }
    }
}

/// Waits for the end of one process, passing orders on; whether it was told to stop.
async fn attend(mut child: Child, inbox: &mut mpsc::Receiver<Order>) -> bool {
    let mut stopping = false;
    loop {
        tokio::select! {
            status = child.wait() => {
                match status {
                    Ok(status) if stopping => tracing::info!(%status, "Patroni has ended"),
                    Ok(status) => tracing::warn!(%status, "Patroni has ended; starting it again"),
                    Err(error) => tracing::error!(%error, "Patroni's end cannot be waited for"),
                }
                return stopping;
            }
            order = inbox.recv(), if !stopping => {
                let signal = match order {
                    Some(Order::Reload) => Signal::SIGHUP,
                    Some(Order::Restart) => Signal::SIGKILL,
                    Some(Order::Stop) | None => {
                        stopping = true;
                        // A stopped process would not see the wish to end.
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
        tracing::debug!(%error, %signal, "Patroni was gone before its signal");
    }
}
