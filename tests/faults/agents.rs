//! The agents of a case: processes of the machine that is the cluster's node, found by the environment of their container.
//! The API server is not asked: it has enough to do with the cases themselves.

use std::fs;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How old a list of all processes may be, which the cases share.
const AGE: Duration = Duration::from_millis(100);

/// The last list, and when it was made.
static LAST: Mutex<Option<(Instant, Vec<Agent>)>> = Mutex::new(None);

/// The agent of a database pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The process.
    pub pid: i32,
    namespace: String,
    address: String,
}

impl Agent {
    fn of(pid: i32) -> Option<Self> {
        // One that an agent has just made to run another program still has the agent's own words.
        if !is_agent(pid)? || is_agent(parent(pid)?)? {
            return None;
        }
        let environment = String::from_utf8(fs::read(format!("/proc/{pid}/environ")).ok()?).ok()?;
        let value = |name: &str| {
            let mut variables = environment.split('\0').filter_map(|variable| variable.split_once('='));
            variables.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
        };
        Some(Self { pid, namespace: value("POD_NAMESPACE")?, address: value("POD_IP")? })
    }

    /// Sends SIGKILL; its container ends with it.
    pub fn kill(&self) {
        // It may have just ended by itself.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
    }

    /// Whether it still runs.
    pub fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// The database pods of one namespace.
#[derive(Clone)]
pub struct Agents {
    namespace: String,
}

impl Agents {
    /// Those of a namespace.
    pub fn of(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// Kills the agent of the pod with this address.
    pub fn kill(&self, address: IpAddr) {
        let address = address.to_string();
        let found = all().into_iter().filter(|agent| agent.namespace == self.namespace && agent.address == address);
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            eprintln!("no agent has the address {address}");
        }
        found.iter().for_each(Agent::kill);
    }

    /// Those that run.
    pub fn living(&self) -> Vec<Agent> {
        let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.as_ref().is_none_or(|(made, _)| made.elapsed() >= AGE) {
            *last = Some((Instant::now(), all()));
        }
        let all = last.iter().flat_map(|(_, agents)| agents);
        all.filter(|agent| agent.namespace == self.namespace).cloned().collect()
    }
}

fn is_agent(pid: i32) -> Option<bool> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    Some(words.next()?.ends_with(b"/servicedb") && words.next() == Some(b"agent"))
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Those of all namespaces.
fn all() -> Vec<Agent> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter_map(Agent::of).collect()
}
