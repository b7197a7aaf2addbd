//! The postmaster as a process. Patroni detaches it, so it outlives a dead Patroni; the agent
//! finds it by `postmaster.pid` in PGDATA.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::contract::pod::PGDATA;

/// How long an immediate shutdown may take before the process is killed.
const IMMEDIATE: Duration = Duration::from_secs(3);
/// Interval between two checks for the end.
const POLL: Duration = Duration::from_millis(50);

/// Whether a PostgreSQL that is or may become a primary runs here. One that is shutting down
/// accepts no sessions any more: it must be allowed to write its checkpoint and to send its WAL.
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

/// Stops PostgreSQL at once, without a checkpoint; it recovers from WAL at the next start.
pub async fn stop_at_once() {
    let Some(pid) = running() else { return };
    if !signal(pid, Signal::SIGQUIT) {
        return;
    }
    tracing::warn!(%pid, "PostgreSQL is stopped at once");
    let ended = async {
        while running() == Some(pid) {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(IMMEDIATE, ended).await.is_err() {
        kill_all(pid).await;
    }
}

/// Kills a postmaster that does not react to signals, and its children: an active backend would continue
/// until its statement ends, and no server could be started beside it. Returns whether all have ended.
/// The kernel holds the others, and ends them instead of releasing them: none acknowledges a commit after
/// this.
pub async fn kill_all(postmaster: Pid) -> bool {
    // A stopped postmaster starts no more children.
    signal(postmaster, Signal::SIGSTOP);
    let family: Vec<_> = children(postmaster).into_iter().chain([postmaster]).collect();
    for pid in family.iter().rev() {
        signal(*pid, Signal::SIGKILL);
    }
    tracing::warn!(pid = %postmaster, processes = family.len(), "PostgreSQL was killed");
    let ended = async {
        while family.iter().any(|pid| ProcessState::of(*pid) != ProcessState::Gone) {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(IMMEDIATE, ended).await.is_ok()
}

/// The state of a process, as far as it explains why PostgreSQL may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It has ended.
    Gone,
    /// A signal has stopped it.
    Stopped,
    /// The kernel holds it in uninterruptible sleep, mostly for a disk; SIGKILL does not end it.
    Held,
    /// It runs, or waits for work.
    Alive,
}

impl ProcessState {
    /// The state of a process.
    pub fn of(pid: Pid) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        fields(&stat).map_or(Self::Gone, |(state, _)| state)
    }

    /// The state that explains most, of a postmaster and its children.
    pub fn of_family(postmaster: Pid) -> Self {
        let states: Vec<_> = children(postmaster).into_iter().chain([postmaster]).map(Self::of).collect();
        let first = [Self::Held, Self::Stopped, Self::Alive].into_iter().find(|state| states.contains(state));
        first.unwrap_or(Self::Gone)
    }
}

/// A process that the kernel holds, and its number of context switches: as long as the number does not
/// change, it is the same wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldProcess {
    /// The process.
    pub pid: i32,
    /// Its context switches.
    pub switches: u64,
}

/// The processes among these that the kernel holds.
pub fn held(pids: &[i32]) -> Vec<HeldProcess> {
    let held = pids.iter().filter(|pid| ProcessState::of(Pid::from_raw(**pid)) == ProcessState::Held);
    held.filter_map(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(HeldProcess { pid: *pid, switches: switches(&status) })
    })
    .collect()
}

/// From `/proc/…/status`: the sum of both kinds of context switches.
fn switches(status: &str) -> u64 {
    let counts = status.lines().filter_map(|line| line.split_once(':'));
    let counts = counts.filter(|(name, _)| name.ends_with("voluntary_ctxt_switches"));
    counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
}

/// From `/proc/…/stat`: the state and the parent. The name before them may contain any character.
fn fields(stat: &str) -> Option<(ProcessState, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = match fields.next()? {
        "Z" | "X" => ProcessState::Gone,
        "T" | "t" => ProcessState::Stopped,
        "D" => ProcessState::Held,
        _ => ProcessState::Alive,
    };
    Some((state, fields.next()?.parse().ok()?))
}

fn children(postmaster: Pid) -> Vec<Pid> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        fields(&stat).is_some_and(|(_, parent)| parent == postmaster.as_raw())
    };
    pids.filter(is_child).map(Pid::from_raw).collect()
}

/// Sends a signal. Returns whether the process exists.
fn signal(pid: Pid, signal: Signal) -> bool {
    match kill(pid, signal) {
        Ok(()) => true,
        Err(Errno::ESRCH) => false,
        Err(error) => {
            tracing::error!(%pid, %signal, %error, "the signal cannot be sent to PostgreSQL");
            true
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
    fn a_process_is_known_by_its_state_and_its_parent() {
        assert_eq!(fields("7 (postgres) T 1 7 7 0"), Some((ProcessState::Stopped, 1)));
        assert_eq!(fields("9 (a) D 2) D 7 7 7 0"), Some((ProcessState::Held, 7)));
        assert_eq!(fields("9 (postgres) Z 7 7"), Some((ProcessState::Gone, 7)));
        assert_eq!(fields(""), None);
        let status = "Name:\tpostgres\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(switches(status), 42);
    }

    #[tokio::test]
    async fn a_stopped_parent_is_killed_with_its_children() {
        let script = "sleep 300 & sleep 300 & kill -STOP $$";
        let mut shell = std::process::Command::new("sh").args(["-c", script]).spawn().expect("a shell");
        let pid = Pid::from_raw(i32::try_from(shell.id()).expect("a pid"));
        while ProcessState::of(pid) != ProcessState::Stopped {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(ProcessState::of_family(pid), ProcessState::Stopped);
        let family = children(pid);
        assert_eq!(family.len(), 2);
        assert!(kill_all(pid).await);
        assert!(family.into_iter().all(|pid| ProcessState::of(pid) == ProcessState::Gone));
        shell.wait().expect("its end");
    }

    #[test]
    fn the_state_is_the_eighth_line() {
        let file = |state: &str| format!("42\n/data\n1700000000\n5432\n/run\n*\n  123  4\n{state}\n");
        assert!(is_stopping(&file("stopping")));
        assert!(!is_stopping(&file("ready   ")));
        assert!(!is_stopping("42\n"));
    }
}
