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
    let Some(pid) = running() else { return };
    if !signal(pid, Signal::SIGQUIT) {
        return;
    }
    tracing::warn!(%pid, "PostgreSQL was told to end at once");
    let ended = async {
        while running() == Some(pid) {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(IMMEDIATE, ended).await.is_err() {
        kill_all(pid).await;
    }
}

/// Kills a postmaster that does not do what it is told, and its children: a backend that is at
/// work would go on until its statement ends, and nothing could be started beside it. Whether all
/// have ended. Those that have not are held by the kernel, which ends them instead of letting them
/// go on: none acknowledges anything after this.
pub async fn kill_all(postmaster: Pid) -> bool {
    // One that is stopped has no more children.
    signal(postmaster, Signal::SIGSTOP);
    let family: Vec<_> = children(postmaster).into_iter().chain([postmaster]).collect();
    for pid in family.iter().rev() {
        signal(*pid, Signal::SIGKILL);
    }
    tracing::warn!(pid = %postmaster, processes = family.len(), "PostgreSQL was killed");
    let ended = async {
        while family.iter().any(|pid| State::of(*pid) != State::Gone) {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(IMMEDIATE, ended).await.is_ok()
}

/// What a process does, as far as it says why PostgreSQL may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has ended.
    Gone,
    /// Somebody has stopped it.
    Stopped,
    /// The kernel holds it, mostly for a disk; not even a kill ends that.
    Held,
    /// It runs, or waits for something to do.
    Alive,
}

impl State {
    /// The state of a process.
    pub fn of(pid: Pid) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        fields(&stat).map_or(Self::Gone, |(state, _)| state)
    }

    /// The state of a postmaster and its children that says most about all of them.
    pub fn of_family(postmaster: Pid) -> Self {
        let states: Vec<_> = children(postmaster).into_iter().chain([postmaster]).map(Self::of).collect();
        let first = [Self::Held, Self::Stopped, Self::Alive].into_iter().find(|state| states.contains(state));
        first.unwrap_or(Self::Gone)
    }
}

/// A process that the kernel holds, and how often it was given up for others so far: where that
/// does not change, it is the same wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The process.
    pub pid: i32,
    /// Its context switches.
    pub switches: u64,
}

/// Those of some processes that the kernel holds.
pub fn held(pids: &[i32]) -> Vec<Held> {
    let held = pids.iter().filter(|pid| State::of(Pid::from_raw(**pid)) == State::Held);
    held.filter_map(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Held { pid: *pid, switches: switches(&status) })
    })
    .collect()
}

/// From `/proc/…/status`: both kinds of context switches.
fn switches(status: &str) -> u64 {
    let counts = status.lines().filter_map(|line| line.split_once(':'));
    let counts = counts.filter(|(name, _)| name.ends_with("voluntary_ctxt_switches"));
    counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
}

/// From `/proc/…/stat`: the state and the parent. The name before them may hold anything.
fn fields(stat: &str) -> Option<(State, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = match fields.next()? {
        "Z" | "X" => State::Gone,
        "T" | "t" => State::Stopped,
        "D" => State::Held,
        _ => State::Alive,
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

/// Whether there was a process to take the signal.
fn signal(pid: Pid, signal: Signal) -> bool {
    match kill(pid, signal) {
        Ok(()) => true,
        Err(Errno::ESRCH) => false,
        Err(error) => {
            tracing::error!(%pid, %signal, %error, "PostgreSQL cannot be told to end");
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
        assert_eq!(fields("7 (postgres) T 1 7 7 0"), Some((State::Stopped, 1)));
        assert_eq!(fields("9 (a) D 2) D 7 7 7 0"), Some((State::Held, 7)));
        assert_eq!(fields("9 (postgres) Z 7 7"), Some((State::Gone, 7)));
        assert_eq!(fields(""), None);
        let status = "Name:\tpostgres\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(switches(status), 42);
    }

    #[tokio::test]
    async fn a_stopped_parent_is_killed_with_its_children() {
        let script = "sleep 300 & sleep 300 & kill -STOP $$";
        let mut shell = std::process::Command::new("sh").args(["-c", script]).spawn().expect("a shell");
        let pid = Pid::from_raw(i32::try_from(shell.id()).expect("a pid"));
        while State::of(pid) != State::Stopped {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(State::of_family(pid), State::Stopped);
        let family = children(pid);
        assert_eq!(family.len(), 2);
        assert!(kill_all(pid).await);
        assert!(family.into_iter().all(|pid| State::of(pid) == State::Gone));
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
