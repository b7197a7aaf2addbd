//! The operator as a process on this machine, restarted whenever it ends, like by the kubelet.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// The delay before a restart: a process that cannot start must not loop.
const PAUSE: Duration = Duration::from_millis(200);

/// How the operator is started.
#[derive(Clone)]
pub struct Start {
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Where its log goes; several starts follow one another in it.
    pub log: PathBuf,
}

/// The running process.
#[derive(Default)]
pub struct Pulse {
    pid: AtomicI32,
    starts: AtomicU32,
}

impl Pulse {
    /// Kills the process at once, if it lives.
    pub fn kill(&self) {
        let pid = self.pid.load(Ordering::SeqCst);
        if pid > 0 {
            // It may have ended by itself a moment ago.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::SeqCst)
    }
}

/// The operator; it ends with the value.
pub struct Operator {
    /// The running process.
    pub pulse: Arc<Pulse>,
    supervisor: JoinHandle<()>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Operator {
    /// Starts it, and again after each end.
    pub fn start(start: Start, pulse: Arc<Pulse>) -> Self {
        let supervisor = tokio::spawn(supervise(start, pulse.clone()));
        Self { pulse, supervisor }
    }
}

async fn supervise(start: Start, pulse: Arc<Pulse>) {
    loop {
        let log = OpenOptions::new().create(true).append(true).open(&start.log).expect("the operator's log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_servicedb"))
            .arg("operator")
            .env_clear()
            .envs(&start.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the operator's binary starts");
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        pulse.pid.store(pid, Ordering::SeqCst);
        pulse.starts.fetch_add(1, Ordering::SeqCst);
        let ended = child.wait().await;
        pulse.pid.store(0, Ordering::SeqCst);
        let killed = ended.is_ok_and(|status| status.code().is_none());
        if !killed {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
