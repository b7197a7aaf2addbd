//! Memory: the container's limit, and processes that the kernel killed because memory ran out. The container
//! continues then, so Kubernetes does not report it.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::desired::DesiredState;
use super::report::{Area, Reporter};
use crate::api::conditions::reason;
use crate::contract::memory::{Bound, advice};
use crate::contract::setting::{KB, readable};

/// Interval between two checks.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a kill is reported.
const REPORTED: Duration = Duration::from_secs(120);

/// The container's own control group, of version 2 or 1: the limit, and the number of processes that were
/// killed.
const LIMIT: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
const EVENTS: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];
const NODE: &str = "/proc/meminfo";

/// The memory that this container may use: its limit, or the node's memory.
pub fn bound() -> Option<Bound> {
    let node = read(&[NODE]).and_then(|text| of_node(&text));
    let limit = read(&LIMIT).and_then(|text| text.trim().parse().ok());
    // Without a limit, version 1 has a number larger than any memory, and version 2 "max".
    match (limit, node) {
        (Some(limit), Some(node)) if limit < node => Some(Bound::Container(limit)),
        (_, node) => node.map(Bound::Node),
    }
}

/// Reports from now on when a process was killed.
pub async fn follow(pod: String, state: DesiredState, reporter: Reporter) {
    let killed = || read(&EVENTS).and_then(|text| kills(&text));
    let mut known = killed();
    let mut last: Option<Instant> = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = killed();
        if known.zip(now).is_some_and(|(known, now)| now > known) {
            let desired = state.borrow().clone();
            let advice = desired.map(|desired| advice(&desired.parameters, desired.memory.limit_bytes));
            let limit = match bound() {
                Some(Bound::Container(bytes)) => format!("has a limit of {}", readable(bytes)),
                _ => "has no limit, so the memory of its node ran out".to_owned(),
            };
            let message = format!(
                "the kernel killed a process of {pod} because memory ran out, and PostgreSQL ended all sessions; the \
                 container {limit}: {}",
                advice.unwrap_or_default()
            );
            tracing::error!("{message}");
            reporter.trouble(Area::Memory, Some((reason::OOM_KILLED, message)));
            last = Some(Instant::now());
        } else if last.is_some_and(|last| last.elapsed() > REPORTED) {
            reporter.trouble(Area::Memory, None);
            last = None;
        }
        known = now.or(known);
    }
}

/// The content of the first of these files that exists.
fn read(paths: &[&str]) -> Option<String> {
    paths.iter().find_map(|path| std::fs::read_to_string(Path::new(path)).ok())
}

/// The number of killed processes: the line `oom_kill` of either version.
fn kills(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn of_node(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * KB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_version_of_control_groups_is_read() {
        assert_eq!(kills("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(kills("oom_kill_disable 0\n"), None);
        assert_eq!(of_node("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24_689_764 << 10));
    }
}
