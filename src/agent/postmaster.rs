//! The postmaster as a process. Patroni detaches it, so it outlives a dead Patroni; the agent
//! finds it by the file that it keeps in PGDATA.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::contract::pod::PGDATA;

/// How long an immediate shutdown may take before the process is killed.
const IMMEDIATE: Duration = Duration::from_secs(3);
/// How often the end is looked for.
const POLL: Duration = Duration::from_millis(50);

/// Whether a PostgreSQL that is or may become a primary runs here. One that is shutting down
/// takes no sessions any more: it must be let write its checkpoint and send its log.
pub fn may_accept_writes() -> bool {
    let file = std::fs::read_to_string(Path::new(PGDATA).join("postmaster.pid")).unwrap_or_default();
    running().is_some() && !is_stopping(&file) && !Path::new(PGDATA).join("standby.signal").exists()
}

/// The eighth line is the postmaster's state (PostgreSQL's pidfile.h).
fn is_stopping(file: &str) -> bool {
    file.lines().nth(7).is_some_and(|state| state.trim() == "stopping")
}

/// The running postmaster.
pub fn running() -> Option<Pid> {
    let file = std::fs::read_to_string(Path::new(PGDATA).join("postmaster.pid")).ok()?;
    let pid = Pid::from_raw(pid_of(&file)?);
    // The file survives a crash, and its number may belong to another process by now.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == "postgres").then_some(pid)
}

fn pid_of(file: &str) -> Option<i32> {
    let pid = file.lines().next()?.trim().parse::<i32>().ok()?;
    // In single-user mode PostgreSQL writes its number negated: there is no postmaster then.
    (pid > 1).then_some(pid)
}

/// Stops PostgreSQL at once, without a checkpoint; it recovers from its log at the next start.
pub async fn stop_at_once() {
    for signal in [Signal::SIGQUIT, Signal::SIGKILL] {
        let Some(pid) = running() else { return };
        match kill(pid, signal) {
            Ok(()) => tracing::warn!(%pid, %signal, "PostgreSQL was told to end at once"),
            Err(Errno::ESRCH) => return,
            Err(error) => tracing::error!(%pid, %signal, %error, "PostgreSQL cannot be told to end"),
        }
        let ended = async {
            while running() == Some(pid) {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(IMMEDIATE, ended).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_postmasters_number_counts() {
        assert_eq!(pid_of("4711\n/var/lib/postgresql/data/pgdata\n"), Some(4711));
        assert_eq!(pid_of("-4711\n"), None);
        assert_eq!(pid_of(""), None);
    }

    #[test]
    fn the_state_is_the_eighth_line() {
        let file = |state: &str| format!("42\n/data\n1700000000\n5432\n/run\n*\n  123  4\n{state}\n");
        assert!(is_stopping(&file("stopping")));
        assert!(!is_stopping(&file("ready   ")));
        assert!(!is_stopping("42\n"));
    }
}
